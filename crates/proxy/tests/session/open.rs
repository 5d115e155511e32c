//! Fail open: a session never waits for its recording, and the recording waits for a recorder.

use std::time::Duration;

use podwitness_core::{
    control::{Netmap, Notice},
    grant::{Obligation, RecorderChoice},
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::{
    kit::*,
    recorder::{Ended, Mood},
};

#[tokio::test(start_paused = true)]
async fn without_any_netmap_the_session_runs_and_is_recorded_later() {
    let pod = Pod::new();
    let mut unknown = open();
    (unknown.grants, unknown.recorders) = (vec![], vec![]);
    let mut session = pod.session(meta(), unknown.clone()).await;
    session.says(&frame(1, b"hello")).await;
    session.ends(SUCCESS).await;
    let recorder = pod.recorder(ONE);
    eventually("the end", || recorder.uploads().first().is_some_and(|seen| seen.ended == Ended::Cleanly))
        .await;
    assert_eq!(Cast::parse(&recorder.uploads()[0].body).output(), b"hello");

    let pod = Pod::new();
    let session = pod.session(meta(), unknown).await;
    session.ends(SUCCESS).await;
    pod.netmap.send_replace(Some(Netmap::default().into()));
    let unwanted = "podwitness_session_recordings_total{result=\"Unwanted\"}";
    eventually("nobody wants it", || pod.metric(unwanted) == 1).await;
    assert_eq!(pod.metric("podwitness_session_lost_bytes_total"), 0);
}

#[tokio::test(start_paused = true)]
async fn with_every_recorder_down_the_session_runs_and_is_recorded_whole_later() {
    let pod = Pod::new();
    let recorder = pod.recorder(ONE);
    recorder.die();
    let mut session = pod.session(meta(), open()).await;
    for n in 0..100 {
        session.says(&frame(1, format!("line {n}\n").as_bytes())).await;
    }
    session.ends(SUCCESS).await;
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert!(recorder.uploads().is_empty() && recorder.dials() < 20, "{}", recorder.dials());
    recorder.mood.send_replace(Mood::Good);
    eventually("the end", || recorder.uploads().first().is_some_and(|seen| seen.ended == Ended::Cleanly))
        .await;
    let cast = Cast::parse(&recorder.uploads()[0].body);
    let all: String = (0..100).map(|n| format!("line {n}\n")).collect();
    assert_eq!((String::from_utf8(cast.output()).unwrap(), cast.gaps()), (all, 0));
    assert_eq!(cast.ending(), Some(("completed", "recorded-late")));
}

#[tokio::test(start_paused = true)]
async fn a_recorder_that_dies_is_followed_by_the_next_and_nothing_is_missing() {
    let pod = Pod::new();
    let (one, two) = pod.recorders();
    let mut session = pod.session(meta(), open()).await;
    session.says(&frame(1, b"one ")).await;
    eventually("the first line", || one.uploads().first().is_some_and(|seen| seen.body.ends_with(b"\"]\n")))
        .await;
    one.mood.send_replace(Mood::Forgetful);
    session.says(&frame(1, b"two ")).await;
    eventually("the second line", || one.only().contains("two")).await;
    one.die();
    session.says(&frame(1, b"three")).await;
    session.ends(SUCCESS).await;
    eventually("the end", || two.uploads().first().is_some_and(|seen| seen.ended == Ended::Cleanly)).await;
    let parts = vec![one.uploads()[0].body.clone(), two.uploads()[0].body.clone()];
    let second = Cast::parse(&parts[1]).header.podwitness.unwrap();
    assert!(second.part == 1 && second.offset > 0, "{second:?}");
    let cast = Cast::join(parts);
    assert_eq!((cast.output(), cast.gaps()), (b"one two three".to_vec(), 0));
}

#[tokio::test(start_paused = true)]
async fn a_recorder_that_hangs_is_left_for_the_next() {
    let pod = Pod::new();
    let (one, two) = pod.recorders();
    let mut session = pod.session(meta(), open()).await;
    session.says(&frame(1, b"first")).await;
    eventually("the first line", || one.uploads().first().is_some_and(|seen| seen.body.ends_with(b"\"]\n")))
        .await;
    one.mood.send_replace(Mood::Stuck);
    session.says(&frame(1, b"second")).await;
    eventually("the next", || two.uploads().first().is_some_and(|s| s.body.ends_with(b"second\"]\n"))).await;
    session.ends(SUCCESS).await;
}

/// Whether it reads the upload to its end or nothing of it, and whatever it announces.
#[tokio::test(start_paused = true)]
async fn what_a_recorder_has_not_acknowledged_is_not_recorded_however_it_ends() {
    for (level, mood) in [None, Some("received")]
        .into_iter()
        .flat_map(|level| [Mood::Hasty, Mood::Forgetful].map(|mood| (level, mood)))
    {
        let pod = Pod::new();
        let recorder = pod.network.add(ONE, level);
        pod.name(&[ONE]);
        recorder.mood.send_replace(mood);
        let mut session = pod.session(meta(), open()).await;
        session.says(&frame(1, b"hello")).await;
        session.ends(SUCCESS).await;
        tokio::time::sleep(Duration::from_secs(100)).await;
        let complete = "podwitness_session_recordings_total{result=\"Complete\"}";
        assert_eq!(pod.metric(complete), 0, "{level:?} {mood:?}");
        recorder.mood.send_replace(Mood::Good);
        eventually("the recording", || pod.metric(complete) == 1).await;
        let last = recorder.uploads().pop().unwrap();
        let cast = Cast::parse(&last.body);
        assert_eq!((last.ended, cast.output(), cast.gaps()), (Ended::Cleanly, b"hello".to_vec(), 0));
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_frame_ends_the_upload_and_not_the_session() {
    let pod = Pod::new();
    let recorder = pod.recorder(ONE);
    recorder.mood.send_replace(Mood::Refusing(403));
    let mut session = pod.session(meta(), open()).await;
    session.says(&frame(1, b"x")).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    session.says(&frame(1, b"y")).await;
    recorder.mood.send_replace(Mood::Good);
    session.ends(SUCCESS).await;
    eventually("the end", || recorder.uploads().first().is_some_and(|seen| seen.ended == Ended::Cleanly))
        .await;
    assert_eq!(Cast::parse(&recorder.uploads()[0].body).output(), b"xy");
}

#[tokio::test(start_paused = true)]
async fn a_recorder_that_takes_uploads_and_keeps_none_is_asked_less_and_less() {
    let pod = Pod::new();
    let recorder = pod.recorder(ONE);
    recorder.mood.send_replace(Mood::Failing);
    pod.session(meta(), open()).await.ends(SUCCESS).await;
    tokio::time::sleep(Duration::from_secs(300)).await;
    let tries = recorder.uploads().len();
    assert!((10..20).contains(&tries), "{tries}");
    recorder.mood.send_replace(Mood::Good);
    eventually("the end", || recorder.uploads().last().is_some_and(|seen| seen.ended == Ended::Cleanly))
        .await;
}

#[tokio::test(start_paused = true)]
async fn output_beyond_memory_waits_in_the_spool() {
    let dir = tempfile::tempdir().unwrap();
    let pod = Pod::with_spool(Some((dir.path().into(), 64 << 20)));
    let recorder = pod.recorder(ONE);
    recorder.die();
    let mut session = pod.session(meta(), open()).await;
    let line = frame(1, &[b'x'; 32_000]);
    for _ in 0..400 {
        session.says(&line).await;
    }
    eventually("memory is relieved", || pod.metric("podwitness_session_memory_bytes") < 2 << 20).await;
    assert!(pod.metric("podwitness_session_spool_bytes") > 8 << 20);
    session.ends(SUCCESS).await;
    recorder.mood.send_replace(Mood::Good);
    eventually("the end", || recorder.uploads().first().is_some_and(|seen| seen.ended == Ended::Cleanly))
        .await;
    let cast = Cast::parse(&recorder.uploads()[0].body);
    assert_eq!((cast.output().len(), cast.gaps()), (400 * 32_000, 0));
    let held =
        || pod.metric("podwitness_session_memory_bytes") + pod.metric("podwitness_session_spool_bytes");
    eventually("everything is given back", || held() == 0).await;
    let is_empty = || dir.path().read_dir().unwrap().count() == 0;
    eventually("nothing is left lying there", is_empty).await;
}

#[tokio::test(start_paused = true)]
async fn what_fits_nowhere_is_counted_in_a_gap() {
    let dir = tempfile::tempdir().unwrap();
    let pod = Pod::with_spool(Some((dir.path().into(), 4 << 20)));
    let recorder = pod.recorder(ONE);
    recorder.die();
    let mut session = pod.session(meta(), open()).await;
    let (piece, count) = (1_000_000, 80);
    let line = frame(1, &vec![b'x'; piece]);
    for _ in 0..count {
        session.says(&line).await;
    }
    assert!(pod.metric("podwitness_session_memory_bytes") <= 64 << 20);
    recorder.mood.send_replace(Mood::Good);
    eventually("there is room again", || pod.metric("podwitness_session_memory_bytes") < 8 << 20).await;
    session.says(&frame(1, b"after")).await;
    session.ends(SUCCESS).await;
    eventually("the end", || recorder.uploads().first().is_some_and(|seen| seen.ended == Ended::Cleanly))
        .await;
    let cast = Cast::parse(&recorder.uploads()[0].body);
    let (shown, gaps) = (cast.output(), cast.gaps());
    assert!(gaps > 0);
    assert_eq!(shown.len() as u64 + gaps, (piece * count + 5) as u64);
    assert!(shown.ends_with(b"after"));
    assert_eq!(cast.ending(), Some(("completed", "gap")));
    assert_eq!(pod.metric("podwitness_session_lost_bytes_total"), gaps);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_holds_up_nobody_for_16_mib() {
    let pod = Pod::new();
    pod.recorder(ONE);
    let mut session = pod.session(meta(), open()).await;
    let line = frame(1, &[b'x'; 32_000]);
    let mut sent = 0;
    while tokio::time::timeout(Duration::from_secs(5), session.server.write_all(&line)).await.is_ok() {
        sent += line.len();
    }
    assert!((15 << 20..18 << 20).contains(&sent), "{sent}");
    assert!(pod.metric("podwitness_session_memory_bytes") < 18 << 20);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_reads_slowly_hears_all_of_a_server_that_has_left() {
    let pod = Pod::new();
    pod.recorder(ONE);
    let mut session = pod.session(meta(), open()).await;
    let said = frame(1, &[b'x'; 32_000]).repeat(20);
    session.server.write_all(&said).await.unwrap();
    session.is_left_by_the_server().await;
    let mut heard = vec![0; said.len()];
    for part in heard.chunks_mut(20_000) {
        tokio::time::sleep(Duration::from_secs(3)).await;
        session.client.read_exact(part).await.unwrap();
    }
    assert!(heard == said);
    assert!(session.last_words().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_pod_ends_its_sessions_with_a_word() {
    let pod = Pod::new();
    let recorder = pod.recorder(ONE);
    let mut session = pod.session(meta(), open()).await;
    session.says(&frame(1, b"x")).await;
    let Pod { signal, .. } = pod;
    let drained = tokio::spawn(signal.drain(Duration::from_secs(25)));
    session.says(&frame(1, b"still here")).await;
    let words = session.last_words().await;
    assert!(String::from_utf8_lossy(&words).contains("its pod is going away"));
    assert_eq!(drained.await.unwrap(), podwitness_runtime::drain::Drained::Deadline);
    let _ = recorder;
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_ends_waits_ten_seconds_for_a_recorder_and_no_longer() {
    let pod = Pod::new();
    pod.recorder(ONE).die();
    pod.session(meta(), open()).await.ends(SUCCESS).await;
    let begun = tokio::time::Instant::now();
    let Pod { signal, registry, sessions, netmap, .. } = pod;
    assert_eq!(signal.drain(Duration::from_secs(60)).await, podwitness_runtime::drain::Drained::All);
    assert!(begun.elapsed() < Duration::from_secs(12), "{:?}", begun.elapsed());
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    assert!(text.contains("podwitness_session_recordings_total{result=\"Lost\"} 1"), "{text}");
    drop((sessions, netmap));
}

#[tokio::test(start_paused = true)]
async fn bytes_pass_unchanged_however_they_are_cut() {
    let pod = Pod::new();
    pod.recorder(ONE);
    let mut session = pod.session(meta(), open()).await;
    let short = [
        frame(1, b"abc"),
        vec![0x02, 3, 1, b'd', b'e'],
        vec![0x89, 0],
        vec![0x80, 1, b'f'],
        frame(2, &[7; 300]),
    ]
    .concat();
    let long = [short.clone(), frame(1, &vec![8; 70_000]), short.clone()].concat();
    for (stream, size) in [(&short, 1), (&short, 3), (&long, 1000), (&long, long.len())] {
        let (server, client) = (&mut session.server, &mut session.client);
        let write = async {
            for piece in stream.chunks(size) {
                server.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
        };
        let mut heard = vec![0; stream.len()];
        let read = client.read_exact(&mut heard);
        assert!(tokio::join!(write, read).1.is_ok() && heard == *stream, "in pieces of {size}");
    }
    session.ends(SUCCESS).await;
}

#[tokio::test(start_paused = true)]
async fn what_a_killed_process_had_put_aside_is_shipped_by_the_next() {
    let (dir, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let pod = Pod::with_spool(Some((dir.path().into(), 64 << 20)));
    pod.recorder(ONE).die();
    let mut session = pod.session(meta(), open()).await;
    session.says(&frame(1, b"shown")).await;
    eventually("it lies on disk", || {
        pod.metric("podwitness_session_spool_bytes") > 0 && pod.metric("podwitness_session_memory_bytes") == 0
    })
    .await;
    // What a kill leaves: nobody tidies up.
    let folder = dir.path().read_dir().unwrap().next().unwrap().unwrap();
    let to = copy.path().join(folder.file_name());
    std::fs::create_dir(&to).unwrap();
    for file in folder.path().read_dir().unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
    let next = Pod::with_spool(Some((copy.path().into(), 64 << 20)));
    let recorder = next.recorder(ONE);
    eventually("the end", || recorder.uploads().first().is_some_and(|seen| seen.ended == Ended::Cleanly))
        .await;
    let cast = Cast::parse(&recorder.uploads()[0].body);
    assert_eq!(cast.output(), b"shown");
    assert_eq!(cast.ending(), Some(("interrupted", "cut")));
    let ours = cast.header.podwitness.unwrap();
    assert_eq!(
        (ours.session, ours.part, ours.offset),
        (folder.file_name().into_string().unwrap(), 1 << 16, 0)
    );
    let is_empty = || copy.path().read_dir().unwrap().count() == 0;
    eventually("nothing is left lying there", is_empty).await;
}

#[tokio::test(start_paused = true)]
async fn a_recording_that_waits_follows_the_grant_when_its_tag_is_corrected() {
    let pod = Pod::new();
    let recorder = pod.network.add(ONE, Some("volume"));
    pod.publish_tag("tag:typo", vec![peer(ONE)]);
    let typo = RecorderChoice { tag: "tag:typo".into(), enforced: false };
    let mut session = pod.session(meta(), Obligation { recorders: vec![typo], ..open() }).await;
    session.says(&frame(1, b"before")).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(recorder.uploads().is_empty());
    pod.publish(vec![peer(ONE)]);
    eventually("it is uploaded", || {
        recorder.uploads().first().is_some_and(|seen| seen.body.ends_with(b"before\"]\n"))
    })
    .await;
    // What goes on is held to the recorder that has it.
    pod.publish_tag("tag:typo", vec![peer(ONE)]);
    session.says(&frame(1, b" after")).await;
    session.ends(SUCCESS).await;
    eventually("the end", || recorder.uploads().first().is_some_and(|seen| seen.ended == Ended::Cleanly))
        .await;
    assert_eq!(Cast::parse(&recorder.uploads()[0].body).output(), b"before after");
}

#[tokio::test(start_paused = true)]
async fn a_recording_that_waits_keeps_its_recorders_where_the_grants_name_none() {
    let pod = Pod::new();
    let recorder = pod.recorder(ONE);
    recorder.die();
    let mut session = pod.session(meta(), open()).await;
    session.says(&frame(1, b"x")).await;
    pod.publish_tag("tag:typo", vec![peer(ONE)]);
    recorder.mood.send_replace(Mood::Good);
    session.ends(SUCCESS).await;
    eventually("the end", || recorder.uploads().first().is_some_and(|seen| seen.ended == Ended::Cleanly))
        .await;
}

#[tokio::test(start_paused = true)]
async fn above_the_cap_of_recordings_a_session_is_counted_and_said() {
    let mut pod = Pod::new();
    let recorder = pod.recorder(ONE);
    recorder.die();
    let mut held = vec![];
    for _ in 0..4096 {
        held.push(pod.sessions.open(meta(), open()).await.map_err(|status| status.message).unwrap());
    }
    assert_eq!(pod.metric("podwitness_session_over_cap_total"), 0);
    assert!(pod.noticed.try_recv().is_err());
    let above = pod.sessions.open(meta(), open()).await.map_err(|status| status.message).unwrap();
    assert_eq!(pod.metric("podwitness_session_over_cap_total"), 1);
    assert_eq!(pod.noticed.try_recv(), Ok(Notice::TooManyRecordings));
    let Err(status) = pod.sessions.open(meta(), closed()).await else { panic!("it is not refused") };
    assert!(status.message.contains("too many recordings"), "{}", status.message);
    assert_eq!(pod.metric("podwitness_session_over_cap_total"), 2);
    drop((above, held));
}
