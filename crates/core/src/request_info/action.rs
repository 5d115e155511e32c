//! What a request does in a pod, whichever way it goes there: by the pod's own subresources or through the kubelet of
//! its node (`nodes/NAME/proxy/…`, paths of `k8s.io/kubernetes/pkg/kubelet/server/server.go`).

use super::RequestInfo;

/// What is done in a pod.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Action {
    /// A command is started.
    Exec,
    /// What runs is attached to.
    Attach,
    /// Ports are connected to.
    PortForward,
    /// A command is run to its end.
    Run,
    /// One of these, or something else that the kubelet offers: the path does not tell.
    Unknown,
}

/// An action and where it takes place.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PodAction {
    /// What is done.
    pub action: Action,
    /// Namespace of the pod; empty where it is not known.
    pub namespace: String,
    /// The pod; empty where it is not known.
    pub pod: String,
    /// The container, where the path names it.
    pub container: String,
    /// Whether it goes through the kubelet.
    pub through_node: bool,
}

impl Action {
    /// Its name, that of the pod's subresource where there is one.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Exec => "exec",
            Self::Attach => "attach",
            Self::PortForward => "portforward",
            Self::Run => "run",
            Self::Unknown => "unknown",
        }
    }

    /// The resource that grants know it by.
    pub(crate) const fn resource(self) -> &'static str {
        match self {
            Self::Exec | Self::Run => "pods/exec",
            Self::Attach => "pods/attach",
            Self::PortForward => "pods/portforward",
            Self::Unknown => "",
        }
    }
}

impl RequestInfo {
    /// What the request does in a pod; `None` where it does nothing there that could be a session.
    #[must_use]
    pub fn pod_action(&self) -> Option<PodAction> {
        if self.resource == "nodes" { self.through_node() } else { self.in_pod() }
    }

    fn in_pod(&self) -> Option<PodAction> {
        let action = [Action::Exec, Action::Attach, Action::PortForward]
            .into_iter()
            .find(|action| self.is_pod_subresource(action.as_str()))?;
        Some(PodAction {
            action,
            namespace: self.namespace.clone(),
            pod: self.name.clone(),
            container: String::new(),
            through_node: false,
        })
    }

    fn through_node(&self) -> Option<PodAction> {
        let path = self.proxied()?;
        let first = path.first()?;
        let sessions = ["exec", "attach", "portForward", "run", "cri"];
        sessions.iter().any(|name| first.eq_ignore_ascii_case(name)).then(|| on_kubelet(&path))
    }
}

/// A clean path of the kubelet that begins with the name of a session. Its router compares names exactly; a path that
/// fits none of its routes is [`Action::Unknown`].
fn on_kubelet(path: &[&str]) -> PodAction {
    let (action, [namespace, pod, container]) = match path {
        ["exec", namespace, pod, container] | ["exec", namespace, pod, _, container] => {
            (Action::Exec, [namespace, pod, container])
        }
        ["attach", namespace, pod, container] | ["attach", namespace, pod, _, container] => {
            (Action::Attach, [namespace, pod, container])
        }
        ["run", namespace, pod, container] | ["run", namespace, pod, _, container] => {
            (Action::Run, [namespace, pod, container])
        }
        ["portForward", namespace, pod] | ["portForward", namespace, pod, _] => {
            (Action::PortForward, [namespace, pod, &""])
        }
        _ => (Action::Unknown, [&""; 3]),
    };
    PodAction {
        action,
        namespace: (*namespace).to_owned(),
        pod: (*pod).to_owned(),
        container: (*container).to_owned(),
        through_node: true,
    }
}
