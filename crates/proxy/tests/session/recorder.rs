//! A recorder in-process: HTTP/2 with prior knowledge over duplex pipes, and the switches that make it misbehave.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, Weak},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use podwitness_proxy::{BoxedStream, Dial};
use podwitness_wire::{ack::Ack, pack::Unpacker};
use tokio::{
    io::duplex,
    sync::{mpsc, watch},
    task::{AbortHandle, JoinSet},
};

/// How a recorder behaves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mood {
    /// Takes everything and acknowledges it at once.
    Good,
    /// Takes everything and acknowledges nothing new; it says that it lives.
    Forgetful,
    /// Acknowledges more than it was ever sent.
    Boasting,
    /// Reads nothing and ends its answer as if it had everything.
    Hasty,
    /// Reads nothing and says nothing.
    Stuck,
    /// Takes uploads and reports an error.
    Failing,
    /// Answers uploads with this status.
    Refusing(u16),
    /// Cannot be dialled.
    Down,
}

/// How the body of an upload ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Ended {
    /// It has not.
    Not,
    /// As it should.
    Cleanly,
    /// In the middle.
    Broken,
}

/// An upload as it came.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Whether it is a stream of API events.
    pub events: bool,
    /// What the body carried, and what recordings are made of.
    pub body: Vec<u8>,
    /// Bytes of the body itself.
    pub wire: usize,
    /// In how many pieces they came.
    pub pieces: usize,
    /// Whether they were compressed.
    pub packed: bool,
    pub ended: Ended,
    pub assertion: Option<String>,
}

impl Seen {
    fn add(&mut self, mut bytes: Bytes, unpacker: &mut Option<Unpacker>) {
        self.wire += bytes.len();
        self.pieces += 1;
        let Some(unpacker) = unpacker else { return self.body.extend_from_slice(&bytes) };
        while let Some(lines) = unpacker.unpack(&mut bytes).unwrap() {
            self.body.extend_from_slice(&lines);
        }
    }
}

pub struct Recorder {
    this: Weak<Self>,
    /// What it announces; `None` for one that knows nothing of us.
    level: Option<&'static str>,
    /// Whether it reads compressed uploads.
    packs: bool,
    pub mood: watch::Sender<Mood>,
    pub uploads: Mutex<Vec<Seen>>,
    pub dials: Mutex<usize>,
    connections: Mutex<Vec<AbortHandle>>,
}

/// What can be dialled.
pub trait Peer: Send + Sync {
    fn dialled(&self) -> io::Result<BoxedStream>;
}

/// Recorders by address.
#[derive(Clone, Default)]
pub struct Network(Arc<Mutex<HashMap<SocketAddr, Arc<dyn Peer>>>>);

type AckBody = UnsyncBoxBody<Bytes, io::Error>;

impl Network {
    /// One of ours reads compressed uploads; older ones and other people's do not.
    pub fn add(&self, address: &str, level: Option<&'static str>) -> Arc<Recorder> {
        self.add_reading(address, level, level.is_some())
    }

    pub fn add_reading(&self, address: &str, level: Option<&'static str>, packs: bool) -> Arc<Recorder> {
        let recorder = Arc::new_cyclic(|this| Recorder {
            this: this.clone(),
            level,
            packs,
            mood: watch::channel(Mood::Good).0,
            uploads: Mutex::default(),
            dials: Mutex::default(),
            connections: Mutex::default(),
        });
        self.put(address, Arc::<Recorder>::clone(&recorder));
        recorder
    }

    pub fn put(&self, address: &str, peer: Arc<dyn Peer>) {
        self.0.lock().unwrap().insert(address.parse().unwrap(), peer);
    }
}

impl Dial for Network {
    fn dial(&self, to: SocketAddr) -> BoxFuture<'static, io::Result<BoxedStream>> {
        let recorder = self.0.lock().unwrap().get(&to).cloned();
        Box::pin(async move { recorder.ok_or(io::ErrorKind::HostUnreachable)?.dialled() })
    }
}

impl Peer for Recorder {
    fn dialled(&self) -> io::Result<BoxedStream> {
        *self.dials.lock().unwrap() += 1;
        if *self.mood.borrow() == Mood::Down {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        Ok(Box::new(self.this().connect()))
    }
}

impl Recorder {
    fn this(&self) -> Arc<Self> {
        self.this.upgrade().unwrap()
    }

    /// From here on it cannot be dialled, and whatever was connected is cut.
    pub fn die(&self) {
        self.mood.send_replace(Mood::Down);
        self.connections.lock().unwrap().drain(..).for_each(|connection| connection.abort());
    }

    pub fn dials(&self) -> usize {
        *self.dials.lock().unwrap()
    }

    pub fn uploads(&self) -> Vec<Seen> {
        self.uploads.lock().unwrap().clone()
    }

    /// The text of the only upload.
    pub fn only(&self) -> String {
        let uploads = self.uploads();
        assert_eq!(uploads.len(), 1, "{uploads:?}");
        assert!(!uploads[0].events, "it is no recording");
        String::from_utf8(uploads[0].body.clone()).unwrap()
    }

    fn connect(self: &Arc<Self>) -> impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + use<> {
        let (near, far) = duplex(64 << 10);
        let recorder = Arc::clone(self);
        let task = tokio::spawn(async move {
            // Uploads die with their connection.
            let uploads = Arc::new(Mutex::new(JoinSet::new()));
            let service = service_fn(|request| {
                let answer = recorder.answer(request, &uploads);
                async move { answer }
            });
            let _ = http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(far), service)
                .await;
        });
        self.connections.lock().unwrap().push(task.abort_handle());
        near
    }

    fn answer(
        self: &Arc<Self>,
        request: Request<Incoming>,
        uploads: &Mutex<JoinSet<()>>,
    ) -> Result<Response<AckBody>, io::Error> {
        let (frames, mut queue) = mpsc::unbounded_channel();
        let body = StreamBody::new(futures_util::stream::poll_fn(move |cx| queue.poll_recv(cx)));
        let mut response = Response::new(body.boxed_unsync());
        if let Some(level) = self.level {
            response.headers_mut().insert("podwitness-ack", level.parse().unwrap());
        }
        if self.packs {
            response.headers_mut().insert("podwitness-accept-encoding", "zstd".parse().unwrap());
        }
        if self.level.is_some() {
            let ndjson = "application/x-ndjson";
            response.headers_mut().insert("podwitness-accept-events", ndjson.parse().unwrap());
        }
        let events = request.uri().path() == "/v2/event";
        assert!(events || request.uri().path() == "/v2/record");
        if request.method() == "HEAD" {
            return Ok(response);
        }
        if let Mood::Refusing(status) = *self.mood.borrow() {
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            return Ok(response);
        }
        let assertion = request.headers().get("podwitness-assertion");
        let assertion = assertion.map(|value| value.to_str().unwrap().to_owned());
        let packed = request.headers().get("content-encoding").is_some_and(|coding| coding == "zstd");
        assert!(self.packs || !packed, "it was not asked");
        let index = {
            let mut seen = self.uploads.lock().unwrap();
            let (body, ended) = (Vec::new(), Ended::Not);
            seen.push(Seen { events, body, wire: 0, pieces: 0, packed, ended, assertion });
            seen.len() - 1
        };
        uploads.lock().unwrap().spawn(Arc::clone(self).receive(request.into_body(), index, frames));
        Ok(response)
    }

    async fn receive(
        self: Arc<Self>,
        mut body: Incoming,
        index: usize,
        frames: mpsc::UnboundedSender<Result<Frame<Bytes>, io::Error>>,
    ) {
        let mut mood = self.mood.subscribe();
        let mut alive = tokio::time::interval(Duration::from_secs(4));
        let mut safe = 0;
        let mut unpacker = self.uploads.lock().unwrap()[index].packed.then(Unpacker::new);
        loop {
            let now = *mood.borrow_and_update();
            if now == Mood::Good {
                safe = self.uploads.lock().unwrap()[index].body.len() as u64;
                let _ = frames.send(Ok(Frame::data(Ack::Received(safe).to_line().into())));
            }
            if now == Mood::Boasting {
                let _ = frames.send(Ok(Frame::data(Ack::Received(u64::MAX).to_line().into())));
            }
            if now == Mood::Hasty {
                return;
            }
            if now == Mood::Failing {
                let _ = frames.send(Ok(Frame::data(Ack::Failed("disk full".into()).to_line().into())));
                return;
            }
            tokio::select! {
                _ = mood.changed() => {}
                _ = alive.tick(), if now != Mood::Stuck => {
                    let _ = frames.send(Ok(Frame::data(Ack::Received(safe).to_line().into())));
                }
                frame = body.frame(), if now != Mood::Stuck => match frame {
                    Some(Ok(frame)) => {
                        self.uploads.lock().unwrap()[index].add(frame.into_data().unwrap(), &mut unpacker);
                    }
                    other => {
                        let ended = if other.is_none() { Ended::Cleanly } else { Ended::Broken };
                        self.uploads.lock().unwrap()[index].ended = ended;
                        return;
                    }
                },
            }
        }
    }
}
