//! The loop that keeps an agent's knowledge fresh: connect, enrol, follow, and begin again after a pause.

use std::{net::Ipv6Addr, path::Path, sync::Arc, time::Duration};

use podwitness_core::{
    address,
    assertion::MAX_LIFE,
    control::{Netmap, Notice, Update},
};
use rustls::pki_types::ServerName;
use tokio::{
    sync::{mpsc, watch},
    task::spawn_blocking,
    time::{Instant, sleep},
};

use crate::{
    Agent, AgentError, CertificateOrder, Link, Options,
    backoff::Backoff,
    cache::{self, Snapshot},
    client::Client,
    trust,
};

const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Failures in a row that are still the ordinary course of a start or a roll-out.
const QUIET_FAILURES: u32 = 5;
/// Age of an assertion from which a reconnect enrols again instead of relying on the stream to renew it.
const STALE: Duration = Duration::from_secs(MAX_LIFE as u64 / 2);

/// Learns from the control plane for as long as it runs.
pub struct Driver {
    options: Options,
    netmap: watch::Sender<Option<Arc<Netmap>>>,
    assertion: watch::Sender<Option<Arc<str>>>,
    link: watch::Sender<Link>,
    /// Address that follows from the key.
    address: Ipv6Addr,
    /// When the last assertion came; `None` while the key has to be enrolled.
    asserted: Option<Instant>,
}

impl Driver {
    pub(crate) fn new(options: Options) -> Result<(Agent, Self), AgentError> {
        trust::config(&options.roots, &[])?;
        if ServerName::try_from(options.control.name.as_str()).is_err() {
            return Err(AgentError::Name(options.control.name));
        }
        let key = address::parse_key(&options.public_key).map_err(AgentError::Key)?;
        let cached = options.cache.as_deref().and_then(|path| load(path, &options.public_key));
        let (known, assertion) = match cached {
            Some(snapshot) => (Some(Arc::new(snapshot.netmap)), snapshot.assertion.map(Arc::from)),
            None => (None, None),
        };
        let driver = Self {
            options,
            netmap: watch::Sender::new(known),
            assertion: watch::Sender::new(assertion),
            link: watch::Sender::new(Link::Offline),
            address: address::of_key(&key),
            asserted: None,
        };
        let agent = Agent {
            netmap: driver.netmap.subscribe(),
            assertion: driver.assertion.subscribe(),
            link: driver.link.subscribe(),
        };
        Ok((agent, driver))
    }

    /// Runs until it is dropped; never gives up.
    pub async fn run(mut self) {
        let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        let mut failures: u32 = 0;
        loop {
            let result = self.once().await;
            if self.link.send_replace(Link::Offline) == Link::Following {
                backoff.reset();
                failures = 0;
            }
            let pause = backoff.delay();
            if let Err(error) = result {
                failures = failures.saturating_add(1);
                report(&error, failures, pause);
            }
            sleep(pause).await;
        }
    }

    /// One connection, from dialling to its end.
    async fn once(&mut self) -> Result<(), AgentError> {
        let learned = self.netmap.borrow().clone();
        let learned = learned.as_deref().map_or(&[][..], |netmap| netmap.roots.as_slice());
        let tls = trust::config(&self.options.roots, learned)?;
        let Options { control, token, dial, .. } = &self.options;
        let mut client = Client::connect(control, tls, token.clone(), dial).await?;
        if self.asserted.is_none_or(|at| at.elapsed() > STALE) {
            self.enrol(&mut client).await?;
        }
        self.link.send_replace(Link::Enrolled);
        let updates = client.follow().await;
        if let Err(AgentError::Refused { code: code @ (403 | 404 | 409), .. }) = &updates {
            tracing::debug!(code, "the netmap stream is refused; the key is enrolled again");
            self.asserted = None;
        }
        let mut updates = updates?;
        loop {
            let update = tokio::select! {
                update = updates.next() => update?,
                notice = next(&mut self.options.notices) => {
                    tell(&client, notice);
                    continue;
                }
                order = next(&mut self.options.certificates) => {
                    certify(&client, order);
                    continue;
                }
            };
            let Some(update) = update else { return Ok(()) };
            self.link.send_if_modified(|link| std::mem::replace(link, Link::Following) != Link::Following);
            self.take(update).await;
        }
    }

    async fn enrol(&mut self, client: &mut Client) -> Result<(), AgentError> {
        let answer = client.enrol(&self.options.public_key).await?;
        // The tunnel listens on the address that follows from the key; another one would never be reached.
        if answer.address != self.address {
            return Err(AgentError::Address);
        }
        tracing::info!(address = %answer.address, generation = answer.generation, "enrolled");
        self.assert(&answer.assertion);
        Ok(())
    }

    async fn take(&mut self, update: Update) {
        match update {
            Update::Netmap(netmap) => {
                tracing::debug!(generation = netmap.generation, recorders = netmap.recorders.len(), "netmap");
                self.netmap.send_replace(Some(Arc::from(netmap)));
                self.keep().await;
            }
            Update::Assertion(text) => {
                self.assert(&text);
                self.keep().await;
            }
            Update::Alive {} => {}
        }
    }

    fn assert(&mut self, text: &str) {
        self.asserted = Some(Instant::now());
        self.assertion.send_replace(Some(Arc::from(text)));
    }

    /// Up to megabytes, at each change; the next update waits, so that the newest is what stays.
    async fn keep(&self) {
        let Some(path) = self.options.cache.clone() else { return };
        let Some(netmap) = self.netmap.borrow().as_deref().cloned() else { return };
        let assertion = self.assertion.borrow().as_deref().map(ToOwned::to_owned);
        let snapshot = Snapshot { public_key: self.options.public_key.clone(), netmap, assertion };
        let storing = move || {
            if let Err(error) = cache::store(&path, &snapshot) {
                tracing::warn!(path = %path.display(), %error, "the netmap cannot be kept for a restart");
            }
        };
        // It fails only where the runtime is going down.
        let _ = spawn_blocking(storing).await;
    }
}

/// The next item; never, where there is none to come.
async fn next<T>(items: &mut Option<mpsc::Receiver<T>>) -> T {
    if let Some(receiver) = items
        && let Some(item) = receiver.recv().await
    {
        return item;
    }
    *items = None;
    std::future::pending().await
}

/// Asks for a certificate in the background, unless it is no longer waited for.
fn certify(client: &Client, order: CertificateOrder) {
    if order.answer.is_closed() {
        return;
    }
    let asked = client.certify(&order.request);
    tokio::spawn(async move {
        // The one who waited may have left since.
        let _ = order.answer.send(asked.await);
    });
}

/// Gives notice in the background: the netmap waits for nobody.
fn tell(client: &Client, notice: Notice) {
    let told = client.notify(notice);
    tokio::spawn(async move {
        if let Err(error) = told.await {
            tracing::info!(?notice, "a notice is lost: {}", chain(&error));
        }
    });
}

fn load(path: &Path, public_key: &str) -> Option<Snapshot> {
    cache::load(path, public_key).unwrap_or_else(|error| {
        tracing::warn!(path = %path.display(), %error, "the kept netmap cannot be read; starting without");
        None
    })
}

fn report(error: &AgentError, failures: u32, pause: Duration) {
    let (cause, pause) = (chain(error), pause.as_secs_f32());
    if failures > QUIET_FAILURES {
        tracing::warn!(failures, pause, "control plane: {cause}");
    } else {
        tracing::info!(failures, pause, "control plane: {cause}");
    }
}

/// An error and what caused it, in one line.
fn chain(error: &AgentError) -> String {
    let mut text = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(source) = next {
        text.push_str(": ");
        text.push_str(&source.to_string());
        next = source.source();
    }
    text
}
