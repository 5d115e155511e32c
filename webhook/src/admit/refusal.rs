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
    /// A container adds a capability that not every container has.
    Capability,
    /// A volume is of the node.
    HostPath,
    /// A container asks for a port of the node.
    HostPort,
    /// A process runs on the node itself.
    HostProcess,
    /// The kubelet would ask another host for a container.
    ProbeHost,
    /// A container sees all of /proc.
    ProcMount,
    /// A kernel parameter is not known to be safe.
    Sysctl,
    /// A seccomp profile does not confine.
    Seccomp,
    /// An AppArmor profile does not confine.
    AppArmor,
    /// An SELinux context does not confine.
    SeLinux,
    /// A volume is of a type that may reach disks of the node.
    VolumeType,
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
    /// A limit of the whole pod leaves the sidecar too little.
    Resources,
    /// A LimitRange leaves the sidecar no value that it can have.
    LimitRange,
    /// A ResourceQuota has no room for the sidecar.
    Quota,
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
            Self::HostPath => "host-path",
            Self::HostPort => "host-port",
            Self::HostProcess => "host-process",
            Self::ProbeHost => "probe-host",
            Self::ProcMount => "proc-mount",
            Self::Sysctl => "sysctl",
            Self::Seccomp => "seccomp",
            Self::AppArmor => "apparmor",
            Self::SeLinux => "selinux",
            Self::VolumeType => "volume-type",
            Self::User => "user",
            Self::Volume => "volume",
            Self::Audience => "audience",
            Self::Container => "container",
            Self::Directories => "directories",
            Self::Resources => "resources",
            Self::LimitRange => "limit-range",
            Self::Quota => "quota",
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
