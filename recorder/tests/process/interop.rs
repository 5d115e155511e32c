//! Another implementation as client: Go's HTTP stack, used as existing clients use it.

use std::{path::Path, process::Command};

use crate::lab::Recorder;

#[test]
#[ignore = "needs go"]
fn clients_in_go_record_and_are_refused_without_hanging() {
    let recorder = Recorder::start();
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../hack/interop/recorder");
    let run = Command::new("go")
        .args(["run", ".", &recorder.plain.to_string()])
        .current_dir(program)
        .output()
        .unwrap();
    let said = String::from_utf8(run.stdout).unwrap();
    assert!(run.status.success(), "{said}{}", String::from_utf8_lossy(&run.stderr));
    let sums = said.lines().filter_map(|line| line.rsplit_once(' ')).map(|(_, sum)| sum);
    let mut sent: Vec<&str> = sums.filter(|sum| sum.len() == 64).collect();
    sent.sort_unstable();
    let mut stored = recorder.sums();
    // The malformed upload's header is stored too.
    assert_eq!((sent.len(), stored.len()), (2, 3));
    stored.retain(|sum| sent.contains(&sum.as_str()));
    assert_eq!(stored, sent);
}
