//! A session over SPDY says what its streams say, in both directions and however its bytes are cut.
#![no_main]

use flate2::{Compress, Compression, FlushCompress};
use libfuzzer_sys::fuzz_target;
use podwitness_wire::{
    channel::{Event, Farewell, MAX_STATUS, Protocol},
    session::{Direction, Language, Transport, directions},
    spdy::{DICTIONARY, data, go_away, rst_stream},
};

/// What one end does: a number to choose by, a stream, bytes.
type Act<'a> = (u8, u8, &'a [u8]);
/// Where to cut, the version, what the client does, what the server does, and bytes at the end of both.
type Input<'a> = (usize, bool, Vec<Act<'a>>, Vec<Act<'a>>, &'a [u8]);

const KINDS: [&str; 6] = ["error", "stdin", "stdout", "stderr", "resize", "data"];

fuzz_target!(|input: Input<'_>| {
    let (cut, text, asked, answered, raw) = input;
    let protocol = if text { Protocol::V3 } else { Protocol::V4 };
    let mut wire = Wire::new();
    let mut client: Vec<u8> = asked.into_iter().flat_map(|act| wire.client(act)).collect();
    let mut expected = Said::default();
    let mut server: Vec<u8> = answered.into_iter().flat_map(|act| wire.server(act, &mut expected)).collect();

    let said = session(protocol, cut, &client, &server);
    assert!(!said.failed);
    assert_eq!((&said.stdout, &said.stderr), (&expected.stdout, &expected.stderr));

    // Whatever a client says besides, what the server says on its streams is shown.
    client.extend_from_slice(raw);
    let said = session(protocol, cut, &client, &server);
    assert_eq!((&said.stdout, &said.stderr), (&expected.stdout, &expected.stderr));

    server.extend_from_slice(raw);
    let said = session(protocol, cut, &client, &server);
    assert_eq!(said, session(protocol, 0, &client, &server));
    if said.failed {
        assert_eq!(undecoded(protocol, &server), server, "a byte is not shown");
    }
});

/// What is shown of `bytes` where they are not decoded.
fn undecoded(protocol: Protocol, bytes: &[u8]) -> Vec<u8> {
    let (_, mut to_client) = directions(Language::Command(Transport::Spdy, protocol));
    to_client.stop_decoding();
    let (mut shown, mut rest) = (vec![], bytes);
    while let Ok(Some(unit)) = to_client.peek(rest) {
        let (piece, behind) = rest.split_at(unit.len);
        let fed = to_client.feed(piece, |event| match event {
            Event::Undecoded(bytes) => shown.extend_from_slice(bytes),
            other => panic!("{other:?}"),
        });
        fed.expect("undecoded bytes are no error");
        to_client.gone_on(unit);
        rest = behind;
    }
    shown
}

/// Writes frames.
struct Wire {
    context: Compress,
    opened: Vec<&'static str>,
}

impl Wire {
    fn new() -> Self {
        let mut context = Compress::new(Compression::best(), true);
        context.set_dictionary(DICTIONARY).expect("the dictionary");
        Self { context, opened: vec![] }
    }

    fn client(&mut self, (what, stream, bytes): Act<'_>) -> Vec<u8> {
        let id = 2 * u32::from(stream) + 1;
        match what % 4 {
            0 if self.opened.len() < 64 => {
                self.opened.push(KINDS[usize::from(stream) % KINDS.len()]);
                let id = 2 * self.opened.len() as u32 - 1;
                self.block(1, &[&id.to_be_bytes()[..], &[0; 6]].concat(), self.opened.len() - 1)
            }
            1 if !self.opened.is_empty() => self.block(8, &id.to_be_bytes(), 0),
            2 => data(id, br#"{"Width":1,"Height":2}"#, false),
            _ => data(id, bytes, false),
        }
    }

    fn server(&mut self, (what, stream, bytes): Act<'_>, expected: &mut Said) -> Vec<u8> {
        let id = 2 * u32::from(stream) + 1;
        match what % 8 {
            0 => rst_stream(id, 5),
            1 => go_away(id, 0),
            2 => [&[0x80, 3, 0, 2, 0, 0, 0, 6][..], &id.to_be_bytes(), b"no"].concat(),
            3 => [&[0x80, 3, 0, 6, 0, 0, 0, 4][..], &id.to_be_bytes()].concat(),
            choice => {
                match self.opened.get(usize::from(stream)) {
                    Some(&"stdout") => expected.stdout.extend_from_slice(bytes),
                    Some(&"stderr") => expected.stderr.extend_from_slice(bytes),
                    _ => {}
                }
                data(id, bytes, choice == 4)
            }
        }
    }

    /// A frame with the block that names the kind of a stream.
    fn block(&mut self, kind: u8, fixed: &[u8], stream: usize) -> Vec<u8> {
        let text = |text: &str| [&(text.len() as u32).to_be_bytes()[..], text.as_bytes()].concat();
        let block = [vec![0, 0, 0, 1], text("streamtype"), text(self.opened[stream])].concat();
        let mut payload = Vec::with_capacity(1024);
        payload.extend_from_slice(fixed);
        self.context.compress_vec(&block, &mut payload, FlushCompress::Sync).expect("room for a block");
        let [.., x, y, z] = payload.len().to_be_bytes();
        [&[0x80, 3, 0, kind, 0, x, y, z], payload.as_slice()].concat()
    }
}

#[derive(Debug, Default, PartialEq)]
struct Said {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    statuses: Vec<Vec<u8>>,
    resizes: Vec<(u16, u16)>,
    last_words: Option<Vec<u8>>,
    failed: bool,
}

fn session(protocol: Protocol, cut: usize, client: &[u8], server: &[u8]) -> Said {
    let (mut to_server, mut to_client) = directions(Language::Command(Transport::Spdy, protocol));
    let mut said = Said::default();
    say(&mut to_server, cut, client, &mut said);
    assert!(said.stdout.is_empty() && said.stderr.is_empty() && said.statuses.is_empty());
    let resizes = said.resizes.len();
    say(&mut to_client, cut, server, &mut said);
    assert_eq!(resizes, said.resizes.len());
    said.last_words = to_client.last_words(&Farewell { status: b"{}", message: "over" });
    said
}

/// Follows `bytes` unit by unit; the first piece of them ends at `cut`.
fn say(direction: &mut Direction, cut: usize, bytes: &[u8], said: &mut Said) {
    let cut = cut % (bytes.len() + 1);
    let mut passed = 0;
    for end in [cut, bytes.len()] {
        loop {
            let unit = match direction.peek(&bytes[passed..end]) {
                Ok(Some(unit)) => unit,
                Ok(None) => break,
                Err(_) => {
                    said.failed = true;
                    return;
                }
            };
            if direction.feed(&bytes[passed..passed + unit.len], |event| said.see(event)).is_err() {
                said.failed = true;
                return;
            }
            direction.gone_on(unit);
            passed += unit.len;
        }
    }
}

impl Said {
    fn see(&mut self, event: Event<'_>) {
        match event {
            Event::Stdout(payload) => payload.read(|bytes| self.stdout.extend_from_slice(bytes)),
            Event::Stderr(payload) => payload.read(|bytes| self.stderr.extend_from_slice(bytes)),
            Event::Status(bytes) => {
                assert!(bytes.len() <= MAX_STATUS);
                self.statuses.push(bytes.to_vec());
            }
            Event::Resize(size) => self.resizes.push((size.cols, size.rows)),
            Event::Flow(_) | Event::Undecoded(_) => panic!("{event:?}"),
        }
    }
}
