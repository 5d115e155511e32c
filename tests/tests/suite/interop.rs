//! Clients that other people made, each with everything it can do: what they print, and how they end, is what it is
//! without the sidecar, and the recording is what they printed, byte for byte.

use anyhow::{Context as _, Result, ensure};
use podwitness_e2e::{
    Namespace,
    pods::clients,
    stage::{Client, on_stage, program_is_like_without},
};

/// What a kubectl does in every version, and in those that are used most what it makes of it.
async fn kubectl_is_like_without(name: &'static str, command: &'static str, also: Also) -> Result<()> {
    on_stage(&clients("client"), async |stage| {
        let client = Client::kubectl(name, command);
        stage.exec(&client).await?;
        stage.attach(&client).await?;
        stage.port_forward(&client).await?;
        match also {
            Also::Nothing => Ok(()),
            Also::RunDebugAndCopy => stage.kubectl(&client, true).await,
        }
    })
    .await
}

/// What is tried beyond exec, attach and port-forward.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Also {
    Nothing,
    RunDebugAndCopy,
}

const SPDY: &str = "env KUBECTL_REMOTE_COMMAND_WEBSOCKETS=false kubectl";
/// It knows no WebSocket sessions, and of debug only what the API server no longer has.
const BEFORE_WEBSOCKET: &str = "kubectl-bookworm";

#[tokio::test]
async fn kubectl_is_recorded_as_it_is() -> Result<()> {
    kubectl_is_like_without("current", "kubectl", Also::RunDebugAndCopy).await
}

#[tokio::test]
async fn kubectl_that_was_told_to_speak_spdy_is_recorded_as_it_is() -> Result<()> {
    kubectl_is_like_without("spdy", SPDY, Also::Nothing).await
}

#[tokio::test]
async fn an_older_kubectl_is_recorded_as_it_is() -> Result<()> {
    kubectl_is_like_without("older", "kubectl-trixie", Also::Nothing).await
}

#[tokio::test]
async fn a_newer_kubectl_is_recorded_as_it_is() -> Result<()> {
    kubectl_is_like_without("newer", "kubectl-forky", Also::Nothing).await
}

#[tokio::test]
async fn a_kubectl_from_before_websocket_is_recorded_as_it_is() -> Result<()> {
    kubectl_is_like_without("ancient", BEFORE_WEBSOCKET, Also::Nothing).await
}

/// The same streams as exec and attach, by more versions.
async fn runs_debugs_and_copies(name: &'static str, command: &'static str, debugs: bool) -> Result<()> {
    on_stage(&clients("client"), async |stage| stage.kubectl(&Client::kubectl(name, command), debugs).await)
        .await
}

#[tokio::test]
#[ignore = "in hack/test full"]
async fn kubectl_that_was_told_to_speak_spdy_runs_debugs_and_copies_as_it_does() -> Result<()> {
    runs_debugs_and_copies("spdy", SPDY, true).await
}

#[tokio::test]
#[ignore = "in hack/test full"]
async fn an_older_kubectl_runs_debugs_and_copies_as_it_does() -> Result<()> {
    runs_debugs_and_copies("older", "kubectl-trixie", true).await
}

#[tokio::test]
#[ignore = "in hack/test full"]
async fn a_newer_kubectl_runs_debugs_and_copies_as_it_does() -> Result<()> {
    runs_debugs_and_copies("newer", "kubectl-forky", true).await
}

#[tokio::test]
#[ignore = "in hack/test full"]
async fn a_kubectl_from_before_websocket_runs_and_copies_as_it_does() -> Result<()> {
    runs_debugs_and_copies("ancient", BEFORE_WEBSOCKET, false).await
}

#[tokio::test]
async fn the_python_client_is_recorded_as_it_is() -> Result<()> {
    program_is_like_without(&clients("client"), &Client::program("python", "python-client")).await
}

#[tokio::test]
async fn the_javascript_client_is_recorded_as_it_is() -> Result<()> {
    program_is_like_without(&clients("client"), &Client::program("javascript", "js-client")).await
}

#[tokio::test]
async fn kube_rs_is_recorded_as_it_is() -> Result<()> {
    program_is_like_without(&clients("client"), &Client::program("kube-rs", "kube-rs")).await
}

#[tokio::test]
async fn client_go_is_recorded_over_every_transport() -> Result<()> {
    on_stage(&clients("client"), async |stage| {
        for client in [
            Client::program("ws-v5", "client-go -over ws"),
            Client::program("spdy-v4", "client-go -over spdy"),
        ] {
            stage.exec(&client).await?;
            stage.attach(&client).await?;
            stage.port_forward(&client).await?;
        }
        Ok(())
    })
    .await
}

#[tokio::test]
#[ignore = "in hack/test full: evasion speaks every version, too"]
async fn client_go_is_recorded_in_every_version() -> Result<()> {
    on_stage(&clients("client"), async |stage| {
        for client in [
            Client::program("ws-v4", "client-go -over ws -protocol v4.channel.k8s.io"),
            // A version that no server knows makes the client fall back.
            Client::program("fallback", "client-go -over fallback -protocol v9.channel.k8s.io"),
        ] {
            stage.short_commands(&client).await?;
            stage.terminal(&client).await?;
        }
        for client in [
            Client::program("ws-v1", "client-go -over ws -protocol channel.k8s.io"),
            Client::program("spdy-v3", "client-go -over spdy -protocol v3.channel.k8s.io"),
            Client::program("spdy-v2", "client-go -over spdy -protocol v2.channel.k8s.io"),
            Client::program("spdy-v1", "client-go -over spdy -protocol channel.k8s.io"),
        ] {
            stage.short_commands(&client).await?;
        }
        Ok(())
    })
    .await
}

/// Else two of them would test the same.
#[tokio::test]
async fn the_kubectls_are_of_different_minors() -> Result<()> {
    Namespace::plain(async |ns| {
        ns.start(&clients("client")).await?;
        let mut minors = Vec::new();
        for name in ["kubectl", "kubectl-trixie", "kubectl-forky", "kubectl-bookworm"] {
            let run = ns.shell("client", &format!("{name} version --client -o json")).await?.ok()?;
            let version: serde_json::Value = serde_json::from_slice(&run.stdout)?;
            let minor = version.pointer("/clientVersion/gitVersion").and_then(serde_json::Value::as_str);
            let minor = minor.and_then(|version| version.split('.').nth(1)).context("no version")?;
            minors.push(minor.parse::<u32>()?);
        }
        let in_order = |older: usize, newer: usize| minors.get(older) < minors.get(newer);
        ensure!(in_order(3, 1) && in_order(1, 0) && in_order(0, 2), "{minors:?}");
        Ok(())
    })
    .await
}
