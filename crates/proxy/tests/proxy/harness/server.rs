//! The API server of a test, and the way to it.

use std::{
    convert::Infallible,
    future::Future,
    io,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures_util::{FutureExt as _, future::BoxFuture};
use http::{Request, Response};
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use podwitness_proxy::{BoxedStream, Dial};
use rustls::ServerConfig;
use tokio::{
    io::{DuplexStream, duplex},
    sync::watch,
};
use tokio_rustls::TlsAcceptor;

use super::{Answering, TestBody, service};

#[derive(Clone)]
enum Behaviour {
    Http(Arc<dyn Fn(Request<Incoming>) -> Answering + Send + Sync>),
    Raw(Arc<dyn Fn(BoxedStream) -> BoxFuture<'static, ()> + Send + Sync>),
}

/// An API server of which each dialled connection is a new one.
#[derive(Clone)]
pub struct Server {
    behaviour: Behaviour,
    http2: bool,
    max_streams: u32,
    /// How many connections were made.
    pub connections: Arc<AtomicUsize>,
    /// Every change makes all connections go away gracefully.
    pub go_away: Arc<watch::Sender<u32>>,
    /// Every change drops all connections.
    pub cut: Arc<watch::Sender<u32>>,
}

impl Server {
    pub fn new<F>(answer: impl Fn(Request<Incoming>) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Response<TestBody>> + Send + 'static,
    {
        Self::with(Behaviour::Http(Arc::new(move |request| answer(request).boxed())))
    }

    /// A server that is handed the byte stream under TLS.
    pub fn raw<F>(serve: impl Fn(BoxedStream) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self::with(Behaviour::Raw(Arc::new(move |stream| serve(stream).boxed()))).http1()
    }

    fn with(behaviour: Behaviour) -> Self {
        let (go_away, cut) = (Arc::new(watch::Sender::new(0)), Arc::new(watch::Sender::new(0)));
        Self { behaviour, http2: true, max_streams: 100, connections: Arc::default(), go_away, cut }
    }

    /// A server that is handed the bytes of HTTP/2 under TLS.
    pub fn raw_http2<F>(serve: impl Fn(BoxedStream) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self::with(Behaviour::Raw(Arc::new(move |stream| serve(stream).boxed())))
    }

    /// Speaks HTTP/1.1 only.
    pub fn http1(mut self) -> Self {
        self.http2 = false;
        self
    }

    pub fn max_streams(mut self, max: u32) -> Self {
        self.max_streams = max;
        self
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    async fn serve(self, io: DuplexStream, tls: Arc<ServerConfig>) {
        let Ok(stream) = TlsAcceptor::from(tls).accept(io).await else { return };
        let answer = match self.behaviour {
            Behaviour::Raw(serve) => return serve(Box::new(stream)).await,
            Behaviour::Http(answer) => answer,
        };
        let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        let service = service_fn(move |request| {
            let answering = answer(request);
            async move { Ok::<_, Infallible>(answering.await) }
        });
        let (mut go_away, mut cut) = (self.go_away.subscribe(), self.cut.subscribe());
        let io = TokioIo::new(stream);
        if is_http2 {
            let mut builder = http2::Builder::new(TokioExecutor::new());
            builder
                .timer(TokioTimer::new())
                .max_concurrent_streams(self.max_streams)
                .max_header_list_size(2 << 20);
            let mut connection = pin!(builder.serve_connection(io, service));
            tokio::select! {
                _ = connection.as_mut() => return,
                _ = cut.changed() => return,
                _ = go_away.changed() => connection.as_mut().graceful_shutdown(),
            }
            let _ = connection.await;
        } else {
            let mut builder = http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(None).max_headers(600).max_buf_size(2 << 20);
            let _ = builder.serve_connection(io, service).with_upgrades().await;
        }
    }
}

/// The way to a [`Server`]; other addresses are refused.
pub struct ToServer {
    pub server: Server,
    pub http2: Arc<ServerConfig>,
    pub http1: Arc<ServerConfig>,
    /// Where raw connections end, for addresses that are no API server's.
    pub elsewhere: Option<super::Elsewhere>,
    /// Where the server is reached besides its Service.
    pub also: Vec<SocketAddr>,
}

impl Dial for ToServer {
    fn dial(&self, to: SocketAddr) -> BoxFuture<'static, io::Result<BoxedStream>> {
        let (near, far) = duplex(64 << 10);
        if to != service() && !self.also.contains(&to) {
            let result = self.elsewhere.as_ref().map(|elsewhere| elsewhere(to, far));
            let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
            return std::future::ready(result.map(|()| Box::new(near) as BoxedStream).ok_or(refused)).boxed();
        }
        self.server.connections.fetch_add(1, Ordering::SeqCst);
        let tls = if self.server.http2 { &self.http2 } else { &self.http1 };
        tokio::spawn(self.server.clone().serve(far, Arc::clone(tls)));
        std::future::ready(Ok(Box::new(near) as BoxedStream)).boxed()
    }
}

/// No way at all.
pub struct Nowhere;

impl Dial for Nowhere {
    fn dial(&self, _: SocketAddr) -> BoxFuture<'static, io::Result<BoxedStream>> {
        std::future::ready(Err(io::ErrorKind::HostUnreachable.into())).boxed()
    }
}
