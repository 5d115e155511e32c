//! Conditions, in the form of `metav1.Condition` (`k8s.io/apimachinery/pkg/apis/meta/v1/types.go`).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One observation about an object.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// Name of the condition, in CamelCase.
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether it holds.
    pub status: ConditionStatus,
    /// Generation of the object that was looked at.
    #[serde(default)]
    pub observed_generation: i64,
    /// RFC 3339 time at which `status` last changed.
    pub last_transition_time: String,
    /// For machines, in CamelCase.
    pub reason: String,
    /// For people.
    pub message: String,
}

/// Whether a condition holds.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It does not hold.
    False,
    /// Nobody can say.
    Unknown,
}

impl Condition {
    /// Puts `new` into `list`; the time of the last transition moves only where the status changes.
    pub fn set(list: &mut Vec<Self>, mut new: Self) {
        match list.iter_mut().find(|old| old.kind == new.kind) {
            Some(old) => {
                if old.status == new.status {
                    new.last_transition_time.clone_from(&old.last_transition_time);
                }
                *old = new;
            }
            None => list.push(new),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn condition(status: ConditionStatus, time: &str) -> Condition {
        Condition {
            kind: "Resolved".into(),
            status,
            observed_generation: 1,
            last_transition_time: time.into(),
            reason: "R".into(),
            message: time.into(),
        }
    }

    #[test]
    fn the_time_of_a_condition_moves_only_with_its_status() {
        let mut list = vec![];
        Condition::set(&mut list, condition(ConditionStatus::True, "t1"));
        Condition::set(&mut list, condition(ConditionStatus::True, "t2"));
        assert_eq!((list[0].last_transition_time.as_str(), list[0].message.as_str()), ("t1", "t2"));
        Condition::set(&mut list, condition(ConditionStatus::False, "t3"));
        assert_eq!((list.len(), list[0].last_transition_time.as_str()), (1, "t3"));
    }
}
