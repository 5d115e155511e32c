//! The client of the Java world, fabric8, as the other clients are tested, with either way it has to speak HTTP: the one
//! that it prefers, and that of the Java runtime.
//!
//! Its runtime is large, and starts once a command: the image is made, and these tests run, for `hack/test full`.

use anyhow::{Result, ensure};
use podwitness_e2e::{
    events::{has_requests, has_session, with_events},
    eventually,
    pods::{beside, clients_java, sleeper},
    stage::{Client, on_stage, program_is_like_without},
};

#[tokio::test]
#[ignore = "needs the image clients-java"]
async fn fabric8_is_recorded_as_it_is() -> Result<()> {
    program_is_like_without(&clients_java("client"), &Client::program("vertx", "java-client")).await
}

/// But for a large input, of which it can send no second message before the first is on its way.
#[tokio::test]
#[ignore = "needs the image clients-java"]
async fn fabric8_over_the_runtimes_own_http_is_recorded_as_it_is() -> Result<()> {
    on_stage(&clients_java("client"), async |stage| {
        let client = Client::program("jdk", "java-client -over jdk");
        stage.short_commands(&client).await?;
        stage.terminal(&client).await?;
        stage.attach(&client).await?;
        stage.port_forward(&client).await
    })
    .await
}

#[tokio::test]
#[ignore = "needs the image clients-java"]
async fn fabric8_has_its_events() -> Result<()> {
    // Java's image has no kubectl, with which the moment is found from which on there are events.
    beside(&sleeper("target"), async |ns, plain| {
        ns.start(&clients_java("client")).await?;
        with_events(ns, "witness", false, async |events| {
            for over in ["vertx", "jdk"] {
                let client = format!("java-client -n {} -over {over}", plain.name);
                ns.shell("client", &format!("{client} exec target -- echo {over}")).await?.ok()?;
                let run = ns.shell("client", &format!("{client} requests {over}")).await?.ok()?;
                ensure!(run.text() == "created\nlisted\nwatched\ndeleted\n", "{over}: {run:?}");
            }
            eventually("either way has its events", async || {
                let seen = events.of(&ns.name).await?;
                for over in ["vertx", "jdk"] {
                    has_session(&seen, over)?;
                    has_requests(&seen, over)?;
                }
                Ok(())
            })
            .await
        })
        .await
    })
    .await
}
