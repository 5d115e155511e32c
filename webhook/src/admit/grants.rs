//! Grants at the moment when they are written: a warning names the parts that have no effect, with the word that was
//! probably meant. The API server's own rules refuse what can never mean anything (`crates/crd/src/grant.rs`).

use kube::core::admission::{AdmissionRequest, Operation};
use podwitness_core::{
    grant::{GrantSpec, PodTarget, WithoutEffect, dst_item_fits},
    nearest::nearest,
};
use serde::Deserialize as _;
use serde_json::Value;

use super::{decide::Verdict, keys, review::Object, world::World};

/// The verdict on a Grant.
pub(super) fn judge(request: &AdmissionRequest<Object>, world: &World) -> Verdict {
    let is_set = matches!(request.operation, Operation::Create | Operation::Update);
    let spec = request.object.as_ref().filter(|_| is_set).and_then(|object| read(&object.value));
    let Some(spec) = spec else { return Verdict::Skipped("not-a-grant") };
    let old = request.old_object.as_ref().and_then(|old| read(&old.value));
    if old.is_some_and(|old| old == spec) {
        return Verdict::Skipped("unchanged");
    }
    let mut warnings = without_effect(&spec);
    let targets = world.targets();
    warnings.extend(spec.dst.iter().filter_map(|dst| unmatched(dst, targets.as_deref()?)));
    if warnings.is_empty() {
        return Verdict::Skipped("effective");
    }
    let warnings = warnings.into_iter().map(|text| format!("podwitness: {text}")).collect();
    Verdict::Advised { warnings: keys::limit(warnings), reason: "without-effect" }
}

fn read(object: &Value) -> Option<GrantSpec> {
    GrantSpec::deserialize(object.get("spec")?).ok()
}

fn without_effect(spec: &GrantSpec) -> Vec<String> {
    let found = WithoutEffect::of(spec);
    let whole = if found.no_rule {
        Some("the grant has no effect: app has no tailscale.com/cap/kubernetes")
    } else if found.nobody {
        Some("the grant has no effect: src matches no user")
    } else if found.no_pod {
        Some("the grant has no effect: dst matches no pod")
    } else if found.no_request {
        Some("the grant has no effect: no rule matches any request")
    } else {
        None
    };
    let parts = found.parts.iter().map(|part| format!("without effect: {part}"));
    let doubtful = found.doubtful.iter().cloned();
    whole.map(ToOwned::to_owned).into_iter().chain(parts).chain(doubtful).collect()
}

/// A namespace whose pods get sidecars, by name and tags.
pub(super) type Target = (String, Vec<String>);

/// What to say of a `dst` that is written well and matches no namespace whose pods get sidecars.
fn unmatched(dst: &str, targets: &[Target]) -> Option<String> {
    let (kind, rest) = dst.split_once(':')?;
    let wanted = match kind {
        "namespace" | "tag" => rest,
        "pod" => rest.split_once('/').map(|(namespace, _)| namespace)?,
        _ => return None,
    };
    let target = |(namespace, tags): &Target| {
        let name = None;
        dst_item_fits(dst, PodTarget { namespace, name, tags })
    };
    if targets.iter().any(target) {
        return None;
    }
    let names: Vec<&str> = match kind {
        "tag" => targets.iter().flat_map(|(_, tags)| tags).map(String::as_str).collect(),
        _ => targets.iter().map(|(name, _)| name.as_str()).collect(),
    };
    let hint =
        nearest(wanted, names).map(|near| format!("; did you mean {}?", dst.replacen(wanted, near, 1)));
    Some(format!(
        "no namespace with the label podwitness.dev/inject matches dst {dst} now{}",
        hint.unwrap_or_default()
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_dst_that_no_labelled_namespace_matches_is_told_with_the_nearest_one() {
        let targets = [("shop".to_owned(), vec!["pci".to_owned()]), ("office".to_owned(), vec![])];
        for (dst, says) in [
            ("namespace:shop", None),
            ("namespace:sh*", None),
            ("pod:shop/till", None),
            ("pod:*/till", None),
            ("tag:pci", None),
            ("*", None),
            ("autogroup:self", None),
            ("namespace:shpo", Some("matches dst namespace:shpo now; did you mean namespace:shop?")),
            ("pod:ofice/till", Some("did you mean pod:office/till?")),
            ("tag:pcl", Some("did you mean tag:pci?")),
            ("namespace:payment", Some("matches dst namespace:payment now")),
        ] {
            let found = unmatched(dst, &targets);
            assert_eq!(found.is_some(), says.is_some(), "{dst}: {found:?}");
            assert!(says.is_none_or(|says| found.as_ref().unwrap().ends_with(says)), "{dst}: {found:?}");
        }
    }

    #[test]
    fn what_has_no_effect_is_said_of_the_whole_and_of_the_parts() {
        let spec = |value: &Value| GrantSpec::deserialize(value).unwrap();
        let app = |rule: Value| json!({"tailscale.com/cap/kubernetes": [rule]});
        for (value, says) in [
            (json!({"src": ["*"], "dst": ["*"], "app": app(json!({"recorder": ["tag:a"]}))}), vec![]),
            (
                json!({"src": ["*"], "dst": ["*"]}),
                vec!["the grant has no effect: app has no tailscale.com/cap/kubernetes"],
            ),
            (
                json!({"src": ["tag:x"], "dst": ["*"], "app": app(json!({}))}),
                vec!["the grant has no effect: src matches no user", "without effect: src tag:x"],
            ),
            (
                json!({"src": ["sa:shop/till"], "dst": ["shop"], "app": app(json!({}))}),
                vec![
                    "the grant has no effect: dst matches no pod",
                    "without effect: dst shop (did you mean namespace:shop?)",
                    "src sa:shop/till (did you mean serviceaccount:shop/till?)",
                ],
            ),
            (
                json!({"src": ["*"], "dst": ["*"], "app": app(json!({"verbs": ["gett"]}))}),
                vec![
                    "the grant has no effect: no rule matches any request",
                    "without effect: verbs gett (did you mean get?)",
                ],
            ),
        ] {
            assert_eq!(without_effect(&spec(&value)), says);
        }
    }
}
