//! What the error channel says: how a command ended.

use super::Event;
use crate::ws::Payload;

/// Cap on the bytes of the error channel that are kept.
pub const MAX_STATUS: usize = 64 << 10;

/// What has come on the error channel.
#[derive(Debug, Default)]
pub(crate) struct StatusBytes {
    bytes: Vec<u8>,
    /// Some have come since they were shown last.
    fresh: bool,
    ended: bool,
}

impl StatusBytes {
    /// A status beyond the cap is not kept: what is left of it would not parse.
    pub(crate) fn keep(&mut self, payload: Payload<'_>) {
        self.fresh = true;
        payload.read(|bytes| {
            let room = MAX_STATUS.saturating_sub(self.bytes.len());
            self.bytes.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
        });
    }

    /// Shows all that has come, at the end of a message that was not empty.
    pub(crate) fn show(&mut self, see: impl FnOnce(Event<'_>)) {
        if std::mem::take(&mut self.fresh) {
            see(Event::Status(&self.bytes));
        }
    }

    /// The channel has come to its end: that nothing came on it is said once.
    pub(crate) fn end(&mut self, see: impl FnOnce(Event<'_>)) {
        if self.bytes.is_empty() && !self.ended {
            see(Event::Status(&[]));
        }
        self.ended = true;
    }
}
