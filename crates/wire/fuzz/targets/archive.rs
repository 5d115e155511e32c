//! Every byte of anything is shown once, members do not depend on cuts, and their names stay within their cap.
#![no_main]

use libfuzzer_sys::fuzz_target;
use podwitness_wire::archive::{Archive, BLOCK, MAX_NAME, Member, PIECE, Piece, is_readable};

/// What a member is made of: a number to choose by, its name, its content.
type Act<'a> = (u8, &'a [u8], &'a [u8]);

fuzz_target!(|input: (usize, Vec<Act<'_>>, &[u8])| {
    let (cut, acts, raw) = input;
    let mut stream: Vec<u8> = acts.into_iter().flat_map(member).collect();
    stream.extend_from_slice(raw);
    let (head, tail) = stream.split_at(cut % (stream.len() + 1));
    let (whole, cut) = (follow(&[&stream]), follow(&[head, tail]));
    assert_eq!(whole.members, cut.members);
    for said in [&whole, &cut] {
        assert_eq!([said.bytes.as_slice(), &said.foreign].concat(), stream);
    }
    for piece in stream.chunks(PIECE) {
        assert!(is_readable(piece) || !is_text(piece));
    }
});

fn is_text(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| matches!(byte, b' '..=b'~'))
}

/// A header with a right sum, and what follows it, which may be anything.
fn member((kind, name, content): Act<'_>) -> Vec<u8> {
    let mut block = vec![0; BLOCK];
    let name = &name[..name.len().min(100)];
    block[..name.len()].copy_from_slice(name);
    block[124..136].copy_from_slice(format!("{:011o} ", content.len()).as_bytes());
    block[148..156].copy_from_slice(b"        ");
    block[156] = b"0015xgLKS7"[usize::from(kind) % 10];
    block[257..265].copy_from_slice(if kind < 128 { b"ustar  \0" } else { b"ustar\x0000" });
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block.extend_from_slice(content);
    block.resize(block.len().next_multiple_of(BLOCK), 0);
    block
}

#[derive(Debug, Default, PartialEq)]
struct Said {
    members: Vec<(Member, Vec<u8>, bool)>,
    bytes: Vec<u8>,
    foreign: Vec<u8>,
}

fn follow(pieces: &[&[u8]]) -> Said {
    let (mut archive, mut said) = (Archive::new(), Said::default());
    for piece in pieces {
        let rest = archive.feed(piece, |piece| match piece {
            Piece::Open(bytes) | Piece::Frame(bytes) => said.bytes.extend_from_slice(bytes),
            Piece::Begin(member) => {
                assert!(member.name.len() <= 3 * MAX_NAME && member.link.len() <= 3 * MAX_NAME);
                said.members.push((member.clone(), vec![], false));
            }
            Piece::Content(bytes) => {
                let (_, content, ended) = said.members.last_mut().expect("a member has begun");
                assert!(!*ended);
                said.bytes.extend_from_slice(bytes);
                content.extend_from_slice(bytes);
            }
            Piece::End => {
                let (member, content, ended) = said.members.last_mut().expect("a member has begun");
                assert_eq!(member.size, content.len() as u64);
                *ended = true;
            }
        });
        said.foreign.extend_from_slice(rest);
    }
    said
}
