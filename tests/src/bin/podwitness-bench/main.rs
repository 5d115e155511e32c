//! A kept-alive HTTP/2 client that measures latencies, for `hack/bench`. It runs in a pod.
//!
//! `podwitness-bench ADDRESS NAME PATH COUNT RATE [BODY-FILE]` sends COUNT requests to `https://NAME/PATH` at ADDRESS over
//! one connection: GETs one after the other where RATE is 0, else RATE requests a second whatever the answers take; POSTs
//! where there is a body. CA and token are those of the pod's service account, or `CA_FILE` and no token. It prints one
//! line of JSON with percentiles in microseconds.
#![expect(clippy::print_stdout, reason = "the result goes to standard output")]

use std::{env, fs, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, body::Bytes, client::conn::http2::SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use podwitness_core::inject::SERVICE_ACCOUNT_DIR;
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use tokio::{net::TcpStream, task::JoinSet, time::Instant};

struct Plan {
    address: String,
    name: String,
    path: String,
    count: u32,
    rate: u32,
    body: Bytes,
    token: Option<String>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let plan = Arc::new(plan()?);
    let sender = connect(&plan).await?;
    // The first requests fill caches on the way and do not count.
    for _ in 0..20 {
        one(&plan, sender.clone()).await?;
    }
    let mut taken =
        if plan.rate == 0 { in_turn(&plan, sender).await? } else { at_rate(&plan, sender).await? };
    taken.sort_unstable();
    let at = |percent: usize| {
        taken.get((taken.len() * percent / 100).min(taken.len() - 1)).map(Duration::as_micros)
    };
    let (p50, p90, p99) = (at(50), at(90), at(99));
    println!("{}", serde_json::json!({"count": taken.len(), "p50": p50, "p90": p90, "p99": p99}));
    Ok(())
}

fn plan() -> Result<Plan> {
    let mut args = env::args().skip(1);
    let mut next = |what| args.next().with_context(|| format!("{what} is missing"));
    let (address, name, path) = (next("ADDRESS")?, next("NAME")?, next("PATH")?);
    let (count, rate) = (next("COUNT")?.parse()?, next("RATE")?.parse()?);
    let body = args.next().map(fs::read).transpose()?.unwrap_or_default().into();
    let token = fs::read_to_string(format!("{SERVICE_ACCOUNT_DIR}/token")).ok();
    let token = token.filter(|_| env::var_os("CA_FILE").is_none());
    Ok(Plan { address, name, path, count, rate, body, token })
}

async fn connect(plan: &Plan) -> Result<SendRequest<Full<Bytes>>> {
    let ca = env::var("CA_FILE").unwrap_or_else(|_| format!("{SERVICE_ACCOUNT_DIR}/ca.crt"));
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(&ca)? {
        roots.add(certificate?)?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = TcpStream::connect(&plan.address).await?;
    stream.set_nodelay(true)?;
    let name = ServerName::try_from(plan.name.clone())?;
    let stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
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
        .uri(format!("https://{}{}", plan.name, plan.path))
        .header("content-type", "application/json");
    if let Some(token) = &plan.token {
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
