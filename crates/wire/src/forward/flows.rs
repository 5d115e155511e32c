//! The connections of a session, shared by its two directions.
//!
//! src --open, close--> dst: the decoder of the client's direction opens them, either ends its half of them. Both run
//! in the task of one relay, so that the lock is never waited for. What is over is forgotten; what is open is capped.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{Flow, ForwardError, Moved};
use crate::channel::{Event, Source};

/// Cap on the streams that are open at once, two for each connection.
pub const MAX_FLOWS: usize = 4096;

/// Stands for what cannot be decoded; neither a stream nor a channel has this id.
const UNDECODED: u32 = u32::MAX;

/// The connections of one session. A clone is the same table.
#[derive(Clone, Debug, Default)]
pub struct Flows(Arc<Mutex<Table>>);

#[derive(Debug, Default)]
struct Table {
    streams: BTreeMap<u32, Stream>,
    incomplete: bool,
}

/// A stream that is open.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stream {
    /// Whether it carries a connection; else it tells what became of one.
    pub(super) is_data: bool,
    pub(super) accepted: bool,
    port: Option<u16>,
    moved: Moved,
    client_ended: bool,
    server_ended: bool,
}

impl Stream {
    const fn flow(&self, id: u32, moved: Option<Moved>) -> Flow {
        Flow { id, port: self.port, moved }
    }
}

impl Flows {
    /// No connections.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// One connection, open from the beginning, to nobody knows what.
    #[must_use]
    pub(crate) fn single() -> Self {
        let flows = Self::new();
        flows.table().streams.insert(0, Self::stream(true, None));
        flows
    }

    /// Counts bytes of which it is not known to which connection they belong: they are those of one that has no port.
    pub(crate) fn add_undecoded(&self, from: Source, bytes: u64) {
        self.table().streams.entry(UNDECODED).or_insert_with(|| Self::stream(true, None));
        self.add(UNDECODED, from, bytes);
    }

    pub(super) fn open(
        &self,
        id: u32,
        is_data: bool,
        port: Option<u16>,
        see: &mut impl FnMut(Event<'_>),
    ) -> Result<(), ForwardError> {
        let stream = Self::stream(is_data, port);
        {
            let mut table = self.table();
            if table.streams.len() >= MAX_FLOWS {
                return Err(ForwardError::Many);
            }
            table.streams.insert(id, stream);
        }
        if is_data {
            see(Event::Flow(stream.flow(id, None)));
        }
        Ok(())
    }

    /// A stream that may have been opened before, to a port that is yet to be told.
    pub(super) fn ensure(&self, id: u32) -> Result<(), ForwardError> {
        if self.knows(id) { Ok(()) } else { self.open(id, true, None, &mut |_| {}) }
    }

    /// The port of a stream becomes known.
    pub(super) fn name(&self, id: u32, port: u16, see: &mut impl FnMut(Event<'_>)) {
        let named = self.table().streams.get_mut(&id).map(|stream| {
            stream.port = Some(port);
            stream.flow(id, None)
        });
        if let Some(flow) = named {
            see(Event::Flow(flow));
        }
    }

    pub(super) fn accept(&self, id: u32) {
        if let Some(stream) = self.table().streams.get_mut(&id) {
            stream.accepted = true;
        }
    }

    pub(crate) fn add(&self, id: u32, from: Source, bytes: u64) {
        if let Some(stream) = self.table().streams.get_mut(&id) {
            match from {
                Source::Client => stream.moved.sent += bytes,
                Source::Server => stream.moved.received += bytes,
            }
        }
    }

    /// One end has said its last on a stream.
    pub(super) fn end(&self, id: u32, from: Source, see: &mut impl FnMut(Event<'_>)) {
        let over = self.table().streams.get_mut(&id).is_some_and(|stream| {
            match from {
                Source::Client => stream.client_ended = true,
                Source::Server => stream.server_ended = true,
            }
            stream.client_ended && stream.server_ended
        });
        if over {
            self.reset(id, see);
        }
    }

    /// A stream is over.
    pub(super) fn reset(&self, id: u32, see: &mut impl FnMut(Event<'_>)) {
        let removed = self.table().streams.remove(&id);
        if let Some(stream) = removed.filter(|stream| stream.is_data) {
            see(Event::Flow(stream.flow(id, Some(stream.moved))));
        }
    }

    /// All streams are over.
    pub(crate) fn finish(&self, mut see: impl FnMut(Event<'_>)) {
        let streams = std::mem::take(&mut self.table().streams);
        for (id, stream) in streams.into_iter().filter(|(_, stream)| stream.is_data) {
            see(Event::Flow(stream.flow(id, Some(stream.moved))));
        }
    }

    pub(super) fn knows(&self, id: u32) -> bool {
        self.table().streams.contains_key(&id)
    }

    /// Takes note that the client may open streams which are not here.
    pub(super) fn lose(&self) {
        self.table().incomplete = true;
    }

    /// Whether a stream that is not here may be one of the session's all the same.
    pub(super) fn may_lack_one(&self) -> bool {
        self.table().incomplete
    }

    /// Shows what is open, in the order in which it was opened.
    pub(super) fn each_open(&self, mut see: impl FnMut(u32, Stream)) {
        for (id, stream) in self.table().streams.iter().filter(|(id, _)| **id != UNDECODED) {
            see(*id, *stream);
        }
    }

    const fn stream(is_data: bool, port: Option<u16>) -> Stream {
        let moved = Moved { sent: 0, received: 0 };
        Stream { is_data, accepted: false, port, moved, client_ended: false, server_ended: false }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
