//! How long a key takes to be shown by a command that repeats it.

use std::time::Duration;

use anyhow::{Context as _, Result};
use podwitness_wire::ws::{Opcode, encode};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::Instant,
};
use tokio_rustls::client::TlsStream;

use crate::dial::{Server, Transport};

/// Keys that do not count: the command may still be starting.
const FIRST: u32 = 20;
/// Standard input and output.
const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const KEY: u8 = b'k';

/// Types `count` keys, each after the last one was shown, at the pace of a fast typist.
pub async fn run(server: &Server, path: &str, count: u32) -> Result<Vec<Duration>> {
    let mut session = server.session(path, Transport::WebSocket).await?;
    let mut taken = Vec::new();
    for key in 0..FIRST + count {
        tokio::time::sleep(Duration::from_millis(10)).await;
        let begun = Instant::now();
        session.write_all(&encode(Opcode::Binary, &[STDIN, KEY], Some([7, 7, 7, 7]))).await?;
        while !message(&mut session).await?.strip_prefix(&[STDOUT]).is_some_and(|shown| shown.contains(&KEY))
        {
        }
        if key >= FIRST {
            taken.push(begun.elapsed());
        }
    }
    Ok(taken)
}

/// The next message, which is a short one.
async fn message(session: &mut TlsStream<TcpStream>) -> Result<Vec<u8>> {
    let mut head = [0; 2];
    session.read_exact(&mut head).await.context("the session ended")?;
    let mut message = vec![0; usize::from(head[1] & 0x7f)];
    session.read_exact(&mut message).await?;
    Ok(message)
}
