//! The ways, by the points of the promise that no access to the API goes unrecorded.

use super::{
    super::{node_proxy_paths::FOUND, stream_framing, two_credentials},
    Pass, Verdict,
};

const V4: &str = "--protocol v4.channel.k8s.io";
const V5: &str = "--protocol v5.channel.k8s.io";
/// What the API server asks a kubelet for.
const KUBELET: &str = "output=1\\&error=1\\&input=1";

/// One way.
pub(super) struct Row {
    pub(super) point: &'static str,
    pub(super) name: String,
    /// Arguments of `speak`. EXEC is the path of a session in the target, NODE the kubelet's behind the API server, POD the
    /// target's namespace and name, RUN a command as the kubelet's `run` takes it.
    arguments: String,
    /// Whether it runs the command where there is no sidecar.
    is_real: bool,
    /// Whether the connection is opened while it may pass raw, and used when it may no longer.
    pub(super) is_held: bool,
}

/// Where the target is.
pub(super) struct Place {
    pub(super) namespace: String,
    pub(super) node: String,
}

impl Place {
    /// A script that tries a way. Its command leaves a file of this name, says it, and ends when it has read its input.
    pub(super) fn script(&self, row: &Row, mark: &str) -> String {
        let ifs = "$%7BIFS%7D";
        let arguments = row
            .arguments
            .replace("EXEC", &format!("/api/v1/namespaces/{}/pods/target/exec", self.namespace))
            .replace("NODE", &format!("/api/v1/nodes/{}/proxy", self.node))
            .replace("POD", &format!("{}/./target", self.namespace))
            .replace("RUN", &format!("'cmd=sh+-c+touch{ifs}/tmp/{mark}%3Becho{ifs}{mark}%3B'"));
        let command =
            format!("touch /tmp/{mark}; echo out of {mark}; echo err of {mark} >&2; head -c 6; exit 7");
        format!("speak --say spoken {arguments} -- sh -c '{command}'")
    }
}

impl Row {
    fn new(point: &'static str, name: impl Into<String>, arguments: impl Into<String>) -> Self {
        Self { point, name: name.into(), arguments: arguments.into(), is_real: false, is_held: false }
    }

    fn real(self) -> Self {
        Self { is_real: true, ..self }
    }

    /// Why this cannot be what came of it.
    pub(super) fn wrong(&self, pass: Pass, verdict: &Verdict) -> Option<String> {
        let is_ordinary = self.point.is_empty();
        match (pass, verdict) {
            (_, Verdict::Unrecorded(why) | Verdict::Unclear(why)) => Some(why.clone()),
            (Pass::Direct, Verdict::Ran) => None,
            (Pass::Direct, _) if self.is_real => Some("it runs nothing without a sidecar either".into()),
            (Pass::Refusing, Verdict::Recorded) => Some("it ran although no recorder takes it".into()),
            (Pass::Open | Pass::Closed, Verdict::Refused(why)) if is_ordinary => {
                Some(format!("a session that hides nothing is refused: {why}"))
            }
            _ => None,
        }
    }
}

/// A session that hides nothing.
pub(super) fn ordinary() -> Row {
    Row::new("", "an ordinary session", format!("{V5} --path EXEC")).real()
}

/// All ways. The addresses are those of the API server itself, of the node's end of the pod network, and of a Service of
/// another name.
pub(super) fn rows(api_server: &str, gateway: &str, service: &str) -> Vec<Row> {
    let mut rows = vec![ordinary()];
    rows.extend(hellos());
    rows.extend(addresses(api_server, gateway, service));
    rows.extend(paths());
    rows.extend(frames());
    rows.extend(credentials());
    // Held ones stand last: they are tried after the others.
    rows.push(Row {
        is_held: true,
        ..Row::new("A3", "a raw connection that outlives its rule", format!("{V5} --hold HOLD --path EXEC"))
            .real()
    });
    rows
}

/// TLS that does not look like TLS.
fn hellos() -> Vec<Row> {
    let hello = |way, name| Row::new("A1", name, format!("--hello {way} {V5} --path EXEC"));
    vec![
        hello("warning-first", "a warning alert before the hello").real(),
        hello("no-renegotiation-first", "another alert before the hello").real(),
        hello("warning-within", "a warning alert within the hello").real(),
        hello("version-0", "a record of version 0.x").real(),
        hello("version-2", "a record of version 2.x").real(),
        hello("version-4", "a record of version 4.x").real(),
        hello("version-15", "a record of version 15.x").real(),
        hello("half", "half a hello and 12 s of silence").real(),
        hello("silence", "12 s of silence before the hello").real(),
        hello("in-records", "a hello in records of 7 bytes").real(),
        hello("close-notify-first", "close_notify before the hello"),
        hello("empty-record-first", "an empty record before the hello"),
        hello("cipher-change-first", "a cipher change before the hello"),
    ]
}

fn addresses(api_server: &str, gateway: &str, service: &str) -> Vec<Row> {
    let to = |address: &str, name: &str, more: &str| {
        Row::new("A2", name, format!("--to '{address}' {more} {V5} --path EXEC")).real()
    };
    vec![
        to(api_server, "the API server's own address", ""),
        to(gateway, "an address in no EndpointSlice", ""),
        to(gateway, "the same, asked for another name", "--server-name example.org"),
        to(service, "another Service with its endpoints", ""),
        to(service, "the same, asked for another name", "--server-name example.org"),
        to(service, "the same, a warning alert first", "--hello warning-first"),
    ]
}

/// Spellings of the paths of sessions, through the kubelet and not.
fn paths() -> Vec<Row> {
    let run = |path: &str, rest: &str| {
        format!("--over none --method POST --path NODE/{path}/{rest}/app --query RUN")
    };
    let mut rows = vec![Row::new("A4", "nodes/proxy/run/NS/./POD/C", run("run", "POD")).real()];
    for path in FOUND.into_iter().skip(1) {
        let row = Row::new("A4", format!("nodes/proxy/{path}"), run(path, "POD"));
        let is_named = ["./run", "x/../run", "%2e/run", "/./run", "%ff/../run"].contains(&path);
        rows.push(if is_named { row.real() } else { row });
    }
    for path in ["exec", "x/../exec", "%ff/../exec"] {
        let spdy = format!("--over spdy {V4} --path NODE/{path}/POD/app --query {KUBELET}");
        rows.push(Row::new("A4", format!("nodes/proxy/{path}, SPDY"), spdy));
        let websocket = format!("{V4} --path NODE/{path}/POD/app --query {KUBELET}");
        rows.push(Row::new("A4", format!("nodes/proxy/{path}, WebSocket"), websocket));
    }
    let unread = "--over none --method POST --path NODE/%zz/../run/POD/app --query RUN";
    rows.push(Row::new("A4", "nodes/proxy/%zz/../run", unread));
    let cri = format!("{V4} --path NODE/cri/exec/token");
    rows.push(Row::new("A4", "nodes/proxy/cri/exec/TOKEN", cri));
    for (name, change) in [
        ("pods/POD/%65xec", "s,/exec$,/%65xec,"),
        ("pods/POD%2Fexec", "s,/exec$,%2Fexec,"),
        ("pods/POD//exec", "s,/exec$,//exec,"),
        ("pods/./POD/exec", "s,/target,/./target,"),
        ("pods/x/../POD/exec", "s,/target,/x/../target,"),
        ("pods/POD/proxy/../exec", "s,/exec$,/proxy/../exec,"),
    ] {
        rows.push(Row::new("A4", name, format!("{V5} --path $(echo EXEC | sed '{change}')")));
    }
    rows
}

fn frames() -> Vec<Row> {
    let spdy = stream_framing::spdy_ways()
        .into_iter()
        .map(|(name, how)| Row::new("A5", format!("SPDY: {name}"), how));
    let websocket = stream_framing::websocket_ways()
        .into_iter()
        .map(|(name, how)| Row::new("A5", format!("WebSocket: {name} frames"), how));
    spdy.chain(websocket).map(|row| if row.name.contains("12 bytes") { row.real() } else { row }).collect()
}

fn credentials() -> Vec<Row> {
    let ways = two_credentials::ways().into_iter();
    ways.map(|(name, how, _)| Row::new("A6", format!("credentials: {name}"), how)).collect()
}
