//! Whatever is shown is read back exactly, from lines within their cap.
#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use podwitness_wire::cast::{Encoder, Line, MAX_LINE, Stream, Transcript};

fuzz_target!(|pieces: Vec<(bool, &[u8])>| {
    let (mut encoder, mut lines) = (Encoder::new(), vec![]);
    let (mut stdout, mut stderr) = (vec![], vec![]);
    for (error, bytes) in pieces {
        let (stream, shown) =
            if error { (Stream::Stderr, &mut stderr) } else { (Stream::Stdout, &mut stdout) };
        shown.extend_from_slice(bytes);
        encoder.output(&mut lines, Duration::from_micros(shown.len() as u64), stream, bytes);
    }
    encoder.end(&mut lines, Duration::ZERO, "completed");

    let mut transcript = Transcript::new();
    let (mut read_stdout, mut read_stderr) = (vec![], vec![]);
    for line in lines.split_inclusive(|byte| *byte == b'\n') {
        assert!(line.len() <= MAX_LINE);
        match transcript.output(Line::parse(line).expect("a line of ours").event) {
            Some((Stream::Stdout, bytes)) => read_stdout.extend(bytes),
            Some((Stream::Stderr, bytes)) => read_stderr.extend(bytes),
            None => {}
        }
    }
    assert_eq!((read_stdout, read_stderr), (stdout, stderr));
});
