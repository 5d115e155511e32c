//! Output that is an archive: what is listed, what is kept, and what a forger gains.

use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use podwitness_core::grant::Obligation;
use podwitness_wire::cast::{Event, Sum};
use tokio::io::AsyncWriteExt as _;

use crate::{
    kit::*,
    recorder::{Ended, Mood, Recorder},
};

const TEXT: &str = "root:x:0:0:root:/root:/bin/sh\n";

/// Bytes that nobody can read.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 7_u64;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    };
    std::iter::repeat_with(next).take(len).collect()
}

/// A member as GNU tar writes it.
fn member(name: &str, size: usize, content: &[u8]) -> Vec<u8> {
    let mut block = vec![0; 512];
    let mut put = |at: usize, text: &str| block[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, name);
    put(100, "0000644\x000000000\x000000000\0");
    put(124, &format!("{size:011o}\x0014217000000\0        0"));
    put(257, "ustar  \0root");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block.extend_from_slice(content);
    block.resize(block.len().next_multiple_of(512), 0);
    block
}

fn archive(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut stream: Vec<u8> =
        members.iter().flat_map(|(name, content)| member(name, content.len(), content)).collect();
    stream.resize(stream.len() + 1024, 0);
    stream.resize(stream.len().next_multiple_of(10_240), 0);
    stream
}

fn hex(bytes: &[u8]) -> String {
    digest(&SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The session that shows `stream` in frames of `size`, recorded.
async fn recorded(stream: &[u8], size: usize) -> Cast {
    let pod = Pod::new();
    let recorder = pod.recorder(ONE);
    let mut session = pod.session(meta(), open()).await;
    for piece in stream.chunks(size) {
        session.says(&frame(1, piece)).await;
    }
    session.says(&frame(2, b"tar: removing leading '/'\n")).await;
    session.ends(SUCCESS).await;
    whole(&recorder).await
}

async fn whole(recorder: &Recorder) -> Cast {
    eventually("the end", || recorder.uploads().first().is_some_and(|seen| seen.ended == Ended::Cleanly))
        .await;
    Cast::parse(&recorder.uploads()[0].body)
}

fn sums(cast: &Cast) -> Vec<Sum> {
    cast.events
        .iter()
        .filter_map(|event| if let Event::Sum(sum) = event { Some(*sum.clone()) } else { None })
        .collect()
}

fn contains(cast: &Cast, text: &[u8]) -> bool {
    cast.output().windows(text.len()).any(|some| some == text)
}

#[tokio::test(start_paused = true)]
async fn members_are_listed_text_is_kept_and_what_nobody_can_read_is_left_out() {
    let (binary, text) = (noise(300_000), TEXT.repeat(40));
    let stream = archive(&[("etc/binary", &binary), ("etc/passwd", text.as_bytes()), ("etc/none", b"")]);
    for size in [10_240, 32 << 10, 1000] {
        let cast = recorded(&stream, size).await;
        let sums = sums(&cast);
        let member = |name: &str| sums.iter().rfind(|sum| sum.member.as_deref() == Some(name)).unwrap();
        for (name, content) in
            [("etc/binary", &binary[..]), ("etc/passwd", text.as_bytes()), ("etc/none", b"")]
        {
            let sum = member(name);
            assert_eq!((sum.size, sum.bytes), (Some(content.len() as u64), content.len() as u64));
            assert_eq!(sum.sha256, hex(content), "{name} in pieces of {size}");
        }
        assert_eq!(member("etc/passwd").left_out, Some(0));
        let last = sums.last().unwrap();
        assert_eq!((&last.member, last.bytes, &last.sha256), (&None, stream.len() as u64, &hex(&stream)));
        let left_out = last.left_out.unwrap();
        assert!(left_out > 290_000, "{left_out} in pieces of {size}");
        assert_eq!(cast.output().len() as u64 + left_out, stream.len() as u64);
        assert!(contains(&cast, text.as_bytes()), "in pieces of {size}");
        assert!(cast.events.contains(&Event::Output("tar: removing leading '/'\n".into())));
        assert_eq!((cast.ending(), cast.gaps()), (Some(("completed", "recorded")), 0));
    }
}

#[tokio::test(start_paused = true)]
async fn text_behind_a_forged_header_is_recorded() {
    let text = TEXT.repeat(2000);
    let inside = member("innocent.bin", 1 << 30, text.as_bytes());
    let behind = [archive(&[("innocent.bin", &noise(2000))]), text.clone().into_bytes()].concat();
    for stream in [inside, behind] {
        for size in [32 << 10, 700] {
            assert!(contains(&recorded(&stream, size).await, text.as_bytes()), "in pieces of {size}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn from_the_first_byte_that_is_no_archive_on_everything_is_recorded() {
    let stream = [archive(&[("a", &noise(2000))]), noise(50_000)].concat();
    let cast = recorded(&stream, 10_240).await;
    assert!(cast.output().ends_with(&noise(50_000)));
    let whole: Vec<Sum> = sums(&cast).into_iter().filter(|sum| sum.member.is_none()).collect();
    assert_eq!((whole.len(), whole[0].bytes), (1, 10_240));
    assert_eq!(recorded(&noise(100_000), 1000).await.output(), noise(100_000));
}

#[tokio::test(start_paused = true)]
async fn on_a_terminal_everything_is_recorded() {
    let pod = Pod::new();
    let recorder = pod.recorder(ONE);
    let mut session = pod.session(with_tty(), open()).await;
    let stream = archive(&[("a", &noise(20_000))]);
    session.says(&frame(1, &stream)).await;
    session.ends(SUCCESS).await;
    let cast = whole(&recorder).await;
    assert_eq!((cast.output(), sums(&cast).len()), (stream, 0));
}

#[tokio::test(start_paused = true)]
async fn a_member_that_is_cut_is_named_with_what_came_of_it() {
    let content = noise(1 << 20);
    let stream = &member("core", content.len(), &content)[..512 + 400_000];
    let sums = sums(&recorded(stream, 32 << 10).await);
    assert_eq!(
        (sums[0].member.as_deref(), sums[0].size, &*sums[0].sha256),
        (Some("core"), Some(1 << 20), "")
    );
    let [.., core, whole] = sums.as_slice() else { panic!("{sums:?}") };
    assert_eq!(
        (core.member.as_deref(), core.bytes, &core.sha256),
        (Some("core"), 400_000, &hex(&content[..400_000]))
    );
    assert_eq!((whole.bytes, &whole.sha256), (stream.len() as u64, &hex(stream)));
    assert!(sums.len() > 6, "what is left out is written down as it comes: {}", sums.len());
}

#[tokio::test(start_paused = true)]
async fn under_fail_closed_what_is_left_out_waits_for_its_recording_too() {
    let pod = Pod::new();
    let recorder = pod.recorder(ONE);
    let mut session = pod.session(meta(), Obligation { lead: 1000, ..closed() }).await;
    let content = noise(8 << 20);
    let stream = member("core", content.len(), &content);
    let (first, rest) = stream.split_at(32 << 10);
    session.says(&frame(1, first)).await;
    recorder.mood.send_replace(Mood::Forgetful);
    let rest: Vec<u8> = rest.chunks(32 << 10).flat_map(|piece| frame(1, piece)).collect();
    let shown = async {
        let mut shown = 0;
        let mut some = vec![0; 32 << 10];
        while let Ok(Ok(len)) = tokio::time::timeout(
            Duration::from_secs(5),
            tokio::io::AsyncReadExt::read(&mut session.client, &mut some),
        )
        .await
        {
            shown += len;
        }
        shown
    };
    let written = tokio::time::timeout(Duration::from_secs(15), session.server.write_all(&rest));
    let (shown, _) = tokio::join!(shown, written);
    assert!(shown < 1 << 20, "{shown} bytes were shown");
}
