//! Paths as the servers read them: percent escapes as `net/url` does, and what stands behind a `proxy` as `path.Join`
//! cleans it.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// Decodes the path of a request target; `None` where `net/url` finds a malformed escape.
///
/// Bytes that are not UTF-8 become U+FFFD. No route has a literal segment with that character, and such bytes make no
/// slash, no dot and no other segment: the servers and this function see the same segments.
pub(super) fn decode(raw: &str) -> Option<Cow<'_, str>> {
    escapes_are_whole(raw.as_bytes()).then(|| percent_decode_str(raw).decode_utf8_lossy())
}

/// Whether two hexadecimal digits follow each percent sign (`net/url`, `unescape`).
pub(super) fn escapes_are_whole(text: &[u8]) -> bool {
    text.iter().enumerate().filter(|(_, byte)| **byte == b'%').all(|(at, _)| {
        let is_hex = |at: usize| text.get(at).is_some_and(u8::is_ascii_hexdigit);
        is_hex(at + 1) && is_hex(at + 2)
    })
}

/// The segments of `path.Clean("/" + segments)`: no empty ones, no `.`, and each `..` takes the one before it away.
pub(super) fn clean<'a>(segments: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let mut kept = Vec::new();
    for segment in segments {
        match segment {
            "" | "." => {}
            ".." => {
                kept.pop();
            }
            name => kept.push(name),
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_decoded_as_net_url_decodes_them() {
        for (raw, decoded) in [
            ("/a%2Fb%2fc", Some("/a/b/c")),
            ("/a+b%20c", Some("/a+b c")),
            ("/%252e", Some("/%2e")),
            ("/%c3%a9", Some("/é")),
            ("/%ff/..", Some("/\u{fffd}/..")),
            ("/%c3/%a9", Some("/\u{fffd}/\u{fffd}")),
            ("/%", None),
            ("/%2", None),
            ("/%zz", None),
            ("/%%41", None),
        ] {
            assert_eq!(decode(raw).as_deref(), decoded, "{raw}");
        }
    }

    /// Rows of Go's own table (`path/path_test.go`) that are rooted, without the leading slash.
    #[test]
    fn segments_are_cleaned_as_go_cleans_them() {
        for (path, cleaned) in [
            ("", ""),
            ("abc", "abc"),
            ("abc/def", "abc/def"),
            ("abc/", "abc"),
            ("abc//def//ghi", "abc/def/ghi"),
            ("//abc", "abc"),
            ("abc//", "abc"),
            ("abc/./def", "abc/def"),
            ("./abc/def", "abc/def"),
            ("abc/def/ghi/../jkl", "abc/def/jkl"),
            ("abc/def/../ghi/../jkl", "abc/jkl"),
            ("abc/def/../..", ""),
            ("abc/def/../../..", ""),
            ("../../abc", "abc"),
            ("abc/def/../../../ghi/jkl/../../../mno", "mno"),
            ("abc/./../def", "def"),
            ("abc//./../def", "def"),
            ("abc/../../././../def", "def"),
            ("..a/.b/...", "..a/.b/..."),
        ] {
            assert_eq!(clean(path.split('/')).join("/"), cleaned, "{path}");
        }
    }
}
