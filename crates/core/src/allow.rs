//! What a namespace accepts beyond Pod Security *baseline* where recording is required: the annotation
//! [`labels::ALLOW`](crate::labels::ALLOW) of the Namespace.
//!
//! Items are separated by commas; white space around an item does not count. An item that is not understood allows
//! nothing.
//!
//! | item | accepts |
//! |---|---|
//! | `capability:NAME` | any container adds this capability |
//! | `init:NAME:IMAGE-PREFIX` | an init container that is no native sidecar and has such an image adds it |
//! | `init:privileged:IMAGE-PREFIX` | such an init container is privileged |
//! | `hostPath:PATH` | volumes of the node at or below this path, mounted read-only |
//! | `hostPath:PATH:rw` | the same, mounted in any way |
//! | `hostPort:NUMBER` | this port of the node |
//! | `volume:TYPE` | volumes of this type, by its field in the pod's specification |
//! | `sysctl:NAME` | this kernel parameter |
//! | `selinux:TYPE` | this SELinux type |
//! | `probeHost:HOST` | probes and lifecycle handlers that the kubelet sends to this host |
//! | `seccomp:Unconfined`, `apparmor:Unconfined`, `procMount:Unmasked` | these values |
//!
//! What undoes interception outright (other privileged containers, the node's namespaces, all capabilities at once) has no
//! item: such pods are left out by [`labels::EXEMPT`](crate::labels::EXEMPT). The same grammar stands, as regular
//! expressions, in `manifests/policies`.

use std::fmt;

/// Cap on items; those behind it are not understood.
pub const MAX_ITEMS: usize = 64;

/// In an item `init:…`: all of them, and the node's devices. Programs that set the node's kernel parameters ask for it.
pub const PRIVILEGED: &str = "privileged";

/// Capabilities with which a process can leave the sidecar, reach into it, or reach into the node.
const UNDOING: [&str; 15] = [
    "BPF",
    "CHECKPOINT_RESTORE",
    "DAC_READ_SEARCH",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "NET_ADMIN",
    "NET_RAW",
    "PERFMON",
    "SYSLOG",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_MODULE",
    "SYS_PTRACE",
    "SYS_RAWIO",
    "SYS_RESOURCE",
];

/// What one namespace accepts.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Allow(Vec<Allowance>);

/// One item. Its [`Display`](fmt::Display) is the item as it is written.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Allowance {
    /// Any container may add this capability.
    Capability(String),
    /// An init container that ends may add a capability, or be privileged.
    Init {
        /// The capability, or [`PRIVILEGED`].
        capability: String,
        /// Prefix of its image, see [`has_prefix`].
        images: String,
    },
    /// Volumes of the node.
    HostPath {
        /// Absolute path without empty segments and dots, not `/`.
        path: String,
        /// Whether they may be written to.
        writable: bool,
    },
    /// A port of the node.
    HostPort(u16),
    /// A type of volumes.
    Volume(String),
    /// A kernel parameter.
    Sysctl(String),
    /// An SELinux type.
    SeLinux(String),
    /// A host that the kubelet asks for a container.
    ProbeHost(String),
    /// Seccomp profile `Unconfined`.
    Seccomp,
    /// AppArmor profile `Unconfined`.
    AppArmor,
    /// `procMount: Unmasked`.
    ProcMount,
}

impl Allow {
    /// Reads the annotation's value: what it allows, and the items that are not understood.
    #[must_use]
    pub fn parse(text: &str) -> (Self, Vec<String>) {
        let (mut allowed, mut unknown) = (Vec::new(), Vec::new());
        for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
            match Allowance::parse(item).filter(|_| allowed.len() < MAX_ITEMS) {
                Some(allowance) => allowed.push(allowance),
                None => unknown.push(item.to_owned()),
            }
        }
        (Self(allowed), unknown)
    }

    /// Every item, in order.
    #[must_use]
    pub fn items(&self) -> &[Allowance] {
        &self.0
    }

    /// The item that accepts what `wanted` would.
    #[must_use]
    pub fn accepts(&self, wanted: &Allowance) -> Option<&Allowance> {
        self.0.iter().find(|allowance| allowance.covers(wanted))
    }
}

impl Allowance {
    /// Reads one item; `None` where it is none.
    #[must_use]
    pub fn parse(item: &str) -> Option<Self> {
        let (kind, value) = item.split_once(':')?;
        Some(match kind {
            "capability" => Self::Capability(capability(value)?),
            "init" => {
                let (name, images) = value.split_once(':')?;
                let name = if name == PRIVILEGED { Some(name.to_owned()) } else { capability(name) };
                Self::Init { capability: name?, images: word(images)? }
            }
            "hostPath" => {
                let (path, writable) = value.strip_suffix(":rw").map_or((value, false), |path| (path, true));
                // As the policy for Namespaces has it: no slash at the end, which would be no prefix of paths in CEL.
                let plain = word(path)?;
                let path = normal_path(&plain).filter(|normal| *normal == plain && !plain.contains(':'))?;
                Self::HostPath { path: path.to_owned(), writable }
            }
            "hostPort" => Self::HostPort(value.parse().ok().filter(|port| *port > 0)?),
            "volume" => Self::Volume(volume_type(value)?),
            "sysctl" => Self::Sysctl(word(value)?),
            "selinux" => Self::SeLinux(word(value)?),
            "probeHost" => Self::ProbeHost(word(value)?),
            "seccomp" => (value == "Unconfined").then_some(Self::Seccomp)?,
            "apparmor" => (value == "Unconfined").then_some(Self::AppArmor)?,
            "procMount" => (value == "Unmasked").then_some(Self::ProcMount)?,
            _ => return None,
        })
    }

    /// Whether this accepts what `wanted` would. In a wanted [`Allowance::Init`] stands the image itself.
    #[must_use]
    pub fn covers(&self, wanted: &Self) -> bool {
        match (self, wanted) {
            (Self::Capability(name), Self::Init { capability, .. }) => name == capability,
            (Self::Init { capability, images }, Self::Init { capability: name, images: image }) => {
                capability == name && has_prefix(image, images)
            }
            (Self::HostPath { path, writable }, Self::HostPath { path: below, writable: writes }) => {
                is_at_or_below(below, path) && (*writable || !writes)
            }
            _ => self == wanted,
        }
    }

    /// What accepting it means for recordings, as the user who sets it is told.
    #[must_use]
    pub fn effect(&self) -> &'static str {
        match self {
            Self::Init { capability, .. } if capability == PRIVILEGED => {
                "who uses it is root on the node, and reaches the recordings of every pod there"
            }
            Self::Capability(name) | Self::Init { capability: name, .. }
                if UNDOING.contains(&name.as_str()) =>
            {
                "who uses it can evade or alter the recordings of the pod"
            }
            Self::HostPath { writable: true, .. } => {
                "who uses it writes to the node, which may reach the recordings of every pod there"
            }
            Self::HostPath { .. } => "who uses it reads the node, which may hold what other pods keep secret",
            Self::Volume(_) => "who uses it may reach disks of the node or of other pods",
            Self::Seccomp | Self::AppArmor | Self::ProcMount | Self::SeLinux(_) => {
                "who uses it is confined less, and faults of the kernel are nearer"
            }
            Self::Capability(_)
            | Self::Init { .. }
            | Self::HostPort(_)
            | Self::Sysctl(_)
            | Self::ProbeHost(_) => "beyond Pod Security baseline",
        }
    }
}

impl fmt::Display for Allowance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Capability(name) => write!(f, "capability:{name}"),
            Self::Init { capability, images } => write!(f, "init:{capability}:{images}"),
            Self::HostPath { path, writable: false } => write!(f, "hostPath:{path}"),
            Self::HostPath { path, writable: true } => write!(f, "hostPath:{path}:rw"),
            Self::HostPort(port) => write!(f, "hostPort:{port}"),
            Self::Volume(kind) => write!(f, "volume:{kind}"),
            Self::Sysctl(name) => write!(f, "sysctl:{name}"),
            Self::SeLinux(kind) => write!(f, "selinux:{kind}"),
            Self::ProbeHost(host) => write!(f, "probeHost:{host}"),
            Self::Seccomp => f.write_str("seccomp:Unconfined"),
            Self::AppArmor => f.write_str("apparmor:Unconfined"),
            Self::ProcMount => f.write_str("procMount:Unmasked"),
        }
    }
}

/// Whether an image's reference has this prefix: all of it, or up to a `/`, `:` or `@`.
#[must_use]
pub fn has_prefix(image: &str, prefix: &str) -> bool {
    image
        .strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || prefix.ends_with('/') || rest.starts_with(['/', ':', '@']))
}

/// A path of the node without a slash at its end; `None` where it is `/`, not absolute, or has empty segments or dots:
/// what it means would depend on who reads it.
#[must_use]
pub fn normal_path(path: &str) -> Option<&str> {
    let path = path.strip_suffix('/').unwrap_or(path);
    let below = path.strip_prefix('/')?;
    below.split('/').all(|segment| !matches!(segment, "" | "." | "..")).then_some(path)
}

/// Whether a normal path is this one or below it.
#[must_use]
pub fn is_at_or_below(path: &str, parent: &str) -> bool {
    path.strip_prefix(parent).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// A capability by its name in Pod Security. All at once are not one.
fn capability(name: &str) -> Option<String> {
    let is_name = |byte: u8| byte.is_ascii_uppercase() || byte == b'_' || byte.is_ascii_digit();
    (!name.is_empty() && name != "ALL" && name.bytes().all(is_name)).then(|| name.to_owned())
}

/// A type of volumes; one of the node has an item of its own.
fn volume_type(name: &str) -> Option<String> {
    let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric());
    (is_name && name != "hostPath").then(|| name.to_owned())
}

fn word(text: &str) -> Option<String> {
    (!text.is_empty() && !text.contains(char::is_whitespace)).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_is_read_and_written_as_it_stands() {
        let items = [
            "capability:SYS_TIME",
            "init:NET_ADMIN:registry.example:5000/mesh/init",
            "init:privileged:registry.example/search",
            "hostPath:/var/log",
            "hostPath:/var/lib/collector:rw",
            "hostPort:8080",
            "volume:cephfs",
            "sysctl:net.core.somaxconn",
            "selinux:spc_t",
            "probeHost:127.0.0.1",
            "seccomp:Unconfined",
            "apparmor:Unconfined",
            "procMount:Unmasked",
        ];
        let (allow, unknown) = Allow::parse(&items.join(" ,\n  "));
        let written: Vec<String> = allow.items().iter().map(ToString::to_string).collect();
        assert_eq!((written, unknown), (items.map(ToOwned::to_owned).to_vec(), vec![]));
        assert!(allow.items().iter().all(|item| !item.effect().is_empty()));
    }

    #[test]
    fn what_is_not_understood_allows_nothing() {
        for item in [
            "capability:",
            "capability:ALL",
            "capability:sys_time",
            "capability:NET_ADMIN:image",
            "init:NET_ADMIN",
            "init:NET_ADMIN:",
            "init:ALL:mesh/init",
            "hostPath:",
            "hostPath:/",
            "hostPath:/:rw",
            "hostPath:var/log",
            "hostPath:/var/log/",
            "hostPath:/var:log",
            "hostPath:/var//log",
            "hostPath:/var/./log",
            "hostPath:/var/../etc",
            "hostPath:/var /log",
            "hostPort:0",
            "hostPort:65536",
            "hostPort:*",
            "volume:hostPath",
            "volume:a b",
            "sysctl:",
            "selinux:",
            "probeHost:",
            "seccomp:RuntimeDefault",
            "apparmor:x",
            "procMount:Default",
            "privileged",
            "privileged:true",
            "capability:privileged",
            "init:privileged",
            "init:privileged:",
            "init:PRIVILEGED_:a b",
            "hostPID:true",
        ] {
            assert_eq!(Allow::parse(item), (Allow::default(), vec![item.to_owned()]), "{item}");
        }
        assert_eq!(Allow::parse(" , "), (Allow::default(), vec![]));
    }

    #[test]
    fn there_are_no_more_items_than_the_cap() {
        let many: Vec<String> = (1..=MAX_ITEMS + 2).map(|port| format!("hostPort:{port}")).collect();
        let (allow, unknown) = Allow::parse(&many.join(","));
        assert_eq!(
            (allow.items().len(), unknown),
            (MAX_ITEMS, vec!["hostPort:65".into(), "hostPort:66".into()])
        );
    }

    #[test]
    fn an_image_s_prefix_ends_where_a_part_of_its_name_does() {
        for (image, prefix, has) in [
            ("docker.io/mesh/init:1.2", "docker.io/mesh/init", true),
            ("docker.io/mesh/init@sha256:ab", "docker.io/mesh/init", true),
            ("docker.io/mesh/init", "docker.io/mesh/init", true),
            ("docker.io/mesh/init:1.2", "docker.io/mesh", true),
            ("docker.io/mesh/init:1.2", "docker.io/mesh/", true),
            ("docker.io/mesh/init-evil:1.2", "docker.io/mesh/init", false),
            ("docker.io/mesher/init", "docker.io/mesh", false),
            ("mesh/init", "docker.io/mesh/init", false),
        ] {
            assert_eq!(has_prefix(image, prefix), has, "{image} {prefix}");
        }
    }

    #[test]
    fn an_item_covers_what_it_names_and_no_more() {
        let covers = |item: &str, wanted: &str| {
            Allowance::parse(item).unwrap().covers(&Allowance::parse(wanted).unwrap())
        };
        for (item, wanted) in [
            ("capability:SYS_TIME", "capability:SYS_TIME"),
            ("capability:NET_ADMIN", "init:NET_ADMIN:any/image:1"),
            ("init:NET_ADMIN:mesh/init", "init:NET_ADMIN:mesh/init:1.2"),
            ("init:privileged:mesh/init", "init:privileged:mesh/init:1.2"),
            ("hostPath:/var/log", "hostPath:/var/log/pods"),
            ("hostPath:/var/log:rw", "hostPath:/var/log"),
            ("hostPath:/var/log:rw", "hostPath:/var/log:rw"),
            ("seccomp:Unconfined", "seccomp:Unconfined"),
        ] {
            assert!(covers(item, wanted), "{item} {wanted}");
        }
        for (item, wanted) in [
            ("capability:SYS_TIME", "capability:SYS_TTY_CONFIG"),
            ("init:NET_ADMIN:mesh/init", "capability:NET_ADMIN"),
            ("init:NET_ADMIN:mesh/init", "init:NET_RAW:mesh/init"),
            ("init:NET_ADMIN:mesh/init", "init:privileged:mesh/init"),
            ("init:privileged:mesh/init", "init:NET_ADMIN:mesh/init"),
            ("init:privileged:mesh/init", "init:privileged:mesh/other"),
            ("init:NET_ADMIN:mesh/init", "init:NET_ADMIN:mesh/init-evil:1"),
            ("hostPath:/var/log", "hostPath:/var/log:rw"),
            ("hostPath:/var/log", "hostPath:/var/logs"),
            ("hostPath:/var/log:rw", "hostPath:/var"),
            ("hostPort:80", "hostPort:8080"),
            ("seccomp:Unconfined", "apparmor:Unconfined"),
        ] {
            assert!(!covers(item, wanted), "{item} {wanted}");
        }
    }

    #[test]
    fn a_path_is_below_another_by_whole_segments() {
        assert!(is_at_or_below("/var/log", "/var/log") && is_at_or_below("/var/log/pods", "/var/log"));
        assert!(!is_at_or_below("/var/logs", "/var/log") && !is_at_or_below("/var", "/var/log"));
    }
}
