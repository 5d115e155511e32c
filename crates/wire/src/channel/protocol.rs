//! Versions of the protocol, by the names that are negotiated.

/// A version of the protocol, as the response names it: in `Sec-WebSocket-Protocol`, or in
/// `X-Stream-Protocol-Version` over SPDY. A response without that header has the empty name.
///
/// Sources: `k8s.io/apimachinery/pkg/util/remotecommand/constants.go`, `…/httpstream/wsstream/conn.go`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Protocol {
    /// The empty name: version 1.
    Unnamed,
    /// `channel.k8s.io`.
    V1,
    /// `v2.channel.k8s.io`.
    V2,
    /// `v3.channel.k8s.io`: version 2 with a terminal's size.
    V3,
    /// `v4.channel.k8s.io`: version 3 with a `metav1.Status` on the error channel.
    V4,
    /// `v5.channel.k8s.io`: version 4 with half-close.
    V5,
    /// `base64.channel.k8s.io`.
    Base64V1,
    /// `v2.base64.channel.k8s.io`.
    Base64V2,
    /// `v3.base64.channel.k8s.io`.
    Base64V3,
    /// `v4.base64.channel.k8s.io`.
    Base64V4,
}

const ALL: [Protocol; 10] = [
    Protocol::Unnamed,
    Protocol::V1,
    Protocol::V2,
    Protocol::V3,
    Protocol::V4,
    Protocol::V5,
    Protocol::Base64V1,
    Protocol::Base64V2,
    Protocol::Base64V3,
    Protocol::Base64V4,
];

impl Protocol {
    /// The version with that name, which the server chose; `None` for any other.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        ALL.into_iter().find(|protocol| protocol.as_str() == name)
    }

    /// The version whose name a header's value or an item of it is, any bytes.
    #[must_use]
    pub fn of_header(name: &[u8]) -> Option<Self> {
        std::str::from_utf8(name).ok().and_then(Self::parse)
    }

    /// The version's name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unnamed => "",
            Self::V1 => "channel.k8s.io",
            Self::V2 => "v2.channel.k8s.io",
            Self::V3 => "v3.channel.k8s.io",
            Self::V4 => "v4.channel.k8s.io",
            Self::V5 => "v5.channel.k8s.io",
            Self::Base64V1 => "base64.channel.k8s.io",
            Self::Base64V2 => "v2.base64.channel.k8s.io",
            Self::Base64V3 => "v3.base64.channel.k8s.io",
            Self::Base64V4 => "v4.base64.channel.k8s.io",
        }
    }

    /// Whether the error channel carries a `metav1.Status`; else it carries plain text, and nothing on success.
    #[must_use]
    pub const fn has_status(self) -> bool {
        matches!(self, Self::V4 | Self::V5 | Self::Base64V4)
    }

    /// Whether messages are a digit and base64 instead of a byte and bytes. WebSocket only.
    #[must_use]
    pub const fn is_base64(self) -> bool {
        matches!(self, Self::Base64V1 | Self::Base64V2 | Self::Base64V3 | Self::Base64V4)
    }

    /// Whether it is version 1.
    pub(crate) const fn is_first(self) -> bool {
        matches!(self, Self::Unnamed | Self::V1 | Self::Base64V1)
    }
}
