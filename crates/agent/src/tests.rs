//! An agent against a control plane that says what each test wants, over pipes and a paused clock.

use std::{
    collections::VecDeque,
    convert::Infallible,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{Request, Response};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::{
    body::{Frame, Incoming},
    server::conn::http2,
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use podwitness_core::{
    address,
    control::{
        CERTIFICATE, CertificateRequest, CertificateResponse, ENROL, EnrolRequest, EnrolResponse, NOTICE,
        Netmap, Notice, Update,
    },
    inject::ControlAddress,
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use tokio::{
    io::DuplexStream,
    sync::{mpsc, oneshot, watch},
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;

use super::*;

const NAME: &str = "podwitness-control.podwitness-system.svc";
const KEY: &str = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";

/// What one connection's netmap stream does.
enum Script {
    /// Sends these lines, then stays open.
    Hold(Vec<String>),
    /// Sends these lines, then ends.
    End(Vec<String>),
    /// Answers this status.
    Refuse(u16),
}

/// A control plane in memory.
struct Control {
    scripts: Mutex<VecDeque<Script>>,
    seen: Mutex<Vec<String>>,
    acceptor: TlsAcceptor,
    root: String,
}

impl Control {
    fn new(scripts: impl IntoIterator<Item = Script>) -> Arc<Self> {
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new([NAME.to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        Arc::new(Self {
            scripts: Mutex::new(scripts.into_iter().collect()),
            seen: Mutex::default(),
            acceptor: TlsAcceptor::from(Arc::new(config)),
            root: authority.pem(),
        })
    }

    fn dial(self: &Arc<Self>) -> Dial {
        let control = Arc::clone(self);
        Arc::new(move |_| {
            let control = Arc::clone(&control);
            Box::pin(async move {
                let (ours, theirs) = tokio::io::duplex(64 << 10);
                tokio::spawn(control.serve(theirs));
                Ok(Box::new(ours) as BoxedStream)
            })
        })
    }

    async fn serve(self: Arc<Self>, stream: DuplexStream) {
        let Ok(stream) = self.acceptor.accept(stream).await else { return };
        let service = service_fn(|request| {
            let control = Arc::clone(&self);
            async move { Ok::<_, Infallible>(control.answer(request).await) }
        });
        http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await.ok();
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<BoxBody<Bytes, Infallible>> {
        let token = request.headers()["authorization"].to_str().unwrap().to_owned();
        let path = request.uri().path().to_owned();
        self.seen.lock().unwrap().push(format!("{path} {token}"));
        if path == NOTICE {
            let body = request.into_body().collect().await.unwrap().to_bytes();
            self.seen.lock().unwrap().push(String::from_utf8(body.to_vec()).unwrap());
            return Response::builder().status(204).body(Full::default().boxed()).unwrap();
        }
        if path == CERTIFICATE {
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let CertificateRequest { request } = serde_json::from_slice(&body).unwrap();
            let answer = CertificateResponse { chain: request, not_before: 1, not_after: 2 };
            return Response::new(Full::from(serde_json::to_vec(&answer).unwrap()).boxed());
        }
        if path == ENROL {
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let EnrolRequest { public_key } = serde_json::from_slice(&body).unwrap();
            let address = address::of_key(&address::parse_key(&public_key).unwrap());
            let answer = EnrolResponse { address, assertion: "first".into(), generation: 1 };
            return Response::new(Full::from(serde_json::to_vec(&answer).unwrap()).boxed());
        }
        let script = self.scripts.lock().unwrap().pop_front().unwrap_or(Script::Hold(vec![]));
        let (lines, hold) = match script {
            Script::Refuse(code) => {
                return Response::builder().status(code).body(Full::default().boxed()).unwrap();
            }
            Script::End(lines) => (lines, false),
            Script::Hold(lines) => (lines, true),
        };
        let lines = stream::iter(lines).map(|line| Ok(Frame::data(Bytes::from(line))));
        let rest = stream::pending().take(usize::from(hold));
        Response::new(BodyExt::boxed(StreamBody::new(lines.chain(rest))))
    }

    fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

struct Lab {
    agent: Agent,
    control: Arc<Control>,
    dir: tempfile::TempDir,
}

impl Lab {
    fn new(scripts: impl IntoIterator<Item = Script>) -> Self {
        let control = Control::new(scripts);
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("token"), "one\n").unwrap();
        let (agent, driver) = new(options(&control, dir.path())).unwrap();
        tokio::spawn(driver.run());
        Self { agent, control, dir }
    }

    async fn generation(&mut self, generation: u64) {
        let reached =
            |netmap: &Option<Arc<Netmap>>| netmap.as_ref().is_some_and(|n| n.generation == generation);
        eventually(&mut self.agent.netmap, reached).await;
    }

    async fn assertion(&mut self, text: &str) {
        eventually(&mut self.agent.assertion, |assertion| assertion.as_deref() == Some(text)).await;
    }
}

fn options(control: &Arc<Control>, dir: &Path) -> Options {
    let address =
        ControlAddress { name: NAME.into(), port: 8444, addresses: vec!["10.0.0.1".parse().unwrap()] };
    Options {
        control: address,
        roots: control.root.clone(),
        token: dir.join("token"),
        public_key: KEY.into(),
        cache: Some(dir.join("netmap.json")),
        dial: control.dial(),
        notices: None,
        certificates: None,
    }
}

async fn eventually<T>(receiver: &mut watch::Receiver<T>, holds: impl FnMut(&T) -> bool) {
    timeout(Duration::from_secs(600), receiver.wait_for(holds)).await.unwrap().unwrap();
}

fn netmap(generation: u64) -> String {
    let netmap = Netmap { generation, ..Netmap::default() };
    serde_json::to_string(&Update::Netmap(Box::new(netmap))).unwrap() + "\n"
}

fn assertion(text: &str) -> String {
    serde_json::to_string(&Update::Assertion(text.into())).unwrap() + "\n"
}

#[tokio::test(start_paused = true)]
async fn an_agent_enrols_once_and_follows() {
    let mut lab = Lab::new([Script::Hold(vec![netmap(1), assertion("second"), netmap(2)])]);
    lab.generation(2).await;
    lab.assertion("second").await;
    eventually(&mut lab.agent.link.clone(), |link| *link == Link::Following).await;
    assert_eq!(lab.control.seen(), ["/v1/enrol Bearer one", "/v1/netmap Bearer one"]);
}

#[tokio::test(start_paused = true)]
async fn a_certificate_is_asked_for_beside_the_stream_while_it_is_waited_for() {
    let control = Control::new([Script::Hold(vec![netmap(1)])]);
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("token"), "one\n").unwrap();
    let (give, certificates) = mpsc::channel(2);
    let (_agent, driver) =
        new(Options { certificates: Some(certificates), ..options(&control, dir.path()) }).unwrap();
    let order = |request: &[u8]| {
        let (answer, answered) = oneshot::channel();
        (CertificateOrder { request: request.to_vec(), answer }, answered)
    };
    let (first, left) = order(b"not waited for");
    drop(left);
    give.send(first).await.unwrap();
    let (second, answered) = order(b"request");
    give.send(second).await.unwrap();
    tokio::spawn(driver.run());
    let answer = timeout(Duration::from_secs(60), answered).await.unwrap().unwrap().unwrap();
    assert_eq!((answer.chain.as_str(), answer.not_before, answer.not_after), ("cmVxdWVzdA==", 1, 2));
    assert_eq!(control.seen().iter().filter(|line| line.starts_with(CERTIFICATE)).count(), 1);
}

#[tokio::test(start_paused = true)]
async fn notice_is_given_beside_the_stream() {
    let control = Control::new([Script::Hold(vec![netmap(1)])]);
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("token"), "one\n").unwrap();
    let (give, notices) = mpsc::channel(1);
    let (mut agent, driver) =
        new(Options { notices: Some(notices), ..options(&control, dir.path()) }).unwrap();
    tokio::spawn(driver.run());
    for notice in [Notice::NoGrant, Notice::Bypassed] {
        give.send(notice).await.unwrap();
    }
    eventually(&mut agent.netmap, Option::is_some).await;
    let told =
        || control.seen().iter().filter(|line| line.contains("notice\":")).cloned().collect::<Vec<_>>();
    timeout(Duration::from_secs(30), async {
        while told().len() < 2 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    // Each is a request of its own: two on one connection may be served in either order.
    let mut told = told();
    told.sort_unstable();
    assert_eq!(told, [r#"{"notice":"bypassed"}"#, r#"{"notice":"no-grant"}"#]);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_ends_is_opened_again_with_the_token_of_that_moment() {
    let mut lab = Lab::new([Script::End(vec![netmap(1)]), Script::Hold(vec![netmap(2)])]);
    lab.generation(1).await;
    std::fs::write(lab.dir.path().join("token"), "two\n").unwrap();
    lab.generation(2).await;
    assert_eq!(
        lab.control.seen(),
        ["/v1/enrol Bearer one", "/v1/netmap Bearer one", "/v1/netmap Bearer two"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_control_plane_that_forgot_the_key_is_told_it_again() {
    for (code, expected) in [(403, 2), (409, 2), (429, 1), (503, 1)] {
        let mut lab = Lab::new([Script::Refuse(code), Script::Hold(vec![netmap(3)])]);
        lab.generation(3).await;
        let enrolments = lab.control.seen().iter().filter(|line| line.starts_with(ENROL)).count();
        assert_eq!(enrolments, expected, "{code}");
    }
}

#[tokio::test(start_paused = true)]
async fn lines_that_cannot_be_read_are_left_out_and_too_long_ones_end_the_stream() {
    let strange = vec!["{\"news\":1}\n".to_owned(), netmap(1)];
    let endless = vec!["x".repeat(podwitness_core::control::MAX_LINE + 1)];
    let mut lab = Lab::new([Script::Hold(strange), Script::Hold(endless), Script::Hold(vec![netmap(2)])]);
    lab.generation(1).await;
    lab.generation(2).await;
}

#[tokio::test(start_paused = true)]
async fn a_silent_stream_is_given_up() {
    let mut lab = Lab::new([Script::Hold(vec![netmap(1)]), Script::Hold(vec![netmap(2)])]);
    lab.generation(2).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_known_outlives_a_restart_without_control_plane() {
    let mut lab = Lab::new([Script::Hold(vec![netmap(5), assertion("kept")])]);
    lab.assertion("kept").await;
    let restarted = || new(options(&lab.control, lab.dir.path())).unwrap().0;
    // It is kept on a thread for files, after it is known.
    let is_kept = async {
        loop {
            let agent = restarted();
            if agent.assertion.borrow().as_deref() == Some("kept") {
                break agent;
            }
            sleep(Duration::from_millis(10)).await;
        }
    };
    let agent = timeout(Duration::from_secs(600), is_kept).await.unwrap();
    assert!(lab.dir.path().join("netmap.json").exists());
    assert_eq!(agent.netmap.borrow().as_ref().unwrap().generation, 5);
    assert_eq!(*agent.link.borrow(), Link::Offline);
}

#[tokio::test(start_paused = true)]
async fn a_server_under_another_root_or_name_is_not_believed() {
    let (control, stranger) = (Control::new([]), Control::new([]));
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("token"), "one").unwrap();
    let other_name = |mut options: Options| {
        options.control.name = "podwitness-control.elsewhere.svc".into();
        options
    };
    let wrong_root = Options { roots: stranger.root.clone(), ..options(&control, dir.path()) };
    for options in [wrong_root, other_name(options(&control, dir.path()))] {
        let (agent, driver) = new(options).unwrap();
        assert!(timeout(Duration::from_secs(300), driver.run()).await.is_err());
        assert_eq!(*agent.link.borrow(), Link::Offline);
    }
    assert_eq!(control.seen(), Vec::<String>::new());
}

#[tokio::test]
async fn what_can_never_work_is_refused_at_the_start() {
    let control = Control::new([]);
    let base = || options(&control, Path::new("/nowhere"));
    assert!(matches!(new(Options { roots: String::new(), ..base() }), Err(AgentError::Roots)));
    assert!(matches!(new(Options { public_key: "short".into(), ..base() }), Err(AgentError::Key(_))));
    let mut nameless = base();
    nameless.control.name = "no name".into();
    assert!(matches!(new(nameless), Err(AgentError::Name(_))));
}
