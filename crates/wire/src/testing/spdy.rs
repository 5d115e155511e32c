//! SPDY frames as a client or a server writes them.

use flate2::{Compress, Compression, FlushCompress};
use proptest::prelude::*;

use crate::spdy::{DICTIONARY, data, go_away, rst_stream};

/// A header block before it is deflated.
pub(crate) fn block(headers: &[(&str, &str)]) -> Vec<u8> {
    let text = |text: &str| [&u32::try_from(text.len()).unwrap().to_be_bytes(), text.as_bytes()].concat();
    let pairs: Vec<u8> =
        headers.iter().flat_map(|(name, value)| [text(name), text(value)].concat()).collect();
    [u32::try_from(headers.len()).unwrap().to_be_bytes().to_vec(), pairs].concat()
}

/// A control frame of version 3.
pub(crate) fn control(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let [.., x, y, z] = payload.len().to_be_bytes();
    [&[0x80, 3, 0, kind, flags, x, y, z], payload].concat()
}

/// A ping.
pub(crate) fn ping(id: u32) -> Vec<u8> {
    control(6, 0, &id.to_be_bytes())
}

/// One end of a connection, with the zlib stream of its header blocks.
pub(crate) struct End(Compress);

impl End {
    pub(crate) fn new() -> Self {
        let mut context = Compress::new(Compression::best(), true);
        context.set_dictionary(DICTIONARY).unwrap();
        Self(context)
    }

    /// Deflates what is a header block, or pretends to be.
    pub(crate) fn deflate(&mut self, block: &[u8]) -> Vec<u8> {
        let mut deflated = Vec::with_capacity(block.len() + 1024);
        self.0.compress_vec(block, &mut deflated, FlushCompress::Sync).unwrap();
        deflated
    }

    pub(crate) fn syn_stream(&mut self, stream: u32, headers: &[(&str, &str)]) -> Vec<u8> {
        let fixed = [&stream.to_be_bytes()[..], &[0; 6]].concat();
        control(1, 0, &[fixed, self.deflate(&block(headers))].concat())
    }

    pub(crate) fn syn_reply(&mut self, stream: u32) -> Vec<u8> {
        control(2, 0, &[stream.to_be_bytes().to_vec(), self.deflate(&block(&[]))].concat())
    }

    pub(crate) fn headers(&mut self, stream: u32, headers: &[(&str, &str)]) -> Vec<u8> {
        control(8, 0, &[stream.to_be_bytes().to_vec(), self.deflate(&block(headers))].concat())
    }

    /// The streams of a remote command in client-go's order, with ids 1, 3, 5, …
    pub(crate) fn open(&mut self, kinds: &[&str]) -> Vec<u8> {
        let opened =
            kinds.iter().zip((1..).step_by(2)).map(|(kind, id)| self.syn_stream(id, &[("streamtype", kind)]));
        opened.collect::<Vec<_>>().concat()
    }
}

/// Something that an end may say.
#[derive(Clone, Debug)]
enum Say {
    Data(u32, Vec<u8>, bool),
    SynStream(&'static str),
    Headers,
    Ping(u32),
    Rst(u32),
    Settings,
    Unknown(Vec<u8>),
    GoAway,
}

fn say() -> impl Strategy<Value = Say> {
    let id = || (0u32..6).prop_map(|n| 2 * n + 1);
    let kind = prop::sample::select(&["error", "stdin", "stdout", "stderr", "resize", "data"][..]);
    prop_oneof![
        6 => (id(), prop::collection::vec(any::<u8>(), 0..300), any::<bool>()).prop_map(|(id, b, fin)| Say::Data(id, b, fin)),
        2 => id().prop_map(|id| Say::Data(id, br#"{"Width":80,"Height":24}"#.to_vec(), false)),
        4 => kind.prop_map(Say::SynStream),
        1 => Just(Say::Headers),
        1 => (1u32..9).prop_map(Say::Ping),
        1 => id().prop_map(Say::Rst),
        1 => Just(Say::Settings),
        1 => prop::collection::vec(any::<u8>(), 0..40).prop_map(Say::Unknown),
        1 => Just(Say::GoAway),
    ]
}

/// Well-formed streams of a few frames; streams are opened in order.
pub(crate) fn stream() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(say(), 0..24).prop_map(|frames| {
        let (mut end, mut next) = (End::new(), 1);
        let mut write = |say| match say {
            Say::Data(id, bytes, fin) => data(id, &bytes, fin),
            Say::SynStream(kind) => {
                next += 2;
                end.syn_stream(next - 2, &[("streamtype", kind)])
            }
            Say::Headers => end.headers(1, &[("x", "y")]),
            Say::Ping(id) => ping(id),
            Say::Rst(id) => rst_stream(id, 5),
            Say::Settings => control(4, 0, &[0, 0, 0, 1, 0, 0, 0, 4, 0, 0, 0, 9]),
            Say::Unknown(payload) => control(0x0b, 0, &payload),
            Say::GoAway => go_away(0, 0),
        };
        frames.into_iter().flat_map(&mut write).collect()
    })
}
