//! Forwarded connections are the same over SPDY and in a tunnel, however their bytes are cut, and what is moved is
//! what was sent.
#![no_main]

use flate2::{Compress, Compression, FlushCompress};
use libfuzzer_sys::fuzz_target;
use podwitness_wire::{
    channel::Event,
    forward::Flow,
    session::{Carrier, Direction, Language, directions},
    spdy::{DICTIONARY, data, rst_stream},
    ws::{Opcode, encode},
};

/// What one end does: a number to choose by, a connection, bytes.
type Act<'a> = (u8, u8, &'a [u8]);
/// Where to cut, a mask, what the client does, what the server does, and bytes at the end of both.
type Input<'a> = (usize, [u8; 4], Vec<Act<'a>>, Vec<Act<'a>>, &'a [u8]);

fuzz_target!(|input: Input<'_>| {
    let (cut, mask, asked, answered, raw) = input;
    let mut opener = Opener::new();
    let mut client: Vec<u8> = asked.into_iter().flat_map(|act| opener.client(act)).collect();
    let mut server: Vec<u8> = answered.into_iter().flat_map(server).collect();
    let plain = session(Carrier::Spdy, cut, &client, &server);
    assert!(plain.is_some());
    let tunnel = |bytes: &[u8], mask| {
        let (front, back) = bytes.split_at(cut % (bytes.len() + 1));
        [encode(Opcode::Binary, front, mask), encode(Opcode::Binary, back, mask)].concat()
    };
    assert_eq!(session(Carrier::Tunnel, cut / 2, &tunnel(&client, Some(mask)), &tunnel(&server, None)), plain);

    client.extend_from_slice(raw);
    server.extend_from_slice(raw);
    for carrier in [Carrier::Spdy, Carrier::Tunnel, Carrier::Channels] {
        assert_eq!(session(carrier, cut, &client, &server), session(carrier, 0, &client, &server));
    }
});

/// Opens streams.
struct Opener {
    context: Compress,
    next: u32,
}

impl Opener {
    fn new() -> Self {
        let mut context = Compress::new(Compression::best(), true);
        context.set_dictionary(DICTIONARY).expect("the dictionary");
        Self { context, next: 1 }
    }

    fn client(&mut self, (what, stream, bytes): Act<'_>) -> Vec<u8> {
        match what % 4 {
            0 => self.syn_stream(if stream % 2 == 0 { "data" } else { "error" }, stream),
            1 => rst_stream(id(stream), 5),
            choice => data(id(stream), bytes, choice == 2),
        }
    }

    fn syn_stream(&mut self, kind: &str, port: u8) -> Vec<u8> {
        let text = |text: &str| [&(text.len() as u32).to_be_bytes()[..], text.as_bytes()].concat();
        let block =
            [vec![0, 0, 0, 2], text("streamtype"), text(kind), text("port"), text(&port.to_string())].concat();
        let mut payload = Vec::with_capacity(1024);
        payload.extend([&self.next.to_be_bytes()[..], &[0; 6]].concat());
        self.context.compress_vec(&block, &mut payload, FlushCompress::Sync).expect("room for a block");
        self.next += 2;
        let [.., x, y, z] = payload.len().to_be_bytes();
        [&[0x80, 3, 0, 1, 0, x, y, z], payload.as_slice()].concat()
    }
}

fn server((what, stream, bytes): Act<'_>) -> Vec<u8> {
    match what % 4 {
        0 => rst_stream(id(stream), 5),
        1 => [&[0x80, 3, 0, 2, 0, 0, 0, 6][..], &id(stream).to_be_bytes(), b"no"].concat(),
        choice => data(id(stream), bytes, choice == 2),
    }
}

fn id(stream: u8) -> u32 {
    2 * u32::from(stream) + 1
}

/// What a session shows; `None` where it cannot be followed.
fn session(carrier: Carrier, cut: usize, client: &[u8], server: &[u8]) -> Option<Vec<Flow>> {
    let (mut to_server, mut to_client) = directions(Language::Forward(carrier));
    let mut flows = vec![];
    let followed = follow(&mut to_server, cut, client, &mut flows) & follow(&mut to_client, cut, server, &mut flows);
    to_server.finish(|event| see(event, &mut flows));
    to_client.finish(|event| see(event, &mut flows));
    followed.then_some(flows)
}

/// Follows `bytes` unit by unit; the first piece of them ends at `cut`.
fn follow(direction: &mut Direction, cut: usize, bytes: &[u8], flows: &mut Vec<Flow>) -> bool {
    let (cut, mut passed) = (cut % (bytes.len() + 1), 0);
    for end in [cut, bytes.len()] {
        while let Some(unit) = match direction.peek(&bytes[passed..end]) {
            Ok(unit) => unit,
            Err(_) => return false,
        } {
            if direction.feed(&bytes[passed..passed + unit.len], |event| see(event, flows)).is_err() {
                return false;
            }
            direction.gone_on(unit);
            passed += unit.len;
        }
    }
    true
}

fn see(event: Event<'_>, flows: &mut Vec<Flow>) {
    match event {
        Event::Flow(flow) => flows.push(flow),
        other => panic!("{other:?}"),
    }
}
