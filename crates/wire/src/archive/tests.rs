use proptest::prelude::*;

use super::*;
use crate::testing::in_pieces;

/// A header block, of pax where `posix`.
fn header(name: &[u8], flag: u8, size: u64, link: &[u8], posix: bool) -> Vec<u8> {
    let mut block = vec![0; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, name);
    put(100, b"0000644\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{size:011o}\0").as_bytes());
    put(136, b"14217000000\0");
    put(148, b"        ");
    put(156, &[flag]);
    put(157, link);
    put(257, if posix { b"ustar\x0000" } else { b"ustar  \0" });
    put(265, b"root");
    put(297, b"root");
    sum(&mut block);
    block
}

fn sum(block: &mut [u8]) {
    block[148..156].copy_from_slice(b"        ");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

fn filled(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    bytes
}

fn file(name: &str, content: &[u8]) -> Vec<u8> {
    [header(name.as_bytes(), b'0', content.len() as u64, b"", false), filled(content.to_vec())].concat()
}

fn end() -> Vec<u8> {
    vec![0; 4 * BLOCK]
}

fn pax(records: &[(&str, &str)]) -> Vec<u8> {
    let record = |(key, value): &(&str, &str)| {
        let rest = format!(" {key}={value}\n");
        let len = (1..).find(|len: &usize| len.to_string().len() + rest.len() == *len).unwrap();
        format!("{len}{rest}")
    };
    let text: String = records.iter().map(record).collect();
    [header(b"PaxHeaders/x", b'x', text.len() as u64, b"", true), filled(text.into_bytes())].concat()
}

/// What an archive says of a stream, put together.
#[derive(Debug, Default, PartialEq)]
struct Said {
    members: Vec<(Member, Vec<u8>, bool)>,
    /// All bytes that belong to it, in order.
    bytes: Vec<u8>,
    open: usize,
    foreign: Vec<u8>,
}

fn follow(pieces: &[&[u8]]) -> Said {
    let (mut archive, mut said) = (Archive::new(), Said::default());
    for piece in pieces {
        let rest = archive.feed(piece, |piece| match piece {
            Piece::Open(bytes) => {
                said.open += bytes.len();
                said.bytes.extend_from_slice(bytes);
            }
            Piece::Frame(bytes) => said.bytes.extend_from_slice(bytes),
            Piece::Begin(member) => said.members.push((member.clone(), vec![], false)),
            Piece::Content(bytes) => {
                said.bytes.extend_from_slice(bytes);
                said.members.last_mut().unwrap().1.extend_from_slice(bytes);
            }
            Piece::End => said.members.last_mut().unwrap().2 = true,
        });
        assert!(rest.is_empty() || archive.is_foreign());
        said.foreign.extend_from_slice(rest);
    }
    said
}

fn names(stream: &[u8]) -> Vec<String> {
    let said = follow(&[stream]);
    assert!(said.foreign.is_empty(), "{:?}", said.foreign);
    said.members.into_iter().map(|(member, ..)| member.name).collect()
}

#[test]
fn members_come_with_their_content() {
    let stream = [
        header(b"dir/", b'5', 0, b"", false),
        file("dir/a", b"hello"),
        header(b"dir/b", b'2', 0, b"a", false),
        file("dir/empty", b""),
        file("dir/block", &[7; BLOCK]),
        end(),
    ]
    .concat();
    let said = follow(&[&stream]);
    let member = |name: &str, link: &str, content: &[u8]| {
        let size = content.len() as u64;
        (Member { name: name.into(), link: link.into(), size }, content.to_vec(), true)
    };
    let expected = [
        member("dir/", "", b""),
        member("dir/a", "", b"hello"),
        member("dir/b", "a", b""),
        member("dir/empty", "", b""),
        member("dir/block", "", &[7; BLOCK]),
    ];
    assert_eq!(said.members, expected);
    assert_eq!((said.bytes, said.open, said.foreign), (stream, 0, vec![]));
}

#[test]
fn what_does_not_fit_into_a_header_is_read_from_those_before_it() {
    let long = "d/".repeat(200) + "file";
    let gnu = [
        header(b"././@LongLink", b'L', long.len() as u64 + 1, b"", false),
        filled([long.as_bytes(), b"\0"].concat()),
        file("cut", b"x"),
        file("next", b""),
    ]
    .concat();
    assert_eq!(names(&gnu), [long.as_str(), "next"]);
    let posix =
        [pax(&[("mtime", "1.5"), ("path", &long), ("comment", "a=b\nc")]), file("cut", b"x")].concat();
    assert_eq!(names(&posix), [long]);
    let mut prefixed = header(b"name", b'0', 0, b"", true);
    prefixed[345..349].copy_from_slice(b"some");
    sum(&mut prefixed);
    assert_eq!(names(&prefixed), ["some/name"]);
}

#[test]
fn sizes_beyond_eight_gibibytes_are_read_in_both_ways() {
    let size = 20_u64 << 30;
    let mut binary = header(b"large", b'0', 0, b"", false);
    binary[124..136].copy_from_slice(&[&[0x80, 0, 0, 0][..], &size.to_be_bytes()].concat());
    sum(&mut binary);
    let posix = [pax(&[("size", &size.to_string())]), header(b"large", b'0', 0, b"", true)].concat();
    for stream in [binary, posix] {
        let said = follow(&[&stream]);
        assert_eq!((said.members[0].0.size, said.members[0].2), (size, false));
    }
}

#[test]
fn what_is_no_archive_is_not_begun() {
    let mut archive = Archive::new();
    assert_eq!(archive.feed(&[b'x'; 511], |_| {}), b"");
    assert_eq!(archive.feed(b"yz", |_| {}), b"yz");
    assert!(archive.is_foreign() && !archive.has_begun());
    assert_eq!(archive.feed(&file("a", b""), |_| {}).len(), BLOCK);
    assert_eq!(follow(&[&end()]).foreign.len(), 4 * BLOCK, "zeros alone are none");
}

#[test]
fn an_archive_ends_at_the_first_block_that_is_none_of_it() {
    let good = file("a", b"content");
    let text = b"and now for something else".repeat(40);
    let sparse = header(b"s", b'S', 0, b"", false);
    let mut sum = header(b"b", b'0', 0, b"", false);
    sum[0] = b'c';
    let mut broken = pax(&[("path", "p")]);
    broken[BLOCK] = b'x';
    let huge = header(b"h", b'x', 1 << 40, b"", true);
    let ended = [end(), text.clone()].concat();
    for (bad, kept) in [(text, 0), (sparse, 0), (sum, 0), (broken, BLOCK + 9), (huge, 0), (ended, 4 * BLOCK)]
    {
        let stream = [good.clone(), bad.clone()].concat();
        let said = follow(&[&stream]);
        assert_eq!(said.members.len(), 1);
        let at = good.len() + kept;
        assert!(said.bytes == stream[..at] && said.foreign == stream[at..], "{} {}", said.bytes.len(), at);
    }
}

#[test]
fn a_header_that_announces_much_costs_nothing() {
    let mut archive = Archive::new();
    let mut binary = header(b"large", b'0', 0, b"", false);
    binary[124..136].copy_from_slice(&[&[0x80, 0, 0, 0][..], &u64::MAX.to_be_bytes()].concat());
    sum(&mut binary);
    assert_eq!(archive.feed(&binary, |_| {}), b"");
    let mut seen = 0;
    for _ in 0..(256 << 20) / (64 << 10) {
        archive.feed(&[1; 64 << 10], |piece| {
            seen += if let Piece::Content(bytes) = piece { bytes.len() } else { 0 }
        });
    }
    assert_eq!(seen, 256 << 20);
}

fn member() -> impl Strategy<Value = Vec<u8>> {
    let name = "[a-z/]{1,90}";
    prop_oneof![
        (name, prop::collection::vec(any::<u8>(), 0..1500)).prop_map(|(name, content)| file(&name, &content)),
        (name, name).prop_map(|(a, b)| header(a.as_bytes(), b'2', 0, b.as_bytes(), true)),
        "[a-z/]{1,600}".prop_map(|path| [pax(&[("path", &path)]), file("cut", b"y")].concat()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn members_do_not_depend_on_cuts(
        members in prop::collection::vec(member(), 1..5),
        tail in prop::collection::vec(any::<u8>(), 0..700),
        cuts in prop::collection::vec(any::<usize>(), 0..12),
    ) {
        let stream = [members.concat(), end(), tail].concat();
        let (whole, cut) = (follow(&[&stream]), follow(&in_pieces(&stream, &cuts)));
        prop_assert_eq!(&whole.members, &cut.members);
        prop_assert!(whole.members.iter().all(|(_, _, ended)| *ended));
        // A block that is no header is known as that only when it is whole.
        prop_assert!(cut.bytes.len() >= whole.bytes.len() && cut.bytes.len() - whole.bytes.len() < BLOCK);
        for said in [&whole, &cut] {
            prop_assert!([said.bytes.as_slice(), &said.foreign].concat() == stream);
        }
    }

    #[test]
    fn every_byte_of_anything_is_shown_once(
        bytes in prop::collection::vec(any::<u8>(), 0..2000),
        begins in any::<bool>(),
        cuts in prop::collection::vec(any::<usize>(), 0..12),
    ) {
        let stream = if begins { [file("a", b"x"), bytes].concat() } else { bytes };
        let said = follow(&in_pieces(&stream, &cuts));
        prop_assert!([said.bytes, said.foreign].concat() == stream);
    }
}

#[test]
fn members_do_not_depend_on_where_a_stream_is_cut_in_two() {
    let stream = [pax(&[("path", "long")]), file("cut", &[3; 700]), file("b", b"text"), end()].concat();
    let whole = follow(&[&stream]);
    for cut in 0..stream.len() {
        let said = follow(&[&stream[..cut], &stream[cut..]]);
        assert_eq!((said.members, said.bytes == stream), (whole.members.clone(), true), "{cut}");
    }
}
