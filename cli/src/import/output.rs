//! Grants as YAML or JSON, and the report.

use std::fmt::Write as _;

use anyhow::Result;
use podwitness_crd::{Grant, GrantObjectSpec};
use serde_json::json;

use super::{Carried, Imported, Kind};
use crate::args::GrantForm;

/// Label of imported grants, by which `kubectl apply --prune` finds those that are gone from the policy.
const LABEL: (&str, &str) = ("podwitness.dev/imported", "policy");

impl Imported {
    /// The grants.
    ///
    /// # Errors
    /// Where one cannot be written.
    pub fn print(&self, form: GrantForm) -> Result<String> {
        let objects = self.grants.iter().map(object);
        match form {
            GrantForm::Json => {
                let list = json!({"apiVersion": "v1", "kind": "List", "items": objects.collect::<Vec<_>>()});
                Ok(serde_json::to_string_pretty(&list)? + "\n")
            }
            GrantForm::Yaml => {
                let mut text = String::new();
                for (carried, object) in self.grants.iter().zip(objects) {
                    write!(text, "---\n# From {}.\n{}", carried.at, serde_yaml_ng::to_string(&object)?)?;
                }
                Ok(text)
            }
        }
    }

    /// What people should know, one line an entry, and how many grants there are.
    #[must_use]
    pub fn report(&self, name: &str) -> String {
        let mut text = String::new();
        for note in &self.notes {
            let place = note.at.map_or_else(String::new, |at| format!("{}:{}:", at.line, at.column));
            // Writing to a string never fails.
            let _ = writeln!(text, "{name}:{place} {}: {}", note.kind.as_str(), note.message);
        }
        let count = |kind| self.notes.iter().filter(|note| note.kind == kind).count();
        let _ = writeln!(
            text,
            "{name}: grants: {}; parts that record more than the policy says: {}; parts not carried over: {}",
            self.grants.len(),
            count(Kind::Wider),
            count(Kind::LeftOut)
        );
        text
    }
}

impl Kind {
    /// Its name in the report.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Wider => "wider",
            Self::LeftOut => "left out",
            Self::Hint => "note",
        }
    }
}

fn object(carried: &Carried) -> Grant {
    let mut object = Grant::new(&carried.grant.name, GrantObjectSpec(carried.grant.spec.clone()));
    object.metadata.labels = Some([(LABEL.0.to_owned(), LABEL.1.to_owned())].into());
    object
}
