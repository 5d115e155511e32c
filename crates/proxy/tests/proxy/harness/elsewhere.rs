//! What answers at other addresses than the API server's.

use std::{net::SocketAddr, sync::Arc};

use rustls::ServerConfig;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio_rustls::TlsAcceptor;

/// Serves each connection to another address.
pub type Elsewhere = Arc<dyn Fn(SocketAddr, DuplexStream) + Send + Sync>;

/// Says over TLS the five bytes that it was told.
pub fn echoing(config: Arc<ServerConfig>) -> Elsewhere {
    Arc::new(move |_, far| {
        let config = Arc::clone(&config);
        tokio::spawn(async move {
            let mut tls = TlsAcceptor::from(config).accept(far).await?;
            let mut said = [0; 5];
            tls.read_exact(&mut said).await?;
            tls.write_all(&said).await?;
            tls.shutdown().await
        });
    })
}

/// Takes connections and never says a word.
pub fn silent() -> Elsewhere {
    Arc::new(|_, far| {
        tokio::spawn(async move {
            let _far = far;
            std::future::pending::<()>().await;
        });
    })
}
