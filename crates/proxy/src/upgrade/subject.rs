//! What an attach session is attached to. Its request names a container and nothing else; what runs in there was said
//! by whoever made the container (`kubectl run`, `kubectl debug`), so the pod is asked for, as the caller.

use http::Uri;
use serde::Deserialize;

use crate::question::Asker;

/// A container as its pod describes it.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(default)]
pub(super) struct Subject {
    pub(super) name: String,
    pub(super) image: String,
    command: Vec<String>,
    args: Vec<String>,
    /// Whether it was put into a running pod.
    #[serde(skip)]
    pub(super) is_ephemeral: bool,
}

#[derive(Default, Deserialize)]
struct Pod {
    spec: Spec,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    containers: Vec<Subject>,
    init_containers: Vec<Subject>,
    ephemeral_containers: Vec<Subject>,
}

impl Subject {
    /// What it was started with; empty where that is the image's business.
    pub(super) fn command(self) -> Vec<String> {
        [self.command, self.args].concat()
    }
}

/// The container of that name in a pod; its only one where there is no name. `None` where the
/// caller may not know.
pub(super) async fn find(
    asker: &Asker<'_>,
    (namespace, pod): (&str, &str),
    container: &str,
) -> Option<Subject> {
    let path = format!("/api/v1/namespaces/{}/pods/{}", segment(namespace), segment(pod));
    match asker.get::<Pod>(Uri::try_from(path).ok()?).await {
        Ok(pod) => pod.spec.into_container(container),
        Err(error) => {
            tracing::debug!(error = &error as &dyn std::error::Error, "the attached container stays unknown");
            None
        }
    }
}

impl Spec {
    fn into_container(self, name: &str) -> Option<Subject> {
        let ephemeral = self.ephemeral_containers.into_iter().map(|it| Subject { is_ephemeral: true, ..it });
        if name.is_empty() {
            let mut all = self.containers.into_iter();
            return all.next().filter(|_| all.next().is_none());
        }
        self.containers.into_iter().chain(self.init_containers).chain(ephemeral).find(|it| it.name == name)
    }
}

/// A segment of a path; names of objects need no escapes, whatever else does cannot be one.
fn segment(name: &str) -> String {
    name.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(name: &str) -> Option<Subject> {
        let pod: Pod = serde_json::from_str(
            r#"{"kind": "Pod", "metadata": {"name": "p"}, "spec": {
                "containers": [{"name": "app", "image": "a:1", "command": ["sh"], "args": ["-c", "true"]}],
                "initContainers": [{"name": "init", "image": "i:1"}],
                "ephemeralContainers": [{"name": "debugger", "image": "d:1", "targetContainerName": "app"}]}}"#,
        )
        .unwrap();
        pod.spec.into_container(name)
    }

    #[test]
    fn a_container_of_any_kind_is_found_by_its_name() {
        let app = find("app").unwrap();
        assert_eq!((&*app.image, app.is_ephemeral), ("a:1", false));
        assert_eq!(app.command(), ["sh", "-c", "true"]);
        assert!(find("debugger").unwrap().is_ephemeral);
        assert_eq!(find("init").unwrap().image, "i:1");
        assert_eq!(find("other"), None);
    }

    #[test]
    fn no_name_is_the_only_container_or_none() {
        assert_eq!(find("").unwrap().name, "app");
        let two = Spec { containers: vec![Subject::default(), Subject::default()], ..Spec::default() };
        assert_eq!(two.into_container(""), None);
    }

    #[test]
    fn a_name_cannot_leave_its_segment() {
        assert_eq!(segment("a/../b?c"), "a%2F..%2Fb%3Fc");
    }
}
