//! What a recorder's storage means for its pods: volumes, claims, and what both containers are told of a bucket.

use podwitness_crd::recorder::{CaSource, KeyReference, S3, Storage};
use serde_json::{Value, json};

use super::desired::{Settings, merge, set_unless_empty};
use crate::{admit::quantity, control::pod::RECORDINGS_VOLUME};

/// Where the Secret of the bucket's credentials is mounted.
const CREDENTIALS: &str = "/etc/podwitness/s3/credentials";
/// Where the certificate authorities of the bucket's service are mounted.
const CA: &str = "/etc/podwitness/s3/ca";
const HTTPS: u16 = 443;
/// Size limit of an emptyDir of recordings on a node's disk that has none.
const SIZE_LIMIT: &str = "10Gi";
const EVICTION_RESERVE: &str = "PODWITNESS_EVICTION_RESERVE";

/// What both containers are told.
pub(super) fn env(storage: &Storage) -> Vec<Value> {
    let mut env = vec![json!({"name": "PODWITNESS_ACK", "value": storage.ack().as_str()})];
    let Some(s3) = &storage.s3 else { return env };
    let mut tell = |name: &str, value: &str| env.push(json!({"name": name, "value": value}));
    tell("PODWITNESS_S3_ENDPOINT", &s3.endpoint);
    tell("PODWITNESS_S3_BUCKET", &s3.bucket);
    if let Some(region) = &s3.region {
        tell("PODWITNESS_S3_REGION", region);
    }
    if let Some(prefix) = &s3.prefix {
        tell("PODWITNESS_S3_PREFIX", prefix);
    }
    if let Some(path_style) = s3.path_style {
        tell("PODWITNESS_S3_PATH_STYLE", if path_style { "true" } else { "false" });
    }
    if let Some((_, _, key)) = s3.ca.as_ref().and_then(ca) {
        tell("PODWITNESS_S3_CA_FILE", &format!("{CA}/{key}"));
    }
    if let Some(sse) = s3.sse {
        tell("PODWITNESS_S3_SSE", sse.as_str());
    }
    if let Some(key) = &s3.kms_key {
        tell("PODWITNESS_S3_SSE_KMS_KEY", key);
    }
    if credentials(s3).is_some() {
        tell("PODWITNESS_S3_CREDENTIALS_DIR", CREDENTIALS);
    }
    env
}

/// What is told to the one that writes: what bounds its volume. `named` says which variables the Recorder sets itself.
pub(super) fn space_env(storage: &Storage, settings: &Settings, named: impl Fn(&str) -> bool) -> Vec<Value> {
    let mut env = Vec::new();
    if storage.claim().is_some() {
        return env;
    }
    let disk = empty_dir(storage);
    if let Some(limit) = size_limit(&disk) {
        env.push(json!({"name": "PODWITNESS_SIZE_LIMIT", "value": limit.to_string()}));
    }
    if !is_memory(&disk) && !named(EVICTION_RESERVE) {
        let percent = format!("{}%", settings.eviction_percent);
        env.push(json!({"name": EVICTION_RESERVE, "value": percent}));
    }
    env
}

/// The emptyDir of recordings. One on the node's disk has a size limit; one in memory is limited by that.
fn empty_dir(storage: &Storage) -> Value {
    let chosen = storage.filesystem.as_ref().and_then(|filesystem| filesystem.empty_dir.as_ref());
    let mut disk = chosen.map_or_else(|| json!({}), |chosen| json!(chosen));
    if disk.get("sizeLimit").is_none_or(Value::is_null) && !is_memory(&disk) {
        merge(&mut disk, json!({"sizeLimit": SIZE_LIMIT}));
    }
    disk
}

fn is_memory(disk: &Value) -> bool {
    disk.get("medium").and_then(Value::as_str) == Some("Memory")
}

/// Bytes of a size limit. Kubelets take zero for none; what is no quantity the API server refuses.
fn size_limit(disk: &Value) -> Option<u64> {
    let limit = match disk.get("sizeLimit")? {
        Value::String(text) => quantity::memory(text),
        number => quantity::memory(&number.to_string()),
    };
    limit.filter(|limit| *limit > 0)
}

/// The volume of recordings, unless it is a claim's, and what a bucket needs.
pub(super) fn volumes(storage: &Storage) -> Vec<Value> {
    let mut volumes = Vec::new();
    if storage.claim().is_none() {
        volumes.push(json!({"name": RECORDINGS_VOLUME, "emptyDir": empty_dir(storage)}));
    }
    let Some(s3) = &storage.s3 else { return volumes };
    if let Some(name) = credentials(s3) {
        volumes.push(json!({"name": "s3-credentials", "secret": {"secretName": name}}));
    }
    if let Some((kind, reference, _)) = s3.ca.as_ref().and_then(ca) {
        let items = json!([{"key": reference.key, "path": reference.key}]);
        volumes.push(match kind {
            Source::ConfigMap => {
                json!({"name": "s3-ca", "configMap": {"name": reference.name, "items": items}})
            }
            Source::Secret => {
                json!({"name": "s3-ca", "secret": {"secretName": reference.name, "items": items}})
            }
        });
    }
    volumes
}

/// What a bucket needs in both containers.
pub(super) fn mounts(storage: &Storage) -> Vec<Value> {
    let Some(s3) = &storage.s3 else { return Vec::new() };
    let mut mounts = Vec::new();
    if credentials(s3).is_some() {
        mounts.push(json!({"name": "s3-credentials", "mountPath": CREDENTIALS, "readOnly": true}));
    }
    if s3.ca.as_ref().and_then(ca).is_some() {
        mounts.push(json!({"name": "s3-ca", "mountPath": CA, "readOnly": true}));
    }
    mounts
}

/// Claims of the StatefulSet. They stay when it is scaled down: what has not gone to the bucket yet lies there.
pub(super) fn claims(storage: &Storage) -> Value {
    let Some(template) = storage.claim() else { return json!({}) };
    let mut metadata = json!({"name": RECORDINGS_VOLUME});
    set_unless_empty(&mut metadata, "labels", &template.metadata.labels);
    set_unless_empty(&mut metadata, "annotations", &template.metadata.annotations);
    let mut spec = json!({"accessModes": ["ReadWriteOnce"]});
    merge(&mut spec, json!(template.spec));
    let when_deleted =
        storage.filesystem.as_ref().map(|filesystem| filesystem.when_deleted).unwrap_or_default();
    json!({
        "volumeClaimTemplates": [
            {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec},
        ],
        "persistentVolumeClaimRetentionPolicy": {"whenDeleted": when_deleted, "whenScaled": "Retain"},
    })
}

/// TCP ports that a recorder has to reach for its storage: the service's, and HTTP and HTTPS where the platform gives
/// the pod its identity.
pub(super) fn ports(storage: &Storage) -> Vec<u16> {
    let Some(s3) = &storage.s3 else { return Vec::new() };
    let mut ports = vec![port(&s3.endpoint)];
    if credentials(s3).is_none() {
        ports.extend([80, HTTPS]);
    }
    ports.sort_unstable();
    ports.dedup();
    ports
}

/// Where recordings lie, for people.
pub(super) fn in_words(storage: &Storage) -> String {
    match (&storage.s3, storage.claim()) {
        (Some(S3 { bucket, prefix, .. }), _) => {
            let prefix = prefix.as_deref().unwrap_or_default().trim_matches('/');
            let slash = if prefix.is_empty() { "" } else { "/" };
            format!("s3://{bucket}{slash}{prefix}")
        }
        (None, Some(_)) => "volume".to_owned(),
        (None, None) => "emptyDir".to_owned(),
    }
}

/// Name of the Secret, if one is named.
pub(super) fn credentials(s3: &S3) -> Option<&str> {
    Some(s3.credentials.secret.name.as_str()).filter(|name| !name.is_empty())
}

enum Source {
    ConfigMap,
    Secret,
}

fn ca(source: &CaSource) -> Option<(Source, &KeyReference, &str)> {
    let config_map = source.config_map.as_ref().map(|reference| (Source::ConfigMap, reference));
    let secret = source.secret.as_ref().map(|reference| (Source::Secret, reference));
    config_map.or(secret).map(|(kind, reference)| (kind, reference, reference.key.as_str()))
}

/// The port of an endpoint, which may be written with a scheme.
fn port(endpoint: &str) -> u16 {
    let (host, by_scheme) = match endpoint.split_once("://") {
        Some(("http", rest)) => (rest, 80),
        Some((_, rest)) => (rest, HTTPS),
        None => (endpoint, HTTPS),
    };
    let host = host.split('/').next().unwrap_or_default();
    // A colon within brackets belongs to an address.
    let after = host.rsplit_once(']').map_or(host, |(_, after)| after);
    after.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).unwrap_or(by_scheme)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(spec: &Value, named: bool) -> Vec<(String, String)> {
        let storage: Storage = serde_json::from_value(spec.clone()).unwrap();
        let settings = Settings { namespace: "n".into(), image: "i".into(), eviction_percent: 15 };
        let env = space_env(&storage, &settings, |_| named);
        let text = |variable: &Value, key: &str| variable[key].as_str().unwrap().to_owned();
        env.iter().map(|variable| (text(variable, "name"), text(variable, "value"))).collect()
    }

    #[test]
    fn a_disk_of_the_node_is_bounded_and_the_recorder_is_told() {
        let limit = |bytes: u64| ("PODWITNESS_SIZE_LIMIT".to_owned(), bytes.to_string());
        let reserve = || (EVICTION_RESERVE.to_owned(), "15%".to_owned());
        let of = |empty_dir: Value| json!({"filesystem": {"emptyDir": empty_dir}});
        for (spec, expected) in [
            (json!({}), vec![limit(10 << 30), reserve()]),
            (of(json!({})), vec![limit(10 << 30), reserve()]),
            (of(json!({"sizeLimit": "24Mi"})), vec![limit(24 << 20), reserve()]),
            (of(json!({"sizeLimit": 33_554_432})), vec![limit(32 << 20), reserve()]),
            (of(json!({"sizeLimit": "0"})), vec![reserve()]),
            (of(json!({"medium": "Memory"})), vec![]),
            (of(json!({"medium": "Memory", "sizeLimit": "1Gi"})), vec![limit(1 << 30)]),
            (json!({"filesystem": {"volumeClaimTemplate": {"spec": {}}}}), vec![]),
        ] {
            assert_eq!(told(&spec, false), expected, "{spec}");
        }
        assert_eq!(told(&json!({}), true), [limit(10 << 30)], "the Recorder says what its nodes reserve");
    }

    #[test]
    fn the_port_of_a_service_is_the_one_written_or_that_of_its_scheme() {
        for (endpoint, expected) in [
            ("s3.us-east-1.amazonaws.com", 443),
            ("https://s3.us-east-1.amazonaws.com/", 443),
            ("http://minio.storage.svc", 80),
            ("http://minio.storage.svc:9000/x", 9000),
            ("minio:9000", 9000),
            ("[fd00::1]", 443),
            ("http://[fd00::1]:9000", 9000),
        ] {
            assert_eq!(port(endpoint), expected, "{endpoint}");
        }
    }
}
