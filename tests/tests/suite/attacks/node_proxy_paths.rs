//! No spelling of a path runs a command unrecorded through a node's kubelet.
//!
//! The API server decodes, joins and cleans the path behind `nodes/NAME/proxy` before it asks the kubelet; the sidecar
//! has to read it in the same way. What ran is told by the pod in which it ran, not by the answer alone.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use podwitness_core::request_info::{Action, RequestInfo};
use podwitness_e2e::{
    Namespace, Run, Viewer, eventually,
    grants::{enforced, with_grant},
    pods::{clients, sleeper, witnessed_by},
};
use serde_json::Value;

/// Asks the API server for the method and target of each line of its input, with the pod's own credential, and prints
/// status and body of each answer as JSON. Nothing normalises a target on its way.
const ASK: &str = r#"
import http.client, json, os, ssl, sys
account = "/var/run/secrets/kubernetes.io/serviceaccount/"
token = open(account + "token").read().strip()
context = ssl.create_default_context(cafile=account + "ca.crt")
host, port = (os.environ["KUBERNETES_SERVICE_" + part] for part in ("HOST", "PORT"))
for line in sys.stdin:
    method, target = line.split()
    connection = http.client.HTTPSConnection(host, int(port), context=context, timeout=60)
    connection.request(method, target, headers={"Authorization": "Bearer " + token, "Content-Length": "0"})
    answer = connection.getresponse()
    print(json.dumps([answer.status, answer.read().decode("utf-8", "replace")[:2000]]), flush=True)
    connection.close()
"#;

/// What may stand before a segment. Most of it is cleaned away; some of it makes another path.
const DETOURS: [&str; 20] = [
    "",
    "",
    "",
    "",
    "/.",
    "/",
    "//",
    "/x/..",
    "/%2e",
    "/x/%2e%2E",
    "/%2F",
    "/%ff/..",
    "/./.",
    "/run/..",
    "/a/b/../..",
    "/%c3%a9/..",
    "/..",
    "/%252e",
    "/%c0%ae",
    "/x",
];

/// Spellings that were found by hand: what stands between `proxy/` and the namespace.
pub(super) const FOUND: [&str; 10] = [
    "run",
    "./run",
    "x/../run",
    "%2e/run",
    "/./run",
    "%ff/../run",
    "/run",
    "%2e%2e/run",
    "metrics/..%2frun",
    "r%75n/.",
];

/// A reproducible stream of numbers (xorshift).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 11).unwrap_or_default() % limit
    }
}

/// The node on which the pod `target` runs, and the pod.
struct Target<'a> {
    plain: &'a Namespace,
    node: String,
}

/// One request: what marks it, and where it goes.
struct Attempt {
    mark: String,
    target: String,
}

impl<'a> Target<'a> {
    async fn find(plain: &'a Namespace) -> Result<Self> {
        let pod = plain.kubectl.get(&["pod", "target"]).await?;
        let node = pod.pointer("/spec/nodeName").and_then(Value::as_str).context("no node")?.to_owned();
        Ok(Self { plain, node })
    }

    /// A request for this path behind `proxy`, whose command leaves a file and says its name.
    fn attempt(&self, mark: String, path: &str) -> Attempt {
        let command = format!("cmd=sh+-c+touch$%7BIFS%7D/tmp/{mark}%3Becho$%7BIFS%7D{mark}");
        let target = format!("/api/v1/nodes/{}/proxy/{path}?{command}", self.node);
        Attempt { mark, target }
    }

    fn found(&self) -> Vec<Attempt> {
        let rest = format!("{}/./target/app", self.plain.name);
        FOUND
            .iter()
            .enumerate()
            .map(|(number, path)| self.attempt(format!("found-{number}-"), &format!("{path}/{rest}")))
            .collect()
    }

    fn generated(&self, count: usize, seed: u64) -> Vec<Attempt> {
        let mut numbers = Numbers(seed);
        (0..count)
            .map(|number| {
                let mut path = String::new();
                for segment in ["run", &*self.plain.name, "target", "app"] {
                    path.push_str(DETOURS.get(numbers.below(DETOURS.len())).copied().unwrap_or_default());
                    path.push('/');
                    for byte in segment.bytes() {
                        match numbers.below(8) {
                            0 => path.push_str(&format!("%{byte:02x}")),
                            1 => path.push_str(&format!("%{byte:02X}")),
                            _ => path.push(char::from(byte)),
                        }
                    }
                }
                path.push_str(
                    ["", "", "/", "/.", "/x/.."].get(numbers.below(5)).copied().unwrap_or_default(),
                );
                self.attempt(format!("generated-{seed}-{number}-"), path.trim_start_matches('/'))
            })
            .collect()
    }

    /// Marks of the commands that ran in the pod.
    async fn ran(&self) -> Result<BTreeSet<String>> {
        let listed = self.plain.shell("target", "ls /tmp").await?.ok()?.text();
        Ok(listed.lines().map(ToOwned::to_owned).collect())
    }
}

/// Asks for all of them from container `app` of a pod; what was answered to each.
async fn ask(ns: &Namespace, pod: &str, attempts: &[Attempt]) -> Result<Vec<(u16, String)>> {
    let lines: String = attempts.iter().map(|attempt| format!("POST {}\n", attempt.target)).collect();
    let args = ["exec", "-i", pod, "-c", "app", "--", "python3", "-c", ASK];
    let run: Run = ns.kubectl.run_with_stdin(&args, lines.as_bytes()).await?.ok()?;
    let answers: Vec<(u16, String)> =
        run.text().lines().map(serde_json::from_str).collect::<Result<_, _>>().context("no answers")?;
    ensure!(answers.len() == attempts.len(), "{} answers to {}: {run:?}", answers.len(), attempts.len());
    Ok(answers)
}

/// Whether the request is read as this command in this pod.
fn is_read(attempt: &Attempt, plain: &Namespace) -> bool {
    let action = RequestInfo::parse("POST", &attempt.target).ok().and_then(|info| info.pod_action());
    action.is_some_and(|action| {
        action.action == Action::Run
            && (&*action.namespace, &*action.pod, &*action.container) == (&*plain.name, "target", "app")
    })
}

/// Asked from where no sidecar is: what the API server and the kubelet make of a path is what we make of it.
#[tokio::test]
async fn paths_are_read_as_the_api_server_and_the_kubelet_read_them() -> Result<()> {
    Namespace::plain(async |plain| {
        plain.allow_all().await?;
        plain.start(&sleeper("target")).await?;
        plain.start(&clients("asker")).await?;
        let target = Target::find(plain).await?;
        let attempts: Vec<Attempt> =
            target.found().into_iter().chain(target.generated(240, 0x9e37_79b9_7f4a_7c15)).collect();
        let answers = ask(plain, "asker", &attempts).await?;
        let ran = target.ran().await?;
        let (mut wrong, mut commands) = (Vec::new(), 0);
        for (attempt, answer) in attempts.iter().zip(&answers) {
            let does = ran.contains(&attempt.mark);
            commands += usize::from(does);
            if does != is_read(attempt, plain) {
                wrong.push(format!("{} ran: {does}, answer {answer:?}", attempt.target));
            }
        }
        ensure!(wrong.is_empty(), "{} paths are read otherwise:\n{}", wrong.len(), wrong.join("\n"));
        ensure!(commands > 40 && commands < attempts.len(), "{commands} of {} ran", attempts.len());
        Ok(())
    })
    .await
}

/// Sessions in `ns` of commands that have a mark.
async fn recorded(viewer: &Viewer, ns: &Namespace, plain: &Namespace) -> Result<Vec<String>> {
    let sessions = viewer.sessions(&ns.name).await?;
    let of_target = |session: &&Value| {
        let text = |key: &str| session.get(key).and_then(Value::as_str).unwrap_or_default();
        (text("namespace"), text("pod"), text("container")) == (&*plain.name, "target", "app")
    };
    let commands = sessions.iter().filter(of_target).filter_map(|session| session.get("command"));
    Ok(commands.filter_map(Value::as_str).map(ToOwned::to_owned).collect())
}

#[tokio::test]
async fn no_spelling_of_a_path_runs_a_command_unrecorded() -> Result<()> {
    witnessed_by(&clients("witness"), &sleeper("target"), async |ns, plain| {
        let viewer = Viewer::open().await?;
        let target = Target::find(plain).await?;
        let settled = [target.attempt("settled-".to_owned(), &format!("run/{}/target/app", plain.name))];
        ask(ns, "witness", &settled).await?;
        eventually("sessions are recorded", async || {
            let commands = recorded(&viewer, ns, plain).await?;
            ensure!(commands.iter().any(|command| command.contains("settled-")), "{commands:?}");
            Ok(())
        })
        .await?;
        let attempts: Vec<Attempt> =
            target.found().into_iter().chain(target.generated(60, 0x2545_f491_4f6c_dd1d)).collect();
        ask(ns, "witness", &attempts).await?;
        let ran = target.ran().await?;
        let marks = || attempts.iter().filter(|attempt| ran.contains(&attempt.mark));
        ensure!(marks().count() >= FOUND.len(), "only {ran:?} ran");
        eventually("each that ran is recorded under its pod and container", async || {
            let commands = recorded(&viewer, ns, plain).await?;
            let is_missing =
                |attempt: &&Attempt| !commands.iter().any(|command| command.contains(&attempt.mark));
            let missing: Vec<&str> = marks().filter(is_missing).map(|attempt| &*attempt.target).collect();
            ensure!(missing.is_empty(), "unrecorded:\n{}", missing.join("\n"));
            Ok(())
        })
        .await
    })
    .await
}

#[tokio::test]
async fn no_spelling_of_a_path_runs_a_command_under_fail_closed() -> Result<()> {
    witnessed_by(&clients("witness"), &sleeper("target"), async |ns, plain| {
        let target = Target::find(plain).await?;
        with_grant(&enforced(&ns.name, "tag:nobody"), async || {
            let plainly = format!("run/{}/target/app", plain.name);
            let first = [target.attempt("first-".to_owned(), &plainly)];
            eventually("the grant is enforced", async || {
                let answers = ask(ns, "witness", &first).await?;
                ensure!(answers.iter().all(|(status, body)| is_refusal(*status, body)), "{answers:?}");
                Ok(())
            })
            .await?;
            let before = target.ran().await?;
            let attempts: Vec<Attempt> =
                target.found().into_iter().chain(target.generated(60, 0x1234_5678_9abc_def1)).collect();
            let answers = ask(ns, "witness", &attempts).await?;
            let after = target.ran().await?;
            ensure!(after == before, "commands ran: {:?}", after.difference(&before).collect::<Vec<_>>());
            for (attempt, (status, body)) in attempts.iter().zip(&answers) {
                let refused = is_refusal(*status, body);
                ensure!(refused || !is_read(attempt, plain), "{}: {status} {body}", attempt.target);
            }
            Ok(())
        })
        .await
    })
    .await
}

fn is_refusal(status: u16, body: &str) -> bool {
    status == 403 && body.contains("podwitness: ")
}

/// Exec, attach and port-forward by the same detours, over SPDY and WebSocket.
#[tokio::test]
async fn no_detour_hides_a_session_through_the_kubelet() -> Result<()> {
    witnessed_by(&clients("witness"), &sleeper("target"), async |ns, plain| {
        let viewer = Viewer::open().await?;
        let target = Target::find(plain).await?;
        let spdy = "--over spdy --protocol v4.channel.k8s.io --query output=1\\&error=1";
        let websocket = "--protocol v4.channel.k8s.io --query output=1\\&error=1";
        let speak = async |how: &str, path: &str, mark: &str| {
            let at = format!("/api/v1/nodes/{}/proxy/{path}/{}/target/app", target.node, plain.name);
            ns.shell("witness", &format!("speak {how} --path {at} -- echo {mark}")).await
        };
        // Where the API server sends an upgrade on without its query, the kubelet declines it, by any path.
        let mut marks = Vec::new();
        for (over, how) in [("spdy", spdy), ("ws", websocket)] {
            let straight = speak(how, "exec", &format!("straight-{over}")).await?;
            for (number, detour) in ["./", "x/../", "%2e/", "/./", "%ff/../", "..%2f"].iter().enumerate() {
                let mark = format!("detour-{over}-{number}-");
                let run = speak(how, &format!("{detour}exec"), &mark).await?;
                let ran = run.text().contains(&mark);
                ensure!(
                    run.code == straight.code && ran == straight.text().contains("straight"),
                    "{over} {detour}: {run:?}, without a detour {straight:?}"
                );
                marks.extend(ran.then_some(mark));
            }
        }
        eventually("each is recorded under its pod and container", async || {
            let commands = recorded(&viewer, ns, plain).await?;
            let missing: Vec<&String> =
                marks.iter().filter(|mark| !commands.iter().any(|it| it.contains(*mark))).collect();
            ensure!(missing.is_empty(), "unrecorded: {missing:?}");
            Ok(())
        })
        .await?;
        with_grant(&enforced(&ns.name, "tag:nobody"), async || {
            eventually("the grant is enforced", async || {
                let run = speak(spdy, "exec", "first").await?;
                ensure!(run.code == 3 && run.stderr.contains("podwitness: "), "{run:?}");
                Ok(())
            })
            .await?;
            for path in ["./exec", "x/../exec", "%2e/attach", "/./attach", "%ff/../portForward", "..%2fexec"]
            {
                for how in [spdy, websocket] {
                    let run = speak(how, path, "closed").await?;
                    ensure!(run.code == 3 && run.stderr.contains("podwitness: "), "{path}: {run:?}");
                }
            }
            Ok(())
        })
        .await
    })
    .await
}

/// What a pod or a service proxies stays what it is, and dots in the paths of sessions lead nowhere.
#[tokio::test]
async fn dots_in_other_paths_lead_nowhere() -> Result<()> {
    witnessed_by(&clients("witness"), &sleeper("target"), async |ns, plain| {
        let protocol = "--protocol v4.channel.k8s.io";
        let pods = format!("/api/v1/namespaces/{}/pods", plain.name);
        for path in
            ["./exec", "target/./exec", "x/../target/exec", "target/%2e%2e/target/exec", "target//exec"]
        {
            let run =
                ns.shell("witness", &format!("speak {protocol} --path {pods}/{path} -- echo out")).await?;
            ensure!(run.code == 3 && !run.text().contains("out"), "{path}: {run:?}");
        }
        with_grant(&enforced(&ns.name, "tag:nobody"), async || {
            let services = format!("/api/v1/namespaces/{}/services", plain.name);
            let paths = [
                format!("{pods}/target/proxy/../exec"),
                format!("{pods}/target/proxy/%2e%2e/%2e%2e/exec"),
                format!("{pods}/target/proxy/./"),
                format!("{services}/any/proxy/../exec"),
                format!("{services}/any/proxy//x/.."),
                "/api/v1/%zz".to_owned(),
                "/api/v1/watch".to_owned(),
            ];
            for (number, path) in paths.iter().enumerate() {
                let tried = async || {
                    let run = ns.shell("witness", &format!("speak {protocol} --path {path}")).await?;
                    ensure!(run.code == 3 && run.stderr.contains("podwitness: "), "{path}: {run:?}");
                    Ok(())
                };
                // The grant may be on its way.
                if number == 0 { eventually("the grant is enforced", tried).await? } else { tried().await? }
            }
            Ok(())
        })
        .await
    })
    .await
}

/// A request whose path nobody can read is no way past a grant that fails closed, whatever its scope.
#[tokio::test]
async fn an_unreadable_path_is_refused_under_fail_closed_only() -> Result<()> {
    witnessed_by(&clients("witness"), &sleeper("target"), async |ns, plain| {
        let target = Target::find(plain).await?;
        let unreadable = |mark: &str| {
            let path = format!("%zz/../run/{}/target/app", plain.name);
            [target.attempt(mark.to_owned(), &path)]
        };
        let answers = ask(ns, "witness", &unreadable("open-")).await?;
        ensure!(
            answers.iter().all(|(status, body)| *status >= 400 && !is_refusal(*status, body)),
            "{answers:?}"
        );
        ensure!(!target.ran().await?.contains("open-"), "the API server reads it");
        let mut grant = enforced(&ns.name, "tag:nobody");
        let rule =
            grant.pointer_mut("/spec/app/tailscale.com~1cap~1kubernetes/0").and_then(Value::as_object_mut);
        rule.context("no rule")?.insert("resources".to_owned(), serde_json::json!(["pods/exec"]));
        with_grant(&grant, async || {
            eventually("it is refused", async || {
                let answers = ask(ns, "witness", &unreadable("closed-")).await?;
                let refused = answers.iter().all(|(status, body)| {
                    is_refusal(*status, body) && body.contains("a request whose path cannot be read")
                });
                ensure!(refused, "{answers:?}");
                Ok(())
            })
            .await
        })
        .await
    })
    .await
}
