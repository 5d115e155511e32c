//! A spool that is tampered with: what a session had shown before cannot be rewritten before its upload.

use std::{fs, path::Path, time::Duration};

use podwitness_core::control::Notice;

use crate::{
    kit::*,
    recorder::{Ended, Mood},
};

/// The lines of the one recording that waits.
fn lines(dir: &Path) -> std::path::PathBuf {
    let folder = dir.read_dir().unwrap().next().unwrap().unwrap().path();
    let mut files = folder.read_dir().unwrap().map(|file| file.unwrap().path());
    files.find(|file| file.extension().is_some_and(|ending| ending == "lines")).unwrap()
}

#[tokio::test(start_paused = true)]
async fn what_was_rewritten_in_the_spool_is_a_gap_a_notice_and_a_number() {
    let (dir, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut pod = Pod::with_sealed_spool(dir.path(), state.path());
    let recorder = pod.recorder(ONE);
    recorder.die();
    let mut session = pod.session(meta(), open()).await;
    session.says(&frame(1, b"secret")).await;
    let is_spooled = || {
        pod.metric("podwitness_session_spool_bytes") > 0 && pod.metric("podwitness_session_memory_bytes") == 0
    };
    eventually("it lies on disk", is_spooled).await;
    let path = lines(dir.path());
    let forged = fs::read_to_string(&path).unwrap().replace("secret", "harmless");
    fs::write(&path, forged).unwrap();
    session.says(&frame(1, b"after")).await;
    session.ends(SUCCESS).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    recorder.mood.send_replace(Mood::Good);
    eventually("the end", || recorder.uploads().first().is_some_and(|seen| seen.ended == Ended::Cleanly))
        .await;
    let text = String::from_utf8_lossy(&recorder.uploads()[0].body).into_owned();
    assert!(text.contains("tampered\"]") && !text.contains("harmless"), "{text}");
    let cast = Cast::parse(&recorder.uploads()[0].body);
    assert_eq!(cast.ending(), Some(("completed", "gap")));
    assert_eq!(pod.noticed.try_recv(), Ok(Notice::SpoolTampered));
    assert!(pod.metric("podwitness_session_tampered_total") > 0);
}

#[tokio::test(start_paused = true)]
async fn what_was_not_touched_is_whole_also_from_a_sealed_spool() {
    let (dir, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut pod = Pod::with_sealed_spool(dir.path(), state.path());
    let recorder = pod.recorder(ONE);
    recorder.die();
    let mut session = pod.session(meta(), open()).await;
    session.says(&frame(1, b"one ")).await;
    eventually("it lies on disk", || pod.metric("podwitness_session_spool_bytes") > 0).await;
    session.says(&frame(1, b"two")).await;
    session.ends(SUCCESS).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    recorder.mood.send_replace(Mood::Good);
    eventually("the end", || recorder.uploads().first().is_some_and(|seen| seen.ended == Ended::Cleanly))
        .await;
    let cast = Cast::parse(&recorder.uploads()[0].body);
    assert_eq!((cast.output(), cast.gaps()), (b"one two".to_vec(), 0));
    assert_eq!(cast.ending(), Some(("completed", "recorded-late")));
    assert!(pod.noticed.try_recv().is_err());
    eventually("nothing is left lying there", || dir.path().read_dir().unwrap().count() == 0).await;
}
