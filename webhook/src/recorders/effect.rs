//! What of a Recorder has no effect here, so that its status can say so.

use podwitness_crd::{Recorder, RecorderSpec};

/// Variables that are the control plane's to set; a Recorder does not.
const RESERVED: &[&str] = &[
    "PODWITNESS_ACK",
    "PODWITNESS_ADMIN",
    "PODWITNESS_CONTROL",
    "PODWITNESS_CONTROL_CA",
    "PODWITNESS_CONTROL_CA_FILE",
    "PODWITNESS_HEALTH",
    "PODWITNESS_ISSUERS",
    "PODWITNESS_LISTEN",
    "PODWITNESS_S3_BUCKET",
    "PODWITNESS_S3_CA_FILE",
    "PODWITNESS_S3_CREDENTIALS_DIR",
    "PODWITNESS_S3_ENDPOINT",
    "PODWITNESS_S3_PATH_STYLE",
    "PODWITNESS_S3_PREFIX",
    "PODWITNESS_S3_REGION",
    "PODWITNESS_S3_SSE",
    "PODWITNESS_S3_SSE_KMS_KEY",
    "PODWITNESS_SIZE_LIMIT",
    "PODWITNESS_STATE",
    "PODWITNESS_STORE",
    "PODWITNESS_TOKEN",
    "PODWITNESS_TUNNEL_PORT",
];

/// Whether a variable is the control plane's.
pub(super) fn reserved(name: &str) -> bool {
    RESERVED.contains(&name)
}

/// The image that a Recorder chooses.
pub(super) fn image(spec: &RecorderSpec) -> Option<&str> {
    let container = spec.stateful_set.pod.container.image.as_deref();
    container.filter(|image| !is_tsrecorder(image)).or(spec.image.as_deref())
}

/// Parts without effect, as they stand in the object.
pub(super) fn without_effect(recorder: &Recorder) -> Vec<String> {
    let spec = &recorder.spec;
    let container = &spec.stateful_set.pod.container;
    let mut parts = Vec::new();
    if let Some(tailnet) = &spec.tailnet {
        parts.push(format!("tailnet {tailnet}"));
    }
    if let Some(image) = container.image.as_deref().filter(|image| is_tsrecorder(image)) {
        parts.push(format!("statefulSet.pod.container.image {image}"));
    }
    for variable in &container.env {
        let of_reference = variable.name.starts_with("TSRECORDER_") || variable.name.starts_with("TS_");
        if of_reference || reserved(&variable.name) {
            parts.push(format!("statefulSet.pod.container.env {}", variable.name));
        }
    }
    parts
}

/// The reference's own program, which cannot be started as ours.
fn is_tsrecorder(image: &str) -> bool {
    crate::control::role::repository(image).rsplit('/').next() == Some("tsrecorder")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn recorder(spec: &Value) -> Recorder {
        serde_json::from_value(json!({"apiVersion": "podwitness.dev/v1alpha1", "kind": "Recorder",
            "metadata": {"name": "r"}, "spec": spec}))
        .unwrap()
    }

    #[test]
    fn what_is_of_the_reference_alone_is_named() {
        let container = json!({"image": "ghcr.io/tailscale/tsrecorder:v1.80.0", "env": [
            {"name": "TS_EXTRA", "value": "x"}, {"name": "PODWITNESS_ACK", "value": "object"},
            {"name": "PODWITNESS_LOG", "value": "debug"}]});
        let recorder =
            recorder(&json!({"tailnet": "corp", "statefulSet": {"pod": {"container": container}}}));
        let expected = [
            "tailnet corp",
            "statefulSet.pod.container.image ghcr.io/tailscale/tsrecorder:v1.80.0",
            "statefulSet.pod.container.env TS_EXTRA",
            "statefulSet.pod.container.env PODWITNESS_ACK",
        ];
        assert_eq!(without_effect(&recorder), expected);
        assert_eq!(image(&recorder.spec), None);
    }

    #[test]
    fn an_image_is_chosen_at_the_container_or_for_the_recorder() {
        let spec = |spec: Value| recorder(&spec).spec;
        let both = spec(json!({"image": "a:1", "statefulSet": {"pod": {"container": {"image": "b:1"}}}}));
        assert_eq!(image(&both), Some("b:1"));
        let old =
            spec(json!({"image": "a:1", "statefulSet": {"pod": {"container": {"image": "x/tsrecorder"}}}}));
        assert_eq!(image(&old), Some("a:1"));
        assert_eq!(image(&spec(json!({}))), None);
    }
}
