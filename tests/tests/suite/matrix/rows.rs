//! The rows, by what the recorder does.

use anyhow::Result;
use podwitness_e2e::faulty::Kind;
use serde_json::{Value, json};

use super::{
    lab::Lab,
    row::{Fate, in_the_end, midway, start},
    session::Lane,
};

const UNREACHED: &str = "no recorder can be reached";
const ENDS_AT_ONCE: Fate = Fate::Ends { why: UNREACHED, at_once: true };
const ENDS_LATER: Fate = Fate::Ends { why: UNREACHED, at_once: false };
const REFUSED: Fate = Fate::Refused(UNREACHED);

/// A recorder that is well, goes wrong in the middle of sessions, is asked for more, and is well again.
async fn row(fault: Value, under_way: Fate, at_start: Fate) -> Result<()> {
    Lab::with(Kind::Faulty, async |lab| {
        let harmed = midway(lab, under_way, async || lab.recorder.set(&fault).await).await?;
        let begun = start(lab, &Lane::ALL, at_start).await?;
        lab.recorder.set(&json!("none")).await?;
        in_the_end(lab, &harmed, under_way).await?;
        in_the_end(lab, &begun, at_start).await
    })
    .await
}

#[tokio::test]
async fn a_recorder_that_refuses() -> Result<()> {
    row(json!("refuse"), ENDS_AT_ONCE, REFUSED).await
}

#[tokio::test]
async fn a_recorder_that_hangs() -> Result<()> {
    row(json!("hang"), ENDS_AT_ONCE, REFUSED).await
}

#[tokio::test]
async fn a_recorder_that_acknowledges_late() -> Result<()> {
    row(json!({"late": 1500}), Fate::Completes, Fate::Completes).await
}

#[tokio::test]
async fn a_recorder_that_acknowledges_too_late() -> Result<()> {
    row(json!({"late": 60_000}), ENDS_AT_ONCE, REFUSED).await
}

#[tokio::test]
async fn a_recorder_that_dies_at_the_first_byte() -> Result<()> {
    row(json!({"dieAt": 1}), ENDS_AT_ONCE, REFUSED).await
}

#[tokio::test]
async fn a_recorder_that_dies_at_a_later_byte() -> Result<()> {
    row(json!({"dieAt": 30_000}), ENDS_LATER, REFUSED).await
}

#[tokio::test]
async fn a_recorder_that_answers_noise() -> Result<()> {
    row(json!("garble"), ENDS_AT_ONCE, REFUSED).await
}

/// It says that it takes the recording, so that the command starts; what it shows stays within the lead.
#[tokio::test]
async fn a_recorder_that_acknowledges_in_unknown_words() -> Result<()> {
    row(json!("nonsense"), ENDS_AT_ONCE, Fate::Completes).await
}

/// A real recorder, whose volume is less than what a single session says. It is not ready while it takes nothing, so that
/// the control plane names it no more.
#[tokio::test]
async fn a_recorder_whose_disk_is_full() -> Result<()> {
    let (under_way, at_start) = (ENDS_LATER, Fate::Refused("no Recorder that is ready has its tag"));
    Lab::with(Kind::Small, async |lab| {
        let harmed = midway(lab, under_way, async || Ok(())).await?;
        let begun = start(lab, &Lane::ALL, at_start).await?;
        lab.recorder
            .with_stand_in(async || {
                in_the_end(lab, &harmed, under_way).await?;
                in_the_end(lab, &begun, at_start).await
            })
            .await
    })
    .await
}
