use std::{
    fmt, io,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
};

use futures_util::stream::BoxStream;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult,
    client::{HttpError, HttpErrorKind},
    memory::InMemory,
    path::Path as Key,
};
use podwitness_runtime::metrics::SharedRegistry;

mod outage;

use super::{
    layout::{BEGIN, MANIFEST},
    manifest::{MAX_MANIFEST, Manifest, chain, sha256},
    segment::MAX_STORED,
    *,
};
use crate::store::{
    events::Draft,
    layout::PartName,
    mark,
    meta::testing::{self, end},
};

const HEADER: &str = "{\"version\":2,\"width\":80,\"height\":24}\n";

/// A bucket in memory of which every `n`th put fails, in turn before and after it was done.
#[derive(Debug)]
struct Flaky {
    memory: InMemory,
    every: usize,
    puts: AtomicUsize,
    /// Whether nobody can connect to it.
    away: AtomicBool,
}

impl Flaky {
    /// Connecting takes its time.
    async fn connect(&self) -> Result<(), Error> {
        if !self.away.load(Ordering::Relaxed) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        let source =
            HttpError::new(HttpErrorKind::Connect, io::Error::from(io::ErrorKind::ConnectionRefused));
        Err(Error::Generic { store: "flaky", source: Box::new(source) })
    }
}

impl fmt::Display for Flaky {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("flaky")
    }
}

#[async_trait::async_trait]
impl ObjectStore for Flaky {
    async fn put_opts(&self, at: &Key, payload: PutPayload, options: PutOptions) -> Result<PutResult, Error> {
        let number = self.puts.fetch_add(1, Ordering::Relaxed) + 1;
        self.connect().await?;
        let fails = self.every > 0 && number.is_multiple_of(self.every);
        let failed = || Err(Error::Generic { store: "flaky", source: "status code: 503".into() });
        if fails && (number / self.every).is_multiple_of(2) {
            return failed();
        }
        let done = self.memory.put_opts(at, payload, options).await;
        if fails { failed() } else { done }
    }

    async fn put_multipart_opts(
        &self,
        at: &Key,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>, Error> {
        self.memory.put_multipart_opts(at, options).await
    }

    async fn get_opts(&self, at: &Key, options: GetOptions) -> Result<GetResult, Error> {
        self.connect().await?;
        self.memory.get_opts(at, options).await
    }

    fn delete_stream(
        &self,
        at: BoxStream<'static, Result<Key, Error>>,
    ) -> BoxStream<'static, Result<Key, Error>> {
        self.memory.delete_stream(at)
    }

    fn list(&self, prefix: Option<&Key>) -> BoxStream<'static, Result<ObjectMeta, Error>> {
        self.memory.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Key>) -> Result<ListResult, Error> {
        self.memory.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Key, to: &Key, options: CopyOptions) -> Result<(), Error> {
        self.memory.copy_opts(from, to, options).await
    }
}

struct Lab {
    dir: tempfile::TempDir,
    store: Arc<Store>,
    flaky: Arc<Flaky>,
    bucket: Bucket,
}

impl Lab {
    fn new(every: usize) -> Self {
        let (puts, away) = (AtomicUsize::new(0), AtomicBool::new(false));
        let flaky = Arc::new(Flaky { memory: InMemory::new(), every, puts, away });
        let bucket = Bucket::new(Arc::clone(&flaky) as Arc<dyn ObjectStore>, "audit");
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(dir.path(), 0).unwrap());
        Self { dir, store, flaky, bucket }
    }

    /// A process that ships this volume.
    fn ship(&self, ack: AckLevel, keep: Option<Duration>) -> Shipper {
        let recovered = CancellationToken::new();
        recovered.cancel();
        let (bucket, store) = (self.bucket.clone(), Arc::clone(&self.store));
        Shipper::start(Setup { bucket, store, ack, keep, recovered }, &SharedRegistry::new())
    }

    fn part(&self, session: &str) -> Part {
        self.store.create(&PartName::new(session, 0).unwrap(), meta(), 1_700_000_000).unwrap()
    }

    /// One that has ended.
    fn ended(&self, session: &str, content: &str) -> Place {
        let mut part = self.part(session);
        part.append(&[content.as_bytes()]).unwrap();
        let place = place(&part);
        part.finish(end()).unwrap();
        place
    }

    async fn manifest(&self, key: &str) -> Option<Manifest> {
        let text = self.bucket.get(&format!("{key}/{MANIFEST}"), MAX_MANIFEST).await.unwrap()?;
        Some(serde_json::from_slice(&text).unwrap())
    }

    /// Reads a part back as its manifest has it, and checks every digest of it.
    async fn whole(&self, key: &str) -> Vec<u8> {
        let manifest = eventually(async || self.manifest(key).await).await;
        let mut all = Vec::new();
        for entry in &manifest.segments {
            let stored =
                self.bucket.get(&format!("{key}/{}", entry.name), MAX_STORED).await.unwrap().unwrap();
            assert_eq!((stored.len() as u64, sha256(&stored)), (entry.stored, entry.sha256.clone()));
            all.extend_from_slice(&segment::read(stored).unwrap());
        }
        assert_eq!((all.len() as u64, sha256(&all)), (manifest.bytes, manifest.sha256));
        let begin = self.bucket.get(&format!("{key}/{BEGIN}"), 1 << 20).await.unwrap().unwrap();
        assert_eq!(manifest.chain, chain(&begin, manifest.segments.iter()));
        all
    }
}

fn meta() -> crate::store::meta::Meta {
    testing::meta(1_700_000_000_123, HEADER.len())
}

fn key(session: &str) -> String {
    format!("sessions/2023/11/14/c/shop/till/{session}.0-1700000000123")
}

fn lines(count: usize) -> String {
    (0..count).map(|number| format!("[{number},\"o\",\"line {number} of many\"]\n")).collect()
}

/// Waits until there is something, with real time for what blocks.
async fn eventually<T>(mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let waited = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), waited).await.expect("in time")
}

fn place(part: &Part) -> Place {
    Shipper::place(part.path()).unwrap()
}

#[tokio::test]
async fn a_part_is_in_the_bucket_when_it_has_ended_whatever_failed_on_the_way() {
    for every in [0, 2, 3] {
        let lab = Lab::new(every);
        let shipper = lab.ship(AckLevel::Object, None);
        let mut part = lab.part("s");
        let mut shipment = shipper.follow(&part);
        let mut content = HEADER.to_owned();
        part.append(&[HEADER.as_bytes()]).unwrap();
        for _ in 0..3 {
            let more = lines(20_000);
            part.append(&[more.as_bytes()]).unwrap();
            content.push_str(&more);
            shipment.written(part.written());
            // Acknowledged means: there, whatever becomes of this process.
            while shipment.shipped() < part.written() {
                shipment.changed().await;
            }
        }
        let place = place(&part);
        part.finish(end()).unwrap();
        drop(shipment);
        assert!(lab.whole(&key("s")).await == content.as_bytes(), "{every}");
        eventually(async || mark::read(&place)).await;
        eventually(async || (!mark::notes(&place).exists()).then_some(())).await;
        eventually(async || (shipper.status().backlog().bytes == 0).then_some(())).await;
    }
}

#[tokio::test]
async fn another_process_goes_on_where_one_died_with_notes_and_without() {
    for notes in ["kept", "torn", "lost"] {
        let lab = Lab::new(0);
        let shipper = lab.ship(AckLevel::Object, None);
        let mut part = lab.part("s");
        let mut shipment = shipper.follow(&part);
        let content = format!("{HEADER}{}", lines(60_000));
        part.append(&[content.as_bytes()]).unwrap();
        shipment.written(part.written());
        while shipment.shipped() < part.written() {
            shipment.changed().await;
        }
        let path = mark::notes(&place(&part));
        // It is written, so that it is at rest for nobody.
        shipper.finish().await;
        let text = std::fs::read(&path).unwrap();
        match notes {
            "torn" => std::fs::write(&path, &text[..text.len() - 5]).unwrap(),
            "lost" => std::fs::remove_file(&path).unwrap(),
            _ => {}
        }
        part.finish(end()).unwrap();
        drop(shipment);
        let _shipper = lab.ship(AckLevel::Volume, None);
        assert!(lab.whole(&key("s")).await == content.as_bytes(), "{notes}");
        let objects = lab.bucket.list("sessions", None, 100).await.unwrap();
        let manifest = lab.manifest(&key("s")).await.unwrap();
        assert_eq!(objects.len(), manifest.segments.len() + 2, "{notes}: {objects:?}");
    }
}

#[tokio::test]
async fn what_lasts_gathers_and_is_closed_when_it_has_ended() {
    let lab = Lab::new(0);
    let shipper = lab.ship(AckLevel::Volume, None);
    let mut part = lab.part("s");
    let shipment = shipper.follow(&part);
    part.append(&[HEADER.as_bytes()]).unwrap();
    shipment.written(part.written());
    eventually(async || (shipper.status().backlog().bytes > 0).then_some(())).await;
    assert_eq!(lab.manifest(&key("s")).await, None);
    part.finish(end()).unwrap();
    drop(shipment);
    assert_eq!(lab.whole(&key("s")).await, HEADER.as_bytes());
}

#[tokio::test]
async fn events_lie_in_the_bucket_as_on_the_volume() {
    let lab = Lab::new(2);
    let shipper = lab.ship(AckLevel::Volume, None);
    let mut log = lab.store.events().unwrap();
    for _ in 0..3 {
        log.append([Draft::new(b"{\"id\":}".to_vec(), 6)].iter(), 1_700_000_000).unwrap();
        let file = log.publish().unwrap().unwrap();
        shipper.published(file.clone());
        let below = file.strip_prefix(lab.dir.path()).unwrap().to_str().unwrap();
        assert!(below.starts_with("events/date=2023-11-14/hour=22/"), "{below}");
        eventually(async || mark::of_file(&file).unwrap().exists().then_some(())).await;
        let stored = lab.bucket.get(below, 1000).await.unwrap().unwrap();
        assert_eq!(stored, std::fs::read(&file).unwrap());
    }
}

#[tokio::test]
async fn only_what_is_in_the_bucket_whole_leaves_the_volume() {
    let lab = Lab::new(0);
    let content = format!("{HEADER}{}", lines(10));
    let (kept, gone) = (lab.ended("kept", &content), lab.ended("gone", &content));
    let mut log = lab.store.events().unwrap();
    log.append([Draft::new(b"{\"id\":}".to_vec(), 6)].iter(), 1_700_000_000).unwrap();
    let file = log.publish().unwrap().unwrap();
    lab.ship(AckLevel::Volume, None).finish().await;
    assert!(mark::read(&kept).is_some() && mark::read(&gone).is_some());
    assert!(mark::of_file(&file).unwrap().exists() && gone.cast().exists());
    // Somebody removes an object of one of them.
    let objects = lab.bucket.list(&key("kept"), None, 10).await.unwrap();
    let segment = objects.iter().find(|object| object.key.ends_with(".zst")).unwrap();
    lab.bucket.remove_for_test(&segment.key).await;
    let _shipper = lab.ship(AckLevel::Volume, Some(Duration::ZERO));
    eventually(async || (!gone.meta().exists() && !file.exists()).then_some(())).await;
    assert_eq!(std::fs::read(kept.cast()).unwrap(), content.as_bytes());
    assert!(!gone.cast().exists());
    assert_eq!(lab.whole(&key("gone")).await, content.as_bytes());
}

#[tokio::test]
async fn what_ends_without_pause_does_not_keep_what_may_go() {
    let lab = Lab::new(0);
    let gone = lab.ended("gone", HEADER);
    lab.ship(AckLevel::Volume, None).finish().await;
    assert!(mark::read(&gone).is_some());
    let shipper = lab.ship(AckLevel::Volume, Some(Duration::ZERO));
    let file = lab.dir.path().join("events/date=2023-11-14/hour=22/no.ndjson");
    let ending = async {
        loop {
            (0..64).for_each(|_| shipper.published(file.clone()));
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        () = ending => {}
        () = eventually(async || (!gone.cast().exists()).then_some(())) => {}
    }
}

#[tokio::test]
async fn marks_and_notes_of_files_that_are_gone_go_too() {
    let lab = Lab::new(0);
    let (gone, kept) = (lab.ended("gone", HEADER), lab.ended("kept", HEADER));
    let mut log = lab.store.events().unwrap();
    log.append([Draft::new(b"{\"id\":}".to_vec(), 6)].iter(), 1_700_000_000).unwrap();
    let file = log.publish().unwrap().unwrap();
    lab.ship(AckLevel::Volume, None).finish().await;
    std::fs::write(mark::notes(&gone), "").unwrap();
    // As a process leaves it that dies in between.
    for path in [gone.cast(), gone.meta(), file.clone()] {
        std::fs::remove_file(path).unwrap();
    }
    let _shipper = lab.ship(AckLevel::Volume, None);
    let left = [mark::path(&gone), mark::notes(&gone), mark::of_file(&file).unwrap()];
    eventually(async || left.iter().all(|path| !path.exists()).then_some(())).await;
    assert!(mark::read(&kept).is_some() && kept.cast().exists());
}

#[tokio::test]
async fn a_part_that_cannot_be_read_is_quarantined_and_the_others_go_on() {
    let lab = Lab::new(0);
    let content = format!("{HEADER}{}", lines(10));
    let (bad, _good) = (lab.ended("bad", &content), lab.ended("good", &content));
    std::fs::OpenOptions::new().write(true).open(bad.cast()).unwrap().set_len(20).unwrap();
    let _shipper = lab.ship(AckLevel::Volume, None);
    assert_eq!(lab.whole(&key("good")).await, content.as_bytes());
    eventually(async || (lab.store.quarantine().count() == 2).then_some(())).await;
    let aside = lab.dir.path().join("quarantine/2023/11/14/c/shop/till/bad.0.cast");
    assert_eq!(std::fs::read(aside).unwrap(), &content.as_bytes()[..20]);
}

#[tokio::test]
async fn what_else_lies_under_a_key_is_neither_replaced_nor_believed() {
    let lab = Lab::new(0);
    let foreign = format!("{}/{BEGIN}", key("s"));
    let _ = lab.bucket.put(&foreign, Bytes::from_static(b"{}")).await.unwrap();
    let (place, other) = (lab.ended("s", HEADER), lab.ended("t", HEADER));
    let shipper = lab.ship(AckLevel::Volume, None);
    eventually(async || mark::read(&other)).await;
    let conflict = (crate::bucket::Class::Conflict, 1);
    eventually(async || shipper.status().failures().contains(&conflict).then_some(())).await;
    assert_eq!(lab.bucket.get(&foreign, 10).await.unwrap().unwrap(), "{}");
    assert!(mark::read(&place).is_none() && place.cast().exists());
    assert_eq!(shipper.status().failing(), None);
}

#[tokio::test]
async fn a_shutdown_ships_what_is_left() {
    let lab = Lab::new(0);
    let shipper = lab.ship(AckLevel::Volume, None);
    let mut part = lab.part("s");
    let shipment = shipper.follow(&part);
    part.append(&[HEADER.as_bytes()]).unwrap();
    shipment.written(part.written());
    part.finish(end()).unwrap();
    drop(shipment);
    shipper.finish().await;
    assert_eq!(lab.whole(&key("s")).await, HEADER.as_bytes());
}
