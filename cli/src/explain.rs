//! Which grants apply to a request, and what follows.
//!
//! Three steps: the question from the command line, the facts from the cluster, and from both the answer, which is pure.

mod answer;
mod facts;
mod pod;
mod question;
mod text;

pub use answer::{Answer, Outcome, answer};
pub use facts::Facts;
pub use pod::{Owner, PodFacts};
pub use question::{Pod, Question, UsageError};

#[cfg(test)]
mod tests;
