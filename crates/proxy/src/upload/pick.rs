//! Which recorder takes a recording: in the order of [`order`](super::order), those that failed lately last.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use podwitness_core::{
    control::{Netmap, RecorderPeer},
    grant::AckLevel,
};
use podwitness_runtime::drain;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout_at},
};

use super::{
    Form, Upload,
    connection::Connections,
    error::UploadError,
    health::{Health, Speaks},
    plan::{Found, Needs, Plan},
    posts, v1, v2,
};
use crate::{Dial, enforce::Recorders};

/// How long all attempts before a session may take together.
const START: Duration = Duration::from_secs(30);

/// The way to recorders, shared by all journals of one form.
pub(crate) struct Uploads {
    form: Form,
    connections: Arc<Connections>,
    netmap: watch::Receiver<Option<Arc<Netmap>>>,
    /// The netmap whose recorders were looked at last.
    seen: Mutex<Option<Arc<Netmap>>>,
    /// Uid of the pod, by which the replicas of a recorder are spread over pods.
    pod: Arc<str>,
    pub(super) drain: drain::Watch,
    pub(super) health: Health,
}

/// What was found for a recording that waits.
pub(crate) enum Picked {
    /// A recorder takes it.
    Upload(Box<Upload>),
    /// The grants ask for no recording.
    Unwanted,
}

// === impl Uploads

impl Uploads {
    pub(crate) fn new(
        dial: Arc<dyn Dial>,
        netmap: watch::Receiver<Option<Arc<Netmap>>>,
        assertion: watch::Receiver<Option<Arc<str>>>,
        drain: drain::Watch,
        pod: &str,
    ) -> Self {
        let connections = Arc::new(Connections::new(dial, assertion, netmap.clone()));
        let (form, health, seen) = (Form::Recording, Health::default(), Mutex::default());
        Self { form, connections, netmap, seen, pod: pod.into(), drain, health }
    }

    /// The way of events to the same recorders, over the same connections. A recorder that takes none is no worse for
    /// recordings, so that each way has a memory of its own.
    pub(crate) fn of_events(&self) -> Self {
        Self {
            form: Form::Events,
            connections: Arc::clone(&self.connections),
            netmap: self.netmap.clone(),
            seen: Mutex::default(),
            pod: Arc::clone(&self.pod),
            drain: self.drain.clone(),
            health: Health::default(),
        }
    }

    /// The netmap, as soon as there is one.
    pub(super) async fn netmap(&self) -> Arc<Netmap> {
        let mut netmap = self.netmap.clone();
        loop {
            if let Some(netmap) = netmap.borrow_and_update().clone() {
                return netmap;
            }
            if netmap.changed().await.is_err() {
                // Whoever sends netmaps is gone for good.
                std::future::pending::<()>().await;
            }
        }
    }

    /// What is known of the recorders of a plan without asking any.
    pub(crate) fn known(&self, plan: &Plan) -> Recorders {
        match plan.find(self.netmap.borrow().as_deref(), &self.pod) {
            Found::Recorders(..) => Recorders::Ready,
            Found::None(why) => why,
            Found::Unwanted => Recorders::Unresolvable,
        }
    }

    /// An upload to the first recorder that takes it, or what stands against it.
    pub(crate) async fn connect(&self, plan: &Plan) -> Result<Upload, Recorders> {
        let netmap = self.netmap.borrow().clone();
        self.note_returns(netmap.as_ref());
        let (recorders, needs) = match plan.find(netmap.as_deref(), &self.pod) {
            Found::Recorders(recorders, needs) => (recorders, needs),
            Found::None(why) => return Err(why),
            Found::Unwanted => return Err(Recorders::Unresolvable),
        };
        let deadline = Instant::now() + START;
        let (rested, resting) = self.health.divide(&recorders, needs);
        let mut why = Recorders::Unreachable;
        for recorder in rested.into_iter().chain(resting) {
            match timeout_at(deadline, self.attempt(recorder, needs)).await {
                Ok(Ok(upload)) => return Ok(upload),
                Ok(Err(UploadError::Unacknowledging)) => why = Recorders::Unacknowledging,
                Ok(Err(_)) | Err(_) => {}
            }
        }
        Err(why)
    }

    /// The next upload, as soon as there is a recorder for it.
    pub(crate) async fn next(&self, plan: &Plan) -> Picked {
        self.seek(plan, None).await
    }

    /// What follows an upload to `leaving`, once that is about to go: as soon as the netmap names others in its place,
    /// and one of them takes it. Where it names none, whoever leaves may finish.
    pub(crate) async fn successor(&self, plan: &Plan, leaving: SocketAddr) -> Picked {
        self.seek(plan, Some(leaving)).await
    }

    async fn seek(&self, plan: &Plan, leaving: Option<SocketAddr>) -> Picked {
        let mut netmap = self.netmap.clone();
        loop {
            let current = netmap.borrow_and_update().clone();
            self.note_returns(current.as_ref());
            let mut again = None;
            let found = match leaving {
                None => plan.find_for_waiting(current.as_deref(), &self.pod),
                Some(_) => plan.find(current.as_deref(), &self.pod),
            };
            match found {
                Found::Recorders(recorders, needs) if leaving.is_none_or(|it| !recorders.contains(&it)) => {
                    for recorder in self.health.divide(&recorders, needs).0 {
                        if let Ok(upload) = self.attempt(recorder, needs).await {
                            return Picked::Upload(Box::new(upload));
                        }
                    }
                    again = self.health.next_attempt(&recorders, needs);
                }
                Found::Unwanted if leaving.is_none() => return Picked::Unwanted,
                // What goes on is held to the grants of its start.
                Found::Recorders(..) | Found::None(_) | Found::Unwanted => {}
            }
            let rest = async {
                match again {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                // Whoever sends netmaps may be gone for good; then only the rest ends.
                Ok(()) = netmap.changed() => {}
                () = rest => {}
            }
        }
    }

    /// A recorder that a netmap names anew, or at another place, is not the one that failed.
    fn note_returns(&self, netmap: Option<&Arc<Netmap>>) {
        let Some(netmap) = netmap else { return };
        let before = {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            if seen.as_ref().is_some_and(|seen| Arc::ptr_eq(seen, netmap)) {
                return;
            }
            seen.replace(Arc::clone(netmap))
        };
        let Some(before) = before else { return };
        let known = |peer: &RecorderPeer| {
            let same = |it: &RecorderPeer| {
                (it.recordings_at(), it.endpoint) == (peer.recordings_at(), peer.endpoint)
            };
            before.recorders.iter().any(same)
        };
        for peer in netmap.recorders.iter().filter(|peer| !known(peer)) {
            self.health.recovered(peer.recordings_at());
        }
    }

    /// One attempt with one recorder, remembered.
    async fn attempt(&self, recorder: SocketAddr, needs: Needs) -> Result<Upload, UploadError> {
        let began = Instant::now();
        let opened = match self.form {
            Form::Recording => self.open(recorder, needs, began).await,
            Form::Events => self.open_events(recorder, needs, began).await,
        };
        if let Err(error) = &opened {
            match error {
                UploadError::Again => return opened,
                // It works, and others may use it.
                UploadError::Unacknowledging => {}
                _ => self.health.failed(recorder),
            }
            let error = error as &dyn std::error::Error;
            tracing::info!(%recorder, error, form = ?self.form, "recorder does not take an upload");
        }
        opened
    }

    /// In the version that the recorder speaks: 2, unless it says otherwise.
    async fn open(&self, recorder: SocketAddr, needs: Needs, began: Instant) -> Result<Upload, UploadError> {
        let known = self.health.speaks(recorder);
        // Who needs acknowledgements asks again: it may have been replaced by a better one.
        if needs.acks || known != Some(Speaks::V1) {
            match self.open_v2(recorder, needs.level, began).await {
                Ok(upload) => {
                    self.health.heard(recorder, Speaks::V2);
                    return Ok(Upload::V2(upload));
                }
                Err(UploadError::Older) => self.health.heard(recorder, Speaks::V1),
                // One that is known to speak version 2 has another reason.
                Err(UploadError::Mute) if known.is_none() && !needs.acks => {}
                Err(error) => return Err(error),
            }
        }
        if needs.acks {
            return Err(UploadError::Unacknowledging);
        }
        let opened = self.open_v1(recorder).await;
        match &opened {
            Ok(_) => {
                if known.is_none() {
                    tracing::info!(%recorder, "recorder speaks version 1, which acknowledges nothing");
                }
                self.health.heard(recorder, Speaks::V1);
            }
            Err(_) => self.health.forget_version(recorder),
        }
        opened.map(Upload::V1)
    }

    /// As a stream to those who say that they take one, and one by one to others.
    async fn open_events(
        &self,
        recorder: SocketAddr,
        needs: Needs,
        began: Instant,
    ) -> Result<Upload, UploadError> {
        match self.open_v2(recorder, needs.level, began).await {
            Ok(upload) => return Ok(Upload::V2(upload)),
            Err(UploadError::NoEvents | UploadError::Older | UploadError::Mute) => {}
            Err(error) => return Err(error),
        }
        if let Some(level) = needs.level {
            return Err(UploadError::Weak(None, level));
        }
        let assertion = self.connections.shown(recorder).borrow().clone();
        let stream = self.connections.dial(recorder).await?;
        posts::Upload::open(stream, recorder, assertion.as_deref()).await.map(Upload::Posts)
    }

    /// A connection that was there already may have died unnoticed: then once more with a new one.
    async fn open_v2(
        &self,
        recorder: SocketAddr,
        level: Option<AckLevel>,
        began: Instant,
    ) -> Result<v2::Upload, UploadError> {
        loop {
            let hopeless = || self.health.failed_since(recorder, began);
            let (connection, reused) = self.connections.get(recorder, hopeless).await?;
            if self.form == Form::Events && !connection.takes_events() {
                return Err(UploadError::NoEvents);
            }
            match v2::Upload::open(self.form, Arc::clone(&connection), recorder, level).await {
                Err(error) if error.is_of_connection() => {
                    connection.give_up();
                    if !reused {
                        return Err(error);
                    }
                }
                result => return result,
            }
        }
    }

    async fn open_v1(&self, recorder: SocketAddr) -> Result<v1::Upload, UploadError> {
        let assertion = self.connections.shown(recorder).borrow().clone();
        let stream = self.connections.dial(recorder).await?;
        v1::Upload::open(stream, recorder, assertion.as_deref()).await
    }
}
