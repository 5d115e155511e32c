//! Commands on a real terminal, through util-linux's `script`.

use std::{process::Stdio, time::Duration};

use anyhow::{Context, Result};
use tokio::{io::AsyncWriteExt as _, process::Command};

use crate::Run;

const LIMIT: Duration = Duration::from_secs(120);

/// Runs a shell command on a terminal of this size, types `input`, and waits for its end. What the terminal shows is
/// the standard output.
///
/// # Errors
/// Where it cannot be started or does not end.
pub async fn on_terminal(cols: u16, rows: u16, command: &str, input: &[u8]) -> Result<Run> {
    let sized = format!("stty cols {cols} rows {rows}; {command}");
    let mut child = Command::new("script")
        .args(["--quiet", "--return", "--command", &sized, "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("cannot start script (package bsdutils)")?;
    let mut keyboard = child.stdin.take().context("no standard input")?;
    keyboard.write_all(input).await?;
    // The keyboard stays open until the end: its closing would be typed as ^D.
    let output = tokio::time::timeout(LIMIT, child.wait_with_output()).await.context("it did not end")??;
    drop(keyboard);
    Ok(Run {
        code: output.status.code().unwrap_or(-1),
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}
