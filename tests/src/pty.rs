//! Commands on a real terminal, through util-linux's `script`.

use std::{process::Stdio, time::Duration};

use anyhow::{Context as _, Result};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    process::Command,
};

use crate::{Run, cluster::read_until, schedule};

/// Longest run of one command.
const LIMIT: Duration = Duration::from_secs(300);

/// Runs a shell command on a terminal of this size and waits for its end. Once `prompt` is shown, `answer` is typed, as
/// a person would; an empty prompt means that nothing is typed. What the terminal shows is the standard output.
///
/// # Errors
/// Where it cannot be started or does not end.
pub async fn on_terminal(cols: u16, rows: u16, command: &str, prompt: &str, answer: &str) -> Result<Run> {
    schedule::enter_as_usual().await;
    let sized = format!("stty cols {cols} rows {rows}; {command}");
    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--command", &sized, "/dev/null"]);
    script.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    let mut child = script.spawn().context("cannot start script (package bsdutils)")?;
    let mut screen = child.stdout.take().context("no standard output")?;
    // The keyboard stays open until the end: its closing would be typed as ^D.
    let mut keyboard = child.stdin.take().context("no standard input")?;
    let dialogue = async {
        let mut shown = Vec::new();
        if !prompt.is_empty() {
            shown = read_until(&mut screen, prompt).await?;
            keyboard.write_all(answer.as_bytes()).await?;
        }
        screen.read_to_end(&mut shown).await?;
        anyhow::Ok((shown, child.wait().await?))
    };
    let (shown, status) = tokio::time::timeout(LIMIT, dialogue).await.context("it did not end")??;
    Ok(Run { code: status.code().unwrap_or(-1), stdout: shown, stderr: String::new() })
}
