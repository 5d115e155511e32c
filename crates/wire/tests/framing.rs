//! The codecs beside the libraries that API server, kubelet and container runtimes read a client with: whatever those
//! hand on, ours has understood in the same way. Where a library stops to read, ours may go on.
//!
//! Needs Go and its module proxy; hack/test runs it in its ring `full`.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

use std::{
    cell::RefCell,
    env,
    fmt::Write as _,
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use flate2::{Compress, Compression, FlushCompress};
use podwitness_wire::{
    channel::{Event, Protocol, Source},
    session::{Direction, Language, Transport, directions},
    spdy::{self, Control, DICTIONARY, Kind, data},
    ws::{self, Opcode},
};
use proptest::{prelude::*, test_runner::TestRunner};
use serde::Deserialize;

const CASES: u32 = 4000;

/// `hack/interop/frames`, running.
struct Libraries {
    child: Child,
    to: Option<ChildStdin>,
    from: BufReader<ChildStdout>,
}

impl Libraries {
    fn start() -> Self {
        let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("frames");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../hack/interop/frames");
        let built =
            Command::new("go").args(["build", "-o"]).arg(&program).arg(".").current_dir(source).status();
        assert!(built.unwrap().success(), "hack/interop/frames does not build");
        let mut child = Command::new(program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (to, from) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()));
        Self { child, to, from }
    }

    /// What a library understands of a client's bytes.
    fn ask<T: for<'a> Deserialize<'a>>(&mut self, library: &str, said: &[u8]) -> T {
        writeln!(self.to.as_mut().unwrap(), "{library} {}", hex(said)).unwrap();
        let mut answer = String::new();
        self.from.read_line(&mut answer).unwrap();
        serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{error}: {answer:?} to {}", hex(said)))
    }
}

impl Drop for Libraries {
    fn drop(&mut self) {
        self.to = None;
        // It ends with its input.
        let _ = self.child.wait();
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// Runs `test` on many inputs beside one process.
fn beside<S: Strategy>(inputs: S, test: impl Fn(&mut Libraries, S::Value) -> Result<(), TestCaseError>) {
    let libraries = RefCell::new(Libraries::start());
    let mut runner =
        TestRunner::new(ProptestConfig { cases: CASES, failure_persistence: None, ..Default::default() });
    runner
        .run(&inputs, |input| test(&mut libraries.borrow_mut(), input))
        .unwrap_or_else(|error| panic!("{error}"));
}

/// A change of a stream: where, a byte, and whether it replaces one, is put before one, or takes one away.
type Change = (usize, u8, u8);

fn changes() -> impl Strategy<Value = Vec<Change>> {
    prop_oneof![2 => Just(vec![]), 3 => prop::collection::vec((any::<usize>(), any::<u8>(), 0u8..3), 1..4)]
}

fn changed(mut bytes: Vec<u8>, changes: Vec<Change>) -> Vec<u8> {
    for (at, byte, how) in changes.into_iter().filter(|_| !bytes.is_empty()).collect::<Vec<_>>() {
        if bytes.is_empty() {
            break;
        }
        let at = at % bytes.len();
        match how {
            0 => bytes[at] = byte,
            1 => bytes.insert(at, byte),
            _ => drop(bytes.remove(at)),
        }
    }
    bytes
}

// === SPDY

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spdy {
    frames: Vec<Frame>,
    streams: Vec<Stream>,
    end: String,
}

#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "camelCase")]
struct Frame {
    kind: String,
    id: u32,
    fin: bool,
    stream_type: String,
    port: String,
    payload: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Stream {
    id: u32,
    stream_type: String,
}

/// The frames that our parser reads.
fn frames(said: &[u8]) -> Vec<Frame> {
    let (mut parser, mut input, mut frames) = (spdy::Parser::new(Source::Client), said, vec![]);
    let mut open = Frame::default();
    while let Ok(Some(event)) = parser.next(&mut input) {
        match event {
            spdy::Event::Start(head) => {
                let id = if let Kind::Data(id) = head.kind { id } else { 0 };
                open = Frame { kind: "data".into(), id, fin: head.fin(), ..Frame::default() };
            }
            spdy::Event::Data(payload) => payload.read(|bytes| open.payload += &hex(bytes)),
            spdy::Event::End => frames.push(std::mem::take(&mut open)),
            spdy::Event::Control(control) => frames.push(frame(control, parser.headers())),
        }
    }
    frames
}

fn frame(control: Control, headers: &spdy::Headers) -> Frame {
    let with_headers = |kind: &str, id, fin| Frame {
        kind: kind.into(),
        id,
        fin,
        stream_type: hex(headers.stream_type().unwrap_or_default()),
        port: hex(headers.port().unwrap_or_default().0),
        payload: String::new(),
    };
    let plain = |kind: &str, id| Frame { kind: kind.into(), id, ..Frame::default() };
    match control {
        Control::SynStream { stream, fin } => with_headers("syn", stream, fin),
        Control::SynReply { stream, fin } => with_headers("reply", stream, fin),
        Control::Headers { stream, fin } => with_headers("headers", stream, fin),
        Control::RstStream { stream } => plain("reset", stream),
        Control::Ping { id } => plain("ping", id),
        Control::GoAway => plain("away", 0),
        Control::Other => plain("other", 0),
    }
}

/// Something that a client may say: a number to choose by, an id, a length that is stated, bytes.
type Act = (u8, u32, u32, Vec<u8>);

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let id = prop_oneof![6 => 0u32..12, 1 => Just(0x7fff_ffff), 1 => Just(0x8000_0003), 1 => any::<u32>()];
    let len = prop_oneof![6 => 0u32..40, 1 => 0u32..0x100_0000];
    prop::collection::vec((any::<u8>(), id, len, prop::collection::vec(any::<u8>(), 0..40)), 0..12)
}

const KINDS: [&str; 7] = ["error", "stdin", "stdout", "stderr", "resize", "data", "stdout\0stdin"];

/// The frames of those acts. Header blocks may have more or less than their frame, and go on in the next.
fn client(acts: Vec<Act>) -> Vec<u8> {
    let mut context = Compress::new(Compression::best(), true);
    context.set_dictionary(DICTIONARY).unwrap();
    let (mut stream, mut next, mut behind) = (vec![], 1, vec![]);
    for (what, id, len, bytes) in acts {
        let id = if what < 128 { next } else { id };
        match what % 16 {
            0..=4 => {
                let kind = KINDS[bytes.len() % KINDS.len()];
                behind.extend(block(&mut context, &[("streamtype", kind), ("port", "80")]));
                // Mostly a whole block a frame.
                let cut =
                    if len % 4 == 0 { behind.len().saturating_sub(len as usize / 4) } else { behind.len() };
                let payload: Vec<u8> = behind.drain(..cut).collect();
                stream.extend(control(
                    1,
                    (what >> 4) & 3,
                    None,
                    &[&id.to_be_bytes()[..], &[0; 6], &payload].concat(),
                ));
                next = id.saturating_add(2);
            }
            5 => stream.extend(control(
                8,
                0,
                None,
                &[&id.to_be_bytes()[..], &block(&mut context, &[("a", "b")])].concat(),
            )),
            6 => stream.extend(control(
                2,
                0,
                None,
                &[&id.to_be_bytes()[..], &block(&mut context, &[])].concat(),
            )),
            7 | 8 => stream.extend(control(6, 0, Some(len), &id.max(1).to_be_bytes())),
            9 => stream.extend(control(3, 0, Some(len), &[id.max(1), 5].map(u32::to_be_bytes).concat())),
            10 => {
                let count = u32::try_from(bytes.len() / 8).unwrap();
                let settings = &bytes[..8 * count as usize];
                stream.extend(control(
                    4,
                    0,
                    Some(4 + 8 * count + len % 3),
                    &[&count.to_be_bytes()[..], settings].concat(),
                ));
            }
            11 => stream.extend(control(9, 0, None, &[0; 8])),
            12 => stream.extend(control(u8::try_from(len % 256).unwrap(), 0, None, &bytes)),
            _ => stream.extend(data(id, &bytes, what % 16 == 15)),
        }
    }
    stream
}

/// A control frame of some version that may state another length than it has.
fn control(kind: u8, flags: u8, len: Option<u32>, payload: &[u8]) -> Vec<u8> {
    let len = len.unwrap_or_else(|| u32::try_from(payload.len()).unwrap());
    let [_, x, y, z] = len.to_be_bytes();
    let version = if flags & 2 == 0 { 3 } else { 9 };
    [&[0x80, version, 0, kind, flags & 1, x, y, z], payload].concat()
}

fn block(context: &mut Compress, headers: &[(&str, &str)]) -> Vec<u8> {
    let number = |number: usize| u32::try_from(number).unwrap().to_be_bytes();
    let mut block = number(headers.len()).to_vec();
    for text in headers.iter().flat_map(|(name, value)| [name, value]) {
        block.extend([&number(text.len())[..], text.as_bytes()].concat());
    }
    let mut deflated = Vec::with_capacity(1024);
    context.compress_vec(&block, &mut deflated, FlushCompress::Sync).unwrap();
    deflated
}

#[test]
#[ignore = "needs Go and its module proxy"]
fn spdy_is_read_as_with_go_libraries() {
    beside((acts(), changes()), |libraries, (acts, changes)| {
        let said = changed(client(acts), changes);
        let theirs: Spdy = libraries.ask("spdy", &said);
        let ours = frames(&said);
        let same = theirs.frames.len().min(ours.len());
        prop_assert_eq!(&ours[..same], &theirs.frames[..], "{}", hex(&said));
        if theirs.end != "error" {
            prop_assert_eq!(ours.len(), same, "{}", hex(&said));
        }
        each_stream_is_followed(&said, &theirs.streams)
    });
}

/// What the server says on a stream that its library has opened for output is shown as output, and nothing else is.
fn each_stream_is_followed(said: &[u8], opened: &[Stream]) -> Result<(), TestCaseError> {
    let (mut client, mut server) = directions(Language::Command(Transport::Spdy, Protocol::V4));
    follow(&mut client, said, &mut vec![]);
    let is_output = |stream: &&Stream| [hex(b"stdout"), hex(b"stderr")].contains(&stream.stream_type);
    for Stream { id, .. } in opened.iter().filter(is_output) {
        let mut shown = vec![];
        let followed = follow(&mut server, &data(*id, b"output", false), &mut shown);
        prop_assert!(followed && shown == b"output", "{} {}", id, hex(said));
    }
    let mut shown = vec![];
    for Stream { id, .. } in opened.iter().filter(|stream| !is_output(stream)) {
        follow(&mut server, &data(*id, b"no output", false), &mut shown);
    }
    prop_assert!(shown.is_empty(), "{}", hex(said));
    Ok(())
}

/// Follows `bytes` as a relay does, and tells whether all of them could be.
fn follow(direction: &mut Direction, mut bytes: &[u8], shown: &mut Vec<u8>) -> bool {
    while let Ok(Some(unit)) = direction.peek(bytes) {
        let (piece, rest) = bytes.split_at(unit.len);
        let fed = direction.feed(piece, |event| {
            if let Event::Stdout(payload) | Event::Stderr(payload) = event {
                payload.read(|bytes| shown.extend_from_slice(bytes));
            }
        });
        if fed.is_err() {
            return false;
        }
        direction.gone_on(unit);
        bytes = rest;
    }
    bytes.is_empty()
}

// === WebSocket

#[derive(Debug, Deserialize)]
struct WebSocket {
    messages: Vec<String>,
}

/// A frame: its first byte, whether it has a mask, how its length is written, its payload.
type WsFrame = (u8, bool, u8, Vec<u8>);

fn ws_frames() -> impl Strategy<Value = Vec<WsFrame>> {
    let first = prop_oneof![
        4 => prop::sample::select(&[0x81u8, 0x82, 0x89, 0x8a][..]),
        2 => prop::sample::select(&[0x01u8, 0x02, 0x00, 0x80][..]),
        1 => any::<u8>(),
    ];
    let payload = prop_oneof![4 => prop::collection::vec(any::<u8>(), 0..20), 1 => prop::collection::vec(any::<u8>(), 120..300)];
    let mask = prop_oneof![8 => Just(true), 1 => Just(false)];
    prop::collection::vec((first, mask, 0u8..8, payload), 0..8)
}

fn written(frames: Vec<WsFrame>) -> Vec<u8> {
    frames.into_iter().flat_map(ws_frame).collect()
}

fn ws_frame((first, masked, form, payload): WsFrame) -> Vec<u8> {
    let bit = if masked { 0x80 } else { 0 };
    let len = payload.len();
    let length = match form {
        0 => [&[bit | 127][..], &(len as u64 | 1 << 63).to_be_bytes()].concat(),
        1 => [&[bit | 127][..], &(len as u64).to_be_bytes()].concat(),
        2 => [&[bit | 126][..], &u16::try_from(len).unwrap().to_be_bytes()].concat(),
        _ => match u8::try_from(len) {
            Ok(short @ ..=125) => vec![bit | short],
            _ => [&[bit | 126][..], &u16::try_from(len).unwrap().to_be_bytes()].concat(),
        },
    };
    let key = [1, 2, 3, 4];
    let mask = if masked { &key[..] } else { &[] };
    let payload =
        payload.iter().zip(key.iter().cycle()).map(|(byte, key)| if masked { byte ^ key } else { *byte });
    [&[first][..], &length, mask].concat().into_iter().chain(payload).collect()
}

/// The frames of data that our parser reads, each with whether it begins a message and ends it.
fn data_frames(said: &[u8]) -> Vec<(bool, bool, String)> {
    let (mut parser, mut input, mut frames) = (ws::Parser::new(Source::Client), said, vec![]);
    let mut in_data = false;
    while let Ok(Some(event)) = parser.next(&mut input) {
        match event {
            ws::Event::Start(head) => {
                in_data = !head.opcode.is_control();
                if in_data {
                    frames.push((head.opcode != Opcode::Continuation, head.fin, String::new()));
                }
            }
            ws::Event::Data(payload) if in_data => {
                payload.read(|bytes| frames.last_mut().unwrap().2 += &hex(bytes));
            }
            ws::Event::Data(_) | ws::Event::End => {}
        }
    }
    frames
}

#[test]
#[ignore = "needs Go and its module proxy"]
fn websockets_are_read_as_with_go_libraries() {
    beside((ws_frames(), changes()), |libraries, (written_frames, changes)| {
        let said = changed(written(written_frames), changes);
        let ours = data_frames(&said);
        let theirs: WebSocket = libraries.ask("ws", &said);
        let payloads: Vec<String> = ours.iter().map(|(.., payload)| payload.clone()).collect();
        let same = theirs.messages.len().min(payloads.len());
        prop_assert_eq!(&payloads[..same], &theirs.messages[..], "{}", hex(&said));

        let theirs: WebSocket = libraries.ask("gorilla", &said);
        let mut messages: Vec<String> = vec![];
        let mut open = String::new();
        for (begins, ends, payload) in ours {
            open = if begins { payload } else { open + &payload };
            if ends {
                messages.push(std::mem::take(&mut open));
            }
        }
        let same = theirs.messages.len().min(messages.len());
        prop_assert_eq!(&messages[..same], &theirs.messages[..], "{}", hex(&said));
        Ok(())
    });
}

/// Else the comparison would hold where a library understands nothing.
#[test]
#[ignore = "needs Go and its module proxy"]
fn what_any_client_says_is_understood_whole_as_with_go_libraries() {
    let mut libraries = Libraries::start();
    let mut context = Compress::new(Compression::best(), true);
    context.set_dictionary(DICTIONARY).unwrap();
    let streams: Vec<u8> = [(1u32, "error"), (3, "stdout")]
        .into_iter()
        .flat_map(|(id, kind)| {
            let block = block(&mut context, &[("streamtype", kind)]);
            control(1, 0, None, &[&id.to_be_bytes()[..], &[0; 6], &block].concat())
        })
        .collect();
    let said = [streams, control(6, 0, Some(12), &1u32.to_be_bytes()), data(3, b"x", true)].concat();
    let theirs: Spdy = libraries.ask("spdy", &said);
    assert_eq!(
        (theirs.frames.as_slice(), theirs.frames.len(), theirs.streams.len()),
        (&frames(&said)[..], 4, 2)
    );
    let said = written(vec![(0x82, true, 9, vec![4]), (0x89, true, 9, vec![]), (0x81, true, 1, vec![5])]);
    for library in ["ws", "gorilla"] {
        assert_eq!(libraries.ask::<WebSocket>(library, &said).messages, ["04", "05"], "{library}");
    }
}
