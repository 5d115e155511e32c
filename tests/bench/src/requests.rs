//! Latency of requests on a kept-alive connection, and many of them.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use anyhow::{Result, ensure};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Bytes, client::conn::http2::SendRequest, header::CONTENT_TYPE};
use serde_json::{Value, json};
use tokio::{task::JoinSet, time::Instant};

use crate::dial::Server;

type Sender = SendRequest<Full<Bytes>>;

pub struct Plan {
    server: Server,
    path: String,
    count: u32,
    body: Bytes,
}

impl Plan {
    pub fn new(server: Server, path: String, count: u32, body: Option<String>) -> Result<Self> {
        let body = body.map(fs::read).transpose()?.unwrap_or_default().into();
        Ok(Self { server, path, count, body })
    }

    /// A connection. The first requests fill caches on the way and do not count.
    async fn connect(&self) -> Result<Sender> {
        let sender = self.server.http2().await?;
        for _ in 0..20 {
            one(self, sender.clone()).await?;
        }
        Ok(sender)
    }
}

/// How long each request took: one after the other, or at a rate whatever they take.
pub async fn run(plan: Plan, rate: u32) -> Result<Vec<Duration>> {
    let plan = Arc::new(plan);
    let sender = plan.connect().await?;
    if rate == 0 { in_turn(&plan, sender).await } else { at_rate(&plan, sender, rate).await }
}

/// All requests as fast as they are answered, `at_once` at a time.
pub async fn load(plan: Plan, at_once: u32) -> Result<Value> {
    let (plan, left) = (Arc::new(plan), Arc::new(AtomicU32::new(0)));
    let sender = plan.connect().await?;
    let (begun, mut workers) = (Instant::now(), JoinSet::new());
    for _ in 0..at_once {
        let (plan, left, sender) = (Arc::clone(&plan), Arc::clone(&left), sender.clone());
        workers.spawn(async move {
            while left.fetch_add(1, Ordering::Relaxed) < plan.count {
                one(&plan, sender.clone()).await?;
            }
            anyhow::Ok(())
        });
    }
    workers.join_all().await.into_iter().collect::<Result<()>>()?;
    Ok(json!({"count": plan.count, "millis": begun.elapsed().as_millis()}))
}

async fn in_turn(plan: &Plan, sender: Sender) -> Result<Vec<Duration>> {
    let mut taken = Vec::new();
    for _ in 0..plan.count {
        taken.push(one(plan, sender.clone()).await?);
    }
    Ok(taken)
}

async fn at_rate(plan: &Arc<Plan>, sender: Sender, rate: u32) -> Result<Vec<Duration>> {
    let mut tick = tokio::time::interval(Duration::from_secs(1) / rate);
    let mut running = JoinSet::new();
    for _ in 0..plan.count {
        tick.tick().await;
        let (plan, sender) = (Arc::clone(plan), sender.clone());
        running.spawn(async move { one(&plan, sender).await });
    }
    running.join_all().await.into_iter().collect()
}

async fn one(plan: &Plan, mut sender: Sender) -> Result<Duration> {
    let method = if plan.body.is_empty() { "GET" } else { "POST" };
    let request = plan.server.request(method, &plan.path).header(CONTENT_TYPE, "application/json");
    let request = request.body(Full::new(plan.body.clone()))?;
    let begun = Instant::now();
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    ensure!(status.is_success(), "{status}: {}", String::from_utf8_lossy(&body));
    Ok(begun.elapsed())
}
