//! Values on a command line that are not to be kept: those of the flags and variables that a grant names.
//!
//! A flag `--password` hides the rest of `--password=x` and the word after `--password`; a short one, `-p`, also the rest
//! of `-px`. A name without a dash, `PGPASSWORD`, hides the rest of `PGPASSWORD=x`. A word that is itself a command line,
//! as in `sh -c 'mysql -px'`, is taken apart at its white space; quotes in it are not understood, so that of a quoted
//! value with spaces only the first word is hidden.

use crate::event::WITHHELD;

/// The words of a command without the values of `names`.
#[must_use]
pub fn masked(words: &[String], names: &[String]) -> Vec<String> {
    if names.is_empty() {
        return words.to_vec();
    }
    let mut hides_next = false;
    words.iter().map(|word| line(word, names, &mut hides_next)).collect()
}

/// One word, which may be a line of its own.
fn line(text: &str, names: &[String], hides_next: &mut bool) -> String {
    if !text.contains(char::is_whitespace) {
        return word(text, names, hides_next);
    }
    if std::mem::take(hides_next) {
        return WITHHELD.to_owned();
    }
    let mut hides_inner = false;
    let mut written = String::with_capacity(text.len());
    for token in text.split_inclusive(char::is_whitespace) {
        let bare = token.trim_end_matches(char::is_whitespace);
        if !bare.is_empty() {
            written.push_str(&word(bare, names, &mut hides_inner));
        }
        written.push_str(token.get(bare.len()..).unwrap_or_default());
    }
    written
}

fn word(word: &str, names: &[String], hides_next: &mut bool) -> String {
    if std::mem::take(hides_next) {
        return WITHHELD.to_owned();
    }
    for name in names {
        let Some(rest) = word.strip_prefix(name.as_str()) else { continue };
        let (is_flag, is_short) = (name.starts_with('-'), name.len() == 2 && name.starts_with('-'));
        match rest.strip_prefix('=') {
            Some(_) => return format!("{name}={WITHHELD}"),
            None if rest.is_empty() => {
                *hides_next = is_flag;
                return word.to_owned();
            }
            None if is_short => return format!("{name}{WITHHELD}"),
            None => {}
        }
    }
    word.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(words: &[&str], names: &[&str]) -> Vec<String> {
        let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        masked(&owned(words), &owned(names))
    }

    #[test]
    fn values_of_named_flags_are_hidden_in_every_form() {
        let names = ["--password", "-p", "PGPASSWORD"];
        for (words, expected) in [
            (&["mysql", "--password=s"][..], &["mysql", "--password=[withheld]"][..]),
            (&["mysql", "--password", "s", "db"], &["mysql", "--password", "[withheld]", "db"]),
            (&["mysql", "-ps"], &["mysql", "-p[withheld]"]),
            (&["mysql", "-p", "s"], &["mysql", "-p", "[withheld]"]),
            (&["env", "PGPASSWORD=s", "psql"], &["env", "PGPASSWORD=[withheld]", "psql"]),
            (
                &["sh", "-c", "mysql -ps  --password s\tdb"],
                &["sh", "-c", "mysql -p[withheld]  --password [withheld]\tdb"],
            ),
            (&["x", "--password", "two words"], &["x", "--password", "[withheld]"]),
            (&["x", "--password"], &["x", "--password"]),
            (&["x", "--passwords=s", "PGPASSWORD"], &["x", "--passwords=s", "PGPASSWORD"]),
        ] {
            assert_eq!(of(words, &names), expected, "{words:?}");
        }
    }

    #[test]
    fn without_names_nothing_changes() {
        assert_eq!(of(&["a  b", "--password", "s"], &[]), ["a  b", "--password", "s"]);
    }
}
