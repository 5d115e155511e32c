//! The program as a process: what a kill leaves behind, what a shutdown says, what a wrong setting costs, what a bucket
//! holds, what becomes of it on a full volume.

#[cfg(test)]
mod bucket;
#[cfg(test)]
mod damage;
#[cfg(test)]
mod full;
#[cfg(test)]
mod interop;
#[cfg(test)]
mod kill;
#[cfg(test)]
mod lab;
#[cfg(test)]
mod legacy;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod s3;
#[cfg(test)]
mod volume;

#[cfg(test)]
mod tests {
    use podwitness_wire::ack::Ack;
    use rustix::process::Signal;

    use crate::lab::{HEADER, Recorder, acks, line, run, upload};

    #[tokio::test]
    async fn a_kill_leaves_every_acknowledged_byte() {
        for round in 0..5 {
            let recorder = Recorder::start();
            let (writer, answer) = upload(recorder.plain).await;
            let sent = tokio::spawn(async move {
                let mut sent = HEADER.to_owned();
                writer.send(HEADER).await;
                for number in 0.. {
                    let line = line(number, &"x".repeat(3000));
                    sent.push_str(&line);
                    if !writer.send(&line).await {
                        break;
                    }
                }
                sent
            });
            let mut safe = 0;
            let mut acks = acks(answer);
            while safe < 200_000 * (round + 1) {
                match acks.next().await {
                    Some(Ack::Received(bytes)) => safe = bytes,
                    other => panic!("{other:?}"),
                }
            }
            recorder.signal(Signal::KILL);
            // What was acknowledged until the very end counts.
            while let Some(Ack::Received(bytes)) = acks.next().await {
                safe = bytes;
            }
            let sent = sent.await.unwrap();
            let (cast, meta) = recorder.only();
            assert!(cast.len() as u64 >= safe, "{} of {safe} bytes", cast.len());
            assert!(sent.as_bytes().starts_with(&cast), "the file is not what was sent");
            assert!(meta.get("end").is_none());
        }
    }

    #[tokio::test]
    async fn a_shutdown_ends_what_does_not_end_itself_with_an_error_and_exits_in_order() {
        let mut recorder = Recorder::start();
        let (writer, answer) = upload(recorder.plain).await;
        writer.send(HEADER).await;
        let mut acks = acks(answer);
        while acks.next().await != Some(Ack::Received(HEADER.len() as u64)) {}
        recorder.signal(Signal::TERM);
        let mut last = None;
        while let Some(ack) = acks.next().await {
            last = Some(ack);
        }
        assert_eq!(last, Some(Ack::Failed("the recorder is shutting down".into())));
        assert!(recorder.ended().await.success());
        let (cast, meta) = recorder.only();
        assert_eq!(cast, HEADER.as_bytes());
        assert_eq!(meta["end"]["outcome"], "shutdown");
    }

    #[tokio::test]
    async fn the_viewer_shows_what_was_stored_and_what_goes_on() {
        let recorder = Recorder::start();
        let viewer = recorder.viewer();
        assert_eq!(viewer.get("/api/v1/sessions").await, "{\"sessions\":[],\"truncated\":false}");
        let (writer, answer) = upload(recorder.plain).await;
        writer.send(HEADER).await;
        let mut acks = acks(answer);
        while acks.next().await != Some(Ack::Received(HEADER.len() as u64)) {}
        let viewer = recorder.viewer();
        let list = viewer.get("/api/v1/sessions").await;
        let list: serde_json::Value = serde_json::from_slice(&list).unwrap();
        assert_eq!(list["sessions"][0]["complete"], false);
        let id = list["sessions"][0]["id"].as_str().unwrap();
        assert_eq!(viewer.get(&format!("/api/v1/sessions/{id}/cast?raw")).await, HEADER);
    }

    #[tokio::test]
    async fn health_is_the_only_thing_on_the_admin_port() {
        let recorder = Recorder::start();
        for (path, status) in [("/healthz", 200), ("/readyz", 200), ("/metrics", 200), ("/v2/record", 404)] {
            assert_eq!(recorder.admin_status(path).await, status, "{path}");
        }
    }

    #[test]
    fn wrong_settings_exit_with_64_and_name_every_mistake() {
        let (code, error) = run(&["ingest"], &[("PODWITNESS_ACK", "tape"), ("PODWITNESS_DRAIN", "soon")]);
        assert_eq!(code, 64);
        for name in ["PODWITNESS_ACK", "PODWITNESS_DRAIN", "PODWITNESS_CONTROL"] {
            assert!(error.contains(name), "{error}");
        }
        let (code, _) = run(&["view"], &[("PODWITNESS_LISTEN", "0.0.0.0:8081")]);
        assert_eq!(code, 64);
        assert_eq!(run(&["serve"], &[]).0, 64);
        assert_eq!(run(&["--help"], &[]).0, 0);
    }

    #[test]
    fn a_store_that_cannot_be_written_is_said_at_the_start() {
        let settings = [
            ("PODWITNESS_LISTEN_PLAIN", "127.0.0.1:0"),
            ("PODWITNESS_STORE", "/proc/nonexistent/recordings"),
        ];
        let (code, error) = run(&["ingest"], &settings);
        assert_eq!(code, 1);
        assert!(error.contains("is the volume mounted"), "{error}");
    }
}
