//! What a request asks for, derived as the API server derives it.
//!
//! Source: `k8s.io/apiserver/pkg/endpoints/request/requestinfo.go`, with API prefixes `api` and `apis`, groupless
//! `api`. The path is percent-decoded first, `%2F` splits, outer slashes are trimmed, `//` and `..` stay, except behind
//! a `proxy` ([`RequestInfo::proxied`]).

mod action;
mod path;
mod query;

pub use action::{Action, PodAction};
pub use query::{Query, is_true};

use serde::{Deserialize, Serialize};

/// The reference's field names, so that the same type is the event's `kubernetes` object.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct RequestInfo {
    /// Whether the path names a resource of the API.
    pub is_resource_request: bool,
    /// The decoded path. Bytes that are not UTF-8 are U+FFFD.
    pub path: String,
    /// API verb for resources, else the method in lower case.
    pub verb: String,
    /// `api` or `apis`.
    #[serde(rename = "APIPrefix")]
    pub api_prefix: String,
    /// API group, empty for the core group.
    #[serde(rename = "APIGroup")]
    pub api_group: String,
    /// API version.
    #[serde(rename = "APIVersion")]
    pub api_version: String,
    /// Namespace, empty for cluster scope.
    pub namespace: String,
    /// Resource in plural.
    pub resource: String,
    /// Subresource, such as `exec`.
    pub subresource: String,
    /// Object name.
    pub name: String,
    /// Path segments from the resource on.
    pub parts: Vec<String>,
    /// Field selector as sent.
    pub field_selector: String,
    /// Label selector as sent.
    pub label_selector: String,
}

/// A path that the API server itself refuses to parse.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum RequestInfoError {
    /// A `watch` or `proxy` prefix with nothing behind it.
    #[error("unable to determine kind and namespace from the path")]
    NothingAfterVerb,
    /// A percent sign without two hexadecimal digits behind it.
    #[error("the path has a malformed percent escape")]
    MalformedEscape,
}

impl RequestInfo {
    /// Derives the information from a method and a request target in origin form (`/path?query`).
    ///
    /// # Errors
    /// Where the API server would answer an error.
    pub fn parse(method: &str, target: &str) -> Result<Self, RequestInfoError> {
        let (raw_path, raw_query) = target.split_once('?').unwrap_or((target, ""));
        let path = path::decode(raw_path).ok_or(RequestInfoError::MalformedEscape)?;
        let mut info = Self { path: path.to_string(), verb: method.to_lowercase(), ..Self::default() };
        let segments: Vec<&str> = split_path(&path);
        let Some(rest) = info.take_api(&segments) else { return Ok(info) };
        let (rest, verb_in_path) = info.take_verb(method, rest)?;
        info.take_resource(rest);
        info.refine_verb(&Query::parse(raw_query), verb_in_path);
        Ok(info)
    }

    /// Whether this is a subresource of core/v1 pods, of any API version.
    #[must_use]
    pub fn is_pod_subresource(&self, subresource: &str) -> bool {
        self.is_resource_request
            && self.api_group.is_empty()
            && self.resource == "pods"
            && self.subresource == subresource
    }

    /// Segments of the path that a `proxy` subresource sends on, to a node's kubelet, a pod or a service; `None` where
    /// the request has none.
    ///
    /// The API server joins what follows with the path of its destination and cleans it before it sends it
    /// (`getRequestOptions` in `apiserver/pkg/endpoints/handlers/get.go`, `JoinPreservingTrailingSlash` in
    /// `apimachinery/pkg/util/net`): empty segments and `.` go, `..` takes its predecessor away. The kubelet's
    /// `http.ServeMux` would clean it once more and finds nothing left; its router trims slashes at both ends.
    #[must_use]
    pub fn proxied(&self) -> Option<Vec<&str>> {
        let behind = match (&*self.verb, &*self.subresource) {
            ("proxy", _) => self.parts.get(2..)?,
            (_, "proxy") => self.parts.get(3..)?,
            _ => return None,
        };
        Some(path::clean(behind.iter().map(String::as_str)))
    }

    /// Takes `api/VERSION` or `apis/GROUP/VERSION`; `None` where the path is no resource.
    fn take_api<'a>(&mut self, segments: &'a [&'a str]) -> Option<&'a [&'a str]> {
        let (version, group, rest) = match segments {
            ["api", version, rest @ ..] if !rest.is_empty() => (version, "", rest),
            ["apis", group, version, rest @ ..] if !rest.is_empty() => (version, *group, rest),
            ["apis", _, _] => {
                "apis".clone_into(&mut self.api_prefix);
                return None;
            }
            _ => return None,
        };
        self.api_prefix = segments.first().map(|s| (*s).to_owned())?;
        group.clone_into(&mut self.api_group);
        self.is_resource_request = true;
        (*version).clone_into(&mut self.api_version);
        Some(rest)
    }

    /// Takes the verb: from the path for the old `watch/` and `proxy/` forms, else from the method.
    fn take_verb<'a>(
        &mut self,
        method: &str,
        rest: &'a [&'a str],
    ) -> Result<(&'a [&'a str], bool), RequestInfoError> {
        if let [verb @ ("proxy" | "watch"), rest @ ..] = rest {
            if rest.is_empty() {
                return Err(RequestInfoError::NothingAfterVerb);
            }
            (*verb).clone_into(&mut self.verb);
            return Ok((rest, true));
        }
        match method {
            "POST" => "create",
            "GET" | "HEAD" => "get",
            "PUT" => "update",
            "PATCH" => "patch",
            "DELETE" => "delete",
            _ => "",
        }
        .clone_into(&mut self.verb);
        Ok((rest, false))
    }

    fn take_resource(&mut self, rest: &[&str]) {
        let parts = match rest {
            ["namespaces", namespace, tail @ ..] => {
                (*namespace).clone_into(&mut self.namespace);
                match tail {
                    [] | ["status" | "finalize", ..] => rest,
                    _ => tail,
                }
            }
            _ => rest,
        };
        self.parts = parts.iter().map(|s| (*s).to_owned()).collect();
        let part = |i: usize| parts.get(i).map_or_else(String::new, |s| (*s).to_owned());
        self.resource = part(0);
        self.name = part(1);
        if self.verb != "proxy" {
            self.subresource = part(2);
        }
    }

    fn refine_verb(&mut self, query: &Query, verb_in_path: bool) {
        if self.name.is_empty() && self.verb == "get" {
            let watch = query.first("watch").is_some_and(is_true);
            if watch { "watch" } else { "list" }.clone_into(&mut self.verb);
            if let Some(name) = query.first("fieldSelector").and_then(exact_name) {
                self.name = name;
            }
        }
        if self.name.is_empty() && self.verb == "delete" {
            "deletecollection".clone_into(&mut self.verb);
        }
        if !verb_in_path && matches!(&*self.verb, "list" | "watch" | "deletecollection") {
            let first = |key| query.first(key).unwrap_or_default().to_owned();
            self.field_selector = first("fieldSelector");
            self.label_selector = first("labelSelector");
        }
    }
}

/// Splits as `splitPath` does: outer slashes are trimmed, inner empty segments stay.
fn split_path(path: &str) -> Vec<&str> {
    let trimmed = path.trim_matches('/');
    if trimmed.is_empty() { Vec::new() } else { trimmed.split('/').collect() }
}

/// The name that a field selector requires by `metadata.name=X`, if it is a valid path segment.
fn exact_name(selector: &str) -> Option<String> {
    let term = selector.split(',').find_map(|term| {
        let (field, value) = term.split_once('=')?;
        (field == "metadata.name").then(|| value.strip_prefix('=').unwrap_or(value))
    })?;
    let valid = !term.is_empty() && !matches!(term, "." | "..") && !term.contains(['/', '%', '\\']);
    valid.then(|| term.to_owned())
}

#[cfg(test)]
mod tests;
