//! A sender cannot keep a recording on top of every list, or out of all of them, by the time that it states.

use anyhow::{Context as _, Result, ensure};
use podwitness_e2e::{
    Kubectl, Namespace, Recording, SYSTEM, Viewer, pods::clients, recorders::with_recorders,
};
use serde_json::{Value, json};

/// The port of a listener that asks for no assertion.
const PLAIN: u16 = 9080;

/// Uploads a recording whose header states a time, and whose last line another one, in the form without
/// acknowledgements.
const UPLOAD: &str = r#"
import http.client, json, sys
address, started, length, word = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), sys.argv[4]
header = {"version": 2, "width": 80, "height": 24, "timestamp": started, "command": word}
body = "".join(json.dumps(line) + "\n" for line in (header, [0, "o", word], [length, "o", "the end"]))
connection = http.client.HTTPConnection(address, timeout=30)
connection.request("POST", "/record", body.encode())
print(connection.getresponse().status)
"#;

#[tokio::test]
async fn a_session_of_the_year_292_billion_is_listed_when_it_was_received() -> Result<()> {
    let name = format!("e2e-times-{}", std::process::id());
    let listen = json!({"name": "PODWITNESS_LISTEN_PLAIN", "value": format!("[::]:{PLAIN}")});
    let spec = json!({"enableUI": true, "statefulSet": {"pod": {"container": {"env": [listen]}}}});
    with_recorders(&[(&name, spec)], async || {
        let pod = Kubectl::with(&["-n", SYSTEM]).get(&["pod", &format!("{name}-0")]).await?;
        let ip = pod.pointer("/status/podIP").and_then(Value::as_str).context("no address")?;
        let address = if ip.contains(':') { format!("[{ip}]:{PLAIN}") } else { format!("{ip}:{PLAIN}") };
        Namespace::plain(async |ns| {
            ns.start(&clients("sender")).await?;
            let date = ns.shell("sender", "date +%s").await?.ok()?.text();
            let now: i64 = date.trim().parse()?;
            let upload = async |word: &str, started: i64, length: &str| {
                let started = started.to_string();
                let args = [
                    "exec", "sender", "-c", "app", "--", "python3", "-c", UPLOAD, &address, &started, length,
                    word,
                ];
                let run = ns.kubectl.run(&args).await?.ok()?;
                ensure!(run.text() == "200\n", "{word}: {run:?}");
                Ok(())
            };
            upload("far-future", i64::MAX, "1e300").await?;
            upload("far-past", 1, "2").await?;
            upload("in-order", now, "2").await?;
            let viewer = Viewer::of(&name).await?;
            let list: Value = serde_json::from_slice(&viewer.get("/api/v1/sessions").await?)?;
            let list = list.pointer("/sessions").and_then(Value::as_array).cloned().context("no list")?;
            for (word, stated) in [("far-future", Some(i64::MAX)), ("far-past", Some(1)), ("in-order", None)]
            {
                let one = list.iter().find(|one| one.get("command") == Some(&json!(word)));
                let one = one.with_context(|| format!("{word} is not in {list:?}"))?;
                let start = one.get("start").and_then(Value::as_i64).context("no start")?;
                ensure!((now - 60..=now + 600).contains(&start), "{word}: {one}");
                let duration = one.get("duration").and_then(Value::as_f64).context("no duration")?;
                ensure!((0.0..=900.0).contains(&duration), "{word}: {one}");
                ensure!(one.get("startStated").and_then(Value::as_i64) == stated, "{word}: {one}");
                let id = one.get("id").and_then(Value::as_str).context("no id")?;
                let cast = viewer.get(&format!("/api/v1/sessions/{id}/cast?raw")).await?;
                let kept = Recording::parse(&cast)?.header.get("timestamp").and_then(Value::as_i64);
                ensure!(kept == Some(stated.unwrap_or(now)), "the recording keeps what was stated: {kept:?}");
            }
            let since = viewer.get(&format!("/api/v1/sessions?since={}", now - 60)).await?;
            let since: Value = serde_json::from_slice(&since)?;
            let found = since.pointer("/sessions").and_then(Value::as_array).map(Vec::len);
            ensure!(found == Some(3), "one hides by what it states: {since}");
            Ok(())
        })
        .await
    })
    .await
}
