use super::*;

fn meta(labels: &[(&str, &str)], annotations: &[(&str, &str)]) -> ObjectMeta {
    let map = |pairs: &[(&str, &str)]| {
        Some(pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect())
    };
    ObjectMeta { labels: map(labels), annotations: map(annotations), ..ObjectMeta::default() }
}

fn namespace(labels: &[(&str, &str)]) -> Namespace {
    Namespace::read(&meta(labels, &[]))
}

#[test]
fn labels_say_how_pods_are_treated() {
    let read = namespace(&[
        (labels::INJECT, "optional"),
        (labels::PROFILE, "restricted"),
        ("tag.podwitness.dev/payments", ""),
        ("unrelated", "x"),
    ]);
    assert_eq!(read.inject(), Some(Inject::Optional));
    assert_eq!(read.profile(), Ok(Profile::Restricted));
    assert_eq!(read.credentials(), Ok(Credentials::Passthrough));
    assert_eq!(read.tags, ["payments"]);
    assert_eq!(namespace(&[]).inject(), None);
}

#[test]
fn unknown_values_are_never_taken_for_less_than_they_may_mean() {
    assert_eq!(namespace(&[(labels::INJECT, "always")]).inject(), Some(Inject::Required));
    let refusal = namespace(&[(labels::PROFILE, "magic")]).profile().unwrap_err();
    assert!(refusal.message.contains("podwitness.dev/profile=magic"), "{refusal}");
    assert!(namespace(&[(labels::CREDENTIALS, "none")]).credentials().is_err());
}

#[test]
fn only_annotations_of_ours_are_kept() {
    let read = Namespace::read(&meta(&[], &[(labels::LOG_LEVEL, "warn"), ("other.example/x", "y")]));
    assert_eq!(read.annotations.len(), 1);
}

#[test]
fn pods_are_left_out_by_the_annotation_alone() {
    let label = |key: &str| (key == "app").then_some("batch");
    assert!(Namespace::read(&meta(&[], &[(labels::EXEMPT, "app=batch")])).exempts(label));
    assert!(!Namespace::read(&meta(&[], &[(labels::EXEMPT, "app=other")])).exempts(label));
    assert!(!namespace(&[(labels::EXEMPT, "app=batch")]).exempts(label));
}
