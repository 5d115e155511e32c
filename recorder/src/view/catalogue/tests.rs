use std::{fs, path::Path};

use podwitness_runtime::clock::ManualClock;

use super::{super::readable::Readable as _, *};
use crate::store::{
    Part, Store,
    layout::{PartName, owner_digest},
    meta::{End, Facts, Meta, Outcome, Owner, Pod},
};

const NOW: i64 = 1_700_000_000;

struct Lab {
    dir: tempfile::TempDir,
    store: Store,
    clock: Arc<ManualClock>,
    catalogue: Catalogue,
}

fn pod(name: &str) -> Owner {
    let of = |text: &str| text.to_owned();
    Owner::Pod(Pod {
        cluster: of("c"),
        namespace: of("shop"),
        pod: of(name),
        uid: format!("uid-{name}"),
        ..Pod::default()
    })
}

fn meta(owner: Owner, start: i64, offset: u64) -> Meta {
    let facts = Facts { start, command: "id".into(), user: "ana".into(), ..Facts::default() };
    Meta { owner, received: start * 1000, offset, header_bytes: 3, facts, end: None }
}

fn end(outcome: Outcome) -> End {
    End {
        outcome,
        message: String::new(),
        at: 0,
        bytes: 0,
        duration: 2.0,
        exit: Some("3".into()),
        session_end: Some("completed".into()),
        session_outcome: Some("recorded-late".into()),
        gap: 0,
        torn: 0,
        damaged: 0,
    }
}

impl Lab {
    fn new() -> Self {
        Self::bounded(BOUNDS)
    }

    fn bounded(bounds: Bounds) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::at(NOW));
        let catalogue = Catalogue::bounded(dir.path().into(), Arc::clone(&clock) as Arc<dyn Clock>, bounds);
        Self { store: Store::open(dir.path(), 0).unwrap(), clock, catalogue, dir }
    }

    fn part(&self, session: &str, part: u32, meta: Meta, lines: &str) -> Part {
        let start = meta.facts.start;
        let mut part = self.store.create(&PartName::new(session, part).unwrap(), meta, start).unwrap();
        part.append(&[format!("{{}}\n{lines}").as_bytes()]).unwrap();
        part
    }

    fn whole(&self, session: &str, owner: Owner, start: i64) {
        self.part(session, 0, meta(owner, start, 0), "[1,\"o\",\"x\"]\n")
            .finish(end(Outcome::Complete))
            .unwrap();
    }

    async fn list(&self) -> Vec<Summary> {
        tokio::time::advance(FRESH * 2).await;
        self.catalogue.page(&Filter::default(), None, 1000).unwrap().sessions
    }

    async fn one(&self) -> Summary {
        let [one] = self.list().await.try_into().unwrap();
        one
    }
}

fn sessions(list: &[Summary]) -> Vec<&str> {
    list.iter().map(|one| one.session.as_str()).collect()
}

fn cast_of(dir: &Path, name: &str) -> PathBuf {
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.file_name().unwrap() == name {
                return path;
            }
        }
    }
    panic!("no {name}");
}

#[tokio::test(start_paused = true)]
async fn sessions_are_listed_newest_first_with_what_is_known_of_them() {
    let lab = Lab::new();
    lab.whole("old", pod("a"), NOW - 90_000);
    lab.whole("new", pod("b"), NOW);
    let list = lab.list().await;
    assert_eq!(sessions(&list), ["new", "old"]);
    let new = &list[0];
    assert_eq!((new.start, new.duration, new.exit_code, new.complete), (NOW, 2.0, Some(3), true));
    let words = (new.session_end.as_deref(), new.session_outcome.as_deref());
    assert_eq!(words, (Some("completed"), Some("recorded-late")));
    assert_eq!((new.user.as_str(), new.command.as_str(), new.size), ("ana", "id", 15));
    assert_eq!(new.source, Some(pod("b")));
    assert_eq!(new.claimed_by.as_deref(), Some("shop/b"));
}

/// The header of a recording names what its sender likes; only the recorder says who that is.
#[tokio::test(start_paused = true)]
async fn what_a_pod_says_of_others_is_its_claim() {
    let lab = Lab::new();
    let facts = Facts {
        start: NOW,
        user: "alice".into(),
        user_verified: true,
        namespace: "prod".into(),
        pod: "db-0".into(),
        ..Facts::default()
    };
    let name = PartName::new("s", 0).unwrap();
    lab.store.create(&name, Meta { facts, ..meta(pod("liar"), NOW, 0) }, NOW).unwrap();
    let list = lab.list().await;
    let [session] = list.as_slice() else { panic!("{list:?}") };
    assert_eq!((session.namespace.as_str(), session.pod.as_str()), ("prod", "db-0"));
    assert_eq!(session.claimed_by.as_deref(), Some("shop/liar"));
    assert_eq!(session.source, Some(pod("liar")));
}

#[tokio::test(start_paused = true)]
async fn a_broken_file_hides_no_other() {
    let lab = Lab::new();
    for name in ["torn", "empty", "absent", "strange", "good"] {
        lab.whole(name, pod("a"), NOW);
    }
    let meta = |name: &str| cast_of(lab.dir.path(), &format!("{name}.0.json"));
    fs::write(meta("torn"), "{\"owner\":").unwrap();
    fs::write(meta("empty"), "").unwrap();
    fs::write(meta("strange"), vec![0xff; 300 << 10]).unwrap();
    let beside = meta("absent");
    fs::remove_file(&beside).unwrap();
    fs::create_dir(beside.with_file_name("x.0.cast")).unwrap();
    fs::write(beside.with_file_name("not-ours.cast"), "").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", beside.with_file_name("link.0.cast")).unwrap();
    fs::write(lab.dir.path().join("2023/11/14/file"), "").unwrap();
    let list = lab.list().await;
    let mut names = sessions(&list);
    names.sort_unstable();
    assert_eq!(names, ["absent", "empty", "good", "strange", "torn"]);
    for one in &list {
        assert_eq!((one.broken.is_none(), one.complete), (one.session == "good", one.session == "good"));
        assert!(matches!(lab.catalogue.cast(&one.id).unwrap(), Lookup::Found(_)), "{}", one.session);
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_is_followed_while_it_grows_and_ends() {
    let lab = Lab::new();
    let mut part = lab.part("s", 0, meta(pod("a"), NOW, 0), "");
    let one = lab.one().await;
    assert_eq!((one.outcome, one.complete, one.size), (None, false, 3));
    part.append(&[b"[1,\"o\",\"x\"]\n"]).unwrap();
    assert_eq!(lab.one().await.size, 15);
    part.finish(end(Outcome::Complete)).unwrap();
    assert_eq!(lab.one().await.outcome, Some(Outcome::Complete));
    // Long after, when its directory is no longer looked into.
    lab.clock.set(NOW * 2);
    assert_eq!(lab.one().await.outcome, Some(Outcome::Complete));
    assert!(lab.one().await.complete);
    lab.whole("t", pod("a"), NOW);
    assert_eq!(lab.list().await.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn parts_make_one_session_and_what_is_missing_is_said() {
    let line = "[1,\"o\",\"x\"]\n";
    for (offset, missing) in [(0, 0), (12, 0), (19, 7)] {
        let lab = Lab::new();
        lab.part("s", 0, meta(pod("a"), NOW, 0), line).finish(end(Outcome::Lost)).unwrap();
        lab.part("s", 1, meta(pod("a"), NOW, offset), line).finish(end(Outcome::Complete)).unwrap();
        let one = lab.one().await;
        assert_eq!((one.parts, one.missing, one.complete), (2, missing, missing == 0), "{offset}");
    }
    let lab = Lab::new();
    lab.part("s", 3, meta(pod("a"), NOW, 40), line).finish(end(Outcome::Complete)).unwrap();
    assert_eq!((lab.one().await.missing, lab.one().await.complete), (40, false));
}

#[tokio::test(start_paused = true)]
async fn a_part_that_a_crash_cut_off_is_whole_as_far_as_the_next_one_needs_it() {
    let lab = Lab::new();
    drop(lab.part("s", 0, meta(pod("a"), NOW, 0), "[1,\"o\",\"x\"]\n[2,\"o\",\"to"));
    assert!(!lab.one().await.complete);
    lab.part("s", 1, meta(pod("a"), NOW, 12), "[2,\"o\",\"torn\"]\n").finish(end(Outcome::Complete)).unwrap();
    assert!(lab.one().await.complete);
    let Lookup::Found(mut cast) = lab.catalogue.cast(&lab.one().await.id).unwrap() else { panic!() };
    assert_eq!(cast.read(0).unwrap(), "{}\n[1,\"o\",\"x\"]\n");
    assert_eq!(cast.read(15).unwrap(), "[2,\"o\",\"torn\"]\n");
}

#[tokio::test(start_paused = true)]
async fn what_its_sender_cut_or_left_out_is_not_complete() {
    for (outcome, gap, complete) in [
        (Some("recorded"), 0, true),
        (Some("recorded-late"), 0, true),
        (None, 0, false),
        (Some("cut"), 0, false),
        (Some("gap"), 0, false),
        (Some("recorded"), 7, false),
    ] {
        let lab = Lab::new();
        let end = End { session_outcome: outcome.map(str::to_owned), gap, ..end(Outcome::Complete) };
        lab.part("s", 0, meta(pod("a"), NOW, 0), "").finish(end).unwrap();
        assert_eq!(lab.one().await.complete, complete, "{outcome:?} {gap}");
    }
}

#[tokio::test(start_paused = true)]
async fn no_pod_puts_a_part_into_anothers_session() {
    let lab = Lab::new();
    lab.whole("s", pod("victim"), NOW);
    lab.part("s", 1, meta(pod("thief"), NOW, 0), "[9,\"o\",\"forged\"]\n")
        .finish(end(Outcome::Complete))
        .unwrap();
    let list = lab.list().await;
    assert_eq!(list.len(), 2);
    let of_victim = list.iter().find(|one| one.source == Some(pod("victim"))).unwrap();
    assert_eq!((of_victim.parts, of_victim.complete), (1, true));
}

#[tokio::test(start_paused = true)]
async fn the_first_of_two_parts_of_one_number_stands() {
    let lab = Lab::new();
    lab.whole("s", pod("a"), NOW);
    lab.part("s", 0, meta(pod("a"), NOW + 100_000, 0), "[1,\"o\",\"later\"]\n");
    let one = lab.one().await;
    assert_eq!((one.parts, one.start), (1, NOW));
}

#[tokio::test(start_paused = true)]
async fn pages_follow_each_other_without_gap_or_repeat() {
    let lab = Lab::new();
    for n in 0..7 {
        lab.whole(&format!("s{n}"), pod("a"), NOW - n);
    }
    let (mut after, mut seen) = (None::<String>, Vec::new());
    loop {
        let page = lab.catalogue.page(&Filter::default(), after.as_deref(), 3).unwrap();
        seen.extend(page.sessions.into_iter().map(|one| one.session));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(seen, ["s0", "s1", "s2", "s3", "s4", "s5", "s6"]);
}

#[tokio::test(start_paused = true)]
async fn a_listing_is_narrowed_by_either_end_of_a_session() {
    let lab = Lab::new();
    lab.whole("a", pod("till"), NOW);
    let mut other = meta(pod("door"), NOW - 50, 0);
    other.facts.namespace = "bank".into();
    other.facts.pod = "safe".into();
    other.facts.user = "bob".into();
    other.facts.authenticated_user = "proxy".into();
    drop(lab.part("b", 0, other, ""));
    let with = |change: fn(&mut Filter)| {
        let mut filter = Filter::default();
        change(&mut filter);
        let page = lab.catalogue.page(&filter, None, 10).unwrap();
        sessions(&page.sessions).concat()
    };
    assert_eq!(with(|_| {}), "ab");
    assert_eq!(with(|filter| filter.namespace = Some("shop".into())), "ab");
    assert_eq!(with(|filter| filter.namespace = Some("bank".into())), "b");
    assert_eq!(with(|filter| filter.pod = Some("till".into())), "a");
    assert_eq!(with(|filter| filter.pod = Some("safe".into())), "b");
    assert_eq!(with(|filter| filter.user = Some("bob".into())), "b");
    assert_eq!(with(|filter| filter.user = Some("proxy".into())), "b", "who impersonates is found, too");
    assert_eq!(with(|filter| filter.authenticated_user = Some("proxy".into())), "b");
    assert_eq!(with(|filter| filter.authenticated_user = Some("bob".into())), "");
    assert_eq!(with(|filter| filter.authenticated_user = Some("ana".into())), "a", "who acts for themselves");
    assert_eq!(with(|filter| filter.session = Some("b".into())), "b");
    assert_eq!(with(|filter| filter.since = Some(NOW - 10)), "a");
    assert_eq!(with(|filter| filter.namespace = Some("shops".into())), "");
}

#[tokio::test(start_paused = true)]
async fn what_is_kept_is_bounded_and_the_newest_days_are_kept() {
    let lab = Lab::bounded(Bounds { parts: 2, directories: 1000 });
    for day in 0..4 {
        lab.whole(&format!("d{day}"), pod("a"), NOW - day * 86_400);
    }
    tokio::time::advance(FRESH * 2).await;
    let page = lab.catalogue.page(&Filter::default(), None, 10).unwrap();
    assert_eq!((sessions(&page.sessions), page.truncated), (vec!["d0", "d1"], true));
    for id in ["d3", "d2", "d0"] {
        assert!(matches!(lab.catalogue.cast(id).unwrap(), Lookup::Found(_)), "{id} opens by its id");
    }
    let of = format!("d3.{}", owner_digest(&pod("a")));
    assert!(matches!(lab.catalogue.cast(&of).unwrap(), Lookup::Found(_)));
    for id in ["none", "d3.none", "../d3", ""] {
        assert!(matches!(lab.catalogue.cast(id).unwrap(), Lookup::Unknown), "{id}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_id_that_events_have_opens_a_recording_unless_several_claim_it() {
    let lab = Lab::new();
    lab.whole("s", pod("a"), NOW);
    assert!(matches!(lab.catalogue.cast("s").unwrap(), Lookup::Found(_)));
    lab.whole("s", pod("thief"), NOW);
    let mut ids: Vec<String> = lab.list().await.into_iter().map(|one| one.id).collect();
    let Lookup::Several(mut named) = lab.catalogue.cast("s").unwrap() else { panic!() };
    ids.sort_unstable();
    named.sort_unstable();
    assert_eq!(named, ids);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_not_there_yet_is_empty() {
    let clock = Arc::new(ManualClock::at(NOW));
    let catalogue = Catalogue::new("/nonexistent/recordings".into(), clock);
    assert_eq!(catalogue.page(&Filter::default(), None, 10).unwrap().sessions.len(), 0);
}

/// Metadata of earlier versions has what the sender stated.
#[tokio::test(start_paused = true)]
async fn a_time_that_cannot_be_neither_stays_on_top_nor_hides_a_session() {
    let lab = Lab::new();
    let stated = |session: &str, start: i64, received: i64| {
        let mut meta = meta(pod("a"), received, 0);
        meta.facts.start = start;
        let name = PartName::new(session, 0).unwrap();
        let mut part = lab.store.create(&name, meta, received).unwrap();
        part.append(&[b"{}\n[1e300,\"o\",\"x\"]\n".as_slice()]).unwrap();
        let end = End { at: (received + 60) * 1000, duration: 1e300, ..end(Outcome::Complete) };
        part.finish(end).unwrap();
    };
    stated("future", i64::MAX, NOW - 1000);
    stated("past", 1, NOW - 500);
    stated("late", NOW - 5000, NOW - 100);
    lab.whole("now", pod("b"), NOW);
    let list = lab.list().await;
    assert_eq!(sessions(&list), ["now", "past", "future", "late"]);
    let of = |at: usize| (list[at].start, list[at].start_stated, list[at].received, list[at].duration);
    assert_eq!(of(1), (NOW - 500, Some(1), NOW - 500, 60.0));
    assert_eq!(of(2), (NOW - 1000, Some(i64::MAX), NOW - 1000, 60.0));
    assert_eq!(of(3), (NOW - 5000, None, NOW - 100, 4960.0));
    let filter = Filter { since: Some(NOW - 200), ..Filter::default() };
    let page = lab.catalogue.page(&filter, None, 10).unwrap();
    assert_eq!(sessions(&page.sessions), ["now", "late"], "a stated start hides no session");
}
