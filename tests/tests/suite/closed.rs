//! What people see of a refusal: kubectl says why, also where it asks for the list of APIs first, and the pod has a line in
//! its sidecar's log and an Event.

use anyhow::{Result, ensure};
use podwitness_e2e::{
    Namespace, eventually,
    grants::{self, with_grant},
    pods::sleeper,
};

async fn has_event(ns: &Namespace, reason: &str) -> Result<()> {
    eventually("the pod has an Event", async || {
        let reasons = ns.event_reasons("witness").await?;
        ensure!(reasons.iter().any(|it| it == reason), "{reasons:?}");
        Ok(())
    })
    .await
}

async fn is_logged(ns: &Namespace, text: &str) -> Result<()> {
    eventually("the sidecar's log has a line", async || {
        let log = ns.kubectl.run(&["logs", "witness", "-c", "podwitness"]).await?.ok()?.text();
        ensure!(
            log.lines().any(|line| line.contains("a request is refused") && line.contains(text)),
            "{log}"
        );
        Ok(())
    })
    .await
}

#[tokio::test]
async fn every_command_shows_the_grant_that_fails_closed() -> Result<()> {
    Namespace::witnessed(async |ns| {
        ns.allow_all().await?;
        ns.start(&sleeper("witness")).await?;
        let grant = grants::events(&ns.name, "tag:no-such-recorder", true);
        with_grant(&grant, async || {
            let named = format!("Grant \"{}\"", ns.name);
            for command in [
                "get pods",
                "delete pod absent",
                "exec witness -- id",
                "auth whoami",
                "api-resources",
                "version",
                "get --raw /api",
            ] {
                // Without what kubectl keeps of the list of APIs, which it asks for first.
                let script = format!("rm -rf ~/.kube/cache; kubectl -n {} {command}", ns.name);
                eventually("the command says why it is refused", async || {
                    let run = ns.shell("witness", &script).await?;
                    let said =
                        run.stderr.contains(&named) && run.stderr.contains("no Recorder that is ready");
                    ensure!(run.code != 0 && said, "{command}: {run:?}");
                    Ok(())
                })
                .await?;
            }
            has_event(ns, "RecordingRefused").await?;
            is_logged(ns, &ns.name).await
        })
        .await
    })
    .await
}

#[tokio::test]
async fn a_client_certificate_is_refused_with_the_way_out_in_the_last_line() -> Result<()> {
    Namespace::witnessed(async |ns| {
        ns.allow_all().await?;
        ns.start(&sleeper("witness")).await?;
        let made = rcgen::generate_simple_self_signed(["ana".to_owned()])?;
        for (path, pem) in [("/tmp/c.crt", made.cert.pem()), ("/tmp/c.key", made.signing_key.serialize_pem())]
        {
            ns.shell("witness", &format!("cat >{path} <<'END'\n{pem}END\n")).await?.ok()?;
        }
        for command in ["get namespace default -o name", "auth whoami", "version", "-n default get pods"] {
            let script = format!(
                "kubectl --kubeconfig=/dev/null --server=https://kubernetes.default.svc \
                 --certificate-authority=/var/run/secrets/kubernetes.io/serviceaccount/ca.crt \
                 --client-certificate=/tmp/c.crt --client-key=/tmp/c.key {command}"
            );
            let run = ns.shell("witness", &script).await?;
            let said =
                run.stderr.contains("offers a client certificate") && run.stderr.contains("use a token");
            ensure!(run.code != 0 && said, "{command}: {run:?}");
        }
        let script = "kubectl --kubeconfig=/dev/null --server=https://kubernetes.default.svc \
             --certificate-authority=/var/run/secrets/kubernetes.io/serviceaccount/ca.crt \
             --client-certificate=/tmp/c.crt --client-key=/tmp/c.key get namespace default";
        let run = ns.shell("witness", script).await?;
        let last = run.stderr.lines().last().unwrap_or_default();
        ensure!(last.contains("offers a client certificate"), "{run:?}");
        has_event(ns, "ClientCertificateRefused").await?;
        is_logged(ns, "client certificate").await
    })
    .await
}
