//! The only settings that a pod's author has: log level and amounts of the sidecar, with floors below which it could
//! not do its work. The pod's annotations come before those of its namespace.

use podwitness_core::{inject::Inject, labels};
use serde_json::Value;

use super::{
    Settings, pod, quantity,
    refusal::{Reason, Refusal},
};

const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];
const MIB: u64 = 1 << 20;

/// One amount: thousandths of a CPU, or bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Amount {
    pub(super) request: u64,
    pub(super) limit: u64,
    /// Whether an annotation gives the limit.
    pub(super) explicit: bool,
}

/// The sidecar's settings for one pod.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Tuning {
    pub(super) log_level: String,
    pub(super) cpu: Amount,
    pub(super) memory: Amount,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            log_level: "info".to_owned(),
            cpu: Amount { request: 20, limit: 1000, explicit: false },
            memory: Amount { request: 32 * MIB, limit: 256 * MIB, explicit: false },
        }
    }
}

/// What the sidecar has at least as its limits: thousandths of a CPU, and bytes.
pub(super) struct Floors {
    pub(super) cpu: u64,
    pub(super) memory: u64,
}

/// Below these it could not do its work.
pub(super) const FLOORS: Floors = Floors { cpu: 100, memory: 64 * MIB };

/// How an amount may be set.
struct Rule {
    request: &'static str,
    limit: &'static str,
    floor: Amount,
    parse: fn(&str) -> Option<u64>,
    show: fn(u64) -> String,
}

const CPU: Rule = Rule {
    request: labels::CPU_REQUEST,
    limit: labels::CPU_LIMIT,
    floor: Amount { request: 1, limit: FLOORS.cpu, explicit: true },
    parse: quantity::cpu,
    show: quantity::cpu_text,
};
const MEMORY: Rule = Rule {
    request: labels::MEMORY_REQUEST,
    limit: labels::MEMORY_LIMIT,
    floor: Amount { request: 16 * MIB, limit: FLOORS.memory, explicit: true },
    parse: quantity::memory,
    show: quantity::memory_text,
};

/// The settings of this pod. Where injection is required a value that is not allowed refuses the pod; elsewhere it is
/// passed over, and [`warnings`] names it.
pub(super) fn of(pod: &Value, settings: &Settings) -> Result<Tuning, Refusal> {
    let (tuning, mistakes) = read(pod, settings);
    if mistakes.is_empty() || settings.inject == Inject::Optional {
        return Ok(tuning);
    }
    Err(Reason::Annotation.because(mistakes.join("; ")))
}

/// Annotations that were passed over, for the user.
#[must_use]
pub fn warnings(pod: &Value, settings: &Settings) -> Vec<String> {
    read(pod, settings).1
}

fn read(pod: &Value, settings: &Settings) -> (Tuning, Vec<String>) {
    let mut mistakes = Vec::new();
    let default = Tuning::default();
    let find = |key: &'static str| {
        pod::annotation(pod, key).or_else(|| settings.namespace_annotations.get(key).map(String::as_str))
    };
    let cpu = amount(&CPU, default.cpu, &find, &mut mistakes);
    let memory = amount(&MEMORY, default.memory, &find, &mut mistakes);
    let log_level = match find(labels::LOG_LEVEL) {
        None => default.log_level,
        Some(level) if LEVELS.contains(&level) => level.to_owned(),
        Some(_) => {
            mistakes.push(format!("annotation {} must be one of {}", labels::LOG_LEVEL, LEVELS.join(", ")));
            default.log_level
        }
    };
    (Tuning { log_level, cpu, memory }, mistakes)
}

/// A request above the default limit raises the limit with it, and a limit below the default request lowers that.
fn amount<'a>(
    rule: &Rule,
    default: Amount,
    find: &impl Fn(&'static str) -> Option<&'a str>,
    mistakes: &mut Vec<String>,
) -> Amount {
    let request = one(rule, rule.request, rule.floor.request, find, mistakes);
    let limit = one(rule, rule.limit, rule.floor.limit, find, mistakes);
    match (request, limit) {
        (Some(request), Some(limit)) if request > limit => {
            mistakes.push(format!("annotation {} must not be above {}", rule.request, rule.limit));
            default
        }
        (request, Some(limit)) => {
            Amount { request: request.unwrap_or(default.request).min(limit), limit, explicit: true }
        }
        (Some(request), None) => Amount { request, limit: default.limit.max(request), explicit: false },
        (None, None) => default,
    }
}

fn one<'a>(
    rule: &Rule,
    key: &'static str,
    floor: u64,
    find: &impl Fn(&'static str) -> Option<&'a str>,
    mistakes: &mut Vec<String>,
) -> Option<u64> {
    let value = (rule.parse)(find(key)?).filter(|value| *value >= floor);
    if value.is_none() {
        mistakes.push(format!("annotation {key} must be a quantity of at least {}", (rule.show)(floor)));
    }
    value
}

#[cfg(test)]
mod tests;
