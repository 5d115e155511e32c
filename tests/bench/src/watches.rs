//! Many watches at once that say little.

use std::io;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::{body::Incoming, client::conn::http2::SendRequest};
use serde_json::json;
use tokio::{task::spawn_blocking, time::Instant};

use crate::dial::Server;

/// Streams that an API server allows on a connection.
const ON_A_CONNECTION: u32 = 100;

/// Opens `count` watches with so many credentials and keeps them until standard input ends.
pub async fn run(server: &Server, path: &str, count: u32, credentials: u32) -> Result<()> {
    let begun = Instant::now();
    let mut open = Vec::new();
    for connection in 0..count.div_ceil(ON_A_CONNECTION) {
        let server = server.with_credential(connection % credentials.max(1));
        let sender = server.http2().await?;
        let watches = (connection * ON_A_CONNECTION..count).take(ON_A_CONNECTION as usize);
        for _ in watches {
            let watch = watch(&server, sender.clone(), path).await;
            open.push((watch.with_context(|| format!("watch {}", open.len()))?, sender.clone()));
        }
    }
    println!("{}", json!({"open": open.len(), "millis": begun.elapsed().as_millis()}));
    spawn_blocking(|| io::copy(&mut io::stdin(), &mut io::sink())).await??;
    Ok(())
}

/// A watch that has said something.
async fn watch(server: &Server, mut sender: SendRequest<Empty<Bytes>>, path: &str) -> Result<Incoming> {
    let response = sender.send_request(server.request("GET", path).body(Empty::new())?).await?;
    ensure!(response.status().is_success(), "{}", response.status());
    let mut body = response.into_body();
    body.frame().await.context("it ended")??;
    Ok(body)
}
