//! What came of making a Recorder's objects: written by the controller, read for the status.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use kube::{Resource as _, core::Status};
use podwitness_crd::Recorder;
use thiserror::Error;

use super::{objects::Kind, valid::Invalid};

/// Why the objects of a Recorder are not as they should be.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum Problem {
    /// The Recorder asks for what cannot be.
    #[error("Recorder is invalid: {0}")]
    Invalid(String),
    /// A name is taken by something else.
    #[error(
        "{kind} {name} is there and does not belong to this Recorder; it is left as it is: delete it, or name the {what} otherwise"
    )]
    Conflict {
        /// Kind of the object.
        kind: Kind,
        /// Name of the object.
        name: String,
        /// What has to have another name.
        what: &'static str,
    },
    /// Something was changed that the API server does not let change.
    #[error(
        "the API server does not let this be changed on {kind} {name}; delete it with --cascade=orphan, and it is made anew while its pods and claims stay: {message}"
    )]
    Immutable {
        /// Kind of the object.
        kind: Kind,
        /// Name of the object.
        name: String,
        /// What the API server says.
        message: String,
    },
    /// The Recorder's finalizer could not be changed.
    #[error("cannot change the finalizer of the Recorder: {0}")]
    Finalizer(String),
    /// The API server did not take an object.
    #[error("cannot apply {kind} {name}: {message}")]
    Refused {
        /// Kind of the object.
        kind: Kind,
        /// Name of the object.
        name: String,
        /// What the API server says.
        message: String,
    },
}

impl Problem {
    /// For machines; the reference's reasons, and ours where it has none.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "RecorderInvalid",
            Self::Conflict { .. } => "RecorderConflict",
            Self::Immutable { .. } => "RecorderImmutable",
            Self::Refused { .. } | Self::Finalizer(_) => "RecorderCreationFailed",
        }
    }

    /// What the API server's answer to an object means.
    #[must_use]
    pub fn of_answer(kind: Kind, name: &str, error: &kube::Error) -> Self {
        let name = name.to_owned();
        match error {
            kube::Error::Api(status) if is_immutable(status) => {
                Self::Immutable { kind, name, message: status.message.clone() }
            }
            kube::Error::Api(status) => Self::Refused { kind, name, message: status.message.clone() },
            error => Self::Refused { kind, name, message: error.to_string() },
        }
    }
}

impl From<Invalid> for Problem {
    fn from(invalid: Invalid) -> Self {
        Self::Invalid(invalid.to_string())
    }
}

/// Fields that cannot change are told by the API server in these words only.
fn is_immutable(status: &Status) -> bool {
    status.code == 422
        && ["updates to statefulset spec for fields other than", "field is immutable"]
            .iter()
            .any(|words| status.message.contains(words))
}

/// What came of one Recorder.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Outcome {
    /// Generation of the Recorder that was worked on.
    pub generation: i64,
    /// Why its objects are not as they should be.
    pub problem: Option<Problem>,
}

/// Outcomes by uid of the Recorder. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Outcomes(Arc<Mutex<HashMap<String, Outcome>>>);

impl Outcomes {
    /// The outcome of a Recorder, once there was one.
    #[must_use]
    pub fn of(&self, recorder: &Recorder) -> Option<Outcome> {
        let uid = recorder.meta().uid.as_deref()?;
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(uid).cloned()
    }

    /// Keeps an outcome; says whether it is another than before.
    pub fn put(&self, recorder: &Recorder, problem: Option<Problem>) -> bool {
        let Some(uid) = recorder.meta().uid.clone() else { return false };
        let outcome = Outcome { generation: recorder.meta().generation.unwrap_or_default(), problem };
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(uid, outcome.clone()) != Some(outcome)
    }

    /// Forgets Recorders that are gone.
    pub fn prune(&self, lives: impl Fn(&str) -> bool) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|uid, _| lives(uid));
    }
}
