//! How the fault is chosen: `GET` and `PUT /fault` on the pod's loopback, where `kubectl port-forward` arrives.

use std::{io, net::Ipv4Addr};

use axum::{Json, Router, extract::State, routing::get};
use tokio::net::TcpListener;

use crate::fault::{Fault, Faults};

const PORT: u16 = 8090;

/// Listens for commands.
///
/// # Errors
/// Where the port is taken.
pub async fn bind() -> io::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, PORT)).await
}

/// Follows commands for ever.
///
/// # Errors
/// Where the listener fails.
pub async fn follow(listener: TcpListener, faults: Faults) -> io::Result<()> {
    let router = Router::new().route("/fault", get(show).put(choose)).with_state(faults);
    axum::serve(listener, router).await
}

async fn show(State(faults): State<Faults>) -> Json<Fault> {
    Json(faults.now())
}

async fn choose(State(faults): State<Faults>, Json(fault): Json<Fault>) -> Json<Fault> {
    tracing::info!(?fault, "told what to do wrong");
    faults.set(fault);
    Json(fault)
}
