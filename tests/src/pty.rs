//! Commands on a real terminal, through util-linux's `script`.

use anyhow::{Context, Result};
use tokio::process::Command;

use crate::{
    Run,
    talk::{Answer, talk},
};

/// Runs a shell command on a terminal of this size and waits for its end. Once `prompt` is shown, `answer` is typed, as
/// a person would; an empty prompt means that nothing is typed. What the terminal shows is the standard output.
///
/// # Errors
/// Where it cannot be started or does not end.
pub async fn on_terminal(cols: u16, rows: u16, command: &str, prompt: &str, answer: &str) -> Result<Run> {
    let sized = format!("stty cols {cols} rows {rows}; {command}");
    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--command", &sized, "/dev/null"]);
    // The keyboard stays open until the end: its closing would be typed as ^D.
    let answer = if prompt.is_empty() { Answer::Nothing } else { Answer::Type(prompt, answer) };
    talk(&mut script, answer).await.context("on a terminal, by script (package bsdutils)")
}
