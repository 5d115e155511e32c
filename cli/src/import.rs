//! From a Tailscale policy file to `Grant` objects.
//!
//! Invariant: nobody who is recorded under the policy is silently left out. What means nobody or no pod in a cluster
//! becomes `*`, which records more, and the report says where and how to say better.

mod convert;
mod output;
mod policy;

use std::collections::BTreeMap;

use podwitness_core::grant::Grant;
use thiserror::Error;

use self::policy::Place;

/// Cap on a policy file, in bytes.
pub const MAX_POLICY: u64 = 1 << 20;
/// Cap on the items of `src` of one `Grant` object; what is more goes into a second one.
const MAX_SRC: usize = 256;

/// A file that is no policy file, or one that says what no `Grant` can say.
#[derive(Debug, Error)]
pub enum ImportError {
    /// It is no HuJSON.
    #[error("line {line}, column {column}: {message}")]
    Syntax {
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
        /// What the parser says.
        message: String,
    },
    /// A field holds something else than it should.
    #[error("{at}: {field} has to be {expected}")]
    Type {
        /// Where.
        at: Place,
        /// Name of the field.
        field: String,
        /// What it should be.
        expected: &'static str,
    },
    /// A field stands twice in one object, so that nobody can say which one counts.
    #[error("{at}: {field} stands here a second time; take one away")]
    Twice {
        /// Where.
        at: Place,
        /// Name of the field.
        field: String,
    },
    /// `--map` names what cannot stand there.
    #[error("{at}: --map {from}={to}: {to} means nothing as {field}; {hint}")]
    Map {
        /// Where `from` stands.
        at: Place,
        /// What is mapped.
        from: String,
        /// To what.
        to: String,
        /// `src` or `dst`.
        field: &'static str,
        /// What can stand there.
        hint: &'static str,
    },
    /// More than a `Grant` object can hold.
    #[error("{at}: {what}; a Grant holds {cap} at most, so take the grant apart")]
    TooMany {
        /// Where.
        at: Place,
        /// What there is too much of.
        what: &'static str,
        /// How much there may be.
        cap: usize,
    },
}

/// How to carry over.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Items of `src` and `dst`, and what they become; nothing means that they are left out.
    pub map: BTreeMap<String, String>,
    /// Keep groups instead of their members.
    pub keep_groups: bool,
}

/// What came of a policy file.
#[derive(Clone, Debug, Default)]
pub struct Imported {
    /// Grants, in the order of the file.
    pub grants: Vec<Carried>,
    /// What people should know, in the order of the file.
    pub notes: Vec<Note>,
}

/// A grant and where it comes from.
#[derive(Clone, Debug)]
pub struct Carried {
    /// Place in the file.
    pub at: Place,
    /// The grant.
    pub grant: Grant,
}

/// One entry of the report.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Note {
    /// Place in the file, where it has one.
    pub at: Option<Place>,
    /// What kind of entry it is.
    pub kind: Kind,
    /// What it says.
    pub message: String,
}

/// Kinds of entries of the report.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Kind {
    /// More is recorded than the policy says, because it cannot be said here.
    Wider,
    /// Not carried over; it has nothing to do with who is recorded, or was left out on request.
    LeftOut,
    /// To be looked at.
    Hint,
}

/// Turns a policy file into grants.
///
/// # Errors
/// Where it is no policy file, or cannot be carried over even with less precision.
pub fn import(text: &str, options: &Options) -> Result<Imported, ImportError> {
    let policy = policy::read(text)?;
    convert::convert(&policy, options)
}

#[cfg(test)]
mod tests;
