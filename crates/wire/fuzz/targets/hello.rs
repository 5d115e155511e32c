//! A ClientHello is the same however it comes, is read up to its cap, and nothing else is taken for one.
#![no_main]

use libfuzzer_sys::fuzz_target;
use podwitness_wire::hello::{ClientHello, HelloError, HelloReader, MAX_HELLO};

/// Where the bytes are cut, and the bytes.
type Input<'a> = (Vec<usize>, &'a [u8]);

fuzz_target!(|input: Input<'_>| {
    let (cuts, bytes) = input;
    let whole = read(bytes, &[]);
    assert_eq!(read(bytes, &cuts), whole);
    assert_eq!(read(bytes, &(0..bytes.len().min(512)).collect::<Vec<_>>()), whole);
    match whole {
        Ok(Some(hello)) => {
            assert!(bytes.starts_with(&[22, 3]) && hello.server_name.is_none_or(|name| name.len() < MAX_HELLO));
        }
        Ok(None) => assert!(bytes.len() < MAX_HELLO),
        Err(error) => assert_eq!(error.alert()[..6], [21, 3, 3, 0, 2, 2]),
    }
});

fn read(bytes: &[u8], cuts: &[usize]) -> Result<Option<ClientHello>, HelloError> {
    let mut ends: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
    ends.sort_unstable();
    let mut reader = HelloReader::new();
    for end in ends.into_iter().chain([bytes.len()]) {
        match reader.read(&bytes[..end]) {
            Ok(None) => {}
            judged => return judged,
        }
    }
    Ok(None)
}
