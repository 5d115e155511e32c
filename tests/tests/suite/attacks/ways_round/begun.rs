//! A session that begins while no grant asks for a recording passes unrecorded. When a grant comes it ends, and its user is
//! told; what its command says later is not shown.

use anyhow::{Context as _, Result, ensure};
use podwitness_core::inject::ADMIN_PORT;
use podwitness_e2e::{
    Namespace, Table, eventually,
    grants::{enforced, grant, with_grant},
    outage::{Outage, during, with_outages},
    pods::{clients, sleeper, witnessed_by},
    report,
};
use serde_json::{Value, json};

use super::{
    run::{Background, Tried},
    verdict::Verdict,
};

/// How the sessions travel.
const WAYS: [(&str, &str); 2] = [
    ("a session begun under no grant, WebSocket", "--protocol v5.channel.k8s.io"),
    ("a session begun under no grant, SPDY", "--over spdy --protocol v4.channel.k8s.io"),
];

#[tokio::test]
async fn a_session_begun_under_no_grant_ends_when_a_grant_comes() -> Result<()> {
    with_outages(async || {
        witnessed_by(&clients("witness"), &sleeper("target"), async |ns, plain| {
            let open =
                grant(&ns.name, &format!("namespace:{}", ns.name), &json!({"recorder": ["tag:podwitness"]}));
            let closed = enforced(&ns.name, "tag:podwitness");
            let (mut table, mut wrong) = (Table::new(&["", "way", "fail open", "fail closed"]), Vec::new());
            let ungranted = async || {
                for (number, (name, how)) in WAYS.iter().enumerate() {
                    let mut cells = vec!["A3".to_owned(), (*name).to_owned()];
                    for (mode, grant) in [("open", &open), ("closed", &closed)] {
                        let mark = format!("begun-{mode}-{number}");
                        let (verdict, tried) = outlived(ns, plain, how, &mark, grant).await?;
                        if !matches!(verdict, Verdict::Refused(_)) {
                            wrong.push(format!("{name}, {mode}: {verdict}: {tried:?}"));
                        }
                        cells.push(verdict.to_string());
                    }
                    table.add(cells);
                }
                anyhow::Ok(())
            };
            during(Outage::DefaultGrant, ungranted).await?;
            report::show("sessions that outlive a rule", &table.to_string());
            ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
            Ok(())
        })
        .await
    })
    .await
}

/// Begins a session without a grant, applies one, and lets the command say more once the session has ended, or has had
/// the time to.
async fn outlived(
    ns: &Namespace,
    plain: &Namespace,
    how: &str,
    mark: &str,
    grant: &Value,
) -> Result<(Verdict, Tried)> {
    let mut tries = 0;
    let mark = eventually("a session passes unrecorded", async || {
        tries += 1;
        let mark = format!("{mark}-{tries}-");
        let before = passed(ns).await?;
        let session = Background { ns, pod: "witness", mark: &mark };
        session.start(&script(plain, how, &mark), &format!("begun {mark}")).await?;
        ensure!(passed(ns).await? > before, "it is recorded");
        Ok(mark)
    })
    .await?;
    let session = Background { ns, pod: "witness", mark: &mark };
    let mut tried = None;
    with_grant(grant, async || {
        let ended = session.outcome().await;
        plain.shell("target", &format!("touch /tmp/go-{mark}")).await?.ok()?;
        tried = Some(match ended {
            Ok(tried) => tried,
            Err(_) => session.outcome().await?,
        });
        Ok(())
    })
    .await?;
    let tried = tried.context("nothing came of it")?;
    let verdict = if tried.stdout.contains(&format!("seen {mark}")) {
        Verdict::Unrecorded("it went on".to_owned())
    } else if tried.stderr.contains("podwitness: session ended") {
        Verdict::Refused("refused, ended")
    } else {
        Verdict::Unclear("nothing says why it ended".to_owned())
    };
    Ok((verdict, tried))
}

fn script(plain: &Namespace, how: &str, mark: &str) -> String {
    let path = format!("/api/v1/namespaces/{}/pods/target/exec", plain.name);
    let command = format!(
        "echo begun {mark}; until test -e /tmp/go-{mark}; do sleep 0.2; done; echo seen {mark}; head -c 6"
    );
    format!("speak --say spoken {how} --path {path} -- sh -c '{command}'")
}

/// Sessions that the sidecar let pass because no grant asks for a recording, by its own count.
async fn passed(ns: &Namespace) -> Result<u64> {
    let pod = ns.kubectl.get(&["pod", "witness"]).await?;
    let ip = pod.pointer("/status/podIP").and_then(Value::as_str).context("the pod has no address")?;
    let ip = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
    let read = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1]).read().decode())";
    let script = format!("python3 -c '{read}' http://{ip}:{ADMIN_PORT}/metrics");
    let metrics = ns.shell("witness", &script).await?.ok()?.text();
    let name = "podwitness_proxy_upgrades_total{purpose=\"Exec\",outcome=\"NoGrant\"} ";
    Ok(metrics.lines().find_map(|line| line.strip_prefix(name)).map_or(Ok(0), str::parse)?)
}
