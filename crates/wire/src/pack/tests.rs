use proptest::prelude::*;
use zstd::{bulk::Compressor, zstd_safe::CParameter};

use super::*;
use crate::testing::in_pieces;

fn unpack(pieces: &[&[u8]]) -> (Vec<Bytes>, Result<bool, UnpackError>) {
    let (mut unpacker, mut frames) = (Unpacker::new(), vec![]);
    for piece in pieces {
        let mut bytes = Bytes::copy_from_slice(piece);
        loop {
            match unpacker.unpack(&mut bytes) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => {
                    assert_eq!(unpacker.unpack(&mut bytes), Err(error), "an error is terminal");
                    return (frames, Err(error));
                }
            }
        }
        assert!(bytes.is_empty(), "what is not a whole frame is taken in");
        assert!(unpacker.held.len() <= compress_bound(MAX_FRAME));
    }
    (frames, Ok(unpacker.at_rest()))
}

fn error(bytes: &[u8]) -> UnpackError {
    let (_, result) = unpack(&[bytes]);
    result.expect_err("no frame that is taken")
}

fn lines() -> impl Strategy<Value = Vec<u8>> {
    let text = prop_oneof![
        prop::collection::vec(any::<u8>().prop_map(|byte| byte.max(b' ')), 0..300),
        (0..400_000_usize).prop_map(|len| vec![b'x'; len]),
    ];
    prop::collection::vec(text, 1..8)
        .prop_map(|lines| lines.into_iter().flat_map(|line| [line, vec![b'\n']].concat()).collect())
}

/// Frames as a sender makes them.
fn packed(mut lines: &[u8]) -> Vec<u8> {
    let mut frames = vec![];
    while !lines.is_empty() {
        let (frame, rest) = lines.split_at(cut(lines));
        frames.extend(pack(frame).unwrap());
        lines = rest;
    }
    frames
}

/// A frame with other settings than ours.
fn foreign(content: &[u8], settings: &[CParameter]) -> Vec<u8> {
    let mut compressor = Compressor::new(3).unwrap();
    for setting in settings {
        compressor.set_parameter(*setting).unwrap();
    }
    compressor.compress(content).unwrap()
}

/// A header that declares so many bytes, in 8 bytes, and no block.
fn declaring(content: u64) -> Vec<u8> {
    [&[0x28, 0xb5, 0x2f, 0xfd, 0xe0][..], &content.to_le_bytes()].concat()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn lines_come_back_however_the_frames_are_cut(
        lines in lines(),
        cuts in prop::collection::vec(any::<usize>(), 0..8),
    ) {
        let frames = packed(&lines);
        let (unpacked, result) = unpack(&in_pieces(&frames, &cuts));
        prop_assert_eq!(result, Ok(true));
        prop_assert!(unpacked.iter().all(|frame| frame.ends_with(b"\n") || frame.len() == MAX_FRAME));
        prop_assert_eq!(unpacked.concat(), lines);
    }

    #[test]
    fn single_bytes_suffice(lines in prop::collection::vec(any::<u8>(), 1..2000)) {
        let frames = packed(&lines);
        let pieces: Vec<&[u8]> = frames.chunks(1).collect();
        let (unpacked, result) = unpack(&pieces);
        prop_assert_eq!((unpacked.concat(), result), (lines, Ok(true)));
    }

    #[test]
    fn a_frame_holds_whole_lines_up_to_its_size_or_one_longer_line(lines in lines()) {
        let frame = &lines[..cut(&lines)];
        prop_assert!(frame.ends_with(b"\n") || frame.len() == MAX_FRAME);
        let several = frame[..frame.len() - 1].contains(&b'\n');
        prop_assert!(frame.len() <= FRAME || !several, "{} bytes", frame.len());
        let next = lines[frame.len()..].split_inclusive(|byte| *byte == b'\n').next();
        prop_assert!(next.is_none_or(|line| frame.len() + line.len() > FRAME), "another line has room");
    }

    #[test]
    fn a_damaged_frame_is_refused_or_stays_within_its_size(
        lines in lines(), at in any::<prop::sample::Index>(), flip in 1_u8..,
    ) {
        let mut frames = packed(&lines);
        let at = at.index(frames.len());
        frames[at] ^= flip;
        let (unpacked, _) = unpack(&[&frames]);
        prop_assert!(unpacked.iter().all(|frame| frame.len() <= MAX_FRAME));
    }
}

proptest! {
    #[test]
    fn no_bytes_make_a_reader_panic_or_depend_on_cuts(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        cuts in prop::collection::vec(any::<usize>(), 0..4),
        magic in any::<bool>(),
    ) {
        let bytes = if magic { [&[0x28, 0xb5, 0x2f, 0xfd][..], &bytes].concat() } else { bytes };
        prop_assert_eq!(unpack(&in_pieces(&bytes, &cuts)), unpack(&[&bytes]));
    }
}

#[test]
fn text_shrinks_to_a_tenth_and_noise_grows_by_a_header() {
    let text =
        "[1.5,\"o\",\"2026-01-02 INFO request served path=/api/v1/pods code=200\\r\\n\"]\n".repeat(800);
    assert!(pack(text.as_bytes()).unwrap().len() * 10 < text.len());
    let mut state = 1_u64;
    let noise = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state.to_be_bytes()[0]
    });
    let noise: Vec<u8> = noise.take(FRAME).collect();
    assert!(pack(&noise).unwrap().len() <= FRAME + 12);
}

#[test]
fn the_largest_frame_is_taken_and_none_above_it() {
    let lines = vec![b'x'; MAX_FRAME + 1];
    let (frames, result) = unpack(&[&pack(&lines[1..]).unwrap()]);
    assert_eq!((frames.concat().len(), result), (MAX_FRAME, Ok(true)));
    assert_eq!(pack(&lines), Err(PackError::Size(MAX_FRAME + 1)));
    assert_eq!(pack(b""), Err(PackError::Size(0)));
    assert_eq!(error(&foreign(&lines, &[])), UnpackError::Size(MAX_FRAME as u64 + 1));
}

#[test]
fn frames_of_other_writers_are_read() {
    for len in [1, 255, 256, 65_791, 65_792, 70_000, MAX_FRAME] {
        let content: Vec<u8> = (0..len).map(|n| (n % 251) as u8).collect();
        for settings in [&[CParameter::ChecksumFlag(true)][..], &[CParameter::WindowLog(10)], &[]] {
            let (frames, result) = unpack(&[&foreign(&content, settings)]);
            assert_eq!((frames.concat() == content, result), (true, Ok(true)), "{len} {settings:?}");
        }
    }
}

#[test]
fn a_size_is_declared_and_within_bounds_before_anything_is_kept() {
    assert_eq!(error(&foreign(b"text", &[CParameter::ContentSizeFlag(false)])), UnpackError::Undeclared);
    for declared in [0, MAX_FRAME as u64 + 1, u64::MAX] {
        assert_eq!(error(&declaring(declared)), UnpackError::Size(declared));
    }
    assert_eq!(error(&foreign(b"", &[])), UnpackError::Size(0));
}

#[test]
fn a_frame_cannot_become_more_than_it_declares() {
    // Blocks of 128 KiB of one byte each, four bytes long.
    let block = |last: u32| ((128_u32 << 10 << 3) | 2 | last).to_le_bytes()[..3].to_vec();
    let blocks = |count: usize| {
        let mut blocks = [block(0), vec![b'x']].concat().repeat(count - 1);
        blocks.extend([block(1), vec![b'x']].concat());
        blocks
    };
    let (frames, result) = unpack(&[&[declaring(256 << 10), blocks(2)].concat()]);
    assert_eq!((frames.concat().len(), result), (256 << 10, Ok(true)));
    for (declared, count) in [(256 << 10, 3), (256 << 10, 1), (1, 1), ((128 << 10) - 1, 1)] {
        let (frames, result) = unpack(&[&[declaring(declared), blocks(count)].concat()]);
        assert!(frames.is_empty() && result.is_err(), "{count} blocks for {declared} bytes: {result:?}");
    }
}

#[test]
fn a_frame_that_never_ends_is_refused_before_it_is_whole() {
    let empty_block = [0, 0, 0];
    assert_eq!(error(&[declaring(1), empty_block.repeat(200)].concat()), UnpackError::Bloated);
    let raw = ((100_u32 << 3) | 1).to_le_bytes();
    assert_eq!(error(&[&declaring(1)[..], &raw[..3]].concat()), UnpackError::Bloated);
}

#[test]
fn what_is_no_frame_of_ours_is_named() {
    let frame = pack(b"[1,\"o\",\"x\"]\n").unwrap();
    for (at, value, expected) in [
        (0, 0x29, UnpackError::Magic),
        (4, 0x21, UnpackError::Dictionary),
        (4, 0x28, UnpackError::Malformed),
        (6, 0x07, UnpackError::Malformed),
    ] {
        let mut frame = frame.to_vec();
        frame[at] = value;
        assert_eq!(error(&frame), expected, "{at}");
    }
    let skippable = [0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 0];
    assert_eq!(error(&skippable), UnpackError::Magic);
    assert_eq!(error(b"{\"version\":2}\n"), UnpackError::Magic);
    let mut checked = foreign(b"some text", &[CParameter::ChecksumFlag(true)]);
    *checked.last_mut().unwrap() ^= 1;
    assert!(matches!(error(&checked), UnpackError::Library(_)));
}

#[test]
fn an_upload_cut_within_a_frame_is_noticed_and_keeps_the_frames_before() {
    let (first, second) = (pack(b"first\n").unwrap(), pack(b"second\n").unwrap());
    for len in 1..second.len() {
        let (frames, result) = unpack(&[&first, &second[..len]]);
        assert_eq!((frames.concat().as_slice(), result), (&b"first\n"[..], Ok(false)), "{len}");
    }
    assert_eq!(unpack(&[]), (vec![], Ok(true)));
}

#[test]
fn every_line_of_an_encoder_fits_a_frame() {
    let mut lines = vec![b'x'; crate::cast::MAX_LINE - 1];
    lines.extend(b"\n[1,\"o\",\"next\"]\n");
    assert_eq!(cut(&lines), crate::cast::MAX_LINE);
}

#[test]
fn contexts_stay_small() {
    // What a thread keeps once it has seen lines of every length.
    for len in [10, FRAME, 200 << 10, FRAME] {
        let frame = pack(&vec![b'x'; len]).unwrap();
        assert_eq!(unpack(&[&frame]).1, Ok(true));
    }
    let press =
        PRESS.with_borrow(|press| press.as_ref().map(|press| press.context.sizeof() + press.out.capacity()));
    let reader = READER.with_borrow(|reader| reader.as_ref().map(DCtx::sizeof));
    assert!(press.is_some_and(|bytes| bytes < 1 << 20), "{press:?}");
    assert!(reader.is_some_and(|bytes| bytes < 256 << 10), "{reader:?}");
}
