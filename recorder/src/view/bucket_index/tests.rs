use std::path::Path;

use object_store::memory::InMemory;
use podwitness_core::grant::AckLevel;
use podwitness_runtime::{clock::SystemClock, metrics::SharedRegistry};
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use super::{
    super::{
        Catalogue,
        catalogue::Lookup,
        readable::Readable as _,
        session::{Filter, Summary},
    },
    *,
};
use crate::{
    bucket::testing::silent,
    ship::{Setup, Shipper, layout},
    store::{
        Store,
        layout::PartName,
        meta::{
            Facts, Meta,
            testing::{self, end},
        },
        walk::Place,
    },
};

const HEADER: &str = "{\"version\":2,\"width\":80,\"height\":24}\n";
const LINE: &str = "[1,\"o\",\"x\"]\n";

fn bucket() -> Bucket {
    Bucket::new(Arc::new(InMemory::new()), "audit")
}

/// There is nothing to recover.
fn done() -> CancellationToken {
    let done = CancellationToken::new();
    done.cancel();
    done
}

fn meta(start: i64, offset: u64) -> Meta {
    let facts = Facts { start, ..Facts::default() };
    Meta { offset, facts, ..testing::meta(start * 1000, HEADER.len()) }
}

/// Another recorder with a volume of its own.
async fn recorded(bucket: &Bucket, parts: &[(&str, u32, i64, u64)]) {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(Store::open(dir.path(), 0).unwrap());
    for (session, part, start, offset) in parts {
        let name = PartName::new(session, *part).unwrap();
        let mut part = store.create(&name, meta(*start, *offset), *start).unwrap();
        part.append(&[format!("{HEADER}{LINE}").as_bytes()]).unwrap();
        part.finish(end()).unwrap();
    }
    let setup = Setup { bucket: bucket.clone(), store, ack: AckLevel::Volume, keep: None, recovered: done() };
    Shipper::start(setup, &SharedRegistry::new()).finish().await;
}

async fn list(catalogue: &Arc<Catalogue>) -> Vec<Summary> {
    let catalogue = Arc::clone(catalogue);
    // The first pass, and the second that a listing is not older than a second.
    loop {
        let catalogue = Arc::clone(&catalogue);
        let page = spawn_blocking(move || catalogue.page(&Filter::default(), None, 100).unwrap());
        let page = page.await.unwrap();
        if page.bucket.is_some_and(|bucket| !bucket.stale) {
            return page.sessions;
        }
        tokio::task::yield_now().await;
    }
}

async fn cast(catalogue: &Arc<Catalogue>, id: &str) -> Vec<u8> {
    let (catalogue, id) = (Arc::clone(catalogue), id.to_owned());
    let read = move || {
        let Lookup::Found(mut joined) = catalogue.cast(&id).unwrap() else { panic!() };
        let mut all = Vec::new();
        while (all.len() as u64) < joined.length() {
            all.extend_from_slice(&joined.read(all.len() as u64).unwrap());
        }
        all
    };
    spawn_blocking(read).await.unwrap()
}

fn catalogue(root: &Path, bucket: &Bucket) -> Arc<Catalogue> {
    Arc::new(Catalogue::new(root.to_owned(), Arc::new(SystemClock)).with_bucket(bucket.clone()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_joined_from_the_volume_and_the_bucket() {
    let bucket = bucket();
    let line = LINE.len() as u64;
    recorded(&bucket, &[("s", 0, 1_700_000_000, 0), ("other", 0, 1_600_000_000, 0)]).await;
    recorded(&bucket, &[("s", 1, 1_700_000_100, line)]).await;
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), 0).unwrap();
    for number in [1, 2] {
        // Part 1 is in both; part 2 goes on.
        let name = PartName::new("s", number).unwrap();
        let start = 1_700_000_000 + i64::from(number) * 100;
        let mut part = store.create(&name, meta(start, u64::from(number) * line), start).unwrap();
        part.append(&[format!("{HEADER}{LINE}").as_bytes()]).unwrap();
    }
    let catalogue = catalogue(dir.path(), &bucket);
    let sessions = list(&catalogue).await;
    let [s, other] = sessions.as_slice() else { panic!("{sessions:?}") };
    assert_eq!((s.session.as_str(), s.parts, s.missing, s.complete), ("s", 3, 0, false));
    assert_eq!((other.session.as_str(), other.parts, other.complete), ("other", 1, true));
    assert_eq!(cast(&catalogue, &s.id).await, format!("{HEADER}{LINE}{LINE}{LINE}").as_bytes());
    assert_eq!(cast(&catalogue, &other.id).await, format!("{HEADER}{LINE}").as_bytes());
}

/// The volume is gone, the session was never closed: what was shipped of it is shown.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_never_closed_is_shown_as_far_as_it_goes_on() {
    let bucket = bucket();
    let place = Place { directory: "/2023/11/14/c/shop/till".into(), name: PartName::new("s", 0).unwrap() };
    let directory = layout::directory(Path::new("/"), &place, 1_700_000_000_000);
    let put = async |name: &str, content: Bytes| {
        let _ = bucket.put(&format!("{directory}/{name}"), content).await.unwrap();
    };
    put(layout::BEGIN, serde_json::to_vec(&meta(1_700_000_000, 0)).unwrap().into()).await;
    let mut offset = 0;
    for (number, lines) in [HEADER, LINE, LINE].iter().enumerate() {
        let length = u32::try_from(lines.len()).unwrap();
        let name = Segment { number: u32::try_from(number).unwrap(), offset, length };
        put(&name.to_string(), segment::make(lines.as_bytes()).unwrap()).await;
        offset += lines.len() as u64;
    }
    // One that was put twice, and one behind a hole.
    let twice = Segment { number: 1, offset: HEADER.len() as u64, length: 5 };
    put(&twice.to_string(), segment::make(&LINE.as_bytes()[..5]).unwrap()).await;
    let far = Segment { number: 9, offset: offset + 100, length: 5 };
    put(&far.to_string(), segment::make(b"aaaaa").unwrap()).await;
    let dir = tempfile::tempdir().unwrap();
    let catalogue = catalogue(dir.path(), &bucket);
    let sessions = list(&catalogue).await;
    assert_eq!((sessions.len(), sessions[0].complete, sessions[0].size), (1, false, offset));
    assert_eq!(cast(&catalogue, &sessions[0].id).await, format!("{HEADER}{LINE}{LINE}").as_bytes());
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_and_broken_objects_hide_nothing() {
    let bucket = bucket();
    recorded(&bucket, &[("s", 0, 1_700_000_000, 0)]).await;
    for key in [
        "sessions/readme",
        "sessions/x/y/z",
        "sessions/2023/11/14/c/shop/till/notes.txt",
        "sessions/2023/11/14/c/shop/till/t.0-17/begin.json",
        "sessions/2023/11/14/c/shop/till/u.0-17/manifest.json",
    ] {
        let _ = bucket.put(key, Bytes::from_static(b"{\"version\":1}")).await.unwrap();
    }
    let dir = tempfile::tempdir().unwrap();
    let sessions = list(&catalogue(dir.path(), &bucket)).await;
    let broken = |session: &str| sessions.iter().find(|one| one.session == session).unwrap().broken.is_some();
    assert_eq!((sessions.len(), broken("s"), broken("t"), broken("u")), (3, false, true, true));
}

/// The clock stands still while a listing is made: were anything waited for, it would never come.
#[tokio::test(start_paused = true)]
async fn a_bucket_that_never_answers_delays_no_listing() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), 0).unwrap();
    let mut part =
        store.create(&PartName::new("s", 0).unwrap(), meta(1_700_000_000, 0), 1_700_000_000).unwrap();
    part.append(&[HEADER.as_bytes()]).unwrap();
    part.finish(end()).unwrap();
    let catalogue = catalogue(dir.path(), &silent());
    let page = || catalogue.page(&Filter::default(), None, 10).unwrap();
    let begun = Instant::now();
    let first = page();
    assert_eq!((first.sessions.len(), first.truncated), (1, false));
    let status = first.bucket.unwrap();
    assert_eq!((status.as_of, status.stale, status.error.is_some()), (None, true, true));
    assert!(matches!(catalogue.cast("s").unwrap(), Lookup::Found(_)));
    assert_eq!(begun.elapsed(), Duration::ZERO);
    sleep(PASS * 2).await;
    let status = page().bucket.unwrap();
    assert!(status.error.unwrap().contains("300 s"), "the reason is said");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_bucket_has_beyond_the_bounds_opens_by_its_id() {
    let bucket = bucket();
    let ulid = ulid::Ulid::from_parts(1_600_000_000_000, 7).to_string();
    recorded(
        &bucket,
        &[("new", 0, 1_700_000_000, 0), ("old", 0, 1_600_000_000, 0), (&ulid, 0, 1_600_000_000, 0)],
    )
    .await;
    let dir = tempfile::tempdir().unwrap();
    let bounds = Bounds { parts: 1, directories: 1 };
    let catalogue = Catalogue::bounded(dir.path().to_owned(), Arc::new(SystemClock), bounds);
    let catalogue = Arc::new(catalogue.with_bucket(bucket));
    let sessions = list(&catalogue).await;
    assert_eq!((sessions.len(), sessions[0].session.as_str()), (1, "new"));
    for id in ["new", "old", &ulid] {
        assert_eq!(cast(&catalogue, id).await, format!("{HEADER}{LINE}").as_bytes(), "{id}");
    }
}

/// It was shipped, and left the volume, since the bucket was read.
#[tokio::test(flavor = "multi_thread")]
async fn what_came_into_the_bucket_since_it_was_read_opens_by_its_id() {
    let bucket = bucket();
    let dir = tempfile::tempdir().unwrap();
    let catalogue = catalogue(dir.path(), &bucket);
    assert!(list(&catalogue).await.is_empty());
    let ulid = ulid::Ulid::from_parts(1_700_000_000_000, 7).to_string();
    recorded(&bucket, &[(&ulid, 0, 1_700_000_000, 0)]).await;
    assert_eq!(cast(&catalogue, &ulid).await, format!("{HEADER}{LINE}").as_bytes());
}

#[test]
fn a_day_is_numbered_as_the_calendar_has_it() {
    for (path, day) in
        [("s/1970/01/01", 0), ("s/1970/03/01", 59), ("s/2024/02/29", 19_782), ("s/2023/11/14", 19_675)]
    {
        assert_eq!(reader::day_number(path), day, "{path}");
    }
}
