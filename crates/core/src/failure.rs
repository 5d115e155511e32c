//! The failure policy: five total functions with truth tables, the only place where it is decided.
//!
//! Whoever calls them has to act on the answer; each type is `#[must_use]`.

use std::time::Duration;

use crate::status::Status;

/// Longest pause of a session under fail closed, below client-go's 61 s of patience with unanswered pings.
pub const MAX_PAUSE: Duration = Duration::from_secs(20);
/// Longest age of output that was shown and is not acknowledged, against recorders that announce `Podwitness-Ack`.
pub const MAX_AGE_DURABLE: Duration = Duration::from_secs(2);
/// The same against plain acknowledgements: the reference's window.
pub const MAX_AGE_PLAIN: Duration = Duration::from_secs(30);

/// What the grants ask for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Policy {
    /// A session never waits for its recording.
    Open,
    /// What is not recorded does not happen.
    Closed {
        /// The grants that say so, for messages.
        grants: Vec<String>,
        /// Bytes of cast that may be shown before they are acknowledged.
        lead: u64,
    },
}

/// What is known of the recorders that would satisfy the grants.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Recorders {
    /// One takes the recording.
    Ready,
    /// There are some, none can be reached.
    Unreachable,
    /// Of those that can be reached, none acknowledges anything: they speak version 1 of the protocol.
    Unacknowledging,
    /// The grants name no recorder that exists.
    Unresolvable,
    /// No netmap was ever received.
    Unknown,
}

/// What happens to a request that has to be recorded, before anything goes upstream.
#[derive(Clone, Debug, Eq, PartialEq)]
#[must_use]
pub enum AtStart {
    /// Record to the recorder that is ready.
    Record,
    /// Forward, and record into the spool until a recorder returns.
    RecordLater,
    /// Answer this; nothing goes upstream.
    Refuse(Status),
}

/// What happens to a request of which an event has to be recorded.
#[derive(Clone, Debug, Eq, PartialEq)]
#[must_use]
pub enum AtRequest {
    /// It goes upstream.
    Forward,
    /// Answer this; nothing goes upstream.
    Refuse(Status),
}

/// How far a session's output is ahead of its acknowledgements.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Lead {
    /// Bytes of cast that would have been shown and are not acknowledged.
    pub bytes: u64,
    /// Age of the oldest of them.
    pub age: Duration,
    /// The age at which they are too old, from the kind of acknowledgement.
    pub max_age: Duration,
    /// How long the session has been paused; zero while it runs.
    pub paused: Duration,
}

/// What happens to the next frame of a recorded session.
#[derive(Clone, Debug, Eq, PartialEq)]
#[must_use]
pub enum InSession {
    /// It goes on to the client.
    Relay,
    /// It is held back.
    Wait,
    /// The session ends with this reason.
    End(Status),
}

/// What happens to something that cannot be classified or looked into.
#[derive(Clone, Debug, Eq, PartialEq)]
#[must_use]
pub enum OnUnknown {
    /// It passes, and is counted.
    Forward,
    /// It is refused with this reason.
    Refuse(Status),
}

/// Decides a request that has to be recorded.
pub fn at_start(policy: &Policy, recorders: Recorders) -> AtStart {
    match (policy, recorders) {
        (_, Recorders::Ready) => AtStart::Record,
        (Policy::Open, _) => AtStart::RecordLater,
        (Policy::Closed { .. }, Recorders::Unknown) => AtStart::Refuse(unknown()),
        (Policy::Closed { grants, .. }, Recorders::Unresolvable) => {
            AtStart::Refuse(Status::forbidden(format!(
                "podwitness: {} asks for a recording, and no Recorder that is ready has its tag; nothing was run",
                name(grants)
            )))
        }
        (Policy::Closed { grants, .. }, Recorders::Unreachable) => {
            AtStart::Refuse(Status::forbidden(format!(
                "podwitness: {} asks for a recording, and no recorder can be reached; nothing was run",
                name(grants)
            )))
        }
        (Policy::Closed { grants, .. }, Recorders::Unacknowledging) => {
            AtStart::Refuse(Status::forbidden(format!(
                "podwitness: {} asks for a recording, and the recorder that can be reached acknowledges nothing: it \
                 speaks version 1 of the protocol; nothing was run",
                name(grants)
            )))
        }
    }
}

/// Decides a request of which an event has to be recorded first.
pub fn at_request(policy: &Policy, recorders: Recorders) -> AtRequest {
    let Policy::Closed { grants, .. } = policy else { return AtRequest::Forward };
    let cause = match recorders {
        Recorders::Ready => return AtRequest::Forward,
        Recorders::Unknown => return AtRequest::Refuse(unknown()),
        Recorders::Unreachable => "no recorder can be reached",
        Recorders::Unacknowledging => "the recorder that can be reached acknowledges nothing",
        Recorders::Unresolvable => "no Recorder that is ready has its tag",
    };
    AtRequest::Refuse(Status::unrecordable(format!(
        "podwitness: {} asks for a record of every request, and {cause}; nothing was done",
        name(grants)
    )))
}

/// Decides the next frame of a session under way.
pub fn in_session(policy: &Policy, lead: Lead, recorders: Recorders) -> InSession {
    let Policy::Closed { grants, lead: limit } = policy else { return InSession::Relay };
    if lead.bytes <= *limit && lead.age <= lead.max_age {
        return InSession::Relay;
    }
    if lead.paused <= MAX_PAUSE {
        return InSession::Wait;
    }
    let cause = match recorders {
        Recorders::Ready => "the recorder does not acknowledge",
        Recorders::Unreachable
        | Recorders::Unacknowledging
        | Recorders::Unresolvable
        | Recorders::Unknown => "no recorder can be reached",
    };
    InSession::End(Status::internal(format!(
        "podwitness: session ended, {} asks for a recording and {cause}",
        name(grants)
    )))
}

/// Decides what cannot be classified or looked into; `what` names it, as in `the upgrade to "foo"`.
pub fn on_unknown(policy: &Policy, what: &str) -> OnUnknown {
    match policy {
        Policy::Open => OnUnknown::Forward,
        Policy::Closed { grants, .. } => OnUnknown::Refuse(Status::forbidden(format!(
            "podwitness: {} asks for a recording, and {what} cannot be recorded",
            name(grants)
        ))),
    }
}

/// Ends a session that began while no grant asked for a recording, once these do: what was said in it is not recorded, and
/// what may still be said would not be either.
#[must_use]
pub fn on_late_grant(grants: &[String]) -> Status {
    let name = name(grants);
    Status::internal(format!("podwitness: session ended, {name} asks for a recording by now; begin it again"))
}

/// Who asks again in a while finds out.
fn unknown() -> Status {
    Status::unavailable(
        "podwitness: this pod is recorded, and its sidecar has not learned yet where to; try again",
        2,
    )
}

fn name(grants: &[String]) -> String {
    match grants {
        [] => "the setting of this pod".to_owned(),
        [one] => format!("Grant \"{one}\""),
        many => format!("Grants \"{}\"", many.join("\", \"")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn closed() -> Policy {
        Policy::Closed { grants: vec!["pci".into()], lead: 100 }
    }

    #[test]
    fn at_start_follows_the_table() {
        let others =
            [Recorders::Unreachable, Recorders::Unacknowledging, Recorders::Unresolvable, Recorders::Unknown];
        for recorders in others {
            assert_eq!(at_start(&Policy::Open, recorders), AtStart::RecordLater);
        }
        assert_eq!(at_start(&Policy::Open, Recorders::Ready), AtStart::Record);
        assert_eq!(at_start(&closed(), Recorders::Ready), AtStart::Record);
        for (recorders, code) in others.into_iter().zip([403, 403, 403, 503]) {
            let AtStart::Refuse(status) = at_start(&closed(), recorders) else { panic!("{recorders:?}") };
            assert_eq!(status.code, code);
        }
    }

    #[test]
    fn at_request_follows_the_table() {
        let all = [
            Recorders::Ready,
            Recorders::Unreachable,
            Recorders::Unacknowledging,
            Recorders::Unresolvable,
            Recorders::Unknown,
        ];
        for recorders in all {
            assert_eq!(at_request(&Policy::Open, recorders), AtRequest::Forward);
        }
        assert_eq!(at_request(&closed(), Recorders::Ready), AtRequest::Forward);
        for recorders in all.into_iter().skip(1) {
            let AtRequest::Refuse(status) = at_request(&closed(), recorders) else { panic!("{recorders:?}") };
            let again = status.details.is_some();
            assert_eq!((status.code, again), (503, recorders == Recorders::Unknown), "{recorders:?}");
        }
    }

    #[test]
    fn a_refusal_names_the_grant() {
        let AtStart::Refuse(status) = at_start(&closed(), Recorders::Unreachable) else { panic!() };
        assert!(status.message.contains("Grant \"pci\""), "{}", status.message);
    }

    #[test]
    fn in_session_relays_within_the_lead_then_waits_then_ends() {
        let max_age = MAX_AGE_DURABLE;
        let lead = |bytes, age, paused| Lead {
            bytes,
            age: Duration::from_secs(age),
            max_age,
            paused: Duration::from_secs(paused),
        };
        let of = |lead| in_session(&closed(), lead, Recorders::Unreachable);
        assert_eq!(of(lead(100, 2, 0)), InSession::Relay);
        assert_eq!(of(lead(101, 0, 0)), InSession::Wait);
        assert_eq!(of(lead(1, 3, 20)), InSession::Wait);
        assert!(matches!(of(lead(101, 0, 21)), InSession::End(_)));
        assert_eq!(in_session(&Policy::Open, lead(u64::MAX, 99, 99), Recorders::Unknown), InSession::Relay);
    }

    #[test]
    fn what_began_without_a_grant_ends_with_its_name() {
        let status = on_late_grant(&["pci".into()]);
        assert_eq!(status.code, 500);
        assert!(
            status.message.starts_with("podwitness: session ended, Grant \"pci\" asks"),
            "{}",
            status.message
        );
    }

    #[test]
    fn the_unknown_passes_only_under_fail_open() {
        assert_eq!(on_unknown(&Policy::Open, "x"), OnUnknown::Forward);
        assert!(matches!(on_unknown(&closed(), "x"), OnUnknown::Refuse(s) if s.code == 403));
    }
}
