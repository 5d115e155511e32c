//! Puts the version into the program: that of the package, and the commit that last changed what the program is made of.
//! `PODWITNESS_COMMIT` says it where there is no git; without either, the version stands alone.

use std::{env, path::Path, process::Command};

/// What the program is made of, from this folder.
const SOURCES: [&str; 4] = [".", "../crates/core", "../crates/crd", "../Cargo.lock"];

fn main() {
    println!("cargo::rerun-if-env-changed=PODWITNESS_COMMIT");
    let given = env::var("PODWITNESS_COMMIT").ok().filter(|commit| is_commit(commit));
    let version = env::var("CARGO_PKG_VERSION").unwrap_or_default();
    let version =
        given.or_else(last_commit).map_or_else(|| version.clone(), |commit| format!("{version}+{commit}"));
    println!("cargo::rustc-env=PODWITNESS_VERSION={version}");
}

fn last_commit() -> Option<String> {
    // Written at each commit and checkout.
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]).filter(|log| Path::new(log).exists()) {
        println!("cargo::rerun-if-changed={log}");
    }
    for source in ["src", "build.rs", "Cargo.toml"] {
        println!("cargo::rerun-if-changed={source}");
    }
    let args = ["log", "-1", "--format=%h", "--abbrev=12", "--"];
    git(&[args.as_slice(), SOURCES.as_slice()].concat()).filter(|commit| is_commit(commit))
}

fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}

fn is_commit(text: &str) -> bool {
    !text.is_empty() && text.len() <= 64 && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
}
