//! Values of headers, read as the API server's Go code reads them: a value is bytes, of which those above 0x7f are
//! allowed (obs-text, RFC 9110 §5.5). A value that is not ASCII is read like any other and never left out.

use http::{HeaderMap, HeaderName};

/// KELVIN SIGN, the only other letter that Go's `strings.ToLower` turns into one of `websocket`. To
/// `strings.EqualFold` LATIN SMALL LETTER LONG S is an `s`, too.
const KELVIN_SIGN: char = '\u{212a}';
const LONG_S: char = '\u{17f}';

/// What a header lists, repeated or separated by commas, without empty items.
pub(crate) fn listed<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
    headers
        .get_all(name)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(trimmed)
        .filter(|item| !item.is_empty())
}

/// `value` without the white space around it (`strings.TrimSpace`): Unicode's, where it is UTF-8.
pub(crate) fn trimmed(mut value: &[u8]) -> &[u8] {
    while let Some(rest) = (1..=4).find_map(|len| space_of(value.get(..len)?).then(|| value.get(len..))?) {
        value = rest;
    }
    while let Some(rest) = (1..=value.len().min(4)).find_map(|len| {
        let (rest, last) = value.split_at(value.len() - len);
        space_of(last).then_some(rest)
    }) {
        value = rest;
    }
    value
}

/// Whether these bytes are one character of white space.
fn space_of(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok_and(|text| {
        let mut chars = text.chars();
        chars.next().is_some_and(char::is_whitespace) && chars.next().is_none()
    })
}

/// Whether an `Upgrade` header names WebSocket and nothing else (`strings.EqualFold`, `wsstream.IsWebSocketRequest`).
pub(super) fn is_websocket(value: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(value.trim_ascii()) else { return false };
    let folded = text.chars().map(|letter| match letter {
        KELVIN_SIGN => 'k',
        LONG_S => 's',
        letter => letter.to_ascii_lowercase(),
    });
    folded.eq("websocket".chars())
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, header::SEC_WEBSOCKET_PROTOCOL};

    use super::*;

    #[test]
    fn a_list_has_all_its_items_whatever_bytes_they_are() {
        let mut headers = HeaderMap::new();
        for value in [&b"a, \xff ,b"[..], b" ,c\x80,,", b"\xc2\xa0d\xe2\x80\x83"] {
            headers.append(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_bytes(value).unwrap());
        }
        let items: Vec<&[u8]> = listed(&headers, &SEC_WEBSOCKET_PROTOCOL).collect();
        assert_eq!(items, [&b"a"[..], b"\xff", b"b", b"c\x80", b"d"]);
    }

    #[test]
    fn white_space_is_what_go_takes_for_it() {
        for (value, expected) in [
            (&b""[..], &b""[..]),
            (b" \t", b""),
            (b"\xc2\x85\xe3\x80\x80x y\xe2\x80\xa8 ", b"x y"),
            (b"\xa0x\x85", b"\xa0x\x85"),
            (b"x\xc2", b"x\xc2"),
        ] {
            assert_eq!(trimmed(value), expected, "{value:x?}");
        }
    }

    #[test]
    fn websocket_has_more_spellings_than_ascii_ones() {
        for name in ["websocket", " WebSocket", "WEBSOC\u{212a}ET", "web\u{17f}ocket"] {
            assert!(is_websocket(name.as_bytes()), "{name}");
        }
        for name in ["web socket", "websocket, h2c", "websockets", "\u{a0}websocket", ""] {
            assert!(!is_websocket(name.as_bytes()), "{name}");
        }
        assert!(!is_websocket(b"websocket\xff"));
    }
}
