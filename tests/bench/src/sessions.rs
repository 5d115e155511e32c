//! Many sessions at once: such as say nothing, and such as say much.

use std::{
    io::{self, ErrorKind},
    sync::Arc,
};

use anyhow::{Result, bail};
use serde_json::{Value, json};
use tokio::{
    io::AsyncReadExt as _,
    sync::{Semaphore, mpsc},
    task::{JoinSet, spawn_blocking},
    time::Instant,
};

use crate::dial::{Server, Transport};

/// Sessions that are being opened at a time.
const AT_ONCE: usize = 16;
const BUFFER: usize = 16 << 10;

/// What all sessions of one run share.
struct Plan {
    server: Server,
    path: String,
    transport: Transport,
    opening: Semaphore,
    /// Bytes after which a session has said enough.
    bytes: u64,
}

/// Opens `count` sessions, says so when each has heard `bytes`, and keeps them until standard input ends.
pub async fn keep(server: Server, path: String, count: u32, transport: Transport, bytes: u64) -> Result<()> {
    let begun = Instant::now();
    let (mut sessions, mut unheard) = start(server, path, count, transport, bytes);
    tokio::select! {
        Some(ended) = sessions.join_next() => bail!("a session ended: {:?}", ended?),
        _ = unheard.recv() => {}
    }
    println!("{}", json!({"open": count, "millis": begun.elapsed().as_millis()}));
    let input = spawn_blocking(|| io::copy(&mut io::stdin(), &mut io::sink()));
    tokio::select! {
        Some(ended) = sessions.join_next() => bail!("a session ended: {:?}", ended?),
        ended = input => drop(ended?),
    }
    Ok(())
}

/// Opens `count` sessions and reads them to their ends.
pub async fn read(server: Server, path: String, count: u32, transport: Transport) -> Result<Value> {
    let begun = Instant::now();
    let (sessions, _unheard) = start(server, path, count, transport, 0);
    let bytes: u64 = sessions.join_all().await.into_iter().sum::<Result<u64>>()?;
    Ok(json!({"sessions": count, "bytes": bytes, "millis": begun.elapsed().as_millis()}))
}

/// Sessions that are read, and what ends when each has heard enough.
fn start(
    server: Server,
    path: String,
    count: u32,
    transport: Transport,
    bytes: u64,
) -> (JoinSet<Result<u64>>, mpsc::Receiver<()>) {
    let plan = Arc::new(Plan { server, path, transport, opening: Semaphore::new(AT_ONCE), bytes });
    let (hearing, unheard) = mpsc::channel(1);
    let mut sessions = JoinSet::new();
    for _ in 0..count {
        sessions.spawn(one(Arc::clone(&plan), hearing.clone()));
    }
    (sessions, unheard)
}

/// How much one session said until it ended. It drops `hearing` when it has heard enough.
async fn one(plan: Arc<Plan>, hearing: mpsc::Sender<()>) -> Result<u64> {
    let opening = plan.opening.acquire().await?;
    let mut session = plan.server.session(&plan.path, plan.transport).await?;
    drop(opening);
    let (mut hearing, mut buffer, mut heard) = (Some(hearing), vec![0; BUFFER], 0);
    loop {
        drop(hearing.take_if(|_| heard >= plan.bytes));
        match session.read(&mut buffer).await {
            Ok(0) => return Ok(heard),
            Ok(read) => heard += read as u64,
            // An end without the word that TLS has for it.
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(heard),
            Err(error) => return Err(error.into()),
        }
    }
}
