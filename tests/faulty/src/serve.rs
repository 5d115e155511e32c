//! Connections, each handed to whoever has the word, and broken off when that is somebody else.

use std::{future::pending, net::IpAddr, sync::Arc};

use podwitness_recorder::ingest::{Door, Ingest};
use podwitness_runtime::{
    accept::accept,
    connection::ConnectionLimiter,
    quota::{QuotaLimits, QuotaMetrics},
};
use tokio::{
    io::duplex,
    net::{TcpListener, TcpStream},
};

use crate::{
    carry::carry,
    fault::{Faults, Speaker},
    impostor,
};

/// Connections at a time; more are closed.
const CONNECTIONS: QuotaLimits = QuotaLimits { total: 1024, per_key: 1024 };
/// Bytes between the network and the recorder.
const PIPE: usize = 64 << 10;

/// Serves what comes in at a listener as the fault of the moment has it, for ever.
pub async fn serve(ingest: Arc<Ingest>, listener: TcpListener, door: Door, faults: Faults) {
    let limiter = ConnectionLimiter::with(CONNECTIONS, QuotaMetrics::default());
    accept(listener, limiter, pending(), |stream, peer, place| {
        // What goes wrong here goes wrong on command alone.
        let busy = place.busy();
        let served = connection(Arc::clone(&ingest), stream, peer.ip(), door.clone(), faults.clone());
        async move {
            served.await;
            drop(busy);
        }
    })
    .await;
}

async fn connection(ingest: Arc<Ingest>, mut stream: TcpStream, from: IpAddr, door: Door, faults: Faults) {
    let speaker = faults.now().speaker();
    let served = async {
        match speaker {
            Speaker::Recorder => recorder(ingest, &mut stream, from, door, &faults).await,
            Speaker::Impostor => impostor::answer(&mut stream, &faults).await,
            Speaker::Nobody => {}
        }
    };
    tokio::select! {
        () = served => {}
        () = faults.silenced(speaker) => {}
    }
    // As a program that dies leaves it: the other end learns of it by a reset.
    let _ = stream.set_zero_linger();
}

async fn recorder(ingest: Arc<Ingest>, stream: &mut TcpStream, from: IpAddr, door: Door, faults: &Faults) {
    let (outer, inner) = duplex(PIPE);
    tokio::spawn(ingest.connection(inner, from, door));
    if let Err(error) = carry(stream, outer, faults).await {
        tracing::debug!(%from, %error, "a connection broke");
    }
}
