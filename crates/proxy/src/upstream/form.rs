//! One request in the form of either HTTP version: the authority is a header in one and part of the target in the
//! other; path and query stay byte for byte.

use http::{
    HeaderMap, HeaderValue, Request, Uri, Version,
    header::{COOKIE, HOST},
    uri::{Authority, Parts, PathAndQuery, Scheme},
};

use crate::target::Target;

/// The request as HTTP/2 wants it: absolute target, no `Host`.
pub(super) fn for_http2<B>(mut request: Request<B>, target: &Target) -> Request<B> {
    let authority = authority_of(&request, target);
    let mut parts = Parts::default();
    parts.scheme = Some(Scheme::HTTPS);
    parts.path_and_query = Some(path_of(&request));
    parts.authority = Some(authority);
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
    }
    request.headers_mut().remove(HOST);
    *request.version_mut() = Version::HTTP_2;
    request
}

/// The request as HTTP/1.1 wants it: origin form, one `Host`, one `Cookie` (RFC 9113 §8.2.3).
pub(super) fn for_http1<B>(mut request: Request<B>, target: &Target) -> Request<B> {
    let authority = authority_of(&request, target);
    *request.uri_mut() = Uri::from(path_of(&request));
    *request.version_mut() = Version::HTTP_11;
    let headers = request.headers_mut();
    if !headers.contains_key(HOST)
        && let Ok(host) = HeaderValue::from_str(authority.as_str())
    {
        headers.insert(HOST, host);
    }
    join_cookies(headers);
    request
}

fn path_of<B>(request: &Request<B>) -> PathAndQuery {
    request.uri().path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"))
}

/// What the client called the server; where it said nothing usable, the server's address.
fn authority_of<B>(request: &Request<B>, target: &Target) -> Authority {
    let named = request.uri().authority().cloned();
    let host = || Authority::try_from(request.headers().get(HOST)?.as_bytes()).ok();
    let address = || Authority::try_from(target.to.to_string()).ok();
    named.or_else(host).or_else(address).unwrap_or_else(|| Authority::from_static("kubernetes"))
}

fn join_cookies(headers: &mut HeaderMap) {
    let crumbs: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if crumbs.len() > 1
        && let Ok(cookie) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..]))
    {
        headers.insert(COOKIE, cookie);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target() -> Target {
        Target { to: "10.96.0.1:443".parse().unwrap(), name: "kubernetes".try_into().unwrap() }
    }

    #[test]
    fn a_request_keeps_its_target_in_both_forms() {
        let path = "/api/v1/namespaces/a%2Fb//c/..?x=%zz&y=a+b&z='~";
        let request = Request::get(path).header(HOST, "kubernetes.default:443").body(()).unwrap();
        let second = for_http2(request, &target());
        assert_eq!(second.uri().authority().unwrap(), "kubernetes.default:443");
        assert_eq!(second.uri().path_and_query().unwrap(), path);
        assert!(!second.headers().contains_key(HOST));
        let first = for_http1(second, &target());
        assert_eq!(*first.uri(), path);
        assert_eq!(first.headers()[HOST], "kubernetes.default:443");
    }

    #[test]
    fn a_client_that_names_no_host_means_the_address() {
        let second = for_http2(Request::get("/version").body(()).unwrap(), &target());
        assert_eq!(second.uri().authority().unwrap(), "10.96.0.1:443");
    }

    #[test]
    fn crumbs_of_a_cookie_are_joined_for_http1() {
        let request = Request::get("/").header(COOKIE, "a=1").header(COOKIE, "b=2").body(()).unwrap();
        let first = for_http1(request, &target());
        assert_eq!(first.headers().get_all(COOKIE).iter().collect::<Vec<_>>(), ["a=1; b=2"]);
    }
}
