//! Values of labels and annotations of ours on a Namespace, at the moment when they are set. What cannot be read at all
//! the policy on namespaces refuses (`manifests/policies/namespaces.yaml`); what depends on the time, and what a value
//! means, is said here.

use podwitness_core::{exempt, labels};
use podwitness_crd::{bypass_until, rfc3339};

use super::{Amounts, namespaces::Namespace, tuning};

/// A bypass that is longer than this is probably a mistake: emergencies are over sooner.
const LONG_BYPASS: i64 = 24 * 3600;
const HOUR: i64 = 3600;

/// What to say of values that are new or changed; `now` in seconds since 1970.
pub(super) fn warnings(
    name: &str,
    new: &Namespace,
    old: Option<&Namespace>,
    amounts: Amounts,
    now: i64,
) -> Vec<String> {
    let value = |namespace: &Namespace, key: &str| namespace.annotations.get(key).cloned();
    let changed =
        |key: &str| value(new, key).filter(|text| old.and_then(|old| value(old, key)).as_ref() != Some(text));
    let mut said: Vec<String> = Vec::new();
    said.extend(changed(labels::BYPASS_UNTIL).map(|text| bypass(name, &text, new.inject().is_some(), now)));
    said.extend(changed(labels::EXEMPT).and_then(|text| exempted(&text)));
    let tuned = [
        labels::LOG_LEVEL,
        labels::CPU_REQUEST,
        labels::CPU_LIMIT,
        labels::MEMORY_REQUEST,
        labels::MEMORY_LIMIT,
    ];
    if tuned.into_iter().any(|key| changed(key).is_some()) {
        said.extend(tuning::namespace_mistakes(&new.annotations, amounts));
    }
    if new.metrics.is_some() && old.is_none_or(|old| old.metrics != new.metrics) {
        said.extend(metrics(new.metrics.as_deref().unwrap_or_default()));
    }
    said.into_iter().map(|text| format!("podwitness: {text}")).collect()
}

fn bypass(name: &str, text: &str, is_injected: bool, now: i64) -> String {
    const KEY: &str = labels::BYPASS_UNTIL;
    let Some(until) = bypass_until(text) else {
        let example = rfc3339(now.saturating_add(HOUR));
        return format!("annotation {KEY} is not a time and has no effect; write it as in {example}");
    };
    let left = until.saturating_sub(now);
    if left <= 0 {
        return format!("annotation {KEY} is in the past and has no effect: recording goes on");
    }
    if !is_injected {
        return format!("annotation {KEY} has no effect: the namespace has no label {}", labels::INJECT);
    }
    let long = if left > LONG_BYPASS {
        format!(", for {} days (is that intended?)", left.saturating_add(LONG_BYPASS / 2) / LONG_BYPASS)
    } else {
        String::new()
    };
    format!(
        "nothing that pods of this namespace do is recorded until {}{long}; end it earlier with kubectl annotate \
         namespace {name} {KEY}-",
        rfc3339(until)
    )
}

fn exempted(text: &str) -> Option<String> {
    const KEY: &str = labels::EXEMPT;
    let mistakes = exempt::mistakes(text);
    if !mistakes.is_empty() {
        let terms: Vec<String> = mistakes.iter().map(|term| format!("{term:?}")).collect();
        return Some(format!(
            "annotation {KEY} leaves no pod out: {} is neither KEY nor KEY=VALUE; separate terms by commas, all of them have to hold",
            terms.join(", ")
        ));
    }
    let text = text.trim();
    (!text.is_empty())
        .then(|| format!("annotation {KEY}: new pods with labels {text} get no sidecar and are not recorded"))
}

fn metrics(value: &str) -> Option<String> {
    (value != METRICS_VALUE)
        .then(|| format!("label {}={value} has no effect; its value is {METRICS_VALUE}", labels::METRICS))
}

/// The one value of [`labels::METRICS`] (`manifests/base/network-policies.yaml`).
const METRICS_VALUE: &str = "read";

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn namespace(inject: bool, annotations: &[(&str, &str)]) -> Namespace {
        let map = |pairs: &[(&str, &str)]| {
            Some(pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect())
        };
        let labels: &[(&str, &str)] = if inject { &[(labels::INJECT, "required")] } else { &[] };
        Namespace::read(&ObjectMeta {
            labels: map(labels),
            annotations: map(annotations),
            ..ObjectMeta::default()
        })
    }

    fn said(inject: bool, key: &str, value: &str) -> Vec<String> {
        let new = namespace(inject, &[(key, value)]);
        warnings("shop", &new, None, Amounts::default(), NOW)
    }

    #[test]
    fn a_bypass_is_told_by_what_it_does() {
        for (inject, value, says) in [
            (true, "tomorrow", "is not a time and has no effect; write it as in 2027-01-15T09:00:00Z"),
            (true, "2027-01-15 08:00", "is not a time"),
            (true, "2026-12-31T00:00:00Z", "is in the past and has no effect"),
            (true, "2027-01-15T08:00:00Z", "is in the past and has no effect"),
            (
                false,
                "2027-01-15T09:00:00Z",
                "has no effect: the namespace has no label podwitness.dev/inject",
            ),
            (
                true,
                "2027-01-15T10:00:00+01:00",
                "is recorded until 2027-01-15T09:00:00Z; end it earlier with",
            ),
            (true, "2027-01-16T08:00:00Z", "is recorded until 2027-01-16T08:00:00Z; end"),
            (
                true,
                "2027-01-25T08:00:00Z",
                "until 2027-01-25T08:00:00Z, for 10 days (is that intended?); end",
            ),
            (true, "2099-01-15T08:00:00Z", "is that intended?"),
        ] {
            let found = said(inject, labels::BYPASS_UNTIL, value);
            assert!(found.len() == 1 && found[0].contains(says), "{value}: {found:?}");
            assert!(found[0].starts_with("podwitness: ") && found[0].len() < 250, "{found:?}");
        }
    }

    #[test]
    fn an_exemption_is_told_by_what_it_leaves_out() {
        for (value, says) in [
            ("app=batch", Some("new pods with labels app=batch get no sidecar")),
            ("app==batch", Some("leaves no pod out: \"app==batch\" is neither")),
            ("app in (a)", Some("leaves no pod out")),
            ("app=batch,", Some("leaves no pod out")),
            ("", None),
        ] {
            let found = said(true, labels::EXEMPT, value);
            assert_eq!(found.len(), usize::from(says.is_some()), "{value}: {found:?}");
            assert!(says.is_none_or(|says| found[0].contains(says)), "{value}: {found:?}");
        }
    }

    #[test]
    fn settings_of_sidecars_are_checked_where_they_are_set() {
        for (key, value, wrong) in [
            (labels::LOG_LEVEL, "loud", true),
            (labels::LOG_LEVEL, "debug", false),
            (labels::CPU_REQUEST, "0", true),
            (labels::CPU_LIMIT, "1m", true),
            (labels::CPU_LIMIT, "none", false),
            (labels::MEMORY_REQUEST, "much", true),
            (labels::MEMORY_LIMIT, "1Mi", true),
            (labels::MEMORY_LIMIT, "256Mi", false),
        ] {
            let found = said(true, key, value);
            assert_eq!(found.len(), usize::from(wrong), "{key}={value}: {found:?}");
            assert!(!wrong || found[0].contains(key), "{found:?}");
        }
    }

    #[test]
    fn a_label_for_metrics_has_one_value() {
        let labelled = |value: &str| {
            let labels = [(labels::METRICS.to_owned(), value.to_owned())].into();
            Namespace::read(&ObjectMeta { labels: Some(labels), ..ObjectMeta::default() })
        };
        let of =
            |old: Option<&Namespace>, new| warnings("shop", &labelled(new), old, Amounts::default(), NOW);
        assert!(of(None, "read").is_empty());
        assert!(of(None, "true")[0].contains("its value is read"));
        assert!(of(Some(&labelled("true")), "true").is_empty());
    }

    #[test]
    fn only_values_that_change_are_told() {
        let past =
            namespace(true, &[(labels::BYPASS_UNTIL, "2026-12-31T00:00:00Z"), (labels::LOG_LEVEL, "loud")]);
        assert_eq!(warnings("shop", &past, None, Amounts::default(), NOW).len(), 2);
        assert!(warnings("shop", &past, Some(&past), Amounts::default(), NOW).is_empty());
    }
}
