//! A process that is answered.

use std::{process::Stdio, time::Duration};

use anyhow::{Context as _, Result};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    process::Command,
};

use crate::Run;

/// Longest run of one command.
const LIMIT: Duration = Duration::from_secs(180);

/// What is said to a process.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Answer<'a> {
    /// Nothing; its standard input stays open to its end.
    Nothing,
    /// Once the first text was printed, the second; standard input stays open.
    Type(&'a str, &'a str),
    /// Once this was printed, standard input is closed.
    Close(&'a str),
}

/// Runs a command to its end. Standard error goes nowhere.
pub(crate) async fn talk(command: &mut Command, answer: Answer<'_>) -> Result<Run> {
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.kill_on_drop(true).spawn().context("cannot start it")?;
    let mut said = child.stdout.take().context("no standard output")?;
    let mut input = child.stdin.take();
    let prompt = match answer {
        Answer::Nothing => None,
        Answer::Type(prompt, _) | Answer::Close(prompt) => Some(prompt),
    };
    let dialogue = async {
        let (mut shown, mut awaited) = (Vec::new(), prompt);
        loop {
            let before = shown.len();
            if said.read_buf(&mut shown).await? == 0 {
                return anyhow::Ok((shown, child.wait().await?));
            }
            if awaited.is_some_and(|prompt| contains(&shown, before, prompt)) {
                awaited = None;
                match (answer, &mut input) {
                    (Answer::Type(_, text), Some(input)) => input.write_all(text.as_bytes()).await?,
                    _ => input = None,
                }
            }
        }
    };
    let (shown, status) = tokio::time::timeout(LIMIT, dialogue).await.context("it did not end")??;
    Ok(Run { code: status.code().unwrap_or(-1), stdout: shown, stderr: String::new() })
}

/// Whether the prompt stands in what was shown, and not all of it in what was there `before`.
fn contains(shown: &[u8], before: usize, prompt: &str) -> bool {
    let new = shown.get(before.saturating_sub(prompt.len())..).unwrap_or_default();
    new.windows(prompt.len()).any(|window| window == prompt.as_bytes())
}
