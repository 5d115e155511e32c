use podwitness_core::inject::Inject;
use serde_json::json;

use super::*;
use crate::admit::testing::{pod, settings, with};

fn annotated(pairs: &[(&str, &str)]) -> Value {
    let annotations: serde_json::Map<String, Value> =
        pairs.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
    with(pod(), "/metadata/annotations", Value::from(annotations))
}

#[test]
fn a_pods_annotation_comes_before_its_namespaces() {
    let mut settings = settings(Inject::Required);
    settings.namespace_annotations.insert(labels::LOG_LEVEL.into(), "warn".into());
    settings.namespace_annotations.insert(labels::CPU_LIMIT.into(), "2".into());
    let tuning = of(&annotated(&[(labels::LOG_LEVEL, "debug")]), &settings).unwrap();
    assert_eq!((tuning.log_level.as_str(), tuning.cpu.limit), ("debug", Some(2000)));
    assert_eq!(tuning.memory, Amounts::default().memory);
}

#[test]
fn requests_and_limits_pull_each_other_along() {
    let settings = settings(Inject::Required);
    let tuning =
        of(&annotated(&[(labels::CPU_REQUEST, "3"), (labels::MEMORY_LIMIT, "64Mi")]), &settings).unwrap();
    assert_eq!((tuning.cpu.request, tuning.cpu.limit), (3000, None));
    assert_eq!((tuning.memory.request, tuning.memory.limit), (32 << 20, Some(64 << 20)));
}

#[test]
fn every_value_below_its_floor_is_named_at_once() {
    let wrong = annotated(&[
        (labels::LOG_LEVEL, "off"),
        (labels::CPU_REQUEST, "0"),
        (labels::CPU_LIMIT, "1m"),
        (labels::MEMORY_REQUEST, "much"),
        (labels::MEMORY_LIMIT, "63Mi"),
    ]);
    let message = of(&wrong, &settings(Inject::Required)).unwrap_err().message;
    for key in [
        labels::LOG_LEVEL,
        labels::CPU_REQUEST,
        labels::CPU_LIMIT,
        labels::MEMORY_REQUEST,
        labels::MEMORY_LIMIT,
    ] {
        assert!(message.contains(key), "{message}");
    }
    assert!(message.contains("64Mi"), "{message}");
}

#[test]
fn a_request_above_its_limit_is_refused() {
    let wrong = annotated(&[(labels::CPU_REQUEST, "2"), (labels::CPU_LIMIT, "1")]);
    assert!(of(&wrong, &settings(Inject::Required)).is_err());
}

#[test]
fn where_injection_is_optional_a_wrong_value_is_passed_over_with_a_warning() {
    let wrong = annotated(&[(labels::MEMORY_LIMIT, "1Mi")]);
    let settings = settings(Inject::Optional);
    let Amounts { cpu, memory } = Amounts::default();
    assert_eq!(of(&wrong, &settings), Ok(Tuning { log_level: "info".into(), cpu, memory }));
    assert!(warnings(&wrong, &settings)[0].contains(labels::MEMORY_LIMIT));
}

#[test]
fn an_annotation_comes_before_what_the_installation_says() {
    let mut settings = settings(Inject::Required);
    settings.amounts.cpu = Amount::of_cpu(Some("50m"), Some("500m")).unwrap();
    settings.amounts.memory = Amount::of_memory(None, Some("256Mi")).unwrap();
    let tuning = of(&pod(), &settings).unwrap();
    assert_eq!(tuning.cpu, Amount { request: 50, limit: Some(500), explicit: true });
    let tuning =
        of(&annotated(&[(labels::CPU_LIMIT, "none"), (labels::MEMORY_REQUEST, "300Mi")]), &settings).unwrap();
    assert_eq!(tuning.cpu, Amount { request: 50, limit: None, explicit: false });
    assert_eq!((tuning.memory.request, tuning.memory.limit), (300 << 20, Some(300 << 20)));
}

#[test]
fn memory_is_always_limited() {
    let wrong = annotated(&[(labels::MEMORY_LIMIT, "none")]);
    assert!(of(&wrong, &settings(Inject::Required)).is_err());
    assert_eq!((Amount::of_memory(None, Some("none")), Amount::of_cpu(None, Some("99m"))), (None, None));
}
