//! The viewer opens what events name, in a form that players read.

use anyhow::{Context as _, Result, ensure};
use podwitness_e2e::{
    Recording, Viewer,
    events::{text, with_events},
    eventually,
    pods::{beside, sleeper},
};
use serde_json::Value;

const ASKED: &str = "echo played-one; echo played-two; exit 3";

#[tokio::test]
async fn the_session_that_an_event_names_opens_its_recording_which_plays() -> Result<()> {
    beside(&sleeper("target"), async |ns, plain| {
        with_events(ns, "witness", false, async |events| {
            let exec = format!("kubectl -n {} exec target -- sh -c '{ASKED}'; echo $?", plain.name);
            let run = ns.shell("witness", &exec).await?.ok()?;
            ensure!(run.text() == "played-one\nplayed-two\n3\n", "{run:?}");
            let session = eventually("the session's event", async || {
                let seen = events.of(&ns.name).await?;
                let of = |event: &&Value| text(event, "/request/queryParameters/command/2") == ASKED;
                let event = seen.iter().find(of).context("no event of the command")?;
                ensure!(!text(event, "/podwitness/session").is_empty(), "{event}");
                Ok(text(event, "/podwitness/session").to_owned())
            })
            .await?;
            let viewer = Viewer::open().await?;
            let stored = viewer.recording(&ns.name, "played-one").await?;
            ensure!(stored.text("o") == "played-one\nplayed-two\n", "{:?}", stored.lines);
            ensure!(stored.text("x-exit") == "3", "{:?}", stored.lines);
            plays(&viewer, &session).await?;
            let list: Value =
                serde_json::from_slice(&viewer.get(&format!("/api/v1/sessions?session={session}")).await?)?;
            ensure!(text(&list, "/sessions/0/session") == session, "{list}");
            ensure!(list.pointer("/sessions/0/complete") == Some(&Value::Bool(true)), "{list}");
            Ok(())
        })
        .await
    })
    .await
}

/// Without a terminal: its line feeds have returns, its header has a size, and nothing else is in it.
async fn plays(viewer: &Viewer, session: &str) -> Result<()> {
    let played = Recording::parse(&viewer.get(&format!("/api/v1/sessions/{session}/cast")).await?)?;
    ensure!(played.text("o") == "played-one\r\nplayed-two\r\n", "{:?}", played.lines);
    ensure!(played.lines.iter().all(|(_, code, _)| code == "o"), "{:?}", played.lines);
    let side = |key: &str| played.header.get(key).and_then(Value::as_u64);
    ensure!((side("width"), side("height")) == (Some(80), Some(24)), "{}", played.header);
    Ok(())
}

#[tokio::test]
async fn the_list_says_by_which_command_a_session_came() -> Result<()> {
    beside(&sleeper("target"), async |ns, plain| {
        let copy = format!("kubectl -n {} cp target:/etc/hostname /tmp/hostname", plain.name);
        ns.shell("witness", &copy).await?.ok()?;
        let viewer = Viewer::open().await?;
        let via = |session: &Value| text(session, "/via") == "cp";
        viewer.recording_where(&ns.name, via).await.map(drop)
    })
    .await
}
