//! Sessions whose frames are as no client makes them, but as the server takes them: each is recorded word for word, and
//! none has a gap.

use anyhow::Result;

use crate::evasion::{End, on_stage};

use End::Recorded;

const V4: &str = "v4.channel.k8s.io";

/// SPDY of which the server does not believe the length, the version or the order: a name, and how it is spoken.
pub(super) fn spdy_ways() -> Vec<(String, String)> {
    let preludes = [
        ("a ping that states 12 bytes", "800300060000000c00000001"),
        ("a ping that states none", "800300060000000000000001"),
        ("a ping that states 16 MiB", "8003000600ffffff00000001"),
        ("a reset that states 12 bytes", "800300030000000c0000006300000005"),
        ("settings that state two more", "8003000400000014 00000000"),
        ("a ping of version 9", "800900060000000400000001"),
        ("data of a stream that is not open", "0000006300000003616263"),
    ];
    let mut ways: Vec<(String, String)> = preludes
        .iter()
        .map(|(name, prelude)| ((*name).to_owned(), format!("--prelude '{prelude}'")))
        .collect();
    ways.push(("all header blocks in the first frame".into(), "--frames hoarded".into()));
    ways.push(("a stream id with its top bit set".into(), "--stray 2147483659".into()));
    ways.push(("a last frame that has no end".into(), "--frames broken".into()));
    ways.into_iter()
        .map(|(name, how)| (name, format!("--over spdy --protocol {V4} {how} --path EXEC")))
        .collect()
}

/// Reserved opcodes and bits, control frames in pieces or too long, fragments without a message: a name, and how it is
/// spoken.
pub(super) fn websocket_ways() -> Vec<(String, String)> {
    let mut ways = Vec::new();
    for protocol in ["v5.channel.k8s.io", V4, "channel.k8s.io"] {
        for frames in ["reserved", "loose", "broken"] {
            let how = format!("--protocol {protocol} --frames {frames} --path EXEC");
            ways.push((format!("{frames} {protocol}"), how));
        }
    }
    ways
}

/// What stands behind each frame is the session's first stream.
#[tokio::test]
async fn no_frame_of_spdy_hides_the_output() -> Result<()> {
    on_stage(async |stage| {
        let ways = spdy_ways();
        let ways: Vec<_> = ways.iter().map(|(name, how)| (&**name, &**how, Recorded)).collect();
        stage.try_all(&ways).await
    })
    .await
}

#[tokio::test]
async fn no_frame_of_a_websocket_hides_the_output() -> Result<()> {
    on_stage(async |stage| {
        let ways = websocket_ways();
        let ways: Vec<_> = ways.iter().map(|(name, how)| (&**name, &**how, Recorded)).collect();
        stage.try_all(&ways).await
    })
    .await
}
