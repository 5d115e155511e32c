//! Many sessions at once that say nothing.

use std::{io, time::Duration};

use anyhow::Result;
use tokio::{
    task::{JoinSet, spawn_blocking},
    time::Instant,
};

use crate::dial::Server;

/// Sessions that are being opened at a time.
const AT_ONCE: usize = 16;

/// Opens `count` sessions and keeps them until standard input ends.
pub async fn run(server: Server, path: String, count: u32) -> Result<()> {
    let begun = Instant::now();
    let (mut opening, mut open) = (JoinSet::new(), Vec::new());
    for _ in 0..count {
        if opening.len() >= AT_ONCE {
            open.extend(opening.join_next().await.transpose()?.transpose()?);
        }
        let (server, path) = (server.clone(), path.clone());
        opening.spawn(async move { server.session(&path).await });
    }
    while let Some(session) = opening.join_next().await {
        open.push(session??);
    }
    let taken: Duration = begun.elapsed();
    println!("{}", serde_json::json!({"open": open.len(), "millis": taken.as_millis()}));
    spawn_blocking(|| io::copy(&mut io::stdin(), &mut io::sink())).await??;
    drop(open);
    Ok(())
}
