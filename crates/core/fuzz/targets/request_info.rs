//! Any request target: escaping every byte of its path changes nothing, and what a proxy sends on is what removing empty
//! segments and dots by hand, one after another, leaves.
#![no_main]

use libfuzzer_sys::fuzz_target;
use podwitness_core::request_info::{RequestInfo, RequestInfoError};

fuzz_target!(|target: &str| {
    let parsed = RequestInfo::parse("POST", target);
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    let Some(path) = unescaped(path.as_bytes()) else {
        assert_eq!(parsed, Err(RequestInfoError::MalformedEscape));
        return;
    };
    let mut escaped: String = path.iter().map(|byte| format!("%{byte:02x}")).collect();
    if let Some(query) = query {
        escaped.push('?');
        escaped.push_str(query);
    }
    assert_eq!(parsed, RequestInfo::parse("POST", &escaped));
    let Ok(info) = parsed else { return };
    let _ = info.pod_action();
    if let Some(sent) = info.proxied() {
        let behind = if info.verb == "proxy" { 2 } else { 3 };
        assert_eq!(sent.join("/"), cleaned(&info.parts[behind..].join("/")));
    }
});

/// The bytes of a path; `None` where an escape is malformed.
fn unescaped(path: &[u8]) -> Option<Vec<u8>> {
    let (mut bytes, mut rest) = (Vec::new(), path);
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        if *first == b'%' {
            let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
            let is_hex = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
            bytes.push(u8::from_str_radix(digits, 16).ok().filter(|_| is_hex)?);
            rest = &tail[2..];
        } else {
            bytes.push(*first);
        }
    }
    Some(bytes)
}

fn cleaned(path: &str) -> String {
    let mut path = format!("/{path}/");
    while let Some(shorter) = shortened(&path) {
        path = shorter;
    }
    path.trim_matches('/').to_owned()
}

/// The path without one empty segment, one `.`, or one `..` and what stands before it; `None` where it has none.
fn shortened(path: &str) -> Option<String> {
    let without = |from: usize, to: usize| Some([&path[..from], &path[to..]].concat());
    if let Some(at) = path.find("//") {
        return without(at, at + 1);
    }
    if let Some(at) = path.find("/./") {
        return without(at, at + 2);
    }
    let at = path.find("/../")?;
    without(path[..at].rfind('/').unwrap_or(at), at + 3)
}
