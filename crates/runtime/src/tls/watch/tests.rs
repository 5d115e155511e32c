use std::os::unix::fs::symlink;

use tokio::task::JoinHandle;

use super::*;

const PERIOD: Duration = Duration::from_secs(10);

/// What the kubelet does: a new directory beside the old one, and `..data` renamed over to it.
fn publish(dir: &Path, generation: &str, content: &str) {
    let real = dir.join(format!("..{generation}"));
    fs::create_dir(&real).unwrap();
    fs::write(real.join("tls.crt"), content).unwrap();
    symlink(&real, dir.join("..data_tmp")).unwrap();
    fs::rename(dir.join("..data_tmp"), dir.join("..data")).unwrap();
    if !dir.join("tls.crt").is_symlink() {
        symlink("..data/tls.crt", dir.join("tls.crt")).unwrap();
    }
}

/// A watch that has taken note of the content and waits for the next change.
async fn watching(dir: &Path) -> JoinHandle<Directory> {
    let mut watch = Directory::new(dir, PERIOD);
    watch.note().await;
    tokio::spawn(async move {
        watch.changed().await;
        watch
    })
}

async fn several_periods() {
    tokio::time::sleep(PERIOD * 5).await;
}

#[tokio::test(start_paused = true)]
async fn a_kubelet_swap_is_a_change_and_the_same_content_again_is_none() {
    let dir = tempfile::tempdir().unwrap();
    publish(dir.path(), "1", "first");
    let waiting = watching(dir.path()).await;
    several_periods().await;
    publish(dir.path(), "2", "first");
    several_periods().await;
    assert!(!waiting.is_finished());
    publish(dir.path(), "3", "second");
    let mut watch = waiting.await.unwrap();
    assert_eq!(fs::read_to_string(dir.path().join("tls.crt")).unwrap(), "second");
    assert!(tokio::time::timeout(PERIOD * 5, watch.changed()).await.is_err());
    publish(dir.path(), "4", "third");
    watch.changed().await;
}

#[tokio::test(start_paused = true)]
async fn files_that_come_and_go_are_changes() {
    let dir = tempfile::tempdir().unwrap();
    let waiting = watching(dir.path()).await;
    fs::write(dir.path().join("ca.crt"), "ca").unwrap();
    let mut watch = waiting.await.unwrap();
    fs::remove_file(dir.path().join("ca.crt")).unwrap();
    watch.changed().await;
}

#[tokio::test(start_paused = true)]
async fn a_directory_that_appears_is_a_change() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("later");
    let waiting = watching(&dir).await;
    several_periods().await;
    assert!(!waiting.is_finished());
    fs::create_dir(&dir).unwrap();
    waiting.await.unwrap();
}
