//! Many attempts with one exec: a program in the pod runs their scripts beside each other and says what came of each.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use podwitness_e2e::{Namespace, eventually};
use serde::Deserialize;

/// Runs each script of the list on its standard input, and prints `[code, standard output, standard error]` in that order.
const RUN: &str = r#"
import concurrent.futures, json, subprocess, sys

def text(said):
    return (said or b"").decode("utf-8", "replace")[-4000:]

def run(script):
    try:
        done = subprocess.run(["sh", "-c", script], stdin=subprocess.DEVNULL, capture_output=True, timeout=100)
    except subprocess.TimeoutExpired as late:
        return [-1, text(late.stdout), text(late.stderr) + "\nit did not end"]
    return [done.returncode, text(done.stdout), text(done.stderr)]

with concurrent.futures.ThreadPoolExecutor(8) as pool:
    for done in pool.map(run, json.load(sys.stdin)):
        print(json.dumps(done), flush=True)
"#;

/// What a client was told.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Tried {
    pub(super) code: i32,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

impl Tried {
    /// Whether it was shown or told this.
    pub(super) fn says(&self, text: &str) -> bool {
        self.stdout.contains(text) || self.stderr.contains(text)
    }

    /// The status line of an answer.
    pub(super) fn answer(&self) -> Option<&str> {
        self.stderr.lines().find(|line| line.starts_with("HTTP/1."))
    }
}

/// Runs scripts in container `app` of a pod.
pub(super) async fn all(ns: &Namespace, pod: &str, scripts: &[String]) -> Result<Vec<Tried>> {
    let list = serde_json::to_vec(scripts)?;
    let args = ["exec", "-i", pod, "-c", "app", "--", "python3", "-c", RUN];
    let said = ns.kubectl.run_with_stdin(&args, &list).await?.ok()?.text();
    let tried: Vec<Tried> =
        said.lines().map(serde_json::from_str).collect::<Result<_, _>>().with_context(|| said.clone())?;
    ensure!(tried.len() == scripts.len(), "{} of {} were tried", tried.len(), scripts.len());
    Ok(tried)
}

/// A script that runs in the background of a pod, known by a mark.
pub(super) struct Background<'a> {
    pub(super) ns: &'a Namespace,
    pub(super) pod: &'a str,
    pub(super) mark: &'a str,
}

impl Background<'_> {
    /// Starts it, and waits until it has said something. What it has said by then.
    pub(super) async fn start(&self, script: &str, until: &str) -> Result<String> {
        let file = self.file();
        let whole =
            format!("({script}) >{file}.out 2>{file}.err\necho $? >{file}.new\nmv {file}.new {file}.code\n");
        let start = format!("cat >{file}.sh; nohup sh {file}.sh >/dev/null 2>&1 &");
        let args = ["exec", "-i", self.pod, "-c", "app", "--", "sh", "-c", &start];
        self.ns.kubectl.run_with_stdin(&args, whole.as_bytes()).await?.ok()?;
        eventually("it has begun", async || {
            let said = self.ns.shell(self.pod, &format!("cat {file}.out {file}.err")).await?.ok()?.text();
            ensure!(said.contains(until), "{said}");
            Ok(said)
        })
        .await
    }

    /// What came of it, once it has ended.
    pub(super) async fn outcome(&self) -> Result<Tried> {
        let file = self.file();
        eventually("it has ended", async || {
            let said = async |what: &str| {
                anyhow::Ok(self.ns.shell(self.pod, &format!("cat {file}.{what}")).await?.ok()?.text())
            };
            let code = said("code").await?.trim().parse()?;
            Ok(Tried { code, stdout: said("out").await?, stderr: said("err").await? })
        })
        .await
    }

    fn file(&self) -> String {
        format!("/tmp/background-{}", self.mark)
    }
}

/// Marks of the commands that ran in the target.
pub(super) async fn ran(plain: &Namespace) -> Result<BTreeSet<String>> {
    let listed = plain.shell("target", "ls /tmp").await?.ok()?.text();
    Ok(listed.lines().map(ToOwned::to_owned).collect())
}
