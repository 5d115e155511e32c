//! What a LimitRange, QoS classes and validation make of a pod, written after the API server's own code and apart from ours:
//! `plugin/pkg/admission/limitranger/admission.go`, `pkg/apis/core/v1/defaults.go`, `pkg/apis/core/helper/qos/qos.go`, `pkg/apis/core/validation`.

use serde_json::{Map, Value, json};

use crate::admit::quantity;

const RESOURCES: [&str; 2] = ["cpu", "memory"];

fn amount(list: &Value, resource: &str) -> Option<u128> {
    list.get(resource).and_then(Value::as_str).map(|text| quantity::thousandths(text).unwrap())
}

fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    ["containers", "initContainers"]
        .into_iter()
        .flat_map(|list| pod["spec"][list].as_array().into_iter().flatten())
}

/// What the API server makes of a LimitRange when it is stored (`SetDefaults_LimitRangeItem`).
pub(super) fn stored(mut range: Value) -> Value {
    for item in range.as_array_mut().unwrap().iter_mut().filter(|item| item["type"] == "Container") {
        for (from, to) in [("max", "default"), ("default", "defaultRequest"), ("min", "defaultRequest")] {
            let from = item[from].as_object().cloned().unwrap_or_default();
            if item[to].is_null() {
                item[to] = json!({});
            }
            for (resource, value) in from {
                item[to].as_object_mut().unwrap().entry(resource).or_insert(value);
            }
        }
    }
    range
}

/// What is filled in before webhooks run: a request where there is a limit, then the defaults of the LimitRange.
pub(super) fn fill_in(pod: &mut Value, range: &Value) {
    let items: Vec<Value> = range.as_array().unwrap().clone();
    for list in ["containers", "initContainers"] {
        for container in pod["spec"][list].as_array_mut().into_iter().flatten() {
            for resource in RESOURCES {
                if let Some(limit) = container["resources"]["limits"].get(resource).cloned() {
                    container["resources"]["requests"]
                        .as_object_mut()
                        .unwrap()
                        .entry(resource)
                        .or_insert(limit);
                }
            }
            for item in items.iter().filter(|item| item["type"] == "Container") {
                for (side, defaults) in [("limits", "default"), ("requests", "defaultRequest")] {
                    for (resource, value) in
                        item.get(defaults).and_then(Value::as_object).into_iter().flatten()
                    {
                        let said = container["resources"][side].as_object_mut().unwrap();
                        said.entry(resource.clone()).or_insert_with(|| value.clone());
                    }
                }
            }
        }
    }
}

/// What an API server refuses whatever the LimitRange.
pub(super) fn is_valid(pod: &Value) -> bool {
    let within = containers(pod).all(|container| {
        RESOURCES.iter().all(|resource| {
            let request = amount(&container["resources"]["requests"], resource);
            let limit = amount(&container["resources"]["limits"], resource);
            let whole = amount(&pod["spec"]["resources"]["limits"], resource);
            limit.is_none_or(|limit| request.is_none_or(|request| request <= limit))
                && whole.is_none_or(|whole| limit.is_none_or(|limit| limit <= whole))
        })
    });
    within
        && RESOURCES.iter().all(|resource| {
            let whole = amount(&pod["spec"]["resources"]["requests"], resource);
            let all =
                sum(pod, "requests").get(*resource).and_then(|text| quantity::thousandths(text.as_str()?));
            whole.is_none_or(|whole| all.unwrap_or_default() <= whole)
        })
}

/// `podRequests` and `podLimits`, without what the pod has as a whole.
fn sum(pod: &Value, side: &str) -> Map<String, Value> {
    let mut total = Map::new();
    for resource in RESOURCES {
        let of = |container: &Value| amount(&container["resources"][side], resource);
        let (mut is_said, mut all, mut restartable, mut init) = (false, 0, 0, 0);
        for container in pod["spec"]["containers"].as_array().into_iter().flatten() {
            is_said |= of(container).is_some();
            all += of(container).unwrap_or_default();
        }
        for container in pod["spec"]["initContainers"].as_array().into_iter().flatten() {
            is_said |= of(container).is_some();
            let mut now = of(container).unwrap_or_default();
            if container["restartPolicy"] == "Always" {
                all += now;
                restartable += now;
                now = restartable;
            } else {
                now += restartable;
            }
            init = init.max(now);
        }
        if is_said {
            total.insert(resource.to_owned(), json!(format!("{}m", all.max(init))));
        }
    }
    total
}

fn whole(pod: &Value, side: &str) -> Value {
    let mut total = sum(pod, side);
    for (resource, value) in pod["spec"]["resources"][side].as_object().into_iter().flatten() {
        total.insert(resource.clone(), value.clone());
    }
    Value::from(total)
}

/// `PodValidateLimitFunc`.
pub(super) fn refusals(pod: &Value, range: &Value) -> Vec<String> {
    let mut errors = Vec::new();
    for item in range.as_array().unwrap() {
        match item["type"].as_str().unwrap() {
            "Container" => {
                for container in containers(pod) {
                    errors.extend(of_container(container, item));
                }
            }
            _ => judge("Pod", item, &whole(pod, "requests"), &whole(pod, "limits"), &mut errors),
        }
    }
    errors
}

/// The same of one container.
pub(super) fn of_container(container: &Value, item: &Value) -> Vec<String> {
    let mut errors = Vec::new();
    if item["type"] == "Container" {
        let resources = &container["resources"];
        judge(
            container["name"].as_str().unwrap_or("?"),
            item,
            &resources["requests"],
            &resources["limits"],
            &mut errors,
        );
    }
    errors
}

#[expect(clippy::cast_precision_loss, reason = "as the API server does")]
fn judge(who: &str, item: &Value, requests: &Value, limits: &Value, errors: &mut Vec<String>) {
    for resource in RESOURCES {
        let (request, limit) = (amount(requests, resource), amount(limits, resource));
        let bound = |name: &str| item.get(name).and_then(|list| amount(list, resource));
        let mut refuse = |what: &str| errors.push(format!("{who}: {resource}: {what}"));
        if let Some(min) = bound("min")
            && (request.is_none_or(|request| request < min) || limit.is_some_and(|limit| limit < min))
        {
            refuse("min");
        }
        if let Some(max) = bound("max")
            && (limit.is_none_or(|limit| limit > max) || request.is_some_and(|request| request > max))
        {
            refuse("max");
        }
        if let Some(ratio) = bound("maxLimitRequestRatio") {
            let (request, limit) = (request.unwrap_or_default(), limit.unwrap_or_default());
            if request == 0 || limit == 0 || limit as f64 / request as f64 * 1000.0 > ratio as f64 {
                refuse("ratio");
            }
        }
    }
}

/// `ComputePodQOS`: whether the pod is Guaranteed.
pub(super) fn is_guaranteed(pod: &Value) -> bool {
    let lists: Vec<&Value> = match pod["spec"].get("resources") {
        Some(whole) => vec![whole],
        None => containers(pod).map(|container| &container["resources"]).collect(),
    };
    let total = |side: &str, resource: &str| -> u128 {
        lists.iter().filter_map(|list| amount(&list[side], resource)).sum()
    };
    let is_limited = lists.iter().all(|list| {
        RESOURCES.iter().all(|resource| amount(&list["limits"], resource).is_some_and(|limit| limit > 0))
    });
    is_limited && RESOURCES.iter().all(|resource| total("requests", resource) == total("limits", resource))
}
