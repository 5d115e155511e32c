use proptest::prelude::*;

use super::*;

fn counted_16(bytes: &[u8]) -> Vec<u8> {
    [&u16::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}

fn extension(kind: u16, content: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &counted_16(content)].concat()
}

fn sni(name: &[u8]) -> Vec<u8> {
    extension(SERVER_NAME, &counted_16(&[&[HOST_NAME][..], &counted_16(name)].concat()))
}

/// A ClientHello message with these extensions, or none at all.
fn message(extensions: Option<&[u8]>) -> Vec<u8> {
    let body = [
        &[3, 3][..],
        &[7; 32],
        &[0],
        &counted_16(&[0x13, 1, 0x13, 2]),
        &[1, 0],
        &extensions.map(counted_16).unwrap_or_default(),
    ]
    .concat();
    let [.., a, b, c] = body.len().to_be_bytes();
    [&[CLIENT_HELLO, a, b, c], body.as_slice()].concat()
}

/// The message in records of at most so many bytes.
fn records(message: &[u8], size: usize) -> Vec<u8> {
    message.chunks(size).flat_map(|piece| [&[HANDSHAKE, MAJOR, 1][..], &counted_16(piece)].concat()).collect()
}

fn hello(name: &str) -> Vec<u8> {
    records(&message(Some(&[extension(43, &[2, 3, 4]), sni(name.as_bytes())].concat())), MAX_RECORD)
}

/// What is read of bytes that come in pieces which end there: `None` while it is no whole hello, else its server name.
fn read(bytes: &[u8], ends: &[usize]) -> Result<Option<Option<String>>, HelloError> {
    Ok(read_hello(bytes, ends)?.map(|hello| hello.server_name))
}

fn read_hello(bytes: &[u8], ends: &[usize]) -> Result<Option<ClientHello>, HelloError> {
    let mut reader = HelloReader::new();
    let mut ends: Vec<usize> = ends.iter().map(|end| end % (bytes.len() + 1)).collect();
    ends.sort_unstable();
    for end in ends.into_iter().chain([bytes.len()]) {
        match reader.read(&bytes[..end]) {
            Ok(None) => {}
            judged => return judged,
        }
    }
    Ok(None)
}

fn named(name: &str) -> Result<Option<Option<String>>, HelloError> {
    Ok(Some(Some(name.into())))
}

/// The shape of a ClientHello with these cipher suites and extensions.
fn shape(suites: &[u16], extensions: &[(u16, &[u8])]) -> HelloShape {
    let suites: Vec<u8> = suites.iter().flat_map(|suite| suite.to_be_bytes()).collect();
    let extensions: Vec<u8> =
        extensions.iter().flat_map(|(kind, content)| extension(*kind, content)).collect();
    let random = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos().to_be_bytes();
    let body = [
        &[3, 3][..],
        &random,
        &random,
        &[32],
        &random,
        &random,
        &counted_16(&suites),
        &[1, 0],
        &counted_16(&extensions),
    ]
    .concat();
    let [.., a, b, c] = body.len().to_be_bytes();
    let message = [&[CLIENT_HELLO, a, b, c], body.as_slice()].concat();
    read_hello(&records(&message, MAX_RECORD), &[]).unwrap().unwrap().shape
}

const SUITES: [u16; 3] = [0x1301, 0x1302, 0xc02f];
const GROUPS: (u16, &[u8]) = (10, &[0, 4, 0, 29, 0, 23]);
const ALPN: (u16, &[u8]) = (16, &[0, 3, 2, b'h', b'2']);
const VERSIONS: (u16, &[u8]) = (43, &[4, 3, 4, 3, 3]);

#[test]
fn a_programs_shape_is_the_same_whatever_varies_between_its_connections() {
    let plain = shape(&SUITES, &[GROUPS, ALPN, VERSIONS, (51, &[1, 2, 3])]);
    let grease: (u16, &[u8]) = (0x1a1a, &[0]);
    let greased: (u16, &[u8]) = (10, &[0, 6, 0x3a, 0x3a, 0, 29, 0, 23]);
    let name = counted_16(&[&[HOST_NAME][..], &counted_16(b"kubernetes")].concat());
    for (what, suites, extensions) in [
        ("other keys", &SUITES[..], vec![GROUPS, ALPN, VERSIONS, (51, &[9][..])]),
        ("another order", &SUITES, vec![(51, &[][..]), VERSIONS, ALPN, GROUPS]),
        ("GREASE", &[0xcaca, 0x1301, 0x1302, 0xc02f], vec![grease, greased, ALPN, VERSIONS, (51, &[])]),
        ("a name", &SUITES, vec![(0, &name[..]), GROUPS, ALPN, VERSIONS, (51, &[])]),
        ("a ticket", &SUITES, vec![GROUPS, ALPN, VERSIONS, (35, &[7; 99]), (51, &[])]),
        ("a session", &SUITES, vec![GROUPS, ALPN, VERSIONS, (51, &[]), (42, &[]), (41, &[7; 99])]),
        ("padding", &SUITES, vec![GROUPS, ALPN, VERSIONS, (51, &[]), (21, &[0; 200])]),
        ("a cookie", &SUITES, vec![GROUPS, ALPN, VERSIONS, (44, &[7; 9]), (51, &[])]),
    ] {
        assert_eq!(shape(suites, &extensions), plain, "{what}");
    }
}

#[test]
fn whatever_a_program_chooses_makes_another_shape() {
    let plain = shape(&SUITES, &[GROUPS, ALPN, VERSIONS]);
    let other_groups: (u16, &[u8]) = (10, &[0, 4, 0, 23, 0, 29]);
    let other_protocol: (u16, &[u8]) = (16, &[0, 9, 8, b'h', b't', b't', b'p', b'/', b'1', b'.', b'1']);
    let nearly_grease: (u16, &[u8]) = (0x1a2a, &[]);
    for (what, suites, extensions) in [
        ("another suite", &[0x1301, 0x1303, 0xc02f][..], vec![GROUPS, ALPN, VERSIONS]),
        ("suites in another order", &[0x1302, 0x1301, 0xc02f], vec![GROUPS, ALPN, VERSIONS]),
        ("fewer suites", &SUITES[..2], vec![GROUPS, ALPN, VERSIONS]),
        ("other groups", &SUITES, vec![other_groups, ALPN, VERSIONS]),
        ("another protocol", &SUITES, vec![GROUPS, other_protocol, VERSIONS]),
        ("no protocol", &SUITES, vec![GROUPS, VERSIONS]),
        ("other versions", &SUITES, vec![GROUPS, ALPN, (43, &[2, 3, 4][..])]),
        ("another extension", &SUITES, vec![GROUPS, ALPN, VERSIONS, (23, &[])]),
        ("no GREASE", &SUITES, vec![GROUPS, ALPN, VERSIONS, nearly_grease]),
    ] {
        assert_ne!(shape(suites, &extensions), plain, "{what}");
    }
}

#[test]
fn a_hello_tells_its_server_name_in_any_number_of_records() {
    let message = message(Some(&sni(b"Kubernetes.Default.svc")));
    for size in [1, 2, 5, 40, MAX_RECORD] {
        assert_eq!(read(&records(&message, size), &[]), named("kubernetes.default.svc"), "{size}");
    }
    let more = [records(&message, 100), b"whatever follows".to_vec()].concat();
    assert_eq!(read(&more, &[]), named("kubernetes.default.svc"));
}

#[test]
fn a_hello_may_have_no_name() {
    let nothing = Ok(Some(None));
    let not_text = sni(&[0xff, 0xfe]);
    let other_kind = extension(SERVER_NAME, &counted_16(&[&[9][..], &counted_16(b"x")].concat()));
    for extensions in [None, Some(&[][..]), Some(&not_text), Some(&other_kind)] {
        assert_eq!(read(&records(&message(extensions), 100), &[]), nothing, "{extensions:x?}");
    }
}

#[test]
fn whatever_is_no_hello_is_told_by_its_first_wrong_byte() {
    for (bytes, error) in [
        (&[21][..], HelloError::Record(21)),
        (b"G", HelloError::Record(b'G')),
        (&[0x80], HelloError::Record(0x80)),
        (&[22, 2], HelloError::Version(2)),
        (&[22, 4], HelloError::Version(4)),
        (&[22, 3, 1, 0, 0], HelloError::EmptyRecord),
        (&[22, 3, 1, 0x40, 1], HelloError::RecordLength(0x4001)),
        (&[22, 3, 1, 0, 9, 2], HelloError::Message(2)),
        (&[22, 3, 1, 0, 9, 1, 1, 0, 1], HelloError::TooLong),
        (&[22, 3, 1, 0, 6, 1, 0, 0, 2, 3, 3], HelloError::Malformed),
        (&[22, 3, 1, 0, 1, 1, 21], HelloError::Record(21)),
    ] {
        assert_eq!(read(bytes, &[]), Err(error), "{bytes:x?}");
        assert_eq!(read(&bytes[..bytes.len() - 1], &[]).ok(), Some(None), "{bytes:x?}");
        let [kind, major, _, 0, 2, level, _] = error.alert() else { panic!("{error}") };
        assert_eq!((kind, major, level), (21, 3, 2));
    }
}

#[test]
fn parts_that_do_not_fit_are_malformed() {
    let twice = [sni(b"a"), sni(b"a")].concat();
    let two_names = extension(SERVER_NAME, &counted_16(&[0, 0, 1, b'a', 0, 0, 1, b'b']));
    for extensions in [&twice[..], &two_names, &[0], &extension(SERVER_NAME, &[]), &sni(b"")] {
        let bytes = records(&message(Some(extensions)), 100);
        assert_eq!(read(&bytes, &[]), Err(HelloError::Malformed), "{extensions:x?}");
    }
    let whole = message(Some(&sni(b"a")));
    for cut in 0..whole.len() - MESSAGE_HEAD {
        let mut short = whole[..MESSAGE_HEAD + cut].to_vec();
        short[3] = u8::try_from(cut).unwrap();
        let read = read(&records(&short, 1000), &[]);
        // Without its extensions it is whole again.
        assert!(read == Err(HelloError::Malformed) || cut == 43 && read.is_ok(), "{cut} {read:?}");
    }
}

#[test]
fn a_hello_is_whole_with_its_last_record() {
    let whole = message(Some(&sni(b"a")));
    let record = [&[HANDSHAKE, MAJOR, 1][..], &counted_16(&[&whole[..], b"more"].concat())].concat();
    assert_eq!(read(&record[..record.len() - 1], &[]), Ok(None));
    assert_eq!(read(&record, &[]), named("a"));
}

#[test]
fn a_hello_is_read_up_to_its_cap() {
    let long = message(Some(&extension(21, &vec![0; 60_000])));
    assert_eq!(read(&records(&long, MAX_RECORD), &[]), Ok(Some(None)));
    let drops = records(&long, 1);
    assert_eq!(read(&drops, &[]), Err(HelloError::TooLong));
    assert_eq!(read(&drops[..MAX_HELLO], &[]), Err(HelloError::TooLong));
    assert_eq!(read(&drops[..MAX_HELLO - 1], &[]), Ok(None));
}

proptest! {
    #[test]
    fn a_hello_is_the_same_wherever_it_is_cut(
        size in 1usize..300, ends in prop::collection::vec(any::<usize>(), 0..12)
    ) {
        let message = message(Some(&[extension(43, &[2, 3, 4]), sni(b"kubernetes")].concat()));
        prop_assert_eq!(read(&records(&message, size), &ends), named("kubernetes"));
    }

    /// Whatever is read of a hello that was changed does not depend on how it came, and its name is one of its own.
    #[test]
    fn a_hello_that_was_changed_is_judged_once(
        changes in prop::collection::vec((any::<usize>(), any::<u8>(), 0u8..3), 1..6),
        ends in prop::collection::vec(any::<usize>(), 0..8),
    ) {
        let mut bytes = hello("kubernetes.default.svc");
        for (at, byte, how) in changes {
            let at = at % bytes.len();
            match how {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                _ => drop(bytes.remove(at)),
            }
        }
        let whole = read_hello(&bytes, &[]);
        prop_assert_eq!(read_hello(&bytes, &ends), whole.clone());
        if let Ok(Some(hello)) = whole {
            prop_assert!(bytes.starts_with(&[HANDSHAKE, MAJOR]));
            if let Some(name) = hello.server_name {
                let bytes = bytes.to_ascii_lowercase();
                prop_assert!(bytes.windows(name.len()).any(|window| window == name.as_bytes()));
            }
        }
    }

    #[test]
    fn no_bytes_make_it_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..400), ends in prop::collection::vec(any::<usize>(), 0..6)
    ) {
        for bytes in [bytes.clone(), [&[HANDSHAKE, MAJOR, 1][..], &bytes].concat()] {
            prop_assert_eq!(read(&bytes, &ends), read(&bytes, &[]));
        }
    }
}
