//! What the access log says: one line for each session, the same word as the recording, nothing that is a secret.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

use tracing::{
    Level, Metadata, Subscriber,
    field::{Field, Visit},
    span,
    subscriber::DefaultGuard,
};

use crate::{
    kit::*,
    recorder::{Ended, Mood},
};

type Line = BTreeMap<&'static str, String>;

/// Keeps the lines of the access log, and counts everything that is worse than information.
#[derive(Clone, Default)]
struct Log {
    lines: Arc<Mutex<Vec<Line>>>,
    worse: Arc<Mutex<Vec<String>>>,
}

impl Log {
    fn watch() -> (Self, DefaultGuard) {
        let log = Self::default();
        let guard = tracing::subscriber::set_default(log.clone());
        (log, guard)
    }

    fn only(&self) -> Line {
        let lines = self.lines.lock().unwrap();
        assert_eq!(lines.len(), 1, "{lines:?}");
        lines[0].clone()
    }
}

struct Fields(Line);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }
}

impl Subscriber for Log {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut fields = Fields(Line::new());
        event.record(&mut fields);
        if event.metadata().target() == "access" {
            assert_eq!(*event.metadata().level(), Level::INFO);
            self.lines.lock().unwrap().push(fields.0);
        } else if *event.metadata().level() < Level::INFO {
            self.worse.lock().unwrap().push(format!("{:?}", fields.0));
        }
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

#[tokio::test(start_paused = true)]
async fn a_session_that_went_well_is_one_line_with_the_word_of_its_recording() {
    let (log, _guard) = Log::watch();
    let pod = Pod::new();
    let recorder = pod.recorder(ONE);
    let mut session = pod.session(meta(), open()).await;
    session.types(&masked(0, b"hunter2")).await;
    session.says(&frame(1, b"account balance")).await;
    session.ends(SUCCESS).await;
    eventually("the end", || recorder.uploads()[0].ended == Ended::Cleanly).await;

    let line = log.only();
    let said = |key| line.get(key).map_or("", String::as_str);
    assert_eq!((said("session.end"), said("session.outcome")), ("completed", "recorded"));
    let cast = Cast::parse(&recorder.uploads()[0].body);
    assert_eq!(cast.ending(), Some((said("session.end"), said("session.outcome"))));
    assert_eq!((said("session.transport"), said("session.subprotocol")), ("websocket", "v5.channel.k8s.io"));
    assert_eq!((said("bytes.output"), said("bytes.lost"), said("session.exit")), ("15", "0", "0"));
    assert_eq!((said("session.parts"), said("recorder")), ("1", ONE));
    assert!(line.contains_key("session.millis"));
    let text = format!("{line:?}");
    assert!(
        !["a && b", "hunter2", "balance", "who.we.are"].iter().any(|secret| text.contains(secret)),
        "{text}"
    );
    assert!(log.worse.lock().unwrap().is_empty(), "{:?}", log.worse);
    assert_eq!(pod.metric("podwitness_session_ended_total{outcome=\"recorded\",end=\"completed\"}"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_session_is_late_when_its_recorder_is_and_its_line_does_not_wait_for_that() {
    let (log, _guard) = Log::watch();
    let pod = Pod::new();
    let recorder = pod.recorder(ONE);
    recorder.mood.send_replace(Mood::Forgetful);
    let begun = tokio::time::Instant::now();
    pod.session(meta(), open()).await.ends(SUCCESS).await;
    assert!(begun.elapsed() < Duration::from_secs(11), "{:?}", begun.elapsed());
    assert_eq!(log.only()["session.outcome"], "recorded-late");
    recorder.mood.send_replace(Mood::Good);
    eventually("the end", || recorder.uploads().last().is_some_and(|seen| seen.ended == Ended::Cleanly))
        .await;
    let last = recorder.uploads().pop().unwrap();
    assert_eq!(Cast::parse(&last.body).ending(), Some(("completed", "recorded-late")));
}

#[tokio::test(start_paused = true)]
async fn a_session_that_was_refused_is_one_line_too() {
    let (log, _guard) = Log::watch();
    let pod = Pod::new();
    pod.name(&[]);
    assert!(pod.sessions.open(meta(), closed()).await.is_err());
    let line = log.only();
    assert_eq!((&*line["session.end"], &*line["session.outcome"]), ("never", "refused"));
    assert!(line["reason"].contains("Grant \"pci\"") && !format!("{line:?}").contains("a && b"), "{line:?}");
}

#[tokio::test(start_paused = true)]
async fn parts_are_counted_and_the_last_recorder_is_named() {
    let (log, _guard) = Log::watch();
    let pod = Pod::new();
    let (one, two) = pod.recorders();
    let mut session = pod.session(meta(), open()).await;
    session.says(&frame(1, b"x")).await;
    eventually("the first", || !one.uploads().is_empty()).await;
    one.die();
    eventually("the second", || !two.uploads().is_empty()).await;
    session.ends(r#"{"status":"Failure","reason":"InternalError","message":"exec: \"hunter2\""}"#).await;
    let line = log.only();
    assert_eq!((&*line["session.parts"], &*line["recorder"]), ("2", TWO));
    assert_eq!(line["session.exit"], "error");
}
