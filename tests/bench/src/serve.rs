//! The world of the lab: an API server that answers with something small, and a control plane. Both do next to nothing,
//! so that what is measured is the sidecar and the recorder.

mod api;

use std::{fs, net::SocketAddr, path::Path, sync::Arc};

use anyhow::{Context as _, Result, bail};
use podwitness_core::{
    address,
    control::{Netmap, RecorderPeer},
    grant::{App, Grant, GrantSpec, Rule},
    inject::{
        Credentials, EnvSource, Inject, MOUNT_SERVICE_ACCOUNT, MOUNT_SOURCE, Profile, RECORD_PORT,
        ServiceAccountDir, SidecarEnv, UntilNetmap,
    },
};
use podwitness_lab::{
    Authority, Control,
    control::{CLUSTER, Enrolled, NAME},
    https,
};
use rustls::crypto::aws_lc_rs;
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, stdin},
    net::TcpListener,
};

/// The recorder's token; whoever has another is a sidecar.
const RECORDER: &str = "Bearer recorder";
const TAG: &str = "tag:lab";
/// Bytes of the spool.
const SPOOL: u64 = 256 << 20;

/// Where everything is.
pub struct Addresses {
    api: SocketAddr,
    control: SocketAddr,
    recorder: SocketAddr,
}

/// What the grants of the lab's pod ask.
#[derive(Clone, Copy)]
enum Policy {
    Nothing,
    Open,
    Closed,
}

impl Addresses {
    pub fn parse(api: &str, control: &str, recorder: &str) -> Result<Self> {
        Ok(Self { api: api.parse()?, control: control.parse()?, recorder: recorder.parse()? })
    }
}

/// Serves until standard input ends.
pub async fn run(dir: &Path, addresses: &Addresses) -> Result<()> {
    // An error says that there is one already.
    let _ = aws_lc_rs::default_provider().install_default();
    let authority = Authority::new("kubernetes");
    let key = authority.leaf(&["kubernetes", "kubernetes.default.svc", &addresses.api.ip().to_string()]);
    let control = Control::new(netmap(addresses, Policy::Nothing, &[]));
    fs::write(dir.join("ca.crt"), authority.pem())?;
    fs::write(dir.join("control-ca.crt"), control.root())?;
    write_environment(dir, addresses, control.root())?;
    let (api, listener) =
        (TcpListener::bind(addresses.api).await?, TcpListener::bind(addresses.control).await?);
    tokio::spawn(https::serve(api, key, api::answer));
    tokio::spawn(Arc::clone(&control).serve(listener));
    println!("{}", json!({"serving": true}));
    follow(addresses, &control).await
}

/// Publishes a netmap at each enrolment and at each line of the input.
async fn follow(addresses: &Addresses, control: &Control) -> Result<()> {
    let (mut enrolled, mut lines) = (control.enrolled.subscribe(), BufReader::new(stdin()).lines());
    let mut policy = Policy::Nothing;
    loop {
        tokio::select! {
            changed = enrolled.changed() => changed?,
            line = lines.next_line() => match line?.as_deref() {
                Some("off") => policy = Policy::Nothing,
                Some("open") => policy = Policy::Open,
                Some("closed") => policy = Policy::Closed,
                Some(other) => bail!("{other:?} is none of off, open, closed"),
                None => return Ok(()),
            },
        }
        let enrolled = enrolled.borrow_and_update().clone();
        control.publish(netmap(addresses, policy, &enrolled));
    }
}

fn netmap(addresses: &Addresses, policy: Policy, enrolled: &[Enrolled]) -> Netmap {
    let key = enrolled.iter().rfind(|one| one.authorization == RECORDER).map(|one| one.key.clone());
    let recorders = key.and_then(|key| {
        Some(RecorderPeer {
            name: "lab".into(),
            replica: "lab-0".into(),
            tags: vec![TAG.into()],
            address: address::of_key(&address::parse_key(&key).ok()?),
            public_key: key,
            port: RECORD_PORT,
            endpoint: addresses.recorder,
            ack: None,
            zone: None,
            plaintext: None,
        })
    });
    let rule = |enforce_recorder| Rule {
        recorder: vec![TAG.into()],
        enforce_recorder,
        enable_events: true,
        ..Rule::default()
    };
    let rule = match policy {
        Policy::Nothing => None,
        Policy::Open => Some(rule(false)),
        Policy::Closed => Some(rule(true)),
    };
    let grants = rule.map(|rule| {
        let app = App { kubernetes: vec![rule] };
        let spec = GrantSpec { src: vec!["*".into()], dst: vec!["*".into()], app, ..GrantSpec::default() };
        Grant { name: "lab".into(), spec }
    });
    Netmap {
        generation: 1,
        cluster: CLUSTER.into(),
        recorders: recorders.into_iter().collect(),
        grants: grants.into_iter().collect(),
        api_servers: vec![addresses.api],
        ..Netmap::default()
    }
}

/// The environment of the sidecar as admission would write it: `NAME=VALUE`, each ended by a zero.
fn write_environment(dir: &Path, addresses: &Addresses, control_ca: &str) -> Result<()> {
    let env = SidecarEnv {
        control: podwitness_core::inject::ControlAddress {
            name: NAME.into(),
            port: addresses.control.port(),
            addresses: vec![addresses.control.ip()],
        },
        control_ca: control_ca.to_owned(),
        until_netmap: UntilNetmap::Open,
        inject: Inject::Required,
        profile: Profile::Interface,
        credentials: Credentials::Passthrough,
        service_accounts: vec![ServiceAccountDir::new(
            "app",
            format!("{MOUNT_SOURCE}0"),
            format!("{MOUNT_SERVICE_ACCOUNT}0"),
        )],
        log_level: "info".into(),
        spool_limit: SPOOL,
        api_server: podwitness_core::inject::ApiServerAddresses::default(),
        ports: podwitness_core::inject::SidecarPorts::default(),
        declared_ports: vec![],
        grace_period: podwitness_core::inject::GRACE_PERIOD,
        trust: podwitness_core::trust::Trust::Pod,
    };
    let mut text = format!(
        "KUBERNETES_SERVICE_HOST={}\0KUBERNETES_SERVICE_PORT={}\0",
        addresses.api.ip(),
        addresses.api.port()
    );
    for var in env.to_env() {
        let value = match var.value {
            EnvSource::Literal(value) => value,
            // The pod for which the control plane signs.
            EnvSource::Field("metadata.namespace") => "shop".into(),
            EnvSource::Field("metadata.name") => "till".into(),
            EnvSource::Field("metadata.uid") => "uid-till".into(),
            EnvSource::Field("spec.serviceAccountName") => "default".into(),
            EnvSource::Field(_) => "node".into(),
        };
        text.push_str(&format!("{}={value}\0", var.name));
    }
    fs::write(dir.join("sidecar.env"), text).context("the sidecar's environment")
}
