//! A recorder that is no pod: a process of this machine, at an address that pods reach.

use std::{
    net::{IpAddr, TcpListener, UdpSocket},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context as _, Result, ensure};
use hyper::Method;
use podwitness_e2e::{
    Counting, Forward, Kubectl, Namespace, Viewer,
    counting::hex,
    eventually,
    grants::{enforced, with_grant},
    pods::{beside, sleeper},
    recorders::{condition, tag},
    schedule::{Class, enter},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
};

/// How docs/recorders.md makes a join file for the recorder `$0`.
const JOIN: &str = r#"printf '{"recorder": "%s", "issuers": %s}\n' "$0" \
    "$(kubectl -n podwitness-system get configmap podwitness-issuers -o jsonpath='{.data.issuers\.json}')""#;

/// The program, its folder, and its ports.
struct Outside {
    program: String,
    folder: PathBuf,
    endpoint: String,
    tunnel: u16,
    admin: u16,
    view: u16,
}

#[tokio::test]
async fn a_process_outside_the_cluster_records_what_pods_send_it() -> Result<()> {
    enter(Class::Long).await;
    beside(&sleeper("target"), async |ns, plain| {
        let outside = Outside::new(&ns.name).await?;
        let (mut ingest, manifest) = outside.start().await?;
        let mut view = outside.run(&["view"], Stdio::null())?;
        let run = async {
            Kubectl::default().run_with_stdin(&["create", "-f", "-"], manifest.as_bytes()).await?.ok()?;
            let ready = condition(&ns.name, "Ready", "True").await?;
            ensure!(ready.get("reason") == Some(&json!("External")), "{ready}");
            let recorder = Kubectl::default().get(&["recorder", &ns.name]).await?;
            for (at, said) in [("external/address", outside.endpoint.as_str()), ("storage", "external")] {
                ensure!(recorder.pointer(&format!("/status/{at}")) == Some(&json!(said)), "{recorder}");
            }
            let grant = enforced(&ns.name, &tag(&ns.name));
            with_grant(&grant, async || records(ns, plain, &outside, &mut ingest).await).await
        };
        let result = run.await;
        Kubectl::default().run(&["delete", "recorder", &ns.name, "--ignore-not-found"]).await?;
        end(&mut view).await?;
        end(&mut ingest).await?;
        outside.remove(result.is_err())?;
        result
    })
    .await
}

/// It records, goes away under live sessions, is back, and has all that was shown.
async fn records(ns: &Namespace, plain: &Namespace, outside: &Outside, ingest: &mut Child) -> Result<()> {
    let viewer = Viewer::here(outside.view);
    let exec = format!("kubectl -n {} exec target --", plain.name);
    eventually("it takes a session", async || {
        ns.shell("witness", &format!("{exec} echo settled")).await?.ok()?;
        ensure!(!viewer.sessions(&ns.name).await?.is_empty(), "it took none");
        Ok(())
    })
    .await?;

    let made =
        plain.shell("target", "head -c 3000000 /dev/urandom >/tmp/r; sha256sum </tmp/r").await?.ok()?;
    let seen = ns.shell("witness", &format!("{exec} sh -c 'cat /tmp/r; sleep 5' | sha256sum")).await?.ok()?;
    ensure!(seen.text() == made.text(), "kubectl printed {}, the file is {}", seen.text(), made.text());
    let output = viewer.recording(&ns.name, "cat /tmp/r").await?.output()?;
    ensure!(made.text().starts_with(&hex(&output)), "recorded {} bytes, made {}", output.len(), made.text());

    let live = Counting::both(ns, plain, "live").await?;
    end(ingest).await?;
    let mut ended = Vec::new();
    for session in &live {
        let seen = session.over().await?;
        ensure!(seen.code != 0, "{} goes on without a recorder: {seen:?}", session.id());
        ended.push(seen);
    }
    let run = ns.shell("witness", &format!("{exec} touch /tmp/ran")).await?;
    let told = format!(
        "Grant \"{}\" asks for a recording, and no recorder can be reached; nothing was run",
        ns.name
    );
    ensure!(run.code != 0 && run.stderr.contains(&told), "{run:?}");
    ensure!(plain.shell("target", "test -e /tmp/ran").await?.code == 1, "it was run");

    (*ingest, _) = outside.start().await?;
    eventually("it records again", async || ns.shell("witness", &format!("{exec} echo again")).await?.ok())
        .await?;
    for (session, seen) in live.iter().zip(&ended) {
        session.check(seen, &viewer.recording(&ns.name, session.id()).await?).await?;
    }
    Ok(())
}

impl Outside {
    /// Makes its folder, with a join file.
    async fn new(name: &str) -> Result<Self> {
        let program =
            std::env::var("PODWITNESS_RECORDER").context("PODWITNESS_RECORDER names no recorder")?;
        let folder = std::env::temp_dir().join(format!("podwitness-{name}"));
        std::fs::create_dir(&folder)?;
        std::fs::create_dir(folder.join("key"))?;
        let joined = Command::new("sh").args(["-c", JOIN, name]).output().await?;
        ensure!(joined.status.success(), "no join file: {joined:?}");
        std::fs::write(folder.join("join.json"), joined.stdout)?;
        let address = address_for_pods().await?;
        // Free a moment ago.
        let tunnel = UdpSocket::bind((address, 0))?.local_addr()?.port();
        let [admin, view] = [TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?]
            .map(|listener| listener.local_addr().map(|address| address.port()));
        let (admin, view) = (admin?, view?);
        Ok(Self { program, folder, endpoint: format!("{address}:{tunnel}"), tunnel, admin, view })
    }

    /// Starts it and waits until it is ready; gives the object that it prints, too.
    async fn start(&self) -> Result<(Child, String)> {
        let mut child = self.run(&["ingest", "--join", &self.path("join.json")], Stdio::piped())?;
        let mut lines = BufReader::new(child.stdout.take().context("no output")?).lines();
        let mut manifest = String::new();
        while !manifest.contains("endpoint:") {
            let line = lines.next_line().await?;
            let line = line.with_context(|| format!("it ended: {}", self.log()))?;
            manifest += &format!("{line}\n");
        }
        let admin = Forward::here(self.admin);
        eventually("it is ready", async || admin.ask(Method::GET, "/readyz", "").await).await?;
        Ok((child, manifest))
    }

    fn run(&self, args: &[&str], stdout: Stdio) -> Result<Child> {
        let log = std::fs::File::options().create(true).append(true).open(self.folder.join("log"))?;
        let settings = [
            format!("PODWITNESS_STATE={}", self.path("key")),
            format!("PODWITNESS_STORE={}", self.path("recordings")),
            format!("PODWITNESS_TUNNEL_PORT={}", self.tunnel),
            format!("PODWITNESS_ENDPOINT={}", self.endpoint),
            format!("PODWITNESS_ADMIN=127.0.0.1:{}", self.admin),
            format!("PODWITNESS_LISTEN=127.0.0.1:{}", self.view),
            "PODWITNESS_ACK=volume".to_owned(),
            "PODWITNESS_DRAIN=1s".to_owned(),
        ];
        let mut command = as_root("env")?;
        command.args(settings).arg(&self.program).args(args);
        command.stdin(Stdio::null()).stdout(stdout).stderr(log).kill_on_drop(true);
        command.spawn().context("cannot start the recorder")
    }

    fn path(&self, name: &str) -> String {
        self.folder.join(name).to_string_lossy().into_owned()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    #[expect(clippy::print_stdout, reason = "a test tells its story on standard output")]
    fn remove(&self, failed: bool) -> Result<()> {
        if failed {
            println!("--- recorder outside:\n{}", self.log());
        }
        Ok(std::fs::remove_dir_all(&self.folder)?)
    }
}

/// Ends a process as a service manager does.
async fn end(process: &mut Child) -> Result<()> {
    // Without a number it has ended and was waited for.
    if let Some(id) = process.id() {
        as_root("kill")?.arg(id.to_string()).status().await?;
    }
    let status = process.wait().await?;
    ensure!(status.success(), "the recorder ended with {status}");
    Ok(())
}

/// A command that has what it takes to make a tunnel.
fn as_root(program: &str) -> Result<Command> {
    if Path::new("/proc/self").metadata()?.uid() == 0 {
        return Ok(Command::new(program));
    }
    let mut command = Command::new("sudo");
    command.args(["-n", program]);
    Ok(command)
}

/// The address of this machine that the cluster's nodes see: the one that it asks the API server from; where that is
/// published on loopback, the one for the nodes themselves.
async fn address_for_pods() -> Result<IpAddr> {
    let args = ["config", "view", "--minify", "-o", "jsonpath={.clusters[0].cluster.server}"];
    let server = Kubectl::default().run(&args).await?.ok()?.text();
    let authority = server.trim_start_matches("https://");
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    let host = host.parse::<IpAddr>().ok().filter(|address| !address.is_loopback());
    let host = match host {
        Some(host) => host,
        None => node_address().await?,
    };
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    // Nothing is sent.
    socket.connect((host, 9))?;
    Ok(socket.local_addr()?.ip())
}

async fn node_address() -> Result<IpAddr> {
    let nodes = Kubectl::default().get(&["nodes"]).await?;
    let all = nodes.pointer("/items/0/status/addresses").and_then(Value::as_array).context("no addresses")?;
    let internal = all.iter().find(|one| one.get("type") == Some(&json!("InternalIP")));
    let address = internal.and_then(|one| one.get("address")?.as_str()).context("no InternalIP")?;
    Ok(address.parse()?)
}
