//! Ways round the recorder, one row each: requests that no client makes but the API server may take, written by hand
//! (`hack/interop/speak`) and sent with the pod's own credential. Each ends recorded, word for word, or refused: by the
//! API server, which takes it no more than we would, or by the sidecar.

use anyhow::{Context as _, Result, ensure};
use futures_util::stream::{self, StreamExt as _};
use podwitness_e2e::{
    Kubectl, Namespace, Run, Viewer, eventually,
    grants::{enforced, with_grant},
    pods::{clients, on_control_plane, sleeper, witnessed_by},
};
use serde_json::Value;

/// Rows that are tried at the same time.
const AT_A_TIME: usize = 4;

/// How one attempt has to end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum End {
    /// The command ran, and its recording is what it printed.
    Recorded,
    /// The API server takes it for no session, at least not as it comes out of the sidecar; the command never ran.
    Declined,
    /// The sidecar refuses it; the command never ran.
    Refused,
}

use End::{Declined, Recorded, Refused};

/// A witnessed pod, a target beside it, and a viewer.
pub(crate) struct Stage<'a> {
    ns: &'a Namespace,
    plain: &'a Namespace,
    viewer: Viewer,
}

pub(crate) async fn on_stage(test: impl AsyncFnOnce(&Stage<'_>) -> Result<()>) -> Result<()> {
    on_stage_with(&clients("witness"), test).await
}

async fn on_stage_with(witness: &Value, test: impl AsyncFnOnce(&Stage<'_>) -> Result<()>) -> Result<()> {
    witnessed_by(witness, &sleeper("target"), async |ns, plain| {
        let stage = Stage { ns, plain, viewer: Viewer::open().await? };
        stage.settled().await?;
        test(&stage).await
    })
    .await
}

impl Stage<'_> {
    /// Waits until sessions are recorded.
    async fn settled(&self) -> Result<()> {
        let script = format!("kubectl -n {} exec target -- echo settled", self.plain.name);
        self.ns.shell("witness", &script).await?.ok()?;
        self.viewer.recording(&self.ns.name, "echo settled").await?;
        Ok(())
    }

    /// Tries every row; says of all that end otherwise.
    pub(crate) async fn try_all(&self, ways: &[(&str, &str, End)]) -> Result<()> {
        let exec = format!("/api/v1/namespaces/{}/pods/target/exec", self.plain.name);
        let attempts = ways.iter().map(async |(name, arguments, end)| {
            let tried = self.attempt(name, &arguments.replace("EXEC", &exec), *end).await;
            tried.err().map(|error| format!("{name}: {error:#}"))
        });
        let wrong: Vec<_> = stream::iter(attempts).buffered(AT_A_TIME).collect().await;
        let wrong: Vec<_> = wrong.into_iter().flatten().collect();
        ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
        Ok(())
    }

    /// The command prints something and leaves a file, so that nobody has to believe what the client was told.
    async fn attempt(&self, name: &str, arguments: &str, end: End) -> Result<()> {
        let mark = mark(name);
        let command =
            format!("touch /tmp/{mark}; echo out of {mark}; echo err of {mark} >&2; head -c 6; exit 7");
        let run = self.speak(arguments, &command).await?;
        let ran = self.plain.shell("target", &format!("test -e /tmp/{mark}")).await?.code == 0;
        match end {
            Recorded => {
                ensure!(ran, "the command did not run: {run:?}");
                self.is_recorded(&mark, &run).await
            }
            Declined => {
                ensure!(!ran && run.code == 3, "it was not declined: {run:?}");
                ensure!(!run.stderr.contains("podwitness: "), "not by the API server: {run:?}");
                Ok(())
            }
            Refused => {
                ensure!(!ran && run.code == 3, "it was not refused: {run:?}");
                ensure!(run.stderr.contains("podwitness: "), "not by the sidecar: {run:?}");
                Ok(())
            }
        }
    }

    /// The recording of an attempt is that of the pod's service account, and the API server has said so.
    pub(crate) async fn names_its_user(&self, name: &str) -> Result<()> {
        let recording = self.viewer.recording(&self.ns.name, &format!("out of {}", mark(name))).await?;
        let ours = recording.header.get("podwitness").context("no header of ours")?;
        let user = ours.get("user").and_then(Value::as_str).unwrap_or_default();
        let account = format!("system:serviceaccount:{}:default", self.ns.name);
        ensure!(user == account && ours.get("verified") == Some(&Value::Bool(true)), "{ours}");
        Ok(())
    }

    /// Standard input is 6 bytes where `--say` does not give other: commands end when they have read them.
    async fn speak(&self, arguments: &str, command: &str) -> Result<Run> {
        let say = if arguments.contains("--say") { "" } else { "--say 'spoken'" };
        let script = format!("speak {say} {arguments} -- sh -c '{command}'");
        self.ns.shell("witness", &script).await
    }

    async fn is_recorded(&self, mark: &str, run: &Run) -> Result<()> {
        // One mark may begin as another does.
        let recording = self.viewer.recording(&self.ns.name, &format!("out of {mark};")).await?;
        let output = recording.output()?;
        let (mut recorded, mut heard) = (output.clone(), run.stdout.clone());
        // Two streams may be heard in either order.
        recorded.sort_unstable();
        heard.sort_unstable();
        ensure!(recorded == heard, "heard {run:?}, recorded {:?}", recording.lines);
        for line in [format!("out of {mark}\n"), format!("err of {mark}\n")] {
            ensure!(String::from_utf8_lossy(&output).contains(&line), "{:?}", recording.lines);
        }
        ensure!(
            !format!("{recording:?}").contains("FORGED"),
            "the client wrote in it: {:?}",
            recording.lines
        );
        ensure!(recording.text("x-gap").is_empty(), "there is a gap: {:?}", recording.lines);
        Ok(())
    }
}

/// What tells one attempt from the others.
fn mark(name: &str) -> String {
    format!("mark-{}", name.replace(|c: char| !c.is_ascii_alphanumeric(), "-"))
}

const V4: &str = "v4.channel.k8s.io";

#[tokio::test]
async fn no_spelling_of_a_request_goes_round() -> Result<()> {
    on_stage(async |stage| {
        stage
            .try_all(&[
                ("names in capitals", "--shout --protocol v5.channel.k8s.io --path EXEC", Recorded),
                (
                    "values in capitals",
                    "--connection UPGRADE --upgrade WebSocket --protocol v5.channel.k8s.io --path EXEC",
                    Recorded,
                ),
                ("upgrade among others", "--connection 'keep-alive, Upgrade' --protocol v4.channel.k8s.io --path EXEC", Recorded),
                ("SPDY in small letters", "--over spdy --upgrade spdy/3.1 --protocol v4.channel.k8s.io --path EXEC", Recorded),
                (
                    "two protocols in one header",
                    "--over spdy --upgrade 'websocket, SPDY/3.1' --protocol v4.channel.k8s.io --path EXEC",
                    Recorded,
                ),
                (
                    "SPDY behind another",
                    "--over spdy --upgrade 'h2c, SPDY/3.1' --protocol v4.channel.k8s.io --path EXEC",
                    Recorded,
                ),
                ("HTTP/1.0", "--http 1.0 --protocol v5.channel.k8s.io --path EXEC", Declined),
                (
                    "absolute form",
                    "--protocol v5.channel.k8s.io --path https://kubernetes.default.svcEXEC",
                    Recorded,
                ),
                ("trailing slash", "--protocol v5.channel.k8s.io --path EXEC/", Recorded),
                ("trailing slash, SPDY", "--over spdy --protocol v4.channel.k8s.io --path EXEC/", Recorded),
                ("percent in the name", "--protocol v5.channel.k8s.io --path $(echo EXEC | sed s/exec/%65xec/)", Recorded),
                ("percent slash", "--protocol v5.channel.k8s.io --path $(echo EXEC | sed s,/exec,%2Fexec,)", Recorded),
                ("percent everywhere", "--over spdy --protocol v4.channel.k8s.io --path $(echo EXEC | sed 's,/pods/,/%70%6f%64%73/,')", Recorded),
                ("two slashes", "--protocol v5.channel.k8s.io --path /EXEC", Declined),
                ("two slashes within", "--protocol v5.channel.k8s.io --path $(echo EXEC | sed s,/pods,//pods,)", Declined),
                ("dots", "--protocol v5.channel.k8s.io --path $(echo EXEC | sed s,/exec,/../target/exec,)", Declined),
                ("capital subresource", "--protocol v5.channel.k8s.io --path $(echo EXEC | sed s/exec$/Exec/)", Declined),
                ("POST with WebSocket", "--method POST --protocol v5.channel.k8s.io --path EXEC", Declined),
                ("POST with WebSocket, old version", "--method POST --protocol v4.channel.k8s.io --path EXEC", Declined),
                ("GET with SPDY", "--over spdy --method GET --protocol v4.channel.k8s.io --path EXEC", Recorded),
                ("an extension", "--header 'Sec-WebSocket-Extensions: permessage-deflate' --protocol v5.channel.k8s.io --path EXEC", Recorded),
                ("a terminal that is none", "--protocol v5.channel.k8s.io --query tty=0\\&tty=1 --path EXEC", Recorded),
            ])
            .await
    })
    .await
}

#[tokio::test]
async fn no_version_of_the_channels_goes_round() -> Result<()> {
    on_stage(async |stage| {
        stage
            .try_all(&[
                ("ws v5", "--protocol v5.channel.k8s.io --path EXEC", Recorded),
                ("ws v4", "--protocol v4.channel.k8s.io --path EXEC", Recorded),
                ("ws v4 base64", "--protocol v4.base64.channel.k8s.io --path EXEC", Recorded),
                ("ws v1", "--protocol channel.k8s.io --path EXEC", Recorded),
                ("ws v1 base64", "--protocol base64.channel.k8s.io --path EXEC", Recorded),
                ("ws none", "--path EXEC", Recorded),
                ("ws unknown", "--protocol v9.channel.k8s.io --path EXEC", Declined),
                (
                    "ws unknown first",
                    "--protocol v9.channel.k8s.io --protocol v4.channel.k8s.io --path EXEC",
                    Recorded,
                ),
                ("spdy v4", "--over spdy --protocol v4.channel.k8s.io --path EXEC", Recorded),
                ("spdy v3", "--over spdy --protocol v3.channel.k8s.io --path EXEC", Recorded),
                ("spdy v2", "--over spdy --protocol v2.channel.k8s.io --path EXEC", Recorded),
                ("spdy v1", "--over spdy --protocol channel.k8s.io --path EXEC", Recorded),
                ("spdy none", "--over spdy --path EXEC", Declined),
                (
                    "spdy unknown first",
                    "--over spdy --protocol v9.channel.k8s.io --protocol v4.channel.k8s.io --path EXEC",
                    Recorded,
                ),
            ])
            .await
    })
    .await
}

#[tokio::test]
async fn no_shape_of_frames_goes_round() -> Result<()> {
    on_stage(async |stage| {
        let mut ways = vec![
            ("stream ids above 127".to_owned(), "--over spdy --first-id 129".to_owned()),
            ("stream ids above 65536".to_owned(), "--over spdy --first-id 65537".to_owned()),
            ("stream ids to the last".to_owned(), "--over spdy --first-id 2147483641".to_owned()),
            ("even stream ids".to_owned(), "--over spdy --first-id 128".to_owned()),
            ("a stream id that is refused".to_owned(), "--over spdy --first-id 9 --stray 3".to_owned()),
        ];
        for (over, protocol) in [("ws", "v5.channel.k8s.io"), ("ws", V4), ("spdy", V4)] {
            ways.push((
                format!("forged output {over} {protocol}"),
                format!("--over {over} --protocol {protocol} --forge FORGED"),
            ));
            for frames in ["text", "fragments", "packed", "bytes"] {
                if over == "ws" || !matches!(frames, "text" | "fragments") {
                    let arguments = format!("--over {over} --protocol {protocol} --frames {frames}");
                    ways.push((format!("{frames} {over} {protocol}"), arguments));
                }
            }
        }
        let ways: Vec<(&str, String)> = ways
            .iter()
            .map(|(name, arguments)| {
                let version =
                    if arguments.contains("--protocol") { "" } else { "--protocol v4.channel.k8s.io" };
                (&**name, format!("{arguments} {version} --path EXEC"))
            })
            .collect();
        let ways: Vec<_> = ways.iter().map(|(name, arguments)| (*name, &**arguments, Recorded)).collect();
        stage.try_all(&ways).await
    })
    .await
}

#[tokio::test]
async fn one_credential_is_enough_for_a_session() -> Result<()> {
    on_stage(async |stage| {
        stage
            .try_all(&[
                ("token as a subprotocol", "--bearer protocol --protocol v5.channel.k8s.io --path EXEC", Recorded),
                ("a second token as a subprotocol", "--bearer both --protocol v5.channel.k8s.io --path EXEC", Refused),
                ("a second token in a header", "--header 'Authorization: Bearer other' --protocol v5.channel.k8s.io --path EXEC", Refused),
                ("a second token, SPDY", "--over spdy --header 'Authorization: Bearer other' --protocol v4.channel.k8s.io --path EXEC", Refused),
            ])
            .await
    })
    .await
}

/// The endpoint itself, and every address of the node on which the API server listens, from a pod on that node.
#[tokio::test]
async fn no_address_of_the_api_server_goes_round() -> Result<()> {
    on_stage_with(&on_control_plane(clients("witness")).await?, async |stage| {
        let mut ways = Vec::new();
        for (number, address) in addresses(stage.ns).await?.into_iter().enumerate() {
            for over in ["ws", "spdy"] {
                let arguments = format!("--to '{address}' --over {over} --protocol {V4} --path EXEC");
                ways.push((format!("address {number} {over} {address}"), arguments));
            }
        }
        ensure!(ways.len() >= 4, "{ways:?}");
        let ways: Vec<_> = ways.iter().map(|(name, how)| (&**name, &**how, Recorded)).collect();
        stage.try_all(&ways).await
    })
    .await
}

/// The API server's endpoint, and its port on the pod's gateway.
async fn addresses(ns: &Namespace) -> Result<Vec<String>> {
    let slice = Kubectl::default().get(&["endpointslices", "-n", "default", "kubernetes"]).await?;
    let endpoint =
        slice.pointer("/endpoints/0/addresses/0").and_then(Value::as_str).context("no endpoint")?;
    let port = slice.pointer("/ports/0/port").context("no port")?;
    let read = "import socket, struct
for line in open(\"/proc/net/route\").read().split(\"\\n\")[1:]:
    field = line.split()
    if field and field[1] == \"00000000\": print(socket.inet_ntoa(struct.pack(\"<I\", int(field[2], 16))))";
    let gateway = ns.shell("witness", &format!("python3 -c '{read}'")).await?.ok()?.text();
    let gateway = gateway.trim();
    ensure!(!gateway.is_empty(), "the pod has no gateway");
    Ok(vec![format!("{endpoint}:{port}"), format!("{gateway}:{port}")])
}

/// Root, with the capabilities that a runtime gives: what the sidecar is known by cannot be had.
#[tokio::test]
async fn root_with_default_capabilities_cannot_pass_as_the_sidecar() -> Result<()> {
    on_stage(async |stage| {
        stage
            .try_all(&[
                ("the sidecar's user", "--fsuid 64321 --protocol v5.channel.k8s.io --path EXEC", Recorded),
                ("the sidecar's user, SPDY", "--over spdy --fsuid 64321 --protocol v4.channel.k8s.io --path EXEC", Recorded),
            ])
            .await?;
        for arguments in ["--mark 1", "--fsuid 64321 --mark 0x70776974"] {
            let run = stage.speak(&format!("{arguments} --path /version"), "true").await?;
            ensure!(run.stderr.contains("PermissionError"), "{arguments}: {run:?}");
        }
        let raw = "import socket
for family, kind, protocol in [(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800)), (socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800)), (socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)]:
    try: socket.socket(family, kind, protocol); print(\"made\", family, kind)
    except PermissionError: print(\"denied\")";
        let run = stage.ns.shell("witness", &format!("id -u; python3 -c '{raw}'")).await?.ok()?;
        ensure!(run.text() == "0\ndenied\ndenied\ndenied\n", "{run:?}");
        Ok(())
    })
    .await
}

/// Sessions through the node's own API, while a grant asks for a recording that nobody makes.
#[tokio::test]
async fn no_path_of_the_kubelet_goes_round_under_fail_closed() -> Result<()> {
    on_stage(async |stage| {
        let (ns, target) = (stage.ns, stage.plain);
        let pod = target.kubectl.get(&["pod", "target"]).await?;
        let node = pod.pointer("/spec/nodeName").and_then(Value::as_str).context("no node")?;
        let at = |path: &str| format!("--path /api/v1/nodes/{node}/proxy/{path}/{}/target/app", target.name);
        let spdy = "--over spdy --protocol v4.channel.k8s.io --query output=1\\&error=1\\&input=1";
        let run = format!("--over none --method POST {} --query cmd=id", at("run"));
        with_grant(&enforced(&ns.name, "tag:nobody"), async || {
            eventually("the grant is enforced", async || {
                let tried = stage.speak(&run, "true").await?;
                ensure!(tried.stderr.contains("podwitness: "), "{tried:?}");
                Ok(())
            })
            .await?;
            let ways = [
                ("run", run.clone()),
                ("run, GET", run.replace("POST", "GET")),
                ("exec, SPDY", format!("{spdy} {}", at("exec"))),
                ("exec, WebSocket", format!("--protocol {V4} {}", at("exec"))),
                ("exec, no upgrade", format!("--over none --method POST {}", at("exec"))),
                ("attach, SPDY", format!("{spdy} {}", at("attach"))),
                ("attach, WebSocket", format!("--protocol {V4} {}", at("attach"))),
                ("portForward", format!("{spdy} {}", at("portForward"))),
                ("exec, two slashes", format!("{spdy} {}", at("/exec"))),
                ("exec, percent", format!("{spdy} {}", at("%65xec"))),
                (
                    "a service's proxy",
                    format!("--protocol {V4} --path /api/v1/namespaces/{}/services/any/proxy/exec", ns.name),
                ),
            ];
            let ways: Vec<_> = ways.iter().map(|(name, how)| (*name, &**how, Refused)).collect();
            stage.try_all(&ways).await
        })
        .await
    })
    .await
}
