//! A server over TLS with HTTP/1.1 and HTTP/2, which takes upgrades.

use std::{convert::Infallible, sync::Arc};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, combinators::BoxBody};
use hyper::{Request, Response, body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto::Builder,
};
use podwitness_runtime::tls::{resolver::HotCert, server_config};
use rustls::sign::CertifiedKey;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// Streams of one HTTP/2 connection; what an API server allows.
const MAX_STREAMS: u32 = 100;

/// A body of any kind.
pub type Body = BoxBody<Bytes, Infallible>;

/// A body that is all there.
pub fn full(body: impl Into<Bytes>) -> Body {
    Full::new(body.into()).boxed()
}

/// Serves every connection until the runtime ends.
pub async fn serve<F>(
    listener: TcpListener,
    key: CertifiedKey,
    answer: impl Fn(Request<Incoming>) -> F + Clone + Send + 'static,
) where
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let acceptor = TlsAcceptor::from(server_config(Arc::new(HotCert::new(key))).unwrap());
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (acceptor, answer) = (acceptor.clone(), answer.clone());
        tokio::spawn(async move {
            stream.set_nodelay(true).unwrap();
            // Who does not trust the certificate leaves, and who has heard enough does.
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let service = service_fn(move |request| {
                let answered = answer(request);
                async move { Ok::<_, Infallible>(answered.await) }
            });
            let mut http = Builder::new(TokioExecutor::new());
            http.http2().max_concurrent_streams(MAX_STREAMS);
            drop(http.serve_connection_with_upgrades(TokioIo::new(stream), service).await);
        });
    }
}
