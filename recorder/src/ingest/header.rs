//! What the first line of an upload means for the owner that sent it: which part of which session it is, and what
//! is kept beside it.
//!
//! Invariant: the file keeps the header as it came, so a header that names another pod than the assertion did is
//! refused. Nobody finds a pod's name in a recording that this pod did not make.

use podwitness_wire::cast::{Header, HeaderError, Podwitness};
use thiserror::Error;

use crate::store::{
    layout::{MAX_SESSION, PartName},
    meta::{Facts, Meta, Owner, Pod},
    times,
};

/// Why a header is refused.
#[derive(Debug, Error)]
pub(super) enum HeaderRefusal {
    /// It is no header of asciicast v2.
    #[error(transparent)]
    Form(#[from] HeaderError),
    /// The session id cannot be a file name.
    #[error("the session id is not 1 to {MAX_SESSION} letters, digits, - or _")]
    Session,
    /// The header contradicts the assertion.
    #[error("the header's {0} is not the one that the assertion states")]
    Identity(&'static str),
}

/// Reads the header line of an upload by `owner` that began at `received` (Unix milliseconds).
pub(super) fn describe(line: &[u8], owner: &Owner, received: i64) -> Result<(PartName, Meta), HeaderRefusal> {
    let header = Header::parse(line)?;
    let (name, offset) = match &header.podwitness {
        Some(ours) => {
            if let Owner::Pod(pod) = owner {
                agree(ours, pod)?;
            }
            (PartName::new(&ours.session, ours.part).ok_or(HeaderRefusal::Session)?, ours.offset)
        }
        None => (PartName::generate(), 0),
    };
    let header_bytes = line.len() as u64;
    let facts = facts(header, received).capped();
    Ok((name, Meta { owner: owner.clone(), received, offset, header_bytes, facts, end: None }))
}

/// A name that is left out contradicts nothing.
fn agree(ours: &Podwitness, pod: &Pod) -> Result<(), HeaderRefusal> {
    let pairs = [
        ("cluster", &ours.cluster, &pod.cluster),
        ("namespace", &ours.namespace, &pod.namespace),
        ("pod", &ours.pod, &pod.pod),
        ("podUID", &ours.pod_uid, &pod.uid),
        ("node", &ours.node, &pod.node),
    ];
    match pairs.into_iter().find(|(_, said, stated)| !said.is_empty() && said != stated) {
        Some((field, ..)) => Err(HeaderRefusal::Identity(field)),
        None => Ok(()),
    }
}

fn facts(header: Header, received: i64) -> Facts {
    let target = header.kubernetes.unwrap_or_default();
    let ours = header.podwitness.unwrap_or_default();
    let ssh = !header.ssh_user.is_empty();
    let stated = header.timestamp;
    let start = times::start(stated, received);
    Facts {
        start,
        // Zero states nothing.
        start_stated: (start != stated && stated != 0).then_some(stated),
        width: header.width,
        height: header.height,
        command: header.command,
        user: first([ours.user, header.src_node_user, header.src_node]),
        groups: ours.groups,
        authenticated_user: ours.authenticated_user,
        user_verified: ours.verified,
        namespace: target.namespace,
        pod: target.pod_name,
        container: first([target.container, ours.container, String::new()]),
        kind: first([target.session_type, if ssh { "ssh".to_owned() } else { String::new() }, String::new()]),
        via: ours.via,
        tty: ours.tty || header.width > 0,
    }
}

fn first(texts: [String; 3]) -> String {
    texts.into_iter().find(|text| !text.is_empty()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const REFERENCE: &str = r#"{"version":2,"width":0,"height":0,"timestamp":1700000000,"command":"sh -c a \u0026\u0026 b \u003e c","srcNode":"a.ts.net","srcNodeID":"nX","srcNodeUserID":7,"srcNodeUser":"u@e","env":null,"sshUser":"","localUser":"","connectionID":"","kubernetes":{"PodName":"p","Namespace":"n","Container":"c","SessionType":"exec"}}"#;
    const RECEIVED: i64 = 1_700_000_009_000;
    const SSH: &str = r#"{"version":2,"width":80,"height":24,"timestamp":1,"srcNode":"a","srcNodeID":"n","srcNodeTags":null,"env":{"TERM":"xterm"},"sshUser":"root","localUser":"root","connectionID":"ssh-conn-1","later":{"key":[1]}}"#;

    fn owner() -> Owner {
        Owner::Pod(Pod {
            cluster: "c".into(),
            namespace: "shop".into(),
            pod: "till".into(),
            uid: "u".into(),
            node: "n".into(),
            service_account: "default".into(),
            mode: None,
        })
    }

    fn ours(podwitness: &str) -> String {
        format!(r#"{{"version":2,"width":1,"height":1,"timestamp":5,"podwitness":{podwitness}}}"#)
    }

    #[test]
    fn a_reference_header_is_described_under_a_new_session() {
        let (name, meta) = describe(REFERENCE.as_bytes(), &owner(), RECEIVED).unwrap();
        assert_eq!((name.part(), name.session().len()), (0, 26));
        let Facts { start, command, user, namespace, pod, container, kind, tty, user_verified, .. } =
            meta.facts;
        assert_eq!((start, command.as_str(), user.as_str()), (1_700_000_000, "sh -c a && b > c", "u@e"));
        assert_eq!((namespace.as_str(), pod.as_str(), container.as_str()), ("n", "p", "c"));
        assert_eq!((kind.as_str(), tty, user_verified), ("exec", false, false));
        assert_eq!((meta.owner, meta.received), (owner(), RECEIVED));
        assert_eq!(meta.header_bytes, REFERENCE.len() as u64);
    }

    #[test]
    fn a_start_that_cannot_be_is_when_it_was_received_and_what_was_stated_is_kept() {
        for (stated, kept) in
            [(i64::MAX, Some(i64::MAX)), (-5, Some(-5)), (1, Some(1)), (0, None), (1_700_000_001, None)]
        {
            let line = format!(r#"{{"version":2,"width":1,"height":1,"timestamp":{stated}}}"#);
            let facts = describe(line.as_bytes(), &owner(), RECEIVED).unwrap().1.facts;
            let start = if stated == 1_700_000_001 { stated } else { RECEIVED / 1000 };
            assert_eq!((facts.start, facts.start_stated), (start, kept), "{stated}");
        }
    }

    #[test]
    fn ssh_headers_nulls_and_unknown_keys_are_taken() {
        let (_, meta) = describe(SSH.as_bytes(), &owner(), 0).unwrap();
        assert_eq!((meta.facts.kind.as_str(), meta.facts.user.as_str(), meta.facts.tty), ("ssh", "a", true));
    }

    #[test]
    fn our_header_names_its_session_and_part() {
        let line = ours(
            r#"{"session":"01J","part":2,"offset":77,"user":"ana","groups":["g"],"verified":true,"authenticatedUser":"bot","via":"cp"}"#,
        );
        let (name, meta) = describe(line.as_bytes(), &owner(), 0).unwrap();
        assert_eq!((meta.facts.authenticated_user.as_str(), meta.facts.via.as_str()), ("bot", "cp"));
        assert_eq!((name, meta.offset), (PartName::new("01J", 2).unwrap(), 77));
        assert_eq!((meta.facts.user.as_str(), meta.facts.user_verified), ("ana", true));
    }

    #[test]
    fn a_header_cannot_speak_for_another_pod() {
        for (field, value) in
            [("cluster", "d"), ("namespace", "bank"), ("pod", "safe"), ("podUID", "v"), ("node", "m")]
        {
            let line = ours(&format!(r#"{{"session":"s","{field}":"{value}"}}"#));
            let refused = describe(line.as_bytes(), &owner(), 0);
            assert!(matches!(refused, Err(HeaderRefusal::Identity(name)) if name == field), "{field}");
            let unverified = Owner::Unverified { address: "10.0.0.1".parse().unwrap() };
            assert!(describe(line.as_bytes(), &unverified, 0).is_ok(), "{field}");
        }
        let agreeing =
            ours(r#"{"session":"s","cluster":"c","namespace":"shop","pod":"till","podUID":"u","node":"n"}"#);
        assert!(describe(agreeing.as_bytes(), &owner(), 0).is_ok());
    }

    #[test]
    fn what_is_no_header_is_refused() {
        for line in
            ["", "[]", "null", "{\"version\":3}", "{\"version\":2", "\0", "{\"version\":2,\"width\":-1}"]
        {
            assert!(
                matches!(describe(line.as_bytes(), &owner(), 0), Err(HeaderRefusal::Form(_))),
                "{line:?}"
            );
        }
        for session in ["", "../x", "a/b", "a.b"] {
            let line = ours(&format!(r#"{{"session":"{session}"}}"#));
            assert!(
                matches!(describe(line.as_bytes(), &owner(), 0), Err(HeaderRefusal::Session)),
                "{session:?}"
            );
        }
    }
}
