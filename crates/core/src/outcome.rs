//! How a session ended and what became of its recording: two questions, one vocabulary for both, the same in the
//! access log, in metrics and in recordings.
//!
//! In a recording the end stands in its `x-end` line, and the outcome in its `x-close` line, the last one.

/// How a session ended.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum End {
    /// The API server ended it, with a status of the command.
    Completed,
    /// The API server ended it without one.
    ServerLeft,
    /// The client went away first.
    ClientLeft,
    /// The policy ended it: its recording did not come along.
    Policy,
    /// The policy ended it: its stream could not be followed.
    Unreadable,
    /// The sidecar was told to end.
    Drained,
    /// The sidecar ended without a word. What it had shown last may be missing.
    Interrupted,
    /// It never began.
    Never,
}

/// What became of the recording of a session.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Outcome {
    /// A recorder acknowledged all that was shown while the session went on, or right after its end.
    Recorded,
    /// Nothing is missing, and no recorder had acknowledged all of it soon after the session's end.
    RecordedLate,
    /// Some of what was shown is not in the recording, which says how much.
    Gap,
    /// It could not be recorded, so it was not begun.
    Refused,
    /// The session was ended before its own end. What was shown is recorded, unless its end is
    /// [`End::Interrupted`].
    Cut,
    /// No grant asked for a recording once the grants were known, and none was kept.
    Unwanted,
}

impl End {
    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::ServerLeft => "server-left",
            Self::ClientLeft => "client-left",
            Self::Policy => "policy",
            Self::Unreadable => "unreadable",
            Self::Drained => "drained",
            Self::Interrupted => "interrupted",
            Self::Never => "never",
        }
    }

    /// Whether neither the client nor the server wanted it to end.
    #[must_use]
    pub const fn is_cut(self) -> bool {
        match self {
            Self::Policy | Self::Unreadable | Self::Drained | Self::Interrupted => true,
            Self::Completed | Self::ServerLeft | Self::ClientLeft | Self::Never => false,
        }
    }
}

impl Outcome {
    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Recorded => "recorded",
            Self::RecordedLate => "recorded-late",
            Self::Gap => "gap",
            Self::Refused => "refused",
            Self::Cut => "cut",
            Self::Unwanted => "unwanted",
        }
    }

    /// What can be said as soon as a session has ended, whatever recorders do: `None` where it depends on them.
    #[must_use]
    pub const fn at_end(end: End, lost: u64) -> Option<Self> {
        match (end.is_cut(), lost) {
            (true, _) => Some(Self::Cut),
            (false, 0) => None,
            (false, _) => Some(Self::Gap),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_that_was_cut_is_cut_whatever_else_is_missing() {
        for end in [End::Policy, End::Unreadable, End::Drained, End::Interrupted] {
            assert_eq!([0, 7].map(|lost| Outcome::at_end(end, lost)), [Some(Outcome::Cut); 2], "{end:?}");
        }
        for end in [End::Completed, End::ServerLeft, End::ClientLeft] {
            assert_eq!([0, 7].map(|lost| Outcome::at_end(end, lost)), [None, Some(Outcome::Gap)], "{end:?}");
        }
    }
}
