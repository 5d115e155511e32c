//! kubectl as a process, outside the cluster.

use std::{ffi::OsStr, fmt, process::Stdio, time::Duration};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tokio::{
    io::AsyncWriteExt as _,
    process::{Child, Command},
};

use crate::schedule;

/// Longest run of one command.
const LIMIT: Duration = Duration::from_secs(300);

/// The kubectl of the caller's `PATH`, with the caller's kubeconfig.
#[derive(Clone, Debug, Default)]
pub struct Kubectl {
    prefix: Vec<String>,
}

/// What a command left behind.
#[derive(Clone, Eq, PartialEq)]
pub struct Run {
    /// Exit code.
    pub code: i32,
    /// Standard output, exactly.
    pub stdout: Vec<u8>,
    /// Standard error as text.
    pub stderr: String,
}

/// Output as a person reads it.
impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { code, stderr, .. } = self;
        f.debug_struct("Run")
            .field("code", code)
            .field("stdout", &self.text())
            .field("stderr", stderr)
            .finish()
    }
}

impl Run {
    /// Standard output as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// The run, if it succeeded.
    ///
    /// # Errors
    /// With its exit code and what it said, otherwise.
    pub fn ok(self) -> Result<Self> {
        if self.code != 0 {
            bail!("kubectl ended with {}: {}{}", self.code, self.text(), self.stderr);
        }
        Ok(self)
    }
}

impl Kubectl {
    /// One that puts `args` before those of every command, such as `-n NAMESPACE`.
    #[must_use]
    pub fn with(args: &[&str]) -> Self {
        Self { prefix: args.iter().map(|a| (*a).to_owned()).collect() }
    }

    /// Runs a command to its end.
    ///
    /// # Errors
    /// Where it cannot be started or does not end; an exit code is no error.
    pub async fn run<S: AsRef<OsStr>>(&self, args: &[S]) -> Result<Run> {
        self.run_with_stdin(args, &[]).await
    }

    /// The same with standard input.
    ///
    /// # Errors
    /// As [`Kubectl::run`].
    pub async fn run_with_stdin<S: AsRef<OsStr>>(&self, args: &[S], stdin: &[u8]) -> Result<Run> {
        schedule::enter_as_usual().await;
        let mut child = self.command(args).stdin(Stdio::piped()).spawn().context("cannot start kubectl")?;
        let mut input = child.stdin.take().context("kubectl has no standard input")?;
        let feed = async {
            // A command that reads no input may close it early; its exit code tells the rest.
            let _ = input.write_all(stdin).await;
            drop(input);
        };
        let ((), output) =
            tokio::time::timeout(LIMIT, async { tokio::join!(feed, child.wait_with_output()) })
                .await
                .with_context(|| format!("kubectl did not end: {}", words(args)))?;
        let output = output?;
        Ok(Run {
            code: output.status.code().unwrap_or(-1),
            stdout: output.stdout,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Starts a command that the caller ends.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn start<S: AsRef<OsStr>>(&self, args: &[S]) -> Result<Child> {
        self.command(args).stdin(Stdio::null()).spawn().context("cannot start kubectl")
    }

    /// Reads an object as JSON.
    ///
    /// # Errors
    /// Where kubectl fails.
    pub async fn get(&self, args: &[&str]) -> Result<Value> {
        let run = self.run(&[&["get", "-o", "json"], args].concat()).await?.ok()?;
        Ok(serde_json::from_slice(&run.stdout)?)
    }

    /// Creates an object.
    ///
    /// # Errors
    /// Where kubectl cannot be run; a refusal is in the [`Run`].
    pub async fn create(&self, object: &Value, args: &[&str]) -> Result<Run> {
        let args = [&["create", "-f", "-"], args].concat();
        self.run_with_stdin(&args, object.to_string().as_bytes()).await
    }

    fn command<S: AsRef<OsStr>>(&self, args: &[S]) -> Command {
        let mut command = Command::new("kubectl");
        command
            .args(&self.prefix)
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }
}

fn words<S: AsRef<OsStr>>(args: &[S]) -> String {
    let words: Vec<_> = args.iter().map(|arg| arg.as_ref().to_string_lossy()).collect();
    words.join(" ")
}
