//! Hop-by-hop headers (RFC 9110 §7.6.1): they belong to one connection and are not passed on. All others keep their
//! order, their repeats and, in HTTP/1.1, their letter case.

use http::{
    HeaderMap, HeaderName,
    header::{CONNECTION, TE, TRANSFER_ENCODING, UPGRADE},
};

use crate::classify::listed;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Removes what belongs to one connection. `TE: trailers` stays: it says that trailers may come.
pub(crate) fn end_to_end(headers: &mut HeaderMap) {
    let hop_by_hop = [CONNECTION, KEEP_ALIVE, PROXY_CONNECTION, TRANSFER_ENCODING, UPGRADE];
    let trailers = headers.get(TE).is_none_or(|te| te == "trailers");
    if trailers && !hop_by_hop.iter().any(|name| headers.contains_key(name)) {
        return;
    }
    let mut named: Vec<HeaderName> = listed(headers, &CONNECTION)
        .filter_map(|name| HeaderName::from_bytes(name).ok())
        .filter(|name| *name != TE)
        .collect();
    named.extend(hop_by_hop);
    if !trailers {
        named.push(TE);
    }
    // Removal from a map would disturb its order.
    let mut kept = HeaderMap::with_capacity(headers.len());
    for (name, value) in headers.iter().filter(|(name, _)| !named.contains(name)) {
        kept.append(name, value.clone());
    }
    *headers = kept;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(headers: &[(&str, &str)]) -> Vec<String> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
        }
        end_to_end(&mut map);
        map.iter().map(|(name, value)| format!("{name}={}", value.to_str().unwrap())).collect()
    }

    #[test]
    fn what_belongs_to_one_connection_is_not_passed_on() {
        let headers = [
            ("b", "1"),
            ("Connection", "close, X-Mine"),
            ("a", "2"),
            ("x-mine", "3"),
            ("Keep-Alive", "timeout=5"),
            ("b", "4"),
            ("Transfer-Encoding", "chunked"),
            ("Upgrade", "websocket"),
            ("c", "5"),
        ];
        assert_eq!(left(&headers), ["b=1", "b=4", "a=2", "c=5"]);
    }

    #[test]
    fn a_name_is_taken_from_among_bytes_that_are_no_ascii() {
        let mut map = HeaderMap::new();
        map.append("x-mine", "1".parse().unwrap());
        map.append(CONNECTION, http::HeaderValue::from_bytes(b"\xff, x-mine").unwrap());
        end_to_end(&mut map);
        assert!(map.is_empty(), "{map:?}");
    }

    #[test]
    fn only_the_wish_for_trailers_is_passed_on() {
        assert_eq!(left(&[("te", "trailers"), ("connection", "te")]), ["te=trailers"]);
        assert_eq!(left(&[("te", "gzip"), ("z", "1")]), ["z=1"]);
    }
}
