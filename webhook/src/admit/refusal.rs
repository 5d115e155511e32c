//! Why a pod is not injected. In a `required` namespace it is then refused; in an `optional` one it is let through
//! with the same words as a warning.

use thiserror::Error;

/// A pod that cannot be injected, or may not run where injection is required.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("{message}")]
pub struct Refusal {
    /// For metrics and the audit log.
    pub reason: Reason,
    /// For people: what, where, and the way out.
    pub message: String,
}

/// Kinds of refusals.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Reason {
    /// The object is no pod that we understand.
    Malformed,
    /// The pod uses the node's network.
    HostNetwork,
    /// The pod uses another namespace of the node.
    HostNamespace,
    /// Containers of the pod see each other's processes.
    SharedProcesses,
    /// The pod is for Windows.
    Windows,
    /// A container is privileged.
    Privileged,
    /// A container has a capability that could undo interception.
    Capability,
    /// A container runs as the sidecar's user.
    User,
    /// A volume or a mount uses a name of ours.
    Volume,
    /// A volume projects a token of our audience.
    Audience,
    /// An application container has the sidecar's name.
    Container,
    /// There are more service-account directories than the sidecar keeps.
    Directories,
    /// An annotation has a value that is not allowed.
    Annotation,
    /// The namespace asks for something that this version does not have.
    Unavailable,
    /// Admission does not know enough yet.
    NotReady,
}

impl Reason {
    /// The name in metrics and audit annotations.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::HostNetwork => "host-network",
            Self::HostNamespace => "host-namespace",
            Self::SharedProcesses => "shared-processes",
            Self::Windows => "windows",
            Self::Privileged => "privileged",
            Self::Capability => "capability",
            Self::User => "user",
            Self::Volume => "volume",
            Self::Audience => "audience",
            Self::Container => "container",
            Self::Directories => "directories",
            Self::Annotation => "annotation",
            Self::Unavailable => "unavailable",
            Self::NotReady => "not-ready",
        }
    }

    /// A refusal of this kind.
    pub(super) fn because(self, message: impl Into<String>) -> Refusal {
        Refusal { reason: self, message: message.into() }
    }
}
