//! What following a session costs in memory: nothing for each frame, and little before.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::hint::black_box;

use allocation_counter::{AllocationInfo, measure};
use flate2::{Compress, Compression, FlushCompress};
use podwitness_wire::{
    channel::{Event, Protocol},
    session::{Direction, Language, Transport, directions},
    spdy::{self, DICTIONARY, MAX_BLOCK},
    ws::{self, Opcode},
};

/// Memory of an idle session over SPDY, most of it the window of its one zlib context.
const MAX_SPDY: u64 = 52 << 10;
const MAX_WEBSOCKET: u64 = 2 << 10;

/// The SYN_STREAMs of a client that names its streams so.
fn opened(kinds: &[&str]) -> Vec<u8> {
    let mut context = Compress::new(Compression::best(), true);
    context.set_dictionary(DICTIONARY).unwrap();
    let mut stream = vec![];
    for (id, kind) in (1u32..).step_by(2).zip(kinds) {
        let value = u32::try_from(kind.len()).unwrap().to_be_bytes();
        let block = [&[0, 0, 0, 1, 0, 0, 0, 10][..], b"streamtype", &value, kind.as_bytes()].concat();
        let mut payload = Vec::with_capacity(kind.len() + 1024);
        payload.extend([&id.to_be_bytes()[..], &[0; 6]].concat());
        context.compress_vec(&block, &mut payload, FlushCompress::Sync).unwrap();
        let [.., x, y, z] = payload.len().to_be_bytes();
        stream.extend([&[0x80, 3, 0, 1, 0, x, y, z], payload.as_slice()].concat());
    }
    stream
}

const KINDS: [&str; 5] = ["error", "stdin", "stdout", "stderr", "resize"];

/// Follows `bytes` as a relay does.
fn follow(direction: &mut Direction, mut bytes: &[u8]) {
    while let Some(unit) = direction.peek(bytes).unwrap() {
        let (front, rest) = bytes.split_at(unit.len);
        let fed = direction.feed(front, |event| {
            if let Event::Stdout(payload) | Event::Stderr(payload) = event {
                payload.read(|bytes| _ = black_box(bytes));
            }
        });
        fed.unwrap();
        direction.gone_on(unit);
        bytes = rest;
    }
}

/// Allocations of following `client` and `server` many times over, once each was seen.
fn steady(transport: Transport, protocol: Protocol, client: &[u8], server: &[u8]) -> AllocationInfo {
    let (mut to_server, mut to_client) = directions(Language::Command(transport, protocol));
    if transport == Transport::Spdy {
        follow(&mut to_server, &opened(&KINDS));
    }
    let mut both = || {
        follow(&mut to_server, client);
        follow(&mut to_client, server);
    };
    both();
    measure(|| (0..100).for_each(|_| both()))
}

#[test]
fn no_frame_of_spdy_allocates() {
    let ping = [0x80, 3, 0, 6, 0, 0, 0, 4, 0, 0, 0, 1];
    for len in [0, 1, 64, 32 << 10, 100 << 10] {
        let frames = |id| [spdy::data(id, &vec![b'x'; len], false), ping.to_vec()].concat();
        let server = [frames(5), frames(7)].concat();
        let info = steady(Transport::Spdy, Protocol::V4, &frames(3), &server);
        assert_eq!(info.count_total, 0, "{len}");
    }
}

#[test]
fn no_frame_of_a_websocket_allocates() {
    for len in [0, 1, 64, 32 << 10, 100 << 10] {
        let payload = vec![b'x'; len];
        let ping = ws::encode(Opcode::Ping, b"", None);
        let frame = |channel: u8| [&[channel], payload.as_slice()].concat();
        let client = ws::encode(Opcode::Binary, &frame(0), Some([1, 2, 3, 4]));
        let server = [ws::encode(Opcode::Binary, &frame(1), None), ping].concat();
        let info = steady(Transport::WebSocket, Protocol::V5, &client, &server);
        assert_eq!(info.count_total, 0, "{len}");
    }
}

#[test]
fn no_frame_of_base64_allocates() {
    for len in [0, 4, 64, 32 << 10, 100 << 10] {
        let message = [b"1".as_slice(), &vec![b'x'; len]].concat();
        let server = ws::encode(Opcode::Text, &message, None);
        let info = steady(Transport::WebSocket, Protocol::Base64V4, &[], &server);
        assert_eq!(info.count_total, 0, "{len}");
    }
}

#[test]
fn an_idle_session_is_small() {
    let client = opened(&KINDS);
    let mut kept = vec![];
    for (transport, cap) in [(Transport::Spdy, MAX_SPDY), (Transport::WebSocket, MAX_WEBSOCKET)] {
        kept.reserve(2);
        let info = measure(|| {
            let (mut to_server, to_client) = directions(Language::Command(transport, Protocol::V4));
            if transport == Transport::Spdy {
                follow(&mut to_server, &client);
            }
            kept.extend([to_server, to_client]);
        });
        let bytes = u64::try_from(info.bytes_current).unwrap();
        assert!(0 < bytes && bytes <= cap, "{transport:?} {bytes}");
    }
}

#[test]
fn gigabytes_cost_nothing() {
    let piece = vec![0; 64 << 10];
    let (mut to_server, mut to_client) = directions(Language::Command(Transport::Spdy, Protocol::V4));
    follow(&mut to_server, &opened(&KINDS));
    // 129 frames of nearly 16 MiB each.
    let info = measure(|| {
        for _ in 0..129 {
            follow(&mut to_client, &[0, 0, 0, 5, 0, 0xff, 0, 0]);
            for _ in 0..0xff {
                follow(&mut to_client, &piece);
            }
        }
    });
    assert_eq!(info.count_total, 0);
}

#[test]
fn a_block_that_inflates_to_more_than_its_cap_costs_nothing_of_it() {
    let bomb = opened(&[&"x".repeat(12 * MAX_BLOCK)]);
    assert!(bomb.len() < 64 << 10);
    let info = measure(|| {
        let (mut to_server, _) = directions(Language::Command(Transport::Spdy, Protocol::V4));
        assert!(to_server.feed(&bomb, |_| {}).is_err());
    });
    assert!(info.bytes_max <= MAX_SPDY, "{}", info.bytes_max);
}
