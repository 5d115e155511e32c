//! One session, or a few requests, with kube-rs, for the interop tests. It runs in a pod, as the pod's service account.
//!
//! `podwitness-kube [-n NAMESPACE] exec|attach [-i] [-t] [-c NAME] POD [-- WORD…]`,
//! `podwitness-kube [-n NAMESPACE] port-forward POD PORT`, which asks the port for `/` over HTTP and prints the answer, or
//! `podwitness-kube [-n NAMESPACE] requests NAME`, which creates a `ConfigMap`, lists it, watches until it is seen and
//! deletes it, and says so. The exit code is that of the command.

use std::{collections::VecDeque, env, process::ExitCode};

use anyhow::{Context as _, Result, bail};
use futures_util::{SinkExt as _, TryStreamExt as _};
use k8s_openapi::{
    api::core::v1::{ConfigMap, Pod},
    apimachinery::pkg::apis::meta::v1::Status,
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{
        AttachParams, AttachedProcess, DeleteParams, ListParams, ObjectMeta, PostParams, TerminalSize,
        WatchEvent, WatchParams,
    },
};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, copy, stderr, stdin, stdout};

/// What is asked for, read as kubectl reads it.
#[derive(Debug, Default)]
struct Arguments {
    namespace: String,
    stdin: bool,
    tty: bool,
    container: Option<String>,
    words: Vec<String>,
    command: Vec<String>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse(env::args().skip(1))?;
    let client = Client::try_default().await?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), &arguments.namespace);
    let words: Vec<&str> = arguments.words.iter().map(String::as_str).collect();
    let process = match words.as_slice() {
        ["exec", pod] => pods.exec(pod, &arguments.command, &arguments.params()).await?,
        ["attach", pod] => pods.attach(pod, &arguments.params()).await?,
        ["port-forward", pod, port] => return forward(&pods, pod, port.parse()?).await,
        ["requests", name] => return requests(&Api::namespaced(client, &arguments.namespace), name).await,
        other => bail!("exec POD, attach POD, port-forward POD PORT or requests NAME, not {other:?}"),
    };
    session(process, arguments.tty).await
}

impl Arguments {
    fn parse(given: impl Iterator<Item = String>) -> Result<Self> {
        let mut given: VecDeque<String> = given.collect();
        let mut found = Self { namespace: "default".into(), ..Self::default() };
        while let Some(word) = given.pop_front() {
            match word.as_str() {
                "-n" => found.namespace = given.pop_front().context("-n takes a namespace")?,
                "-c" => found.container = Some(given.pop_front().context("-c takes a container")?),
                "-i" => found.stdin = true,
                "-t" => found.tty = true,
                "--" => found.command = given.drain(..).collect(),
                _ => found.words.push(word),
            }
        }
        Ok(found)
    }

    fn params(&self) -> AttachParams {
        let params = AttachParams::default().stdin(self.stdin).tty(self.tty).stderr(!self.tty);
        match &self.container {
            Some(name) => params.container(name),
            None => params,
        }
    }
}

/// Passes everything on until the process has ended.
async fn session(mut process: AttachedProcess, tty: bool) -> Result<ExitCode> {
    let status = process.take_status().context("no status")?;
    if tty {
        let mut size = process.terminal_size().context("no terminal")?;
        size.send(TerminalSize { width: 101, height: 31 }).await?;
    }
    if let Some(input) = process.stdin() {
        // Standard input may outlast the process: nobody waits for it.
        tokio::spawn(pass(stdin(), input));
    }
    let (out, err) = (process.stdout(), process.stderr());
    let out = async {
        if let Some(out) = out {
            pass(out, stdout()).await?;
        }
        anyhow::Ok(())
    };
    let err = async {
        if let Some(err) = err {
            pass(err, stderr()).await?;
        }
        anyhow::Ok(())
    };
    let (out, err, status) = tokio::join!(out, err, status);
    out?;
    err?;
    // The thread that reads standard input cannot be stopped: leave without it.
    std::process::exit(exit_code(&status.context("the session ended without a status")?)?.into())
}

async fn pass(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) -> Result<()> {
    copy(&mut from, &mut to).await?;
    Ok(to.shutdown().await?)
}

fn exit_code(status: &Status) -> Result<u8> {
    if status.status.as_deref() == Some("Success") {
        return Ok(0);
    }
    let causes = status.details.as_ref().and_then(|details| details.causes.as_deref()).unwrap_or_default();
    let code = causes.iter().find(|cause| cause.reason.as_deref() == Some("ExitCode"));
    let code = code.and_then(|cause| cause.message.as_deref()?.parse().ok());
    code.with_context(|| status.message.clone().unwrap_or_default())
}

async fn forward(pods: &Api<Pod>, pod: &str, port: u16) -> Result<ExitCode> {
    let mut forwarder = pods.portforward(pod, &[port]).await?;
    let mut stream = forwarder.take_stream(port).context("no stream")?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let body = answer.windows(4).position(|window| window == b"\r\n\r\n").context("no answer")? + 4;
    stdout().write_all(answer.get(body..).unwrap_or_default()).await?;
    stdout().flush().await?;
    Ok(ExitCode::SUCCESS)
}

async fn requests(maps: &Api<ConfigMap>, name: &str) -> Result<ExitCode> {
    let one = format!("metadata.name={name}");
    let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
    maps.create(&PostParams::default(), &ConfigMap { metadata, ..ConfigMap::default() }).await?;
    say("created").await?;
    for found in maps.list(&ListParams::default().fields(&one)).await? {
        say(if found.name_any() == name { "listed" } else { "another" }).await?;
    }
    let mut events = Box::pin(maps.watch(&WatchParams::default().fields(&one), "0").await?);
    while let Some(event) = events.try_next().await? {
        if matches!(event, WatchEvent::Added(_)) {
            break;
        }
    }
    drop(events);
    say("watched").await?;
    maps.delete(name, &DeleteParams::default()).await?;
    say("deleted").await?;
    Ok(ExitCode::SUCCESS)
}

async fn say(word: &str) -> Result<()> {
    let mut out = stdout();
    out.write_all(format!("{word}\n").as_bytes()).await?;
    Ok(out.flush().await?)
}
