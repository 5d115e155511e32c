//! Metadata of parts in tests.

use super::{End, Facts, Meta, Outcome, Owner, Pod};

/// A part of the pod `shop/till` that has not ended.
pub(crate) fn meta(received: i64, header_bytes: usize) -> Meta {
    let pod = Pod {
        cluster: "c".into(),
        namespace: "shop".into(),
        pod: "till".into(),
        uid: "u".into(),
        ..Pod::default()
    };
    let header_bytes = header_bytes as u64;
    Meta { owner: Owner::Pod(pod), received, offset: 0, header_bytes, facts: Facts::default(), end: None }
}

/// The end of a part that came whole.
pub(crate) fn end() -> End {
    End {
        outcome: Outcome::Complete,
        message: String::new(),
        at: 0,
        bytes: 0,
        duration: 1.0,
        exit: None,
        session_end: None,
        session_outcome: Some("recorded".to_owned()),
        gap: 0,
        torn: 0,
        damaged: 0,
    }
}
