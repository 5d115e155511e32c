//! Whole pods before and after: `tests/golden/NAME.in.yaml` and what has to come of it, `NAME.out.yaml`.
//!
//! `UPDATE_GOLDEN=1 cargo test -p podwitness-webhook golden` writes the latter anew; read the difference.

use std::{fs, path::Path};

use podwitness_core::inject::Inject;
use serde_json::Value;

use super::mutate;
use crate::admit::{Settings, testing};

fn settings(name: &str) -> Settings {
    let inject = if name.starts_with("optional") { Inject::Optional } else { Inject::Required };
    Settings { pull_secrets: vec!["registry".into()], ..testing::settings(inject) }
}

fn read(path: &Path) -> Value {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_yaml_ng::from_str(&text).unwrap()
}

fn check(name: &str) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let before = read(&dir.join(format!("{name}.in.yaml")));
    let mut after = before.clone();
    json_patch::patch(&mut after, &mutate(&before, &settings(name)).unwrap()).unwrap();
    assert_eq!(mutate(&after, &settings(name)).unwrap(), vec![], "{name}: a second pass changes something");
    let path = dir.join(format!("{name}.out.yaml"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, serde_yaml_ng::to_string(&after).unwrap()).unwrap();
    }
    let expected = read(&path);
    assert!(after == expected, "{name} came out as\n{}", serde_yaml_ng::to_string(&after).unwrap());
}

#[test]
fn golden_pods_come_out_as_written() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut names: Vec<String> = fs::read_dir(dir)
        .unwrap()
        .filter_map(|entry| {
            entry.unwrap().file_name().to_str()?.strip_suffix(".in.yaml").map(ToOwned::to_owned)
        })
        .collect();
    names.sort();
    assert!(names.len() >= 6, "golden pods are missing: {names:?}");
    names.iter().for_each(|name| check(name));
}
