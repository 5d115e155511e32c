//! What the sidecar cannot follow: upgrades that are no session, and sessions whose stream breaks the protocol.

use anyhow::{Result, ensure};
use podwitness_e2e::{
    Namespace, Recording, Run, TOOLBOX, Viewer, eventually,
    grants::{self, with_grant},
    pods::{clients, running, sleeper, witnessed_by},
};
use serde_json::{Value, json};

/// Answers every connection to port 8080 with an upgrade and one WebSocket message on channel 1, and ends it.
const SERVE: &str = r#"cat >/tmp/serve <<'END'
#!/bin/sh
while read -r line && [ ${#line} -gt 1 ]; do :; done
printf 'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n'
printf '\202\007\001opaque\210\002\003\350'
END
chmod +x /tmp/serve; nc -ll -p 8080 -e /tmp/serve"#;

/// How everything begins that the sidecar tells a user.
const SIDECAR: &str = "podwitness: ";

/// Options of `speak`, by what carries the session.
const WEB_SOCKETS: [&str; 2] = ["--protocol v5.channel.k8s.io", "--protocol v4.channel.k8s.io"];
const SPDY: &str = "--over spdy --protocol v4.channel.k8s.io";

/// Runs `test` once the sidecars of a namespace hold a grant that enforces recording: it is then that an upgrade whose
/// path nobody can read is refused.
async fn enforced(ns: &Namespace, test: impl AsyncFnOnce() -> Result<()>) -> Result<()> {
    with_grant(&grants::enforced(&ns.name, "tag:podwitness"), async || {
        eventually("the grant is enforced", async || {
            let run = ns.shell("witness", "speak --path /api/%zz").await?;
            ensure!(run.stderr.contains(SIDECAR), "{run:?}");
            Ok(())
        })
        .await?;
        test().await
    })
    .await
}

/// An opaque upgrade: the proxy of a pod.
async fn through_the_proxy(ns: &Namespace, plain: &Namespace) -> Result<Run> {
    let path = format!("/api/v1/namespaces/{}/pods/http:server:8080/proxy/", plain.name);
    ns.shell("witness", &format!("speak --path {path}")).await
}

#[tokio::test]
async fn an_opaque_upgrade_passes_under_fail_closed_only_where_the_grant_says_so() -> Result<()> {
    witnessed_by(&clients("witness"), &running("server", TOOLBOX, SERVE), async |ns, plain| {
        let passes = async || {
            let run = through_the_proxy(ns, plain).await?.ok()?;
            ensure!(run.text() == "opaque", "{run:?}");
            Ok(())
        };
        eventually("it passes under fail open", passes).await?;
        enforced(ns, async || {
            let run = through_the_proxy(ns, plain).await?;
            let told = run.stderr.contains(SIDECAR) && run.stderr.contains(&ns.name);
            ensure!(run.code == 3 && run.stdout.is_empty() && told, "{run:?}");
            let allow = r#"[{"op": "add", "path": "/spec/app/tailscale.com~1cap~1kubernetes/0/opaque", "value": "allow"}]"#;
            ns.kubectl.run(&["patch", "grant", &ns.name, "--type=json", "-p", allow]).await?.ok()?;
            eventually("it passes where the grant says so", passes).await
        })
        .await?;
        is_counted(ns).await
    })
    .await
}

/// Every one that passed has a recording that counts its bytes and holds none of them.
async fn is_counted(ns: &Namespace) -> Result<()> {
    let viewer = Viewer::open().await?;
    eventually("they are recorded", async || {
        let sessions = viewer.sessions(&ns.name).await?;
        let opaque = sessions.iter().filter(|session| session.to_string().contains("/proxy/"));
        ensure!(opaque.count() >= 2, "{sessions:?}");
        Ok(())
    })
    .await
}

/// A client with an authority of its own is refused, and the pod says why.
#[tokio::test]
async fn a_client_that_does_not_trust_the_pod_is_an_event() -> Result<()> {
    Namespace::witnessed(async |ns| {
        ns.allow_all().await?;
        ns.start(&sleeper("witness")).await?;
        let token = "$(cat /var/run/secrets/kubernetes.io/serviceaccount/token)";
        let ask = format!("kubectl -s https://kubernetes.default.svc --token={token} get --raw /version");
        let run = ns.shell("witness", &ask).await?;
        ensure!(run.code != 0 && run.stderr.contains("x509"), "{run:?}");
        eventually("the pod says so", async || {
            let events = ns.kubectl.get(&["events", "--field-selector=involvedObject.name=witness"]).await?;
            let texts = events.pointer("/items").and_then(Value::as_array).cloned().unwrap_or_default();
            let said = texts.iter().any(|event| event.get("reason") == Some(&json!("CertificateRefused")));
            ensure!(said, "{texts:?}");
            Ok(())
        })
        .await
    })
    .await
}

/// A session that says something and then breaks the protocol in the client's direction.
async fn broken(ns: &Namespace, plain: &Namespace, way: &str, mark: &str) -> Result<(Run, Recording)> {
    let path = format!("/api/v1/namespaces/{}/pods/target/exec", plain.name);
    let command = format!("sh -c 'echo {mark}; head -c 4'");
    let script = format!("speak {way} --say word --frames broken --path {path} -- {command}");
    let run = ns.shell("witness", &script).await?;
    Ok((run, Viewer::open().await?.recording(&ns.name, mark).await?))
}

#[tokio::test]
async fn a_session_that_breaks_the_protocol_ends_under_fail_closed() -> Result<()> {
    witnessed_by(&clients("witness"), &sleeper("target"), async |ns, plain| {
        enforced(ns, async || {
            let (run, recording) = broken(ns, plain, SPDY, "closed, SPDY").await?;
            let why = "a stream that cannot be followed";
            ensure!(run.stderr.contains(SIDECAR) && run.stderr.contains(why), "{run:?}");
            let ends = (recording.text("x-end"), recording.text("x-close"));
            ensure!(ends == ("unreadable".into(), "cut".into()), "{:?}", recording.lines);
            shows_no_more_than(&run, &recording)?;
            // The server takes every frame of a WebSocket, and so does the sidecar.
            for (number, way) in WEB_SOCKETS.iter().enumerate() {
                let (run, recording) = broken(ns, plain, way, &format!("closed {number}")).await?;
                let ends = (recording.text("x-end"), recording.text("x-close"));
                ensure!(ends == ("completed".into(), "recorded".into()), "{way}: {:?}", recording.lines);
                shows_no_more_than(&run, &recording)?;
            }
            Ok(())
        })
        .await
    })
    .await
}

/// Nothing of the server's is missing, so the recording has no gap either.
#[tokio::test]
async fn a_session_that_breaks_the_protocol_goes_on_under_fail_open() -> Result<()> {
    witnessed_by(&clients("witness"), &sleeper("target"), async |ns, plain| {
        for (number, way) in WEB_SOCKETS.iter().chain([&SPDY]).enumerate() {
            let (run, recording) = broken(ns, plain, way, &format!("open {number}")).await?;
            ensure!(!run.stderr.contains(SIDECAR), "{way}: {run:?}");
            let (end, close) = (recording.text("x-end"), recording.text("x-close"));
            // Some servers just fall silent.
            let ends = ["completed", "server-left", "client-left"];
            ensure!(ends.contains(&&*end), "{way}: {run:?} {:?}", recording.lines);
            ensure!(
                close == "recorded" && recording.text("x-gap").is_empty(),
                "{way}: {:?}",
                recording.lines
            );
            shows_no_more_than(&run, &recording)?;
        }
        Ok(())
    })
    .await
}

fn shows_no_more_than(run: &Run, recording: &Recording) -> Result<()> {
    ensure!(recording.output()?.starts_with(&run.stdout), "{run:?}, recorded {:?}", recording.lines);
    Ok(())
}
