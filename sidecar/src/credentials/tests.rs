use std::{
    fs,
    io::ErrorKind,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
    path::Path,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use podwitness_runtime::readiness::Readiness;
use rustix::fs::{Mode, OFlags, open, openat};
use tempfile::TempDir;

use super::*;

const POD_CA: &str = "-----BEGIN CERTIFICATE-----\nUE9E\n-----END CERTIFICATE-----\n";
const CLUSTER_CA: &str = "-----BEGIN CERTIFICATE-----\nQ0xVU1RFUg==\n-----END CERTIFICATE-----\n";
const OTHER_CA: &str = "-----BEGIN CERTIFICATE-----\nT1RIRVI=\n-----END CERTIFICATE-----\n";

struct Lab {
    root: TempDir,
    dir: ServiceAccountDir,
}

impl Lab {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| {
            let path = root.path().join(name);
            fs::create_dir(&path).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let dir = ServiceAccountDir::new("app", path("source"), path("target"));
        Self { root, dir }
    }

    /// Writes a generation as the kubelet does.
    fn publish(&self, generation: &str, files: &[(&str, &str)]) {
        let source = self.root.path().join("source");
        let dir = source.join(generation);
        for (name, content) in files {
            let path = dir.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
            let first = Path::new(name).iter().next().unwrap();
            let _ = symlink(Path::new("..data").join(first), source.join(first));
        }
        let old = fs::read_link(source.join("..data"));
        symlink(generation, source.join("..data_tmp")).unwrap();
        fs::rename(source.join("..data_tmp"), source.join("..data")).unwrap();
        if let Ok(old) = old {
            fs::remove_dir_all(source.join(old)).unwrap();
        }
    }

    fn credentials(&self) -> Credentials {
        Credentials::new(vec![self.dir.clone()], POD_CA.to_owned())
    }

    fn try_copy(&self) -> Result<(), CredentialsError> {
        self.credentials().copy_changes()
    }

    fn copy(&self) {
        self.try_copy().unwrap();
    }

    fn target(&self, name: &str) -> PathBuf {
        self.root.path().join("target").join(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.target(name)).unwrap()
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.target("")).unwrap();
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

#[test]
fn the_cluster_ca_stays_behind_the_in_pod_ca_and_the_rest_is_as_it_was() {
    let lab = Lab::new();
    lab.publish("..1", &[("token", "t"), ("ca.crt", CLUSTER_CA), ("namespace", "shop")]);
    lab.copy();
    assert_eq!(lab.read("ca.crt"), format!("{POD_CA}{CLUSTER_CA}"));
    assert_eq!((lab.read("token"), lab.read("namespace")), ("t".into(), "shop".into()));
}

#[test]
fn the_cluster_ca_is_known_under_any_name_and_other_bundles_are_left_alone() {
    let lab = Lab::new();
    let bundle = format!("{OTHER_CA}{CLUSTER_CA}");
    let files = [("ca.crt", CLUSTER_CA), ("certs/all.pem", &bundle), ("certs/other.pem", OTHER_CA)];
    lab.publish("..1", &files);
    lab.copy();
    assert_eq!(lab.read("certs/all.pem"), format!("{POD_CA}{bundle}"));
    assert_eq!(lab.read("certs/other.pem"), OTHER_CA);
}

#[test]
fn a_pod_without_a_token_has_the_bundle_and_no_token_in_it() {
    let lab = Lab::new();
    lab.publish("..1", &[("token", "the sidecar's"), ("ca.crt", CLUSTER_CA)]);
    let path = |name: &str| lab.root.path().join(name);
    let mut credentials =
        Credentials::new(vec![], POD_CA.to_owned()).with_bundle(path("source"), path("target"));
    credentials.copy_changes().unwrap();
    assert_eq!(lab.read("ca.crt"), format!("{POD_CA}{CLUSTER_CA}"));
    assert!(!lab.names().contains(&"token".to_owned()), "{:?}", lab.names());
    lab.publish("..2", &[("token", "the sidecar's"), ("ca.crt", OTHER_CA)]);
    credentials.copy_changes().unwrap();
    assert_eq!(lab.read("ca.crt"), format!("{POD_CA}{OTHER_CA}"), "the cluster has another CA");
    fs::remove_file(path("source").join("..2/ca.crt")).unwrap();
    credentials.copied = None;
    let error = credentials.copy_changes().unwrap_err();
    assert!(matches!(error, CredentialsError::Bundle(..)), "{error}");
}

#[test]
fn a_copy_has_the_kubelets_form_and_everyone_may_read_it() {
    let lab = Lab::new();
    lab.publish("..1", &[("token", "t"), ("deep/down/ca.crt", CLUSTER_CA)]);
    lab.copy();
    let data = fs::read_link(lab.target("..data")).unwrap();
    assert_eq!(fs::read_link(lab.target("token")).unwrap(), Path::new("..data/token"));
    assert_eq!(lab.names(), [data.to_str().unwrap(), "..data", "deep", "token"]);
    let mode = |name: &str| fs::metadata(lab.target(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("token"), mode("deep/down/ca.crt")), (0o644, 0o644));
    assert_eq!((mode("..data"), mode("deep"), mode("deep/down")), (0o755, 0o755, 0o755));
}

#[test]
fn what_did_not_change_is_not_written_again() {
    let lab = Lab::new();
    lab.publish("..1", &[("token", "t"), ("ca.crt", CLUSTER_CA)]);
    lab.copy();
    let first = fs::read_link(lab.target("..data")).unwrap();
    lab.publish("..2", &[("token", "t"), ("ca.crt", CLUSTER_CA)]);
    lab.copy();
    assert_eq!(fs::read_link(lab.target("..data")).unwrap(), first);
}

#[test]
fn names_that_go_and_generations_that_are_left_over_are_removed() {
    let lab = Lab::new();
    lab.publish("..1", &[("token", "t"), ("extra/file", "x")]);
    lab.copy();
    fs::create_dir(lab.target("..left-over")).unwrap();
    symlink("..left-over", lab.target("..data_tmp")).unwrap();
    lab.publish("..2", &[("token", "u")]);
    lab.copy();
    let data = fs::read_link(lab.target("..data")).unwrap();
    assert_eq!(lab.names(), [data.to_str().unwrap(), "..data", "token"]);
    assert_eq!(lab.read("token"), "u");
}

#[test]
fn a_volume_that_is_too_large_or_missing_changes_nothing() {
    let lab = Lab::new();
    assert!(matches!(lab.try_copy(), Err(CredentialsError::Read { .. })), "nobody wrote it yet");
    lab.publish("..1", &[("token", "t")]);
    lab.copy();
    lab.publish("..2", &[("token", "u"), ("big", &"x".repeat((2 << 20) + 1))]);
    assert!(matches!(lab.try_copy(), Err(CredentialsError::Read { .. })));
    fs::remove_dir_all(lab.root.path().join("source")).unwrap();
    assert!(matches!(lab.try_copy(), Err(CredentialsError::Read { .. })));
    assert_eq!(lab.read("token"), "t");
}

/// A reader as careful as ours: it resolves `..data` once and reads below.
fn read_generation(target: &Path) -> Option<(String, String)> {
    let dir = open(target.join("..data"), OFlags::DIRECTORY, Mode::empty()).ok()?;
    let read = |name: &str| {
        let file = openat(&dir, name, OFlags::RDONLY, Mode::empty()).ok()?;
        io::read_to_string(fs::File::from(file)).ok()
    };
    Some((read("token")?, read("namespace")?))
}

#[test]
fn a_reader_never_sees_a_torn_set_while_generations_are_swapped() {
    let lab = Lab::new();
    lab.publish("..0", &[("token", "0"), ("namespace", "0")]);
    lab.copy();
    let (done, seen) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                if let Some((token, namespace)) = read_generation(&lab.target("")) {
                    assert_eq!(token, namespace);
                    seen.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        // The kubelet swaps while we read; we swap while the reader reads.
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let outcome = lab.try_copy();
                assert!(matches!(outcome, Ok(()) | Err(CredentialsError::Read { .. })), "{outcome:?}");
            }
        });
        for n in 1..=300 {
            let n = n.to_string();
            lab.publish(&format!("..{n}"), &[("token", &n), ("namespace", &n)]);
        }
        done.store(true, Ordering::Relaxed);
    });
    lab.copy();
    assert_eq!(lab.read("token"), "300");
    assert!(seen.into_inner() > 0);
}

#[tokio::test]
async fn readiness_waits_for_the_first_copy_and_changes_are_followed() {
    let lab = Lab::new();
    let readiness = Readiness::new();
    let (notices, mut told) = mpsc::channel(1);
    let follower = tokio::spawn(lab.credentials().follow(readiness.block("credentials"), notices));
    assert_eq!(readiness.pending(), ["credentials"]);
    lab.publish("..1", &[("token", "t")]);
    readiness.ready().await;
    assert_eq!(lab.read("token"), "t");
    lab.publish("..2", &[("token", "u")]);
    until("the new token arrives", || lab.read("token") == "u").await;
    follower.abort();
    assert!(told.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn copies_that_go_on_failing_are_an_event_and_are_tried_again() {
    let lab = Lab::new();
    let readiness = Readiness::new();
    let (notices, mut told) = mpsc::channel(1);
    let begun = Instant::now();
    let follower = tokio::spawn(lab.credentials().follow(readiness.block("credentials"), notices));
    assert_eq!(told.recv().await, Some(Notice::CredentialsOutdated));
    assert!(begun.elapsed() >= TOLD_AFTER);
    assert!(tokio::time::timeout(TOLD_AGAIN / 2, told.recv()).await.is_err(), "told twice");
    lab.publish("..1", &[("token", "t")]);
    readiness.ready().await;
    assert_eq!(lab.read("token"), "t");
    follower.abort();
}

#[test]
fn a_short_failure_is_no_event() {
    let fails = || {
        Err(CredentialsError::Read {
            container: "app".into(),
            path: "/s".into(),
            source: ErrorKind::NotFound.into(),
        })
    };
    let mut failure = Failure::default();
    assert!(!failure.note(&fails()) && !failure.note(&fails()));
    assert!(!failure.note(&Ok(())));
    assert!(failure.since.is_none() && failure.logged.is_empty());
}

#[test]
fn files_have_the_permissions_that_the_kubelet_would_give() {
    let mut lab = Lab::new();
    lab.dir.default_mode = 0o400;
    lab.dir.modes = [("bin/run".into(), 0o555), ("ca.crt".into(), 0o440)].into();
    lab.publish("..1", &[("token", "t"), ("ca.crt", CLUSTER_CA), ("bin/run", "#!"), ("run", "no script")]);
    lab.copy();
    let mode = |name: &str| fs::metadata(lab.target(name)).unwrap().permissions().mode() & 0o7777;
    assert_eq!([mode("token"), mode("ca.crt"), mode("bin/run"), mode("run")], [0o400, 0o440, 0o555, 0o400]);
    let first = fs::read_link(lab.target("..data")).unwrap();
    lab.copy();
    assert_eq!(fs::read_link(lab.target("..data")).unwrap(), first, "nothing had changed");
    fs::set_permissions(lab.target("token"), fs::Permissions::from_mode(0o644)).unwrap();
    lab.copy();
    let mode = fs::metadata(lab.target("token")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o400);
}

#[test]
fn the_group_of_the_volume_is_handed_on() {
    let lab = Lab::new();
    fs::set_permissions(lab.target(""), fs::Permissions::from_mode(0o2777)).unwrap();
    lab.publish("..1", &[("token", "t"), ("deep/down/ca.crt", CLUSTER_CA)]);
    lab.copy();
    let metadata = |name: &str| fs::metadata(lab.target(name)).unwrap();
    for dir in ["..data", "deep", "deep/down"] {
        assert_eq!(metadata(dir).permissions().mode() & 0o7777, 0o2755, "{dir}");
    }
    for name in ["..data", "token", "deep/down/ca.crt"] {
        assert_eq!(metadata(name).gid(), metadata("").gid(), "{name}");
    }
}

#[test]
fn large_keys_beside_the_token_are_copied_and_a_renewal_takes_no_room_for_them() {
    let lab = Lab::new();
    let large = "x".repeat(1 << 20);
    let more = [("a", large.as_str()), ("b", &large), ("c", &large), ("d", &large)];
    lab.publish("..1", &[&more[..], &[("token", "t")]].concat());
    lab.copy();
    let inode = |name: &str| fs::metadata(lab.target(name)).unwrap().ino();
    let before = inode("a");
    lab.publish("..2", &[&more[..], &[("token", "u")]].concat());
    lab.copy();
    assert_eq!((lab.read("token"), lab.read("d").len(), inode("a")), ("u".into(), 1 << 20, before));
}

#[test]
fn many_small_keys_are_copied() {
    let lab = Lab::new();
    let names: Vec<String> = (0..2000).map(|number| format!("key-{number}")).collect();
    let files: Vec<_> = names.iter().map(|name| (name.as_str(), "v")).collect();
    lab.publish("..1", &files);
    lab.copy();
    assert_eq!(lab.names().len(), 2002);
}

#[test]
fn an_attempt_that_fails_changes_nothing_and_leaves_nothing() {
    let lab = Lab::new();
    lab.publish("..1", &[("token", "t")]);
    lab.copy();
    let before = lab.names();
    // A file cannot be a directory, too.
    let files = ["a", "token", "token/down"].map(|name| (PathBuf::from(name), b"new".to_vec())).into();
    let content = Content { files: &files, dir: &lab.dir };
    assert!(atomic::write(&lab.target(""), &content).is_err());
    assert_eq!((lab.names(), lab.read("token")), (before, "t".into()));
}

#[test]
fn directories_for_the_mounts_of_others_are_made_and_stay() {
    let mut lab = Lab::new();
    lab.dir.mount_points =
        ["extra/deep", "token", "..data", "../beside", "/", "a/../../b"].map(Into::into).into();
    lab.publish("..1", &[("token", "t")]);
    lab.copy();
    let beside = fs::read_dir(lab.root.path()).unwrap().count();
    assert_eq!((beside, lab.names().len()), (2, 4), "{:?}", lab.names());
    assert!(lab.target("extra/deep").is_dir() && lab.target("token").is_file());
    let inode = fs::metadata(lab.target("extra")).unwrap().ino();
    lab.publish("..2", &[("token", "u")]);
    lab.copy();
    assert_eq!(fs::metadata(lab.target("extra")).unwrap().ino(), inode);
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let polled = async {
        while !holds() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(60), polled).await.is_ok(), "{what}");
}
