//! Latency of requests on a kept-alive connection.

use std::{fs, sync::Arc, time::Duration};

use anyhow::{Result, ensure};
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, body::Bytes, client::conn::http2::SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{task::JoinSet, time::Instant};

use crate::dial::Server;

pub struct Plan {
    server: Server,
    path: String,
    count: u32,
    rate: u32,
    body: Bytes,
}

impl Plan {
    pub fn new(server: Server, path: String, count: u32, rate: u32, body: Option<String>) -> Result<Self> {
        let body = body.map(fs::read).transpose()?.unwrap_or_default().into();
        Ok(Self { server, path, count, rate, body })
    }
}

pub async fn run(plan: Plan) -> Result<Vec<Duration>> {
    let plan = Arc::new(plan);
    let stream = plan.server.connect(b"h2").await?;
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    // The first requests fill caches on the way and do not count.
    for _ in 0..20 {
        one(&plan, sender.clone()).await?;
    }
    if plan.rate == 0 { in_turn(&plan, sender).await } else { at_rate(&plan, sender).await }
}

async fn in_turn(plan: &Plan, sender: SendRequest<Full<Bytes>>) -> Result<Vec<Duration>> {
    let mut taken = Vec::new();
    for _ in 0..plan.count {
        taken.push(one(plan, sender.clone()).await?);
    }
    Ok(taken)
}

async fn at_rate(plan: &Arc<Plan>, sender: SendRequest<Full<Bytes>>) -> Result<Vec<Duration>> {
    let mut tick = tokio::time::interval(Duration::from_secs(1) / plan.rate);
    let mut running = JoinSet::new();
    for _ in 0..plan.count {
        tick.tick().await;
        let (plan, sender) = (Arc::clone(plan), sender.clone());
        running.spawn(async move { one(&plan, sender).await });
    }
    running.join_all().await.into_iter().collect()
}

async fn one(plan: &Plan, mut sender: SendRequest<Full<Bytes>>) -> Result<Duration> {
    let method = if plan.body.is_empty() { "GET" } else { "POST" };
    let mut request = Request::builder()
        .method(method)
        .uri(format!("https://{}{}", plan.server.name, plan.path))
        .header("content-type", "application/json");
    if let Some(token) = &plan.server.token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let request = request.body(Full::new(plan.body.clone()))?;
    let begun = Instant::now();
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    ensure!(status.is_success(), "{status}: {}", String::from_utf8_lossy(&body));
    Ok(begun.elapsed())
}
