//! Times in which a part of the installation is away, or does not do what all tests rely on. Tests that need the same
//! outage share it; all of them are [`Class::Outage`], so that no other test runs.

use anyhow::{Context as _, Result};
use serde_json::json;
use tokio::sync::{Mutex, Notify};

use crate::{
    Kubectl,
    replicas::scale_deployment,
    schedule::{self, Class},
};

/// Deployment of the control plane, which has one replica.
const CONTROL: &str = "podwitness-control";

/// What is wrong.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outage {
    /// There is no control plane.
    Control,
    /// The shipped grant applies to nothing.
    DefaultGrant,
}

/// Where the tests of this class are.
#[derive(Default)]
struct Outages {
    /// Tests that need the installation whole.
    whole: usize,
    /// The outage there is, and how many tests are in it. It begins with the first one and ends with the last.
    current: Option<(Outage, usize)>,
    /// Whether the outage is being begun or ended: no other test enters it.
    ending: bool,
    /// Tests that have left the outage and wait for its end.
    returning: usize,
    /// How many outages there have been.
    ended: usize,
}

static OUTAGES: Mutex<Outages> =
    Mutex::const_new(Outages { whole: 0, current: None, ending: false, returning: 0, ended: 0 });
static CHANGED: Notify = Notify::const_new();

/// Runs a test that has outages in it. To be called first in a test.
///
/// # Errors
/// Those of `test`.
pub async fn with_outages(test: impl AsyncFnOnce() -> Result<()>) -> Result<()> {
    schedule::enter(Class::Outage).await;
    come_back().await;
    let result = test().await;
    leave_whole().await;
    result
}

/// Runs `test` during an outage. It begins once no other test needs the installation whole, and ends with the last test
/// in it. What follows finds the installation whole: no other outage begins before.
///
/// # Errors
/// Those of `test`, and where the installation does not follow.
pub async fn during(outage: Outage, test: impl AsyncFnOnce() -> Result<()>) -> Result<()> {
    leave_whole().await;
    let entered = enter(outage).await;
    let result = match entered {
        Ok(()) => test().await,
        Err(error) => Err(error),
    };
    let left = leave(outage).await;
    result.and(left)
}

async fn leave_whole() {
    OUTAGES.lock().await.whole -= 1;
    CHANGED.notify_waiters();
}

async fn come_back() {
    when(|outages| {
        let is_whole = outages.current.is_none();
        outages.whole += usize::from(is_whole);
        is_whole
    })
    .await;
}

/// The first one begins the outage, while it holds up the others.
async fn enter(outage: Outage) -> Result<()> {
    let mut is_first = false;
    when(|outages| match &mut outages.current {
        None if outages.whole == 0 => {
            outages.current = Some((outage, 1));
            is_first = true;
            // No other enters what has not begun.
            outages.ending = true;
            true
        }
        Some((current, inside)) if *current == outage && !outages.ending => {
            *inside += 1;
            true
        }
        _ => false,
    })
    .await;
    if is_first {
        let begun = outage.begin().await;
        OUTAGES.lock().await.ending = false;
        CHANGED.notify_waiters();
        begun?;
    }
    Ok(())
}

/// The last one ends the outage, for which the others wait.
async fn leave(outage: Outage) -> Result<()> {
    let mut outages = OUTAGES.lock().await;
    let (_, inside) = outages.current.as_mut().context("there is no outage")?;
    *inside -= 1;
    let is_last = *inside == 0;
    outages.returning += 1;
    let this = outages.ended;
    if !is_last {
        drop(outages);
        when(|outages| outages.ended > this).await;
        return Ok(());
    }
    outages.ending = true;
    drop(outages);
    let ended = outage.end().await;
    let mut outages = OUTAGES.lock().await;
    // Those who return need it whole from now on: a pod that was started in this outage enrols only now.
    outages.whole += outages.returning;
    outages.returning = 0;
    outages.ended += 1;
    outages.current = None;
    outages.ending = false;
    drop(outages);
    CHANGED.notify_waiters();
    ended
}

/// Waits until `check` says so.
async fn when(mut check: impl FnMut(&mut Outages) -> bool) {
    loop {
        let changed = CHANGED.notified();
        tokio::pin!(changed);
        changed.as_mut().enable();
        if check(&mut *OUTAGES.lock().await) {
            return;
        }
        changed.await;
    }
}

impl Outage {
    async fn begin(self) -> Result<()> {
        match self {
            Self::Control => scale_deployment(CONTROL, 0).await,
            Self::DefaultGrant => default_grant_for("namespace:nothing").await,
        }
    }

    async fn end(self) -> Result<()> {
        match self {
            Self::Control => scale_deployment(CONTROL, 1).await,
            Self::DefaultGrant => default_grant_for("*").await,
        }
    }
}

async fn default_grant_for(dst: &str) -> Result<()> {
    let patch = json!({"spec": {"dst": [dst]}}).to_string();
    let args = ["patch", "grant", "default", "--type=merge", "-p", &patch];
    Kubectl::default().run(&args).await?.ok().map(drop)
}
