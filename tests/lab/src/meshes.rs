//! The rules that the init containers of service meshes write into a pod, as `iptables-restore` reads them.

/// What the init container of one mesh sets up.
#[derive(Clone, Copy, Debug)]
pub struct Mesh {
    /// Its name, in lower case.
    pub name: &'static str,
    /// Its rules for IPv4.
    pub rules: &'static str,
    /// TCP port of its proxy to which connections of the pod's containers are redirected.
    pub outbound: u16,
    /// TCP port of its proxy to which connections from outside the pod are redirected.
    pub inbound: u16,
    /// User and group of its proxy, whose own connections are not redirected.
    pub uid: u32,
}

/// Every mesh whose rules are tested, in redirect mode.
pub static MESHES: [Mesh; 3] = [
    Mesh {
        name: "istio",
        rules: include_str!("meshes/istio.rules"),
        outbound: 15001,
        inbound: 15006,
        uid: 1337,
    },
    Mesh {
        name: "linkerd",
        rules: include_str!("meshes/linkerd.rules"),
        outbound: 4140,
        inbound: 4143,
        uid: 2102,
    },
    Mesh {
        name: "kuma",
        rules: include_str!("meshes/kuma.rules"),
        outbound: 15001,
        inbound: 15006,
        uid: 5678,
    },
];

impl Mesh {
    /// Its rules for IPv6.
    #[must_use]
    pub fn rules_v6(&self) -> String {
        self.rules.replace("127.0.0.6/32", "::6/128").replace("127.0.0.1/32", "::1/128")
    }
}
