//! The nearest of known words, for messages that ask "did you mean".

/// Longest text that is compared, in characters; keys of labels and annotations are shorter.
const MAX_LENGTH: usize = 128;
/// Least length of a word that may stand for one which begins with it.
const MIN_PREFIX: usize = 3;

/// The known word that `word` was most likely meant to be; the first of equally near ones. `None` where none is near.
///
/// A known word is near if at most a third of its characters, and at least one, are changed, missing, added or
/// transposed, or if one of both begins with the other and has three characters. Letter case does not count.
#[must_use]
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let scored = known.into_iter().filter_map(|known| Some((score(word, known)?, known)));
    scored.min_by_key(|(score, _)| *score).map(|(_, known)| known)
}

/// Lower is nearer.
fn score(word: &str, known: &str) -> Option<usize> {
    let (word, known) = (word.to_lowercase(), known.to_lowercase());
    let shorter = word.chars().count().min(known.chars().count());
    if shorter >= MIN_PREFIX && (word.starts_with(&known) || known.starts_with(&word)) {
        return Some(1);
    }
    let most = (known.chars().count() / 3).max(1);
    distance(&word, &known).filter(|distance| *distance <= most && *distance < shorter)
}

/// Characters to change, leave out, add or transpose (optimal string alignment); `None` for texts that are too long.
#[must_use]
pub fn distance(a: &str, b: &str) -> Option<usize> {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    if a.len().max(b.len()) > MAX_LENGTH {
        return None;
    }
    // Rows of the table for the last two prefixes of `a`, and the one that is filled.
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.iter().enumerate() {
        let mut row = vec![i.saturating_add(1)];
        for (j, to) in b.iter().enumerate() {
            let at = |row: &[usize], index: usize| row.get(index).copied().unwrap_or(usize::MAX);
            let changed = at(&last, j).saturating_add(usize::from(from != to));
            let removed = at(&last, j.saturating_add(1)).saturating_add(1);
            let added = at(&row, j).saturating_add(1);
            let crossed = i > 0
                && j > 0
                && a.get(i.saturating_sub(1)) == Some(to)
                && b.get(j.saturating_sub(1)) == Some(from);
            let transposed =
                if crossed { at(&before, j.saturating_sub(1)).saturating_add(1) } else { usize::MAX };
            row.push(changed.min(removed).min(added).min(transposed));
        }
        before = std::mem::replace(&mut last, row);
    }
    last.last().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_count_what_a_typist_does() {
        for (a, b, expected) in [
            ("", "", 0),
            ("get", "get", 0),
            ("gett", "get", 1),
            ("lsit", "list", 1),
            ("wathc", "watch", 1),
            ("ab", "", 2),
            ("kitten", "sitting", 3),
            ("é", "e", 1),
        ] {
            assert_eq!((distance(a, b), distance(b, a)), (Some(expected), Some(expected)), "{a} {b}");
        }
        assert_eq!(distance(&"x".repeat(MAX_LENGTH + 1), "x"), None);
    }

    #[test]
    fn the_nearest_word_is_found_and_none_where_none_is_near() {
        let known = ["inject", "bypass-until", "memory-limit", "memory-request", "exempt"];
        for (word, expected) in [
            ("injection", Some("inject")),
            ("Inject", Some("inject")),
            ("bypass", Some("bypass-until")),
            ("bypas-until", Some("bypass-until")),
            ("memory", Some("memory-limit")),
            ("memory-requests", Some("memory-request")),
            ("excempt", Some("exempt")),
            ("sidecar", None),
            ("in", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, known), expected, "{word}");
        }
    }
}
