//! Query parameters as `net/url.ParseQuery` reads them: repeats kept in order, a pair with a bad escape or a
//! semicolon dropped.

use percent_encoding::percent_decode;

use super::path::escapes_are_whole;

/// Decoded query parameters in the order sent.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Parses a raw query (without the question mark).
    #[must_use]
    pub fn parse(raw: &str) -> Self {
        let pair = |part: &str| {
            if part.is_empty() || part.contains(';') {
                return None;
            }
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            Some((unescape(key)?, unescape(value)?))
        };
        Self(raw.split('&').filter_map(pair).collect())
    }

    /// The first value of `key`.
    #[must_use]
    pub fn first(&self, key: &str) -> Option<&str> {
        self.pairs().find(|(k, _)| *k == key).map(|(_, v)| v)
    }

    /// Every value of `key`, in order.
    pub fn all(&self, key: &str) -> impl Iterator<Item = &str> {
        self.pairs().filter(move |(k, _)| *k == key).map(|(_, v)| v)
    }

    /// Every pair, in order.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(k, v)| (k.as_str(), v.as_str()))
    }
}

/// A boolean parameter as `Convert_Slice_string_To_bool` reads it: anything but `false` and `0` is true.
#[must_use]
pub fn is_true(value: &str) -> bool {
    !(value.eq_ignore_ascii_case("false") || value == "0")
}

/// Invalid UTF-8 is replaced: such a value is still shown, and is compared with nothing.
fn unescape(text: &str) -> Option<String> {
    let spaced = text.replace('+', " ");
    let bytes = spaced.as_bytes();
    escapes_are_whole(bytes).then(|| percent_decode(bytes).decode_utf8_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeats_keep_their_order_and_bad_pairs_are_dropped() {
        let query = Query::parse("command=sh&command=-c&command=a%20b+c&x=%zz&y;z=1&tty");
        assert_eq!(query.all("command").collect::<Vec<_>>(), ["sh", "-c", "a b c"]);
        assert_eq!(query.first("x"), None);
        assert_eq!(query.first("tty"), Some(""));
        assert_eq!(query.pairs().count(), 4);
    }

    #[test]
    fn an_empty_flag_is_true_as_in_the_api_server() {
        assert!(is_true("") && is_true("1") && is_true("yes"));
        assert!(!is_true("0") && !is_true("FALSE"));
    }
}
