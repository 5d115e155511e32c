//! A recorder that no pod of the cluster is: reached through our tunnel at a public address, or outside it through a
//! tunnel that somebody else runs.

use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};

use crate::schema;

/// Where a recorder outside the cluster is: `publicKey` and `endpoint`, or `address` and `plaintext: true`.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = constrain)]
pub struct External {
    /// WireGuard public key, base64, as `podwitness-recorder ingest --join` prints it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_key: Option<String>,
    /// UDP address of its WireGuard end, HOST:PORT. A host name is looked up again and again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// TCP address of recordings, IP:PORT, of a recorder that is not reached through our tunnel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Recordings to `address` are not encrypted by Podwitness: another tunnel has to do that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plaintext: Option<bool>,
}

/// Where the control plane last found a recorder outside the cluster.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ExternalStatus {
    /// What was looked up: `endpoint` or `address` of the specification.
    pub endpoint: String,
    /// What it was found to be, IP:PORT.
    pub address: String,
}

/// How an external recorder is reached.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reached<'a> {
    /// Through our tunnel.
    Tunnel {
        /// Its key.
        public_key: &'a str,
        /// HOST:PORT.
        endpoint: &'a str,
    },
    /// Outside it, at IP:PORT.
    Plaintext(&'a str),
}

impl External {
    /// How it is reached; `None` where it says too little or too much, which the API server refuses.
    #[must_use]
    pub fn reached(&self) -> Option<Reached<'_>> {
        let plaintext = self.plaintext == Some(true);
        match (self.public_key.as_deref(), self.endpoint.as_deref(), self.address.as_deref()) {
            (Some(public_key), Some(endpoint), None) if !plaintext => {
                Some(Reached::Tunnel { public_key, endpoint })
            }
            (None, None, Some(address)) if plaintext => Some(Reached::Plaintext(address)),
            _ => None,
        }
    }
}

/// The longest name of DNS and a port.
const MAX_ENDPOINT: u64 = 260;

fn constrain(external: &mut Schema) {
    for field in ["publicKey", "endpoint", "address", "plaintext"] {
        schema::never_null(external, &[field]);
    }
    for (rule, message) in [
        (
            "has(self.address) != (has(self.publicKey) || has(self.endpoint))",
            "name an external recorder by publicKey and endpoint, or by address and plaintext: true",
        ),
        (
            "has(self.publicKey) == has(self.endpoint)",
            "publicKey and endpoint belong together: a WireGuard key and the UDP address at which it answers",
        ),
        (
            "!has(self.address) || (has(self.plaintext) && self.plaintext)",
            "Podwitness does not encrypt traffic to an address; set plaintext: true if another tunnel does",
        ),
        (
            "!has(self.plaintext) || !self.plaintext || has(self.address)",
            "plaintext: true goes with an address; to a publicKey recordings always travel encrypted",
        ),
    ] {
        schema::rule(external, &[], rule, message);
    }
    schema::text(external, &["publicKey"], 44, 44);
    schema::rule(
        external,
        &["publicKey"],
        "self.matches('^[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=$')",
        "publicKey is a WireGuard public key: 44 characters of base64",
    );
    schema::text(external, &["endpoint"], 3, MAX_ENDPOINT);
    schema::rule(
        external,
        &["endpoint"],
        "self.matches('^([a-zA-Z0-9]([a-zA-Z0-9.-]*[a-zA-Z0-9])?|\\\\[[0-9a-fA-F:.]+\\\\]):[0-9]{1,5}$')",
        "endpoint is HOST:PORT, or [IPv6]:PORT, of a UDP port",
    );
    schema::text(external, &["address"], 3, 64);
    schema::rule(
        external,
        &["address"],
        "self.matches('^([0-9]{1,3}([.][0-9]{1,3}){3}|\\\\[[0-9a-fA-F:.]+\\\\]):[0-9]{1,5}$')",
        "address is IP:PORT, or [IPv6]:PORT, of a TCP port",
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn external(json: &str) -> External {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_recorder_is_reached_in_one_way_or_in_none() {
        let tunnel = external(r#"{"publicKey":"k","endpoint":"vault.example:51820"}"#);
        let expected = Reached::Tunnel { public_key: "k", endpoint: "vault.example:51820" };
        assert_eq!(tunnel.reached(), Some(expected));
        let plain = external(r#"{"address":"192.0.2.7:80","plaintext":true}"#);
        assert_eq!(plain.reached(), Some(Reached::Plaintext("192.0.2.7:80")));
        for unclear in [
            "{}",
            r#"{"address":"192.0.2.7:80"}"#,
            r#"{"address":"192.0.2.7:80","plaintext":false}"#,
            r#"{"publicKey":"k"}"#,
            r#"{"publicKey":"k","endpoint":"e:1","plaintext":true}"#,
            r#"{"publicKey":"k","endpoint":"e:1","address":"192.0.2.7:80","plaintext":true}"#,
        ] {
            assert_eq!(external(unclear).reached(), None, "{unclear}");
        }
    }
}
