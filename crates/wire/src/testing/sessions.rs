//! Whole sessions as others put them on the wire.

use super::hex;
use crate::{channel::Protocol, session::Transport};

/// One session.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) transport: Transport,
    pub(crate) protocol: Protocol,
    pub(crate) tty: bool,
    pub(crate) exit: u8,
    pub(crate) client: Vec<u8>,
    pub(crate) server: Vec<u8>,
}

/// All of them.
pub(crate) fn sessions() -> Vec<Session> {
    let text = include_str!("sessions.txt");
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    lines.chunks_exact(3).map(|lines| session(lines[0], lines[1], lines[2])).collect()
}

/// The one of a command without a terminal that ended with code 7.
pub(crate) fn failed(transport: Transport, protocol: Protocol) -> Session {
    let wanted = |s: &Session| (s.transport, s.protocol, s.tty, s.exit) == (transport, protocol, false, 7);
    sessions().into_iter().find(wanted).unwrap()
}

fn session(what: &str, client: &str, server: &str) -> Session {
    let what: Vec<&str> = what.split(' ').collect();
    Session {
        transport: if what[0] == "spdy" { Transport::Spdy } else { Transport::WebSocket },
        protocol: Protocol::parse(what[1].trim_matches('"')).unwrap(),
        tty: what[2] == "tty",
        exit: what[3].parse().unwrap(),
        client: hex(client),
        server: hex(server),
    }
}
