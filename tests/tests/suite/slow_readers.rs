//! Output that is read slowly arrives whole, as without a sidecar: nothing that waits costs a session its pings.

use anyhow::{Result, ensure};
use podwitness_e2e::{
    Namespace,
    grants::{enforced, with_grant},
    pods::{clients, sleeper, witnessed_by},
    schedule::{Class, enter},
};

/// kubectl gives a WebSocket up when it has heard no pong for a minute.
const SECONDS: usize = 150;

/// Reads what a command says at several paces at a time, in bytes a second, over WebSocket and over SPDY. Prints a line for
/// each: pace, transport, exit code, hash, errors.
const READ: &str = r#"
import hashlib, os, subprocess, sys, threading, time
ns, seconds, paces = sys.argv[1], int(sys.argv[2]), [int(pace) for pace in sys.argv[3:]]
def read(pace, sockets):
    command = ["kubectl", "-n", ns, "exec", "target", "--", "head", "-c", str(pace * seconds), "/tmp/r"]
    env = dict(os.environ, KUBECTL_REMOTE_COMMAND_WEBSOCKETS=sockets)
    run = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    seen = hashlib.sha256()
    while block := run.stdout.read(pace // 10):
        seen.update(block)
        time.sleep(0.1)
    errors = run.stderr.read().decode()
    print(pace, sockets, run.wait(), seen.hexdigest(), errors)
threads = [threading.Thread(target=read, args=(pace, sockets)) for pace in paces for sockets in ("true", "false")]
for thread in threads: thread.start()
for thread in threads: thread.join()
"#;

async fn all_arrives(ns: &Namespace, plain: &Namespace, paces: &[usize]) -> Result<()> {
    let most = paces.iter().max().copied().unwrap_or_default() * SECONDS;
    plain.shell("target", &format!("head -c {most} /dev/urandom >/tmp/r")).await?.ok()?;
    let seconds = SECONDS.to_string();
    let mut args =
        vec!["exec", "-i", "witness", "-c", "app", "--", "python3", "-", plain.name.as_str(), &seconds];
    let named: Vec<String> = paces.iter().map(usize::to_string).collect();
    args.extend(named.iter().map(String::as_str));
    let run = ns.kubectl.run_with_stdin(&args, READ.as_bytes()).await?.ok()?;
    for pace in paces {
        let hash = format!("head -c {} /tmp/r | sha256sum", pace * SECONDS);
        let hash = plain.shell("target", &hash).await?.ok()?.text();
        let hash = hash.split_whitespace().next().unwrap_or_default();
        for sockets in ["true", "false"] {
            let line = format!("{pace} {sockets} 0 {hash} \n");
            ensure!(run.text().contains(&line), "{line} is not among\n{}", run.text());
        }
    }
    Ok(())
}

#[tokio::test]
#[ignore = "in hack/test full: it reads for minutes"]
async fn output_that_is_read_slowly_arrives_whole_under_fail_open() -> Result<()> {
    enter(Class::Long).await;
    witnessed_by(&clients("witness"), &sleeper("target"), async |ns, plain| {
        all_arrives(ns, plain, &[100_000]).await
    })
    .await
}

#[tokio::test]
#[ignore = "in hack/test full: it reads for minutes"]
async fn output_that_is_read_slowly_arrives_whole_under_fail_closed() -> Result<()> {
    enter(Class::Long).await;
    witnessed_by(&clients("witness"), &sleeper("target"), async |ns, plain| {
        with_grant(&enforced(&ns.name, "tag:podwitness"), async || all_arrives(ns, plain, &[100_000]).await)
            .await
    })
    .await
}
