use super::{
    meta::{End, testing},
    *,
};

fn meta() -> Meta {
    testing::meta(1_700_000_000_000, 2)
}

fn end() -> End {
    End { at: 1_700_000_001_000, duration: 1.5, exit: Some("0".into()), ..testing::end() }
}

fn name() -> PartName {
    PartName::new("s", 0).unwrap()
}

fn read_meta(part: &Path) -> Meta {
    serde_json::from_slice(&fs::read(part.with_extension("json")).unwrap()).unwrap()
}

fn files(root: &Path) -> usize {
    fs::read_dir(root)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| if path.is_dir() { files(&path) } else { 1 })
        .sum()
}

#[test]
fn a_part_has_the_bytes_it_was_given_and_metadata_that_knows_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().join("recordings"), 0).unwrap();
    let mut part = store.create(&name(), meta(), 1_700_000_000).unwrap();
    let path = part.path().to_owned();
    assert!(path.ends_with("recordings/2023/11/14/c/shop/till/s.0.cast"), "{path:?}");
    part.append(&[b"{}\n"]).unwrap();
    assert_eq!(read_meta(&path).end, None);
    part.append(&[b"[0,\"o\",\"x\"]\n"]).unwrap();
    part.finish(end()).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"{}\n[0,\"o\",\"x\"]\n");
    assert_eq!(read_meta(&path).end, Some(End { bytes: 15, ..end() }));
    assert_eq!(files(dir.path()), 2);
}

#[test]
fn a_part_is_created_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), 0).unwrap();
    let mut first = store.create(&name(), meta(), 0).unwrap();
    first.append(&[b"kept"]).unwrap();
    assert!(matches!(store.create(&name(), meta(), 0), Err(StoreError::Exists { part: 0, .. })));
    assert_eq!(fs::read(first.path()).unwrap(), b"kept");
}

#[test]
fn a_link_in_the_place_of_a_part_is_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), 0).unwrap();
    let part = store.create(&name(), meta(), 0).unwrap();
    let victim = dir.path().join("victim");
    let other = PartName::new("s", 1).unwrap();
    std::os::unix::fs::symlink(&victim, part.path().with_file_name(other.cast())).unwrap();
    assert!(matches!(store.create(&other, meta(), 0), Err(StoreError::Exists { part: 1, .. })));
    assert!(!victim.exists());
}

#[test]
fn a_volume_below_its_floor_takes_nothing_new() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), u64::MAX).unwrap();
    assert!(matches!(store.create(&name(), meta(), 0), Err(StoreError::Full { floor: u64::MAX })));
    assert!(store.space().free() < u64::MAX);
    assert_eq!(files(dir.path()), 0);
}

#[test]
fn a_root_that_is_no_directory_is_said_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    fs::write(&path, "").unwrap();
    assert!(matches!(Store::open(&path, 0), Err(StoreError::Root { .. })));
}

/// `/dev/full` stands for a volume that fills up while a session is recorded.
#[test]
fn bytes_that_do_not_fit_are_an_error_and_do_not_count() {
    let dir = tempfile::tempdir().unwrap();
    let file = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut part = Part::new(file, dir.path().into(), &name(), meta(), None);
    assert!(matches!(part.append(&[b"lost"]), Err(StoreError::Io { action: "written", .. })));
    assert_eq!(part.written(), 0);
}

/// A directory in the place of its metadata stands for a volume that does not take them.
#[test]
fn a_part_that_cannot_be_described_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), 0).unwrap();
    fs::create_dir_all(dir.path().join("1970/01/01/c/shop/till").join(name().meta())).unwrap();
    assert!(matches!(store.create(&name(), meta(), 0), Err(StoreError::Io { action: "described", .. })));
    assert_eq!(files(dir.path()), 0);
}
