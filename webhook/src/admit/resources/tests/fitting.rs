//! The fitted sidecar against a model of the API server's own LimitRanger.

use podwitness_core::inject::Inject;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::{super::of, limit_ranger, tuning};
use crate::admit::{
    Settings, quantity,
    ranges::{self, Ranges},
    testing::settings,
};

/// Amounts of a container, a pod or a LimitRange: CPU, memory.
fn amounts() -> impl Strategy<Value = Value> {
    let cpu = prop::option::weighted(0.7, prop::sample::select(vec!["10m", "100m", "250m", "1", "2"]));
    let memory =
        prop::option::weighted(0.7, prop::sample::select(vec!["16Mi", "64Mi", "100M", "256Mi", "1Gi"]));
    (cpu, memory).prop_map(|(cpu, memory)| {
        let all = [("cpu", cpu), ("memory", memory)];
        all.into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), json!(value?))))
            .collect::<Map<_, _>>()
            .into()
    })
}

fn container() -> impl Strategy<Value = Value> {
    let resources = prop_oneof![
        (amounts(), amounts()).prop_map(|(requests, limits)| json!({"requests": requests, "limits": limits})),
        amounts().prop_map(|both| json!({"requests": both, "limits": both})),
    ];
    (resources, prop::bool::ANY).prop_map(|(resources, goes_on)| {
        json!({"name": "c", "image": "i", "restartPolicy": if goes_on { "Always" } else { "" }, "resources": resources})
    })
}

fn any_pod() -> impl Strategy<Value = Value> {
    let whole = prop::option::weighted(0.2, (amounts(), amounts()));
    (prop::collection::vec(container(), 1..3), prop::collection::vec(container(), 0..3), whole).prop_map(
        |(containers, init, whole)| {
            let mut pod = json!({"metadata": {"name": "p"}, "spec": {"containers": containers, "initContainers": init}});
            if let Some((requests, limits)) = whole {
                pod["spec"]["resources"] = json!({"requests": requests, "limits": limits});
            }
            pod
        },
    )
}

fn any_range() -> impl Strategy<Value = Value> {
    let some = || prop::option::weighted(0.3, amounts());
    let ratio = prop::option::weighted(0.3, prop::sample::select(vec!["1", "1.5", "2", "3.3", "10", "1.1"]));
    let item = (prop::bool::ANY, [some(), some(), some(), some()], [ratio.clone(), ratio]).prop_map(
        |(of_pod, [min, max, default, request], [cpu, memory])| {
            let ratios: Map<String, Value> = [("cpu", cpu), ("memory", memory)]
                .into_iter()
                .filter_map(|(name, value)| Some((name.to_owned(), json!(value?))))
                .collect();
            let mut item =
                json!({"type": if of_pod { "Pod" } else { "Container" }, "maxLimitRequestRatio": ratios});
            let mut set = |name: &str, value: Option<Value>| {
                if let Some(value) = value {
                    item[name] = value;
                }
            };
            set("min", min);
            set("max", max);
            if !of_pod {
                set("default", default);
                set("defaultRequest", request);
            }
            item
        },
    );
    prop::collection::vec(item, 0..3).prop_map(|items| limit_ranger::stored(items.into()))
}

fn with_sidecar(pod: &Value, resources: &Value) -> Value {
    let mut pod = pod.clone();
    let init = pod["spec"]["initContainers"].as_array_mut().unwrap();
    init.insert(0, json!({"name": "podwitness", "restartPolicy": "Always", "resources": resources}));
    pod
}

/// Whether some other request and limit of one resource, the limit at least `floor` steps, would pass.
fn has_alternative(pod: &Value, range: &Value, resource: &str, step: &str, floor: u64, equal: bool) -> bool {
    let steps = [0_u64, 1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64];
    let all = steps.into_iter().flat_map(move |request| steps.map(|limit| (request, limit)));
    let mut possible = all.filter(|(request, limit)| {
        *limit >= floor && if equal { request == limit } else { request <= limit }
    });
    possible.any(|(request, limit)| {
        let of = |steps: u64| json!({resource: quantity::thousandths(step).map(|step| format!("{}m", step * u128::from(steps)))});
        let after = with_sidecar(pod, &json!({"requests": of(request), "limits": of(limit)}));
        let about = format!(": {resource}: ");
        limit_ranger::is_valid(&after)
            && !limit_ranger::refusals(&after, range).iter().any(|error| error.contains(&about))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn a_fitted_sidecar_passes_or_the_value_is_impossible(mut pod in any_pod(), range in any_range()) {
        limit_ranger::fill_in(&mut pod, &range);
        let settings = Settings { ranges: Ranges::read(&ranges::tests::range(&range)), ..settings(Inject::Required) };
        let passes = limit_ranger::is_valid(&pod) && limit_ranger::refusals(&pod, &range).is_empty();
        let equal = limit_ranger::is_guaranteed(&pod);
        match of(&pod, &tuning(), &settings) {
            Ok(resources) => {
                let after = with_sidecar(&pod, &resources);
                let mut filled = after.clone();
                limit_ranger::fill_in(&mut filled, &range);
                prop_assert_eq!(&filled, &after, "something is left to be filled in");
                if passes {
                    prop_assert!(limit_ranger::is_valid(&after), "{}", after);
                    prop_assert_eq!(limit_ranger::refusals(&after, &range), Vec::<String>::new(), "{}", resources);
                    prop_assert_eq!(limit_ranger::is_guaranteed(&after), equal, "{}", resources);
                }
            }
            Err(refusal) if passes => {
                let cpu = has_alternative(&pod, &range, "cpu", "25m", 4, equal);
                let memory = has_alternative(&pod, &range, "memory", "16Mi", 4, equal);
                prop_assert!(!cpu || !memory, "{}", refusal.message);
            }
            Err(_) => {}
        }
    }
}
