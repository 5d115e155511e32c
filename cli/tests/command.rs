//! The program as kubectl starts it: what it prints where, and how it ends. Nothing here needs a cluster.

use std::{
    io::{Result, Write as _},
    process::{Command, Output, Stdio},
};

use podwitness_cli::args::EXIT_USAGE;

fn run(args: &[&str], stdin: &str) -> Result<Output> {
    let mut child = Command::new(env!("CARGO_BIN_EXE_kubectl-witness"))
        .args(args)
        .env("KUBECONFIG", "/nowhere/config")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(stdin.as_bytes())?;
    }
    child.wait_with_output()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn help_is_an_answer() -> Result<()> {
    let output = run(&["grants", "explain", "--help"], "")?;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(text(&output.stdout).contains("Usage: kubectl witness grants explain"), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
    Ok(())
}

#[test]
fn the_version_is_that_of_the_package_with_the_commit() -> Result<()> {
    let output = run(&["--version"], "")?;
    let said = text(&output.stdout);
    assert!(said.contains(env!("CARGO_PKG_VERSION")) && said.trim_end().contains('+'), "{output:?}");
    Ok(())
}

#[test]
fn shells_get_their_scripts() -> Result<()> {
    for (shell, says) in [
        ("bash", "complete -F"),
        ("zsh", "#compdef kubectl-witness"),
        ("fish", "complete -c kubectl-witness"),
    ] {
        let output = run(&["completion", shell], "")?;
        assert_eq!(output.status.code(), Some(0), "{shell}");
        let script = text(&output.stdout);
        assert!(script.contains(says) && script.contains("explain"), "{shell}: {script}");
    }
    Ok(())
}

#[test]
fn a_wrong_command_line_has_a_code_of_its_own() -> Result<()> {
    let output = run(&["grants", "explain"], "")?;
    assert_eq!(output.status.code(), Some(i32::from(EXIT_USAGE)), "{output:?}");
    assert!(text(&output.stderr).contains("--pod"), "{output:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
    Ok(())
}

#[test]
fn options_that_contradict_each_other_have_it_too_and_no_cluster_is_asked() -> Result<()> {
    for (args, says) in [
        (&["--pod", "shop/till", "-n", "office"][..], "name the pod's namespace once"),
        (&["--pod", "till", "--verb", "dance"], "--verb dance is unknown"),
        (&["--pod", "till", "--verb", "list"], "needs --resource"),
    ] {
        let output = run(&[&["grants", "explain", "--as", "ana"], args].concat(), "")?;
        assert_eq!(output.status.code(), Some(i32::from(EXIT_USAGE)), "{output:?}");
        assert!(text(&output.stderr).contains(says), "{output:?}");
    }
    Ok(())
}

#[test]
fn without_a_cluster_it_says_so() -> Result<()> {
    let output = run(&["grants", "explain", "--as", "ana", "--pod", "shop/till"], "")?;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = text(&output.stderr);
    assert!(said.starts_with("kubectl-witness: cannot read the kubeconfig /nowhere/config: "), "{output:?}");
    assert!(said.contains("set KUBECONFIG") && !said.contains(['"', '{']), "{output:?}");
    Ok(())
}

#[test]
fn a_policy_comes_in_and_grants_go_out() -> Result<()> {
    let policy = r#"{
        // The capability is what makes it one of ours.
        "grants": [{
            "src": ["ana@example.com"], "dst": ["tag:k8s"],
            "app": {"tailscale.com/cap/kubernetes": [{"recorder": ["tag:rec"], "enforceRecorder": true}]},
        }],
    }"#;
    let output = run(&["grants", "import", "-"], policy)?;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let grants = text(&output.stdout);
    assert!(grants.contains("kind: Grant") && grants.contains("enforceRecorder: true"), "{output:?}");
    Ok(())
}
