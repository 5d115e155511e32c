//! The cluster as the harness itself asks it: without a kubectl of its own for every question, because the processors
//! are for what is tested.

use std::{cell::RefCell, time::Duration};

use anyhow::{Context as _, Result, bail};
use futures_util::SinkExt as _;
use hyper::Request;
use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::Status};
use kube::{
    Api, Client,
    api::{AttachParams, AttachedProcess, TerminalSize},
};
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    runtime::{Handle, Id},
};

use crate::{Run, schedule};

/// Longest run of one command.
const LIMIT: Duration = Duration::from_secs(300);
/// What is read of a command's output before it waits, as much as a pipe holds.
const BUFFER: usize = 64 << 10;
/// ^D.
const END_OF_FILE: &[u8] = &[4];

thread_local! {
    /// A client's connections end with the runtime that opened them, and every test has its own.
    static CLIENT: RefCell<Option<(Id, Client)>> = const { RefCell::new(None) };
}

/// The client of this test, with the caller's kubeconfig.
async fn client() -> Result<Client> {
    schedule::enter_as_usual().await;
    let runtime = Handle::current().id();
    let known = CLIENT.with_borrow(|known| {
        known.as_ref().filter(|(of, _)| *of == runtime).map(|(_, client)| client.clone())
    });
    if let Some(client) = known {
        return Ok(client);
    }
    let client = Client::try_default().await.context("KUBECONFIG names no cluster")?;
    CLIENT.set(Some((runtime, client.clone())));
    Ok(client)
}

async fn ask(method: &str, path: &str, body: Vec<u8>) -> Result<Value> {
    let request = Request::builder().method(method).uri(path);
    let request = request.header("content-type", "application/json").body(body)?;
    client().await?.request(request).await.with_context(|| format!("{method} {path}"))
}

/// Reads what is at a path of the API.
///
/// # Errors
/// Where there is nothing, or the API server does not answer.
pub async fn get(path: &str) -> Result<Value> {
    ask("GET", path, Vec::new()).await
}

/// Creates an object below a path of the API.
///
/// # Errors
/// Where the API server refuses.
pub async fn create(path: &str, object: &Value) -> Result<Value> {
    ask("POST", path, object.to_string().into_bytes()).await
}

/// Deletes what is at a path of the API; its end is not awaited.
///
/// # Errors
/// Where there is nothing, or the API server refuses.
pub async fn delete(path: &str) -> Result<Value> {
    ask("DELETE", path, Vec::new()).await
}

/// Runs a command in a container, without standard input.
///
/// # Errors
/// Where it cannot be started, does not end, or the connection is lost; an exit code is no error.
pub async fn exec(namespace: &str, pod: &str, container: &str, command: &[&str]) -> Result<Run> {
    let params = AttachParams::default().stdin(false);
    let whole = async {
        let mut process = attach(namespace, pod, container, command, params).await?;
        let status = process.take_status().context("no status")?;
        let (stdout, stderr) = tokio::try_join!(all(process.stdout()), all(process.stderr()))?;
        let code = code(status.await.context("the connection was lost")?)?;
        anyhow::Ok(Run { code, stdout, stderr: String::from_utf8_lossy(&stderr).into_owned() })
    };
    let whole = tokio::time::timeout(LIMIT, whole).await.context("it did not end").flatten();
    whole.with_context(|| format!("exec {namespace}/{pod}: {}", command.join(" ")))
}

/// Runs a command in a container, on a terminal of `columns` and `rows` if they are given. Its standard input stays open
/// until it has printed `last`, and ends then, on a terminal with ^D. What it says on standard error is left out.
///
/// # Errors
/// As [`exec`].
pub async fn exec_until(
    namespace: &str,
    pod: &str,
    container: &str,
    command: &[&str],
    terminal: Option<(u16, u16)>,
    last: &str,
) -> Result<Run> {
    let params = AttachParams::default().stdin(true).stderr(terminal.is_none()).tty(terminal.is_some());
    let whole = async {
        let mut process = attach(namespace, pod, container, command, params).await?;
        if let (Some((width, height)), Some(mut sizes)) = (terminal, process.terminal_size()) {
            sizes.send(TerminalSize { width, height }).await?;
        }
        let status = process.take_status().context("no status")?;
        let (stdin, mut stdout) = (process.stdin(), process.stdout().context("no standard output")?);
        let mut stdin = stdin.context("no standard input")?;
        let talk = async {
            let mut shown = read_until(&mut stdout, last).await?;
            if terminal.is_some() {
                stdin.write_all(END_OF_FILE).await?;
            } else {
                stdin.shutdown().await?;
            }
            stdout.read_to_end(&mut shown).await?;
            anyhow::Ok(shown)
        };
        let stderr = async {
            match process.stderr() {
                Some(stderr) => all(Some(stderr)).await.map(drop),
                None => Ok(()),
            }
        };
        let (stdout, ()) = tokio::try_join!(talk, stderr)?;
        let code = code(status.await.context("the connection was lost")?)?;
        anyhow::Ok(Run { code, stdout, stderr: String::new() })
    };
    let whole = tokio::time::timeout(LIMIT, whole).await.context("it did not end").flatten();
    whole.with_context(|| format!("exec {namespace}/{pod}: {}", command.join(" ")))
}

async fn attach(
    namespace: &str,
    pod: &str,
    container: &str,
    command: &[&str],
    params: AttachParams,
) -> Result<AttachedProcess> {
    let pods: Api<Pod> = Api::namespaced(client().await?, namespace);
    let params = params.container(container).max_stdout_buf_size(BUFFER).max_stderr_buf_size(BUFFER);
    Ok(pods.exec(pod, command.iter().copied(), &params).await?)
}

/// Reads until a text was printed, or to the end.
pub(crate) async fn read_until(stream: &mut (impl AsyncRead + Unpin), last: &str) -> Result<Vec<u8>> {
    let mut read = Vec::new();
    loop {
        let before = read.len().saturating_sub(last.len());
        if stream.read_buf(&mut read).await? == 0 {
            return Ok(read);
        }
        let new = read.get(before..).unwrap_or_default();
        if new.windows(last.len()).any(|window| window == last.as_bytes()) {
            return Ok(read);
        }
    }
}

async fn all(stream: Option<impl AsyncRead + Unpin>) -> Result<Vec<u8>> {
    let mut read = Vec::new();
    stream.context("there is no such stream")?.read_to_end(&mut read).await?;
    Ok(read)
}

/// The exit code that the kubelet tells (`NonZeroExitCode` in k8s.io/apimachinery's remotecommand).
fn code(status: Status) -> Result<i32> {
    if status.status.as_deref() == Some("Success") {
        return Ok(0);
    }
    let causes = status.details.and_then(|details| details.causes).unwrap_or_default();
    let exit = causes.iter().find(|cause| cause.reason.as_deref() == Some("ExitCode"));
    match exit.and_then(|cause| cause.message.as_deref()?.parse().ok()) {
        Some(code) => Ok(code),
        None => bail!("{}", status.message.unwrap_or_default()),
    }
}
