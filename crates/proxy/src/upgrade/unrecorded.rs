//! Sessions that pass unrecorded, for as long as they may.
//!
//! Invariant: what lets a session pass is judged again with every netmap, because a session can last longer than the rule
//! that let it pass. What was said in it cannot be recorded any more, so it ends: between two frames, with a message where
//! its protocol has one. Its client begins anew.

use std::{
    future::{pending, poll_fn},
    io,
    pin::Pin,
    sync::Arc,
};

use bytes::{Buf as _, BytesMut};
use http::{HeaderMap, header::AUTHORIZATION, request::Parts};
use podwitness_core::{
    control::Netmap, failure::OnUnknown, grant::Obligation, identity::Caller, request_info::RequestInfo,
    status::Status,
};
use podwitness_wire::{
    channel::Farewell,
    session::{Direction, Language, directions},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, copy, sink, split},
    time::{Duration, timeout},
};

use super::obligation;
use crate::{
    BoxedStream, Proxy,
    classify::{Credential, Session},
    enforce,
    identity::{CallerCell, impersonation_of},
    metrics::{Purpose, Upgrade},
    stream::poll_gather,
    target::Target,
};

/// How long the last words of a session may take, and how long its client is read after them.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Most bytes of headers that are kept of a request, to find out later who made it.
const MAX_KEPT: usize = 64 << 10;

/// A session that passes unrecorded, and what lets it pass.
pub(super) struct Passing {
    pub(super) why: Upgrade,
    /// Why it would be ended, for messages.
    name: String,
    /// What was asked, where it passes because no grant applies.
    asked: Option<Box<Asked>>,
}

/// What a request says that grants go by.
struct Asked {
    target: Arc<Target>,
    credential: Credential,
    /// Those by which its caller is found; `None` where they are too large to be kept: any caller may be the one.
    headers: Option<HeaderMap>,
    info: RequestInfo,
}

impl Passing {
    /// One that nothing ends, or only a grant that fails closed.
    pub(super) fn because(why: Upgrade, session: &Session) -> Self {
        Self { why, name: session.name(), asked: None }
    }

    /// One of which no grant asks for a recording.
    pub(super) fn without_grant(
        target: &Arc<Target>,
        credential: &Credential,
        head: &Parts,
        session: &Session,
    ) -> Self {
        let asked = Asked {
            target: Arc::clone(target),
            credential: credential.clone(),
            headers: kept(&head.headers),
            info: session.info.clone(),
        };
        Self { why: Upgrade::NoGrant, name: session.name(), asked: Some(Box::new(asked)) }
    }

    /// What its client is told, where the newest netmap no longer lets it pass.
    pub(super) async fn refusal(&self, proxy: &Proxy) -> Option<Status> {
        let netmap = proxy.netmap();
        self.judge(proxy, netmap.as_deref()).await
    }

    async fn judge(&self, proxy: &Proxy, netmap: Option<&Netmap>) -> Option<Status> {
        match (self.why, &self.asked) {
            (Upgrade::NoGrant, Some(asked)) => {
                let obligation = asked.obligation(proxy, netmap).await?;
                // A grant without a recorder is how somebody is left out.
                let records = obligation.enforce || !obligation.recorders.is_empty();
                records.then(|| enforce::on_late_grant(&obligation))
            }
            (Upgrade::NoSession, _) => None,
            _ => match enforce::on_unreadable(netmap, proxy.config.until_netmap, &self.name) {
                OnUnknown::Forward => None,
                OnUnknown::Refuse(status) => Some(status),
            },
        }
    }

    /// Completes when a netmap no longer lets it pass.
    async fn no_longer_allowed(&self, proxy: &Proxy) -> Status {
        let mut netmaps = proxy.netmap.clone();
        loop {
            let netmap = netmaps.borrow_and_update().clone();
            if let Some(status) = self.judge(proxy, netmap.as_deref()).await {
                return status;
            }
            if netmaps.changed().await.is_err() {
                // No netmap will ever come again.
                pending::<()>().await;
            }
        }
    }

    /// Passes both directions on until both have ended, the session may no longer pass, or the drain is over. It is
    /// followed in `language` so far that it can be ended between two frames.
    pub(super) async fn relay(
        &self,
        proxy: &Proxy,
        purpose: Purpose,
        language: Language,
        (client, server): (BoxedStream, BoxedStream),
    ) {
        let (client_read, client_write) = split(client);
        let (server_read, server_write) = split(server);
        let (said, answered) = directions(language);
        let mut up = Followed::new(said, client_read, server_write);
        let mut down = Followed::new(answered, server_read, client_write);
        let status = tokio::select! {
            passed = async { tokio::try_join!(up.run(), down.run()) } => {
                if let Err(error) = passed {
                    tracing::debug!(%error, "an unrecorded session ended");
                }
                return;
            }
            () = proxy.drain.over() => Status::internal("podwitness: session ended, its pod is going away"),
            status = self.no_longer_allowed(proxy) => {
                proxy.metrics.unrecorded_ended(purpose, self.why);
                tracing::info!(what = self.name, why = ?self.why, "unrecorded session ended: it is no longer allowed");
                status
            }
        };
        // A client that does not read learns nothing.
        let _ = timeout(LAST_WORDS, down.say(&status)).await;
        // Bytes left unread would make the client's system throw away what it has not read either.
        let _ = timeout(LAST_WORDS, up.leave()).await;
    }
}

impl Asked {
    async fn obligation(&self, proxy: &Proxy, netmap: Option<&Netmap>) -> Option<Obligation> {
        match &self.headers {
            Some(headers) => {
                let caller = CallerCell::new();
                let by = (&self.credential, headers, &caller);
                obligation(proxy, &self.target, by, &self.info, netmap)
                    .await
                    .map(|(_, obligation)| obligation)
            }
            None => enforce::obligation(netmap, proxy.config.until_netmap, &Caller::default(), &self.info),
        }
    }
}

/// The headers by which the caller of a request is found.
fn kept(headers: &HeaderMap) -> Option<HeaderMap> {
    let mut kept = impersonation_of(headers);
    if let Some(authorization) = headers.get(AUTHORIZATION) {
        kept.insert(AUTHORIZATION, authorization.clone());
    }
    let bytes: usize = kept.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    (bytes <= MAX_KEPT).then_some(kept)
}

/// One direction, which is passed on frame by frame and not looked at any further.
struct Followed<R, W> {
    direction: Direction,
    from: R,
    to: W,
    /// What has come and is not written: never more than what is read at once and a frame that is held.
    read: BytesMut,
    /// How much of it goes on.
    ready: usize,
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Followed<R, W> {
    fn new(direction: Direction, from: R, to: W) -> Self {
        Self { direction, from, to, read: BytesMut::new(), ready: 0 }
    }

    /// Passes everything on. Dropped in between, the direction can still be ended with a message.
    async fn run(&mut self) -> io::Result<()> {
        loop {
            self.write().await?;
            let Self { from, read, .. } = self;
            if poll_fn(|cx| poll_gather(Pin::new(&mut *from), cx, read)).await? == 0 {
                // A frame that is not whole goes on like everything else.
                self.ready = self.read.len();
                self.write().await?;
                return self.to.shutdown().await;
            }
            self.follow();
        }
    }

    /// Finds the frames that are whole.
    fn follow(&mut self) {
        while let Some(front) = self.read.get(self.ready..).filter(|front| !front.is_empty()) {
            match self.direction.peek(front) {
                Ok(None) => return,
                Ok(Some(unit)) => {
                    let bytes = front.get(..unit.len).unwrap_or_default();
                    if self.direction.feed(bytes, |_| {}).is_err() {
                        self.direction.stop_decoding();
                    }
                    self.direction.gone_on(unit);
                    self.ready += unit.len;
                }
                // From here on nothing is known of frames, and nothing can be said behind them.
                Err(_) => self.direction.stop_decoding(),
            }
        }
    }

    async fn write(&mut self) -> io::Result<()> {
        if self.ready == 0 {
            return Ok(());
        }
        while self.ready > 0 {
            let written = self.to.write(self.read.get(..self.ready).unwrap_or_default()).await?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            self.read.advance(written);
            self.ready -= written;
        }
        if self.read.is_empty() {
            // A direction that is silent holds no memory.
            self.read = BytesMut::new();
        }
        self.to.flush().await
    }

    /// Ends the direction behind what has gone on, with a message where the protocol has one.
    async fn say(&mut self, status: &Status) -> io::Result<()> {
        self.write().await?;
        let json = serde_json::to_vec(status).map_err(io::Error::other)?;
        let farewell = Farewell { status: &json, message: &status.message };
        if let Some(words) = self.direction.last_words(&farewell) {
            self.to.write_all(&words).await?;
            self.to.flush().await?;
        }
        self.to.shutdown().await
    }

    /// Ends the direction with nothing more, and throws away what its source still says.
    async fn leave(&mut self) -> io::Result<()> {
        self.to.shutdown().await?;
        copy(&mut self.from, &mut sink()).await.map(drop)
    }
}
