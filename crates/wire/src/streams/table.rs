//! What the streams of a session are, shared by its two directions.
//!
//! src --kind of stream--> dst: written by the decoder of the client's direction, read by that of the server's, which
//! may live in another task. A relay decodes what it passes on before it does, and no server answers on a stream
//! before it has heard of it, so whatever the server says on a stream, its kind stands here already. Each slot is
//! written once; a full table is an error for the client that fills it. Where the client cannot be followed any
//! further, the table says so: from then on it may have opened streams that are not here.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use super::{Kind, StreamsError};

/// Cap on the streams of a session; a remote command has at most five.
pub const MAX_STREAMS: usize = 64;

/// The streams of one session. A clone is the same table.
#[derive(Clone, Debug)]
pub struct Streams(Arc<Table>);

#[derive(Debug)]
struct Table {
    slots: [AtomicU64; MAX_STREAMS],
    incomplete: AtomicBool,
}

/// A stream that was opened.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Stream {
    pub(super) id: u32,
    pub(super) kind: Kind,
    /// Its bit in a set of the table's streams.
    pub(super) bit: u64,
}

impl Default for Streams {
    fn default() -> Self {
        let slots = [const { AtomicU64::new(0) }; MAX_STREAMS];
        Self(Arc::new(Table { slots, incomplete: AtomicBool::new(false) }))
    }
}

impl Streams {
    /// No streams.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes note of a stream. The decoder of the client's direction alone calls it.
    pub(super) fn open(&self, id: u32, kind: Kind) -> Result<(), StreamsError> {
        let free =
            self.0.slots.iter().find(|slot| slot.load(Ordering::Relaxed) == 0).ok_or(StreamsError::Many)?;
        free.store(pack(id, kind), Ordering::Release);
        Ok(())
    }

    /// Takes note that the client may open streams which are not here.
    pub(super) fn lose(&self) {
        self.0.incomplete.store(true, Ordering::Release);
    }

    /// Whether a stream that is not here may be one of the session's all the same.
    pub(super) fn may_lack_one(&self) -> bool {
        self.0.incomplete.load(Ordering::Acquire)
    }

    /// The stream with that id.
    pub(super) fn find(&self, id: u32) -> Option<Stream> {
        self.iter().find(|stream| stream.id == id)
    }

    /// All streams in the order in which they were opened.
    pub(super) fn iter(&self) -> impl Iterator<Item = Stream> {
        self.0.slots.iter().enumerate().map_while(|(at, slot)| {
            let (id, kind) = unpack(slot.load(Ordering::Acquire))?;
            Some(Stream { id, kind, bit: 1 << at })
        })
    }
}

const KINDS: [Kind; 5] = [Kind::Error, Kind::Stdin, Kind::Stdout, Kind::Stderr, Kind::Resize];

/// Never zero, because no id is.
fn pack(id: u32, kind: Kind) -> u64 {
    u64::from(id) << 8 | kind as u64
}

fn unpack(slot: u64) -> Option<(u32, Kind)> {
    let [.., kind] = slot.to_be_bytes();
    let id = u32::try_from(slot >> 8).ok().filter(|id| *id != 0)?;
    Some((id, *KINDS.get(usize::from(kind))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_opened_is_found_by_every_holder() {
        let client = Streams::new();
        let server = client.clone();
        for (id, kind) in (1..).step_by(2).zip(KINDS) {
            client.open(id, kind).unwrap();
            assert_eq!(server.find(id).map(|stream| stream.kind), Some(kind));
        }
        client.open(0x7fff_ffff, Kind::Stdout).unwrap();
        assert_eq!(
            server.find(0x7fff_ffff).unwrap(),
            Stream { id: 0x7fff_ffff, kind: Kind::Stdout, bit: 32 }
        );
        assert_eq!(server.find(4), None);
    }

    #[test]
    fn a_full_table_takes_no_more() {
        let streams = Streams::new();
        for id in 1..=64 {
            streams.open(id, Kind::Stdin).unwrap();
        }
        assert_eq!(streams.open(65, Kind::Stdout), Err(StreamsError::Many));
        assert_eq!(streams.iter().count(), MAX_STREAMS);
    }
}
