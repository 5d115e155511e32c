//! One event as a client sends it, and as it is stored: with an id, and with what the recorder itself knows of it.
//!
//! Invariant: the id and `received` are the recorder's own words, whatever the client says under these keys; and an
//! event that names another pod than the assertion did is refused. Everything else stays as it came, byte for byte.

use std::{borrow::Cow, fmt};

use podwitness_wire::pack::MAX_FRAME;
use serde::{
    Deserialize, Serialize,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;
use thiserror::Error;

use crate::store::{
    events::Draft,
    meta::{Owner, Pod},
};

/// Cap on one event that is a request of its own, in bytes: those of the reference carry the body of the request that
/// they are about.
pub(super) const MAX_EVENT: usize = 2 << 20;
/// Cap on one event of a stream, that of a compressed frame.
pub(super) const MAX_STREAMED: usize = MAX_FRAME;
/// Cap on the keys at the top.
const MAX_KEYS: usize = 64;

/// Cap on objects and arrays within each other. Readers have caps of their own (`serde_json` 128, DuckDB by its stack), and
/// one event that they cannot read may end a query over all of them.
const MAX_DEPTH: usize = 64;

/// Why an event is refused.
#[derive(Debug, Error)]
pub(super) enum EventRefusal {
    /// It is longer than the cap.
    #[error("an event is at most {MAX_EVENT} bytes, {MAX_STREAMED} in a stream")]
    TooLong,
    /// It is no JSON object with a type.
    #[error("it is no event: {0}")]
    Form(#[from] serde_json::Error),
    /// Its objects and arrays are nested deeper than the cap.
    #[error("objects and arrays of an event are nested at most {MAX_DEPTH} deep")]
    Depth,
    /// It contradicts the assertion.
    #[error("the event's {0} is not the one that the assertion states")]
    Identity(&'static str),
}

/// The keys of an object at the top, in order.
struct Keys<'a>(Vec<(String, &'a RawValue)>);

/// What the recorder knows by itself.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Received<'a> {
    /// Unix milliseconds.
    at: i64,
    /// The pod, or the address of whoever has shown no assertion.
    from: &'a Owner,
}

/// What an event says of its pod.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Claimed<'a> {
    #[serde(borrow)]
    cluster: Cow<'a, str>,
    #[serde(borrow)]
    namespace: Cow<'a, str>,
    #[serde(borrow)]
    pod: Cow<'a, str>,
    #[serde(borrow, rename = "podUID")]
    pod_uid: Cow<'a, str>,
}

/// Reads an event of `owner` that came at `now` (Unix milliseconds).
pub(super) fn admit(line: &[u8], owner: &Owner, now: i64) -> Result<Draft, EventRefusal> {
    if line.len() > MAX_EVENT {
        return Err(EventRefusal::TooLong);
    }
    let Keys(keys) = serde_json::from_slice(line)?;
    if depth(line) > MAX_DEPTH {
        return Err(EventRefusal::Depth);
    }
    let find = |name: &str| keys.iter().find(|(key, _)| key == name).map(|(_, value)| *value);
    let kind: Cow<'_, str> = serde_json::from_str(find("type").map_or("null", RawValue::get))?;
    if let (Owner::Pod(pod), Some(said)) = (owner, find("podwitness")) {
        matches(&serde_json::from_str(said.get())?, pod)?;
    }
    let mut text = Vec::with_capacity(line.len().saturating_add(512));
    text.extend_from_slice(b"{\"type\":");
    serde_json::to_writer(&mut text, &kind)?;
    text.extend_from_slice(b",\"id\":");
    let id = text.len();
    for (key, value) in keys.iter().filter(|(key, _)| !["type", "id", "received"].contains(&key.as_str())) {
        text.push(b',');
        serde_json::to_writer(&mut text, key)?;
        text.push(b':');
        // The newline ends an event: what stands between tokens need not.
        text.extend(value.get().bytes().map(|byte| if byte == b'\n' || byte == b'\r' { b' ' } else { byte }));
    }
    text.extend_from_slice(b",\"received\":");
    serde_json::to_writer(&mut text, &Received { at: now, from: owner })?;
    text.push(b'}');
    Ok(Draft::new(text, id))
}

/// How deep objects and arrays of a well-formed text are nested.
fn depth(json: &[u8]) -> usize {
    let (mut depth, mut deepest, mut bytes) = (0_usize, 0, json.iter());
    while let Some(byte) = bytes.next() {
        match byte {
            b'[' | b'{' => {
                depth = depth.saturating_add(1);
                deepest = deepest.max(depth);
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            b'"' => skip_string(&mut bytes),
            _ => {}
        }
    }
    deepest
}

/// Goes on behind the end of a string.
fn skip_string<'a>(bytes: &mut impl Iterator<Item = &'a u8>) {
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => return,
            b'\\' => drop(bytes.next()),
            _ => {}
        }
    }
}

fn matches(claimed: &Claimed<'_>, pod: &Pod) -> Result<(), EventRefusal> {
    let pairs = [
        ("cluster", &claimed.cluster, &pod.cluster),
        ("namespace", &claimed.namespace, &pod.namespace),
        ("pod", &claimed.pod, &pod.pod),
        ("podUID", &claimed.pod_uid, &pod.uid),
    ];
    match pairs.iter().find(|(_, said, is)| said.as_ref() != is.as_str()) {
        Some((what, ..)) => Err(EventRefusal::Identity(what)),
        None => Ok(()),
    }
}

impl<'de> Deserialize<'de> for Keys<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(KeysVisitor)
    }
}

struct KeysVisitor;

impl<'de> Visitor<'de> for KeysVisitor {
    type Value = Keys<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Keys<'de>, A::Error> {
        let mut keys: Vec<(String, &'de RawValue)> = Vec::new();
        while let Some((key, value)) = map.next_entry::<String, &RawValue>()? {
            // Readers differ in which of two values they believe.
            if keys.iter().any(|(other, _)| *other == key) {
                return Err(serde::de::Error::custom("a key occurs twice"));
            }
            if keys.len() >= MAX_KEYS {
                return Err(serde::de::Error::custom("there are too many keys"));
            }
            keys.push((key, value));
        }
        Ok(Keys(keys))
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::store::events::testing::written;

    fn pod() -> Owner {
        Owner::Pod(Pod {
            cluster: "c".into(),
            namespace: "n".into(),
            pod: "p".into(),
            uid: "u".into(),
            ..Pod::default()
        })
    }

    fn event(podwitness: &Value) -> Value {
        json!({"type": "kubernetes-api-request", "id": "", "timestamp": 7, "podwitness": podwitness})
    }

    fn stored(line: &[u8], owner: &Owner) -> Value {
        serde_json::from_slice(&written(&admit(line, owner, 5).unwrap(), "ID")).unwrap()
    }

    #[test]
    fn an_event_gets_its_id_and_who_sent_it() {
        let said = json!({"cluster": "c", "namespace": "n", "pod": "p", "podUID": "u", "more": 1});
        let stored = stored(&serde_json::to_vec_pretty(&event(&said)).unwrap(), &pod());
        assert_eq!(stored["id"], "ID");
        assert_eq!((&stored["podwitness"], &stored["timestamp"]), (&said, &json!(7)));
        assert_eq!(stored["received"]["at"], 5);
        assert_eq!(stored["received"]["from"]["pod"]["podUID"], "u");
    }

    #[test]
    fn an_event_cannot_speak_for_another_pod_or_for_the_recorder() {
        let said = json!({"cluster": "c", "namespace": "n", "pod": "other", "podUID": "u"});
        let refused = admit(event(&said).to_string().as_bytes(), &pod(), 0).unwrap_err();
        assert!(matches!(refused, EventRefusal::Identity("pod")), "{refused}");
        let forged = br#"{"type":"t","id":"mine","received":{"at":1},"x":[ {"a" : 1} ]}"#;
        let address = IpAddr::from([127, 0, 0, 1]);
        let stored = stored(forged, &Owner::Unverified { address });
        assert_eq!(
            (&stored["id"], &stored["received"]["at"], &stored["x"][0]["a"]),
            (&json!("ID"), &json!(5), &json!(1))
        );
        assert_eq!(stored["received"]["from"]["unverified"]["address"], "127.0.0.1");
    }

    #[test]
    fn what_is_no_event_is_refused() {
        for wrong in
            ["", "7", "[]", "{}", "{\"type\":1}", "{\"type\":\"a\",\"type\":\"b\"}", "{\"type\":\"a\"} {}"]
        {
            assert!(admit(wrong.as_bytes(), &pod(), 0).is_err(), "{wrong}");
        }
        assert!(admit(event(&json!({})).to_string().as_bytes(), &pod(), 0).is_err(), "it names no pod");
        let long = json!({"type": "a", "x": "x".repeat(MAX_EVENT)}).to_string();
        assert!(matches!(admit(long.as_bytes(), &pod(), 0), Err(EventRefusal::TooLong)));
        let keys: serde_json::Map<_, _> = (0..=MAX_KEYS).map(|n| (n.to_string(), json!(n))).collect();
        assert!(admit(Value::from(keys).to_string().as_bytes(), &pod(), 0).is_err());
    }

    #[test]
    fn what_readers_could_not_follow_is_refused() {
        let nested = |depth: usize| {
            let (open, close) = ("[".repeat(depth - 1), "]".repeat(depth - 1));
            format!("{{\"type\":\"a\",\"x\":{open}\"[[[\\\"{{{{\"{close}}}")
        };
        assert!(
            admit(nested(MAX_DEPTH).as_bytes(), &Owner::Unverified { address: [127, 0, 0, 1].into() }, 0)
                .is_ok()
        );
        for depth in [MAX_DEPTH + 1, 100, 10_000] {
            let refused = admit(nested(depth).as_bytes(), &pod(), 0).unwrap_err();
            assert!(matches!(refused, EventRefusal::Depth), "{depth}: {refused}");
        }
    }

    proptest! {
        #[test]
        fn no_input_becomes_more_than_one_line(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let text = [b"{\"type\":\"a\",\"x\":", &bytes[..], b"}"].concat();
            if let Ok(draft) = admit(&text, &pod(), 0) {
                let written = written(&draft, "ID");
                prop_assert_eq!(written.iter().position(|byte| *byte == b'\n'), Some(written.len() - 1));
                prop_assert!(serde_json::from_slice::<Value>(&written).is_ok());
            }
        }
    }
}
