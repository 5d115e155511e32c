//! Recorders of version 1, which acknowledge nothing.

use std::{
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use podwitness_proxy::BoxedStream;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
    sync::watch,
};

use crate::{kit::*, recorder::Peer};

/// What it does when it hears the preface of HTTP/2.
#[derive(Clone, Copy, Debug)]
enum Hears {
    /// It answers in HTTP/1.1.
    Answers(&'static str),
    /// It closes the connection.
    Closes,
}

/// What it does with a recording.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Takes {
    /// It reads it to its end.
    Whole,
    /// It closes the connection in the middle.
    Half,
    /// It answers that it has it, and reads nothing.
    Nothing,
}

/// One of version 1, on raw bytes.
struct Old {
    hears: Hears,
    takes: watch::Sender<Takes>,
    /// Heads of requests and their bodies, with their chunks' lengths.
    uploads: Arc<Mutex<Vec<(String, String)>>>,
    probes: Arc<Mutex<usize>>,
    ended: Arc<Mutex<usize>>,
}

impl Old {
    fn add(pod: &Pod, address: &str, hears: Hears) -> Arc<Self> {
        let old = Arc::new(Self {
            hears,
            takes: watch::channel(Takes::Whole).0,
            uploads: Arc::default(),
            probes: Arc::default(),
            ended: Arc::default(),
        });
        pod.network.put(address, Arc::<Self>::clone(&old));
        pod.name(&[address]);
        old
    }

    /// The text of the only body, nothing while there is none.
    fn only(&self) -> String {
        let uploads = self.uploads.lock().unwrap();
        assert!(uploads.len() <= 1, "{uploads:?}");
        uploads.first().map(|upload| upload.1.clone()).unwrap_or_default()
    }

    fn ended(&self) -> usize {
        *self.ended.lock().unwrap()
    }

    fn probes(&self) -> usize {
        *self.probes.lock().unwrap()
    }
}

impl Peer for Old {
    fn dialled(&self) -> io::Result<BoxedStream> {
        let (near, far) = duplex(64 << 10);
        let (hears, takes) = (self.hears, self.takes.subscribe());
        let (uploads, probes, ended) =
            (Arc::clone(&self.uploads), Arc::clone(&self.probes), Arc::clone(&self.ended));
        tokio::spawn(async move {
            let mut far = far;
            let head = line_by_line(&mut far).await?;
            if head.starts_with("PRI ") {
                *probes.lock().unwrap() += 1;
                if let Hears::Answers(answer) = hears {
                    far.write_all(answer.as_bytes()).await?;
                }
                return io::Result::Ok(());
            }
            let number = {
                let mut uploads = uploads.lock().unwrap();
                uploads.push((head, String::new()));
                uploads.len() - 1
            };
            far.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
            if *takes.borrow() != Takes::Nothing {
                record(&mut far, takes, |text| uploads.lock().unwrap()[number].1.push_str(text)).await?;
                *ended.lock().unwrap() += 1;
            }
            far.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await
        });
        Ok(Box::new(near))
    }
}

/// A head, or what stands for one.
async fn line_by_line(far: &mut DuplexStream) -> io::Result<String> {
    let mut head = vec![];
    while !head.ends_with(b"\r\n\r\n") {
        head.push(far.read_u8().await?);
    }
    Ok(String::from_utf8(head).unwrap())
}

/// Reads a chunked body to its end.
async fn record(
    far: &mut DuplexStream,
    mut takes: watch::Receiver<Takes>,
    mut see: impl FnMut(&str),
) -> io::Result<()> {
    loop {
        let mut length = vec![];
        while !length.ends_with(b"\r\n") {
            tokio::select! {
                byte = far.read_u8() => length.push(byte?),
                _ = takes.wait_for(|takes| *takes == Takes::Half) => return Err(io::ErrorKind::ConnectionReset.into()),
            }
        }
        let length = usize::from_str_radix(str::from_utf8(&length).unwrap().trim(), 16).unwrap();
        let mut chunk = vec![0; length + 2];
        far.read_exact(&mut chunk).await?;
        if length == 0 {
            return Ok(());
        }
        see(str::from_utf8(&chunk[..length]).unwrap());
    }
}

const BAD: Hears =
    Hears::Answers("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");

#[tokio::test(start_paused = true)]
async fn a_recorder_that_does_not_speak_version_2_gets_version_1() {
    for hears in [BAD, Hears::Closes] {
        let pod = Pod::new();
        let old = Old::add(&pod, ONE, hears);
        let mut session = pod.session(meta(), open()).await;
        session.says(&frame(1, b"out")).await;
        eventually("it comes as it is shown", || old.only().contains("\"o\",\"out\"")).await;
        session.says(&frame(2, b"err")).await;
        session.ends(SUCCESS).await;
        eventually("the end", || old.ended() == 1).await;
        let text = old.only();
        assert!(!text.contains("podwitness") && !text.contains("x-"), "{text}");
        let cast = Cast::parse(text.as_bytes());
        assert_eq!((cast.output(), cast.header.command.as_str()), (b"outerr".to_vec(), "sh -c a && b"));
        let head = old.uploads.lock().unwrap()[0].0.to_lowercase();
        assert!(head.starts_with("post /record http/1.1\r\n"), "{head}");
        for line in ["host: [fd70::1]:80", "transfer-encoding: chunked", "expect: 100-continue"] {
            assert!(head.contains(&format!("\r\n{line}\r\n")), "{head}");
        }
        let shipped = "podwitness_session_recordings_total{result=\"Complete\"}";
        eventually("shipped", || pod.metric(shipped) == 1).await;
        assert!(pod.metric("podwitness_session_unacknowledged_bytes_total") > 20);
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_before_the_end_of_a_recording_is_none() {
    let pod = Pod::new();
    let old = Old::add(&pod, ONE, BAD);
    old.takes.send_replace(Takes::Nothing);
    let mut session = pod.session(meta(), open()).await;
    session.says(&frame(1, b"out")).await;
    session.ends(SUCCESS).await;
    tokio::time::sleep(Duration::from_secs(100)).await;
    let complete = "podwitness_session_recordings_total{result=\"Complete\"}";
    assert_eq!(pod.metric(complete), 0);
    old.takes.send_replace(Takes::Whole);
    eventually("the recording", || pod.metric(complete) == 1).await;
    let (_, text) = old.uploads.lock().unwrap().last().cloned().unwrap();
    assert_eq!(Cast::parse(text.as_bytes()).output(), b"out");
}

#[tokio::test(start_paused = true)]
async fn which_version_a_recorder_speaks_is_remembered_for_ten_minutes() {
    let pod = Pod::new();
    let old = Old::add(&pod, ONE, BAD);
    for _ in 0..5 {
        pod.session(meta(), open()).await.ends(SUCCESS).await;
    }
    eventually("the end", || old.ended() == 5).await;
    assert_eq!(old.probes(), 1);
    tokio::time::sleep(Duration::from_secs(600)).await;
    pod.session(meta(), open()).await.ends(SUCCESS).await;
    eventually("the end", || old.ended() == 6).await;
    assert_eq!(old.probes(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_recorder_that_was_replaced_by_a_better_one_is_found_to_be() {
    let pod = Pod::new();
    let old = Old::add(&pod, ONE, BAD);
    pod.session(meta(), open()).await.ends(SUCCESS).await;
    eventually("the end", || old.ended() == 1).await;
    let new = pod.recorder(ONE);
    pod.session(meta(), closed()).await;
    assert_eq!(new.uploads().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn fail_closed_is_not_satisfied_by_version_1_and_says_so() {
    let pod = Pod::new();
    let old = Old::add(&pod, ONE, BAD);
    for _ in 0..3 {
        let refused = pod.sessions.open(meta(), closed()).await.err().unwrap();
        assert_eq!(refused.code, 403);
        assert!(
            refused.message.contains("Grant \"pci\"") && refused.message.contains("acknowledges nothing"),
            "{}",
            refused.message
        );
    }
    assert_eq!((old.probes(), old.uploads.lock().unwrap().len()), (3, 0), "it may have become better");
    let new = pod.recorder(TWO);
    pod.name(&[ONE, TWO]);
    pod.session(meta(), closed()).await.ends(SUCCESS).await;
    assert_eq!(new.uploads().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_recorder_of_version_2_is_never_taken_for_an_old_one_because_it_broke_off() {
    let pod = Pod::new();
    let recorder = pod.recorder(ONE);
    pod.session(meta(), open()).await.ends(SUCCESS).await;
    eventually("the end", || recorder.uploads().len() == 1).await;
    recorder.die();
    // It closes connections without a word, as one does that has too many.
    let old = Old::add(&pod, ONE, Hears::Closes);
    pod.session(meta(), open()).await.ends(SUCCESS).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(old.probes() > 1 && old.uploads.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_breaks_off_goes_on_with_the_next_recorder_and_is_counted() {
    let pod = Pod::new();
    let old = Old::add(&pod, ONE, BAD);
    let new = pod.recorder(TWO);
    pod.name(&[ONE, TWO]);
    let mut session = pod.session(meta(), open()).await;
    session.says(&frame(1, b"one ")).await;
    eventually("the first", || old.only().contains("one ")).await;
    old.takes.send_replace(Takes::Half);
    tokio::time::sleep(Duration::from_secs(1)).await;
    session.says(&frame(1, b"two ")).await;
    session.says(&frame(1, b"three")).await;
    session.ends(SUCCESS).await;
    eventually("the rest", || {
        new.uploads().first().is_some_and(|seen| seen.body.ends_with(b"\"recorded\"]\n"))
    })
    .await;
    let rest = Cast::parse(&new.uploads()[0].body);
    assert_eq!((rest.output(), rest.header.podwitness.unwrap().offset), (b"one two three".to_vec(), 0));
    assert_eq!(pod.metric("podwitness_session_broken_uploads_total"), 1);
    assert_eq!(pod.metric("podwitness_session_unacknowledged_bytes_total"), 0);
}
