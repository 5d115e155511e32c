//! The only settings that a pod's author has: log level and amounts of the sidecar, with floors below which it could
//! not do its work. The pod's annotations come before those of its namespace.

use std::collections::BTreeMap;

use podwitness_core::{inject::Inject, labels};
use serde_json::Value;

use super::{
    Settings, pod, quantity,
    refusal::{Reason, Refusal},
};

const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];
const LEVEL: &str = "info";
const MIB: u64 = 1 << 20;

/// One amount: thousandths of a CPU, or bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Amount {
    /// What is set aside.
    pub request: u64,
    /// What it may use at most; none where it is not limited.
    pub limit: Option<u64>,
    /// Whether somebody has said that this is the limit.
    pub explicit: bool,
}

/// What the sidecar has of each resource.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Amounts {
    /// Thousandths of a CPU.
    pub cpu: Amount,
    /// Bytes.
    pub memory: Amount,
}

/// The sidecar's settings for one pod.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Tuning {
    pub(super) log_level: String,
    pub(super) cpu: Amount,
    pub(super) memory: Amount,
}

/// A sidecar that has nothing to do uses 5 MiB, and gives connections and recordings a quarter of its limit each
/// (`docs/operations.md`).
impl Default for Amounts {
    fn default() -> Self {
        Self {
            cpu: Amount { request: 20, limit: None, explicit: false },
            memory: Amount { request: 32 * MIB, limit: Some(128 * MIB), explicit: false },
        }
    }
}

impl Amount {
    /// What an installation says of CPU: a request, and a limit or `none`. `None` where that is not possible.
    #[must_use]
    pub fn of_cpu(request: Option<&str>, limit: Option<&str>) -> Option<Self> {
        CPU.said(Amounts::default().cpu, request, limit).ok()
    }

    /// What an installation says of memory.
    #[must_use]
    pub fn of_memory(request: Option<&str>, limit: Option<&str>) -> Option<Self> {
        MEMORY.said(Amounts::default().memory, request, limit).ok()
    }
}

/// What the sidecar has at least as its limits: thousandths of a CPU, and bytes.
pub(super) struct Floors {
    pub(super) cpu: u64,
    pub(super) memory: u64,
}

/// Below these it could not do its work.
pub(super) const FLOORS: Floors = Floors { cpu: 100, memory: 64 * MIB };

/// The value of a limit that there is none.
const NONE: &str = "none";

/// How an amount may be set.
struct Rule {
    request: &'static str,
    limit: &'static str,
    least_request: u64,
    least_limit: u64,
    may_be_unlimited: bool,
    parse: fn(&str) -> Option<u64>,
    show: fn(u64) -> String,
}

const CPU: Rule = Rule {
    request: labels::CPU_REQUEST,
    limit: labels::CPU_LIMIT,
    least_request: 1,
    least_limit: FLOORS.cpu,
    may_be_unlimited: true,
    parse: quantity::cpu,
    show: quantity::cpu_text,
};
const MEMORY: Rule = Rule {
    request: labels::MEMORY_REQUEST,
    limit: labels::MEMORY_LIMIT,
    least_request: 16 * MIB,
    least_limit: FLOORS.memory,
    may_be_unlimited: false,
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

/// Annotations of a namespace that would be passed over, or refuse its pods.
#[must_use]
pub(super) fn namespace_mistakes(annotations: &BTreeMap<String, String>, amounts: Amounts) -> Vec<String> {
    parse(|key| annotations.get(key).map(String::as_str), amounts).1
}

fn read(pod: &Value, settings: &Settings) -> (Tuning, Vec<String>) {
    let of_namespace = |key| settings.namespace_annotations.get(key).map(String::as_str);
    parse(|key| pod::annotation(pod, key).or_else(|| of_namespace(key)), settings.amounts)
}

/// `find` gives the value of an annotation, and `amounts` holds where there is none.
fn parse<'a>(find: impl Fn(&'static str) -> Option<&'a str>, amounts: Amounts) -> (Tuning, Vec<String>) {
    let mut mistakes = Vec::new();
    let mut amount = |rule: &Rule, default: Amount| {
        let said = rule.said(default, find(rule.request), find(rule.limit));
        said.unwrap_or_else(|(amount, wrong)| {
            mistakes.extend(wrong);
            amount
        })
    };
    let cpu = amount(&CPU, amounts.cpu);
    let memory = amount(&MEMORY, amounts.memory);
    let log_level = match find(labels::LOG_LEVEL) {
        None => LEVEL.to_owned(),
        Some(level) if LEVELS.contains(&level) => level.to_owned(),
        Some(_) => {
            mistakes.push(format!("annotation {} must be one of {}", labels::LOG_LEVEL, LEVELS.join(", ")));
            LEVEL.to_owned()
        }
    };
    (Tuning { log_level, cpu, memory }, mistakes)
}

impl Rule {
    /// What a request and a limit make of a default, or what of it holds in spite of mistakes. A request above the default
    /// limit raises the limit with it, and a limit below the default request lowers that.
    fn said(
        &self,
        default: Amount,
        request: Option<&str>,
        limit: Option<&str>,
    ) -> Result<Amount, (Amount, Vec<String>)> {
        let (mut mistakes, amount) = (Vec::new(), default);
        let mut read = |text: Option<&str>, key: &str, least: u64, or_none: &str| {
            let value = (self.parse)(text?).filter(|value| *value >= least);
            if value.is_none() {
                let least = (self.show)(least);
                mistakes.push(format!("annotation {key} must be a quantity of at least {least}{or_none}"));
            }
            value
        };
        let is_unlimited = self.may_be_unlimited && limit == Some(NONE);
        let or_none = if self.may_be_unlimited { ", or none" } else { "" };
        let request = read(request, self.request, self.least_request, "");
        let limit = read(limit.filter(|_| !is_unlimited), self.limit, self.least_limit, or_none);
        let amount = match (request, limit) {
            (Some(request), Some(limit)) if request > limit => {
                mistakes.push(format!("annotation {} must not be above {}", self.request, self.limit));
                amount
            }
            (request, Some(limit)) => {
                let request = request.unwrap_or(default.request).min(limit);
                Amount { request, limit: Some(limit), explicit: true }
            }
            (request, None) => {
                let request = request.unwrap_or(default.request);
                let limit = default.limit.filter(|_| !is_unlimited).map(|limit| limit.max(request));
                Amount { request, limit, explicit: default.explicit && !is_unlimited }
            }
        };
        if mistakes.is_empty() { Ok(amount) } else { Err((amount, mistakes)) }
    }
}

#[cfg(test)]
mod tests;
