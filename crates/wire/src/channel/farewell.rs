//! How a session ends whose command has not.

use super::{ERROR, Protocol, base64};
use crate::ws::{self, Opcode};

/// The last that a client hears of a session which ends before its command does.
#[derive(Clone, Copy, Debug)]
pub struct Farewell<'a> {
    /// A `metav1.Status` as JSON, for versions that have one.
    pub status: &'a [u8],
    /// The same for a human, for versions with plain text.
    pub message: &'a str,
}

impl<'a> Farewell<'a> {
    /// What goes on the error channel of that version.
    #[must_use]
    pub const fn on(&self, protocol: Protocol) -> &'a [u8] {
        if protocol.has_status() { self.status } else { self.message.as_bytes() }
    }

    /// A message on the error channel, and a close frame with code 1000: with any other kubectl shows that instead
    /// of the message.
    #[must_use]
    pub fn frames(&self, protocol: Protocol) -> Vec<u8> {
        let words = self.on(protocol);
        let mut frames = if protocol.is_base64() {
            ws::encode(Opcode::Text, &base64::message(ERROR, words), None)
        } else {
            ws::encode(Opcode::Binary, &[&[ERROR], words].concat(), None)
        };
        frames.extend(ws::close(1000, ""));
        frames
    }
}
