//! The program against an API server that gives fixed answers: what it asks, prints and ends with.

use std::{
    fs,
    io::{BufRead as _, BufReader, Result, Write as _},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Output},
    thread,
};

use serde_json::{Value, json};

/// Ends of paths, and what is answered to a request for one; 404 to any other.
type Answers = Vec<(&'static str, u16, Value)>;

fn failure(code: u16, message: &str) -> Value {
    let reason = if code == 404 { "NotFound" } else { "Other" };
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message,
        "reason": reason, "code": code})
}

/// Serves until the test program ends; gives the kubeconfig that leads there, whose context has the namespace `shop`.
fn serve(test: &str, answers: Answers) -> Result<PathBuf> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let server = format!("http://{}", listener.local_addr()?);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A connection that breaks fails the test by what the program then says.
            let _ = answer(stream, &answers);
        }
    });
    let config = json!({"apiVersion": "v1", "kind": "Config", "current-context": "x",
        "clusters": [{"name": "c", "cluster": {"server": server}}], "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u", "namespace": "shop"}}]});
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{test}.kubeconfig"));
    fs::write(&path, config.to_string())?;
    Ok(path)
}

fn answer(mut stream: TcpStream, answers: &Answers) -> Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    let target = first.split(' ').nth(1).unwrap_or_default();
    let path = target.split('?').next().unwrap_or_default();
    let found = answers.iter().find(|(end, ..)| path.ends_with(end));
    let missing = failure(404, "not found");
    let (code, body) = found.map_or((404, &missing), |(_, code, body)| (*code, body));
    let body = body.to_string();
    write!(
        stream,
        "HTTP/1.1 {code} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
}

fn explain(kubeconfig: &Path, args: &[&str]) -> Result<Output> {
    Command::new(env!("CARGO_BIN_EXE_kubectl-witness"))
        .args(["grants", "explain", "--as", "ana"])
        .args(args)
        .env("KUBECONFIG", kubeconfig)
        .output()
}

fn list(kind: &str, items: &Value) -> Value {
    json!({"apiVersion": "podwitness.dev/v1alpha1", "kind": kind, "metadata": {}, "items": items})
}

fn grants() -> Value {
    let app = json!({"tailscale.com/cap/kubernetes": [{"recorder": ["tag:podwitness"]}]});
    list(
        "GrantList",
        &json!([{"apiVersion": "podwitness.dev/v1alpha1", "kind": "Grant",
        "metadata": {"name": "default"}, "spec": {"src": ["*"], "dst": ["*"], "default": true, "app": app}}]),
    )
}

fn namespace() -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": "shop", "labels": {"podwitness.dev/inject": "optional"}}})
}

fn pod(spec: &Value) -> Value {
    let owner = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "till-abc", "uid": "u", "controller": true});
    json!({"apiVersion": "v1", "kind": "Pod", "spec": spec, "metadata": {"name": "till", "namespace": "shop",
        "labels": {"pod-template-hash": "abc"}, "ownerReferences": [owner]}})
}

fn answers(pod: Value, events: (u16, Value)) -> Answers {
    vec![
        ("/grants", 200, grants()),
        ("/recorders", 200, list("RecorderList", &json!([]))),
        ("/namespaces/shop", 200, namespace()),
        ("/namespaces/shop/pods/till", 200, pod),
        ("/namespaces/shop/events", events.0, events.1),
    ]
}

#[test]
fn a_pod_that_was_let_through_is_told_with_the_reason_of_its_event() -> Result<()> {
    let event = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e"},
        "eventTime": "2027-01-15T08:00:00.000000Z", "reason": "NotWitnessed",
        "regarding": {"kind": "ReplicaSet", "name": "till-abc", "namespace": "shop"},
        "note": "a pod runs without a witness, so that nothing of it is recorded: a quota has no room"});
    let events =
        json!({"apiVersion": "events.k8s.io/v1", "kind": "EventList", "metadata": {}, "items": [event]});
    let plain = pod(&json!({"containers": [{"name": "app"}]}));
    let kubeconfig = serve("let-through", answers(plain, (200, events)))?;
    let output = explain(&kubeconfig, &["--pod", "till"])?;
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(said.contains("From pod    shop/till"), "the namespace is that of the context: {said}");
    assert!(
        said.contains("admission let it through: a quota has no room; change that, and restart it"),
        "{said}"
    );
    assert!(said.contains("kubectl -n shop rollout restart deployment/till"), "{said}");
    Ok(())
}

#[test]
fn what_may_not_be_read_is_a_note_where_the_answer_stands_without_it() -> Result<()> {
    let forbidden =
        failure(403, "events.events.k8s.io is forbidden: User \"ana\" cannot list resource \"events\"");
    let plain = pod(&json!({"containers": [{"name": "app"}]}));
    let kubeconfig = serve("forbidden-events", answers(plain, (403, forbidden)))?;
    let output = explain(&kubeconfig, &["--pod", "till"])?;
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(said.contains("is older than the namespace's label"), "{said}");
    assert!(
        said.contains("Note: whether admission let the pod through is not known: cannot list events"),
        "{said}"
    );
    Ok(())
}

#[test]
fn a_cluster_that_cannot_be_asked_is_told_in_words() -> Result<()> {
    let denied =
        failure(403, "grants.podwitness.dev is forbidden: User \"ana\" cannot list resource \"grants\"");
    let (unknown, missing) = (failure(404, "404 page not found"), failure(401, "Unauthorized"));
    let recorders = || ("/recorders", 200, list("RecorderList", &json!([])));
    for (test, answers, says) in [
        (
            "denied",
            vec![("/grants", 403, denied)],
            "User \"ana\" cannot list resource \"grants\"; ask for the right",
        ),
        ("unknown", vec![("/grants", 404, unknown)], "is Podwitness installed there?"),
        ("unauthorized", vec![("/grants", 401, missing)], "does not accept the credentials"),
        ("no-namespace", vec![("/grants", 200, grants()), recorders()], "there is no namespace shop"),
    ] {
        let kubeconfig = serve(test, answers)?;
        let output = explain(&kubeconfig, &["--pod", "till"])?;
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{test}: {output:?}");
        assert!(said.starts_with("kubectl-witness: ") && said.contains(says), "{test}: {said}");
        assert!(!said.contains(['{', '}']) && !said.contains("Some("), "{test}: {said}");
        assert!(output.stdout.is_empty(), "{test}: {output:?}");
    }
    Ok(())
}
