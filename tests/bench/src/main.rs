//! Measures what a client in a pod sees, for `hack/bench`, and is the world of its lab.
//!
//! * `requests ADDRESS NAME PATH COUNT RATE [BODY-FILE]` sends COUNT requests to `https://NAME/PATH` at ADDRESS over one
//!   HTTP/2 connection: GETs one after the other where RATE is 0, else RATE requests a second whatever the answers take;
//!   POSTs where there is a body.
//! * `load ADDRESS NAME PATH COUNT AT-ONCE` sends COUNT GETs over one HTTP/2 connection, so many at a time, as fast as
//!   they are answered.
//! * `watches ADDRESS NAME PATH COUNT CREDENTIALS` opens COUNT watches, a hundred on a connection and each connection
//!   with one of so many credentials, says so when each has heard something, and keeps them until its input ends.
//! * `echo ADDRESS NAME PATH COUNT` opens a session whose command repeats what it hears, and types COUNT keys.
//! * `sessions ADDRESS NAME PATH COUNT [websocket|spdy [BYTES]]` opens COUNT sessions, says so when each has heard
//!   BYTES bytes, and keeps them until its input ends.
//! * `output ADDRESS NAME PATH COUNT [websocket|spdy]` opens COUNT sessions and reads them to their ends.
//! * `serve DIR API CONTROL RECORDER` is an API server that answers with something small, and a control plane, at these
//!   addresses; RECORDER is where a recorder's tunnel is to be found. It writes into DIR what a sidecar has to be told,
//!   and publishes the policy, one of off, open, closed, that each line of its input names, until that ends.
//!
//! CA and token are those of the pod's service account, or `CA_FILE` and `TOKEN`. It prints one line of JSON, with
//! percentiles in microseconds.
#![expect(clippy::print_stdout, reason = "the result goes to standard output")]

mod dial;
mod echo;
mod requests;
mod serve;
mod sessions;
mod spdy;
mod watches;

use std::{env, time::Duration};

use anyhow::{Context as _, Result, bail};

use dial::{Server, Transport};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let mut args = env::args().skip(1);
    let mut next = |what| args.next().with_context(|| format!("{what} is missing"));
    let what = next("what to do")?;
    if what == "serve" {
        let dir = next("DIR")?;
        let (api, control, recorder) = (next("API")?, next("CONTROL")?, next("RECORDER")?);
        return serve::run(dir.as_ref(), &serve::Addresses::parse(&api, &control, &recorder)?).await;
    }
    let server = Server::new(next("ADDRESS")?, next("NAME")?)?;
    let (path, count) = (next("PATH")?, next("COUNT")?.parse()?);
    match &*what {
        "requests" => {
            let rate = next("RATE")?.parse()?;
            let plan = requests::Plan::new(server, path, count, args.next())?;
            print_percentiles(requests::run(plan, rate).await?);
        }
        "load" => {
            let at_once = next("AT-ONCE")?.parse()?;
            let plan = requests::Plan::new(server, path, count, None)?;
            print(&requests::load(plan, at_once).await?);
        }
        "watches" => watches::run(&server, &path, count, next("CREDENTIALS")?.parse()?).await?,
        "echo" => print_percentiles(echo::run(&server, &path, count).await?),
        "sessions" => {
            let transport = Transport::parse(args.next().as_deref())?;
            let bytes = args.next().map(|bytes| bytes.parse()).transpose()?.unwrap_or_default();
            sessions::keep(server, path, count, transport, bytes).await?;
        }
        "output" => {
            print(&sessions::read(server, path, count, Transport::parse(args.next().as_deref())?).await?);
        }
        other => bail!("{other:?} is none of requests, load, watches, echo, sessions, output, serve"),
    }
    Ok(())
}

fn print(result: &serde_json::Value) {
    println!("{result}");
}

fn print_percentiles(mut taken: Vec<Duration>) {
    taken.sort_unstable();
    let at = |percent: usize| {
        taken.get((taken.len() * percent / 100).min(taken.len() - 1)).map(Duration::as_micros)
    };
    let (p50, p90, p99) = (at(50), at(90), at(99));
    print(&serde_json::json!({"count": taken.len(), "p50": p50, "p90": p90, "p99": p99}));
}
