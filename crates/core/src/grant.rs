//! Grants: who is recorded where, and what holds when recording fails.
//!
//! The capability `tailscale.com/cap/kubernetes` keeps the keys of a Tailscale policy file; `namespaces`, `verbs`,
//! `resources`, `requireAck`, `lead`, `maskFlags` and `opaque` are additions of ours.

mod effect;
mod evaluate;
mod explain;
mod index;
mod select;

pub use effect::{API_VERBS, METHODS, WithoutEffect, dst_matches_pods, src_matches_anyone};
pub use evaluate::{Obligation, RecorderChoice, evaluate};
pub use explain::{Fate, explain};
pub use index::Grants;
pub use select::{PodTarget, dst_fits, dst_item_fits, glob, src_item_fits};

use serde::{Deserialize, Serialize};

/// Bytes of cast that may be shown before a recorder acknowledged them, under fail closed.
pub const MAX_LEAD: u64 = 1 << 20;

/// A grant under its name, as a netmap carries it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Grant {
    /// Name of the object.
    pub name: String,
    /// What it says.
    #[serde(flatten)]
    pub spec: GrantSpec,
}

/// What a `Grant` object says.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct GrantSpec {
    /// Whose requests: `user:NAME` or a bare login, `group:NAME`, `serviceaccount:NAMESPACE/NAME` with globs, `*`.
    pub src: Vec<String>,
    /// Pods whose requests are meant: `namespace:NAME`, `pod:NAMESPACE/GLOB`, `tag:NAME` (a Namespace label), `*`.
    pub dst: Vec<String>,
    /// Higher comes first; equal priorities go by name.
    pub priority: i32,
    /// Applies only where no other grant matches.
    pub default: bool,
    /// Network part of a Tailscale grant: accepted, without effect.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ip: Vec<String>,
    /// Capabilities by name.
    pub app: App,
}

/// Capabilities of a grant.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct App {
    /// Rules for requests of the Kubernetes API.
    #[serde(rename = "tailscale.com/cap/kubernetes")]
    pub kubernetes: Vec<Rule>,
}

/// One rule of the Kubernetes capability.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct Rule {
    /// Tags of the recorders, such as `tag:podwitness`.
    pub recorder: Vec<String>,
    /// Fail closed: what cannot be recorded does not happen.
    pub enforce_recorder: bool,
    /// Record API requests as events too.
    pub enable_events: bool,
    /// Impersonation of a Tailscale grant: accepted, without effect.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub impersonate: Option<Impersonate>,
    /// Globs of namespaces that requests name; empty means every one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<String>,
    /// API verbs; empty means every one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub verbs: Vec<String>,
    /// Resources such as `pods` or `pods/exec`, with globs; empty means every one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<String>,
    /// What an acknowledgement has to survive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub require_ack: Option<AckLevel>,
    /// Bytes shown before they are acknowledged, at most 1 MiB (1048576).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lead: Option<u64>,
    /// Flags and variables, such as `--password`, whose values in a command are not kept.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mask_flags: Vec<String>,
    /// What happens to legal upgrades that nobody can look into.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub opaque: Option<Opaque>,
}

/// Impersonation part of a Tailscale grant.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Impersonate {
    /// Groups.
    pub groups: Vec<String>,
}

/// What an acknowledgement of a recorder survives, weakest first.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum AckLevel {
    /// The crash of the recorder's process.
    Process,
    /// The loss of the recorder's pod.
    Volume,
    /// The loss of the recorder's node.
    Object,
}

/// What happens to an upgrade that is legal but opaque.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Opaque {
    /// It passes, with metadata and byte counts.
    Allow,
    /// It is refused under fail closed.
    Refuse,
}

impl AckLevel {
    /// The value of the `Podwitness-Ack` header.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Volume => "volume",
            Self::Object => "object",
        }
    }

    /// Reads that header; `None` for any other text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Process, Self::Volume, Self::Object].into_iter().find(|level| level.as_str() == text)
    }
}

impl GrantSpec {
    /// Whether any rule asks for events.
    #[must_use]
    pub fn asks_for_events(&self) -> bool {
        self.app.kubernetes.iter().any(|rule| rule.enable_events)
    }

    /// Whether any rule fails closed.
    #[must_use]
    pub fn enforces(&self) -> bool {
        self.app.kubernetes.iter().any(|rule| rule.enforce_recorder)
    }
}

#[cfg(test)]
mod tests;
