//! Measures what a client in a pod sees, for `hack/bench`. It runs in a pod.
//!
//! * `requests ADDRESS NAME PATH COUNT RATE [BODY-FILE]` sends COUNT requests to `https://NAME/PATH` at ADDRESS over one
//!   HTTP/2 connection: GETs one after the other where RATE is 0, else RATE requests a second whatever the answers take;
//!   POSTs where there is a body.
//! * `echo ADDRESS NAME PATH COUNT` opens a session whose command repeats what it hears, and types COUNT keys.
//! * `sessions ADDRESS NAME PATH COUNT` opens COUNT sessions, says so, and keeps them until its input ends.
//!
//! CA and token are those of the pod's service account, or `CA_FILE` and no token. It prints one line of JSON, with
//! percentiles in microseconds.
#![expect(clippy::print_stdout, reason = "the result goes to standard output")]

mod dial;
mod echo;
mod requests;
mod sessions;

use std::{env, time::Duration};

use anyhow::{Context as _, Result, bail};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let mut args = env::args().skip(1);
    let mut next = |what| args.next().with_context(|| format!("{what} is missing"));
    let (what, address, name, path) =
        (next("what to measure")?, next("ADDRESS")?, next("NAME")?, next("PATH")?);
    let server = dial::Server::new(address, name)?;
    let count = next("COUNT")?.parse()?;
    match &*what {
        "requests" => {
            let rate = next("RATE")?.parse()?;
            let plan = requests::Plan::new(server, path, count, rate, args.next())?;
            print_percentiles(requests::run(plan).await?);
        }
        "echo" => print_percentiles(echo::run(&server, &path, count).await?),
        "sessions" => sessions::run(server, path, count).await?,
        other => bail!("{other:?} is none of requests, echo, sessions"),
    }
    Ok(())
}

fn print_percentiles(mut taken: Vec<Duration>) {
    taken.sort_unstable();
    let at = |percent: usize| {
        taken.get((taken.len() * percent / 100).min(taken.len() - 1)).map(Duration::as_micros)
    };
    let (p50, p90, p99) = (at(50), at(90), at(99));
    println!("{}", serde_json::json!({"count": taken.len(), "p50": p50, "p90": p90, "p99": p99}));
}
