//! Commands on a real terminal, through util-linux's `script`.

use std::{process::Stdio, time::Duration};

use anyhow::{Context, Result};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    process::Command,
};

use crate::Run;

const LIMIT: Duration = Duration::from_secs(120);

/// Runs a shell command on a terminal of this size and waits for its end. Once `prompt` is shown, `answer` is typed, as
/// a person would; an empty prompt means that nothing is typed. What the terminal shows is the standard output.
///
/// # Errors
/// Where it cannot be started or does not end.
pub async fn on_terminal(cols: u16, rows: u16, command: &str, prompt: &str, answer: &str) -> Result<Run> {
    let sized = format!("stty cols {cols} rows {rows}; {command}");
    let mut child = Command::new("script")
        .args(["--quiet", "--return", "--command", &sized, "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .context("cannot start script (package bsdutils)")?;
    // The keyboard stays open until the end: its closing would be typed as ^D.
    let mut keyboard = child.stdin.take().context("no standard input")?;
    let mut screen = child.stdout.take().context("no standard output")?;
    let dialogue = async {
        let mut shown = Vec::new();
        let mut typed = prompt.is_empty();
        while screen.read_buf(&mut shown).await? > 0 {
            if !typed && contains(&shown, prompt) {
                keyboard.write_all(answer.as_bytes()).await?;
                typed = true;
            }
        }
        anyhow::Ok((shown, child.wait().await?))
    };
    let (shown, status) = tokio::time::timeout(LIMIT, dialogue).await.context("it did not end")??;
    Ok(Run { code: status.code().unwrap_or(-1), stdout: shown, stderr: String::new() })
}

fn contains(shown: &[u8], prompt: &str) -> bool {
    shown.windows(prompt.len()).any(|window| window == prompt.as_bytes())
}
