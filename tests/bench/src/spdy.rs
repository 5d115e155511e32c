//! The frames with which a client of SPDY/3.1 opens the streams of a session.

use anyhow::{Result, ensure};
use flate2::{Compress, Compression, FlushCompress, Status};
use podwitness_wire::spdy::DICTIONARY;

/// Room for the header blocks of a session's streams.
const ROOM: usize = 4 << 10;
/// Type of a control frame (SPDY draft 3.1, §2.6.1).
const SYN_STREAM: u8 = 1;

/// Opens streams of these kinds, with ids 1, 3, 5, …
pub fn streams<'a>(kinds: impl IntoIterator<Item = &'a str>) -> Result<Vec<u8>> {
    let mut deflate = Compress::new(Compression::fast(), true);
    deflate.set_dictionary(DICTIONARY)?;
    let mut frames = Vec::new();
    for (kind, id) in kinds.into_iter().zip((1_u32..).step_by(2)) {
        let mut block = Vec::with_capacity(ROOM);
        let headers = [&1_u32.to_be_bytes()[..], &text("streamtype")?, &text(kind)?].concat();
        let status = deflate.compress_vec(&headers, &mut block, FlushCompress::Sync)?;
        ensure!(status == Status::Ok && block.len() < ROOM, "the headers of a stream do not fit");
        let [.., high, middle, low] = (10 + block.len()).to_be_bytes();
        frames.extend([0x80, 3, 0, SYN_STREAM, 0, high, middle, low]);
        frames.extend(id.to_be_bytes());
        // No stream that it belongs to, no priority, no slot.
        frames.extend([0; 6]);
        frames.extend(block);
    }
    Ok(frames)
}

/// A text behind its length.
fn text(text: &str) -> Result<Vec<u8>> {
    Ok([&u32::try_from(text.len())?.to_be_bytes(), text.as_bytes()].concat())
}

#[cfg(test)]
mod tests {
    use podwitness_wire::{
        channel::Source,
        spdy::{Control, Event, Parser},
    };

    use super::*;

    #[test]
    fn what_is_written_is_read_as_these_streams() {
        let frames = streams(["error", "stdout"]).unwrap();
        let (mut input, mut parser, mut seen) = (&frames[..], Parser::new(Source::Client), Vec::new());
        while let Some(event) = parser.next(&mut input).unwrap() {
            if let Event::Control(Control::SynStream { stream, fin: false }) = event {
                seen.push((stream, parser.headers().stream_type().unwrap().to_vec()));
            }
        }
        assert_eq!(seen, [(1, b"error".to_vec()), (3, b"stdout".to_vec())]);
    }
}
