//! One HTTP/2 connection to the control API: enrolment and the netmap stream on it.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, header};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::{
    body::Incoming,
    client::conn::http2::{self, SendRequest},
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use podwitness_core::{
    control::{
        CERTIFICATE, CertificateRequest, CertificateResponse, ENROL, EnrolRequest, EnrolResponse, MAX_LINE,
        NETMAP, NOTICE, Notice, NoticeRequest, Update,
    },
    inject::ControlAddress,
    status::Status,
};
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{io::AsyncReadExt as _, net::lookup_host, time::timeout};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::task::AbortOnDropHandle;

use crate::{AgentError, BoxedStream, Dial, lines::Lines};

/// For one address, TCP and TLS each.
const CONNECT: Duration = Duration::from_secs(5);
/// For the answer to a request, up to its headers, and for an enrolment as a whole.
const ANSWER: Duration = Duration::from_secs(15);
/// For a certificate: the control plane gives its signer half of it.
const CERTIFIED: Duration = Duration::from_secs(30);
/// Longest silence of the stream; the control plane sends [`Update::Alive`] well within it.
const SILENCE: Duration = Duration::from_secs(60);
/// Cap on an answer that is not the stream.
const MAX_BODY: usize = 64 << 10;
/// Cap on a token; the projected ones have about a kilobyte.
const MAX_TOKEN: u64 = 16 << 10;

/// An open connection; closed when dropped.
pub(crate) struct Client {
    requests: Requests,
    _connection: AbortOnDropHandle<()>,
}

/// Where requests are made. Clones are the same.
#[derive(Clone)]
struct Requests {
    sender: SendRequest<Full<Bytes>>,
    authority: String,
    token: PathBuf,
}

impl Client {
    /// Connects to the first address that answers.
    pub(crate) async fn connect(
        control: &ControlAddress,
        tls: Arc<ClientConfig>,
        token: PathBuf,
        dial: &Dial,
    ) -> Result<Self, AgentError> {
        let stream = open(control, TlsConnector::from(tls), dial).await?;
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(Duration::from_secs(30))
            .keep_alive_timeout(Duration::from_secs(15))
            .handshake(TokioIo::new(stream))
            .await?;
        // How it ended is told to whoever waits for an answer.
        let connection = tokio::spawn(async move { drop(connection.await) });
        let authority = format!("{}:{}", control.name, control.port);
        let requests = Requests { sender, authority, token };
        Ok(Self { requests, _connection: AbortOnDropHandle::new(connection) })
    }

    /// Enrols `public_key`.
    pub(crate) async fn enrol(&mut self, public_key: &str) -> Result<EnrolResponse, AgentError> {
        let body = serde_json::to_vec(&EnrolRequest { public_key: public_key.to_owned() })?;
        let exchange = async {
            let answer = self.requests.send(Method::POST, ENROL, body.into()).await?;
            Ok(serde_json::from_slice(&read_body(answer).await?)?)
        };
        within(ANSWER, exchange).await
    }

    /// Opens the netmap stream.
    pub(crate) async fn follow(&mut self) -> Result<Updates, AgentError> {
        let answer = within(ANSWER, self.requests.send(Method::GET, NETMAP, Bytes::new())).await?;
        Ok(Updates { body: answer.into_body(), lines: Lines::new(MAX_LINE) })
    }

    /// Asks for a certificate, beside whatever else is asked; `request` is PKCS#10 in DER.
    pub(crate) fn certify(
        &self,
        request: &[u8],
    ) -> impl Future<Output = Result<CertificateResponse, AgentError>> + Send + use<> {
        let mut requests = self.requests.clone();
        let request = CertificateRequest { request: STANDARD.encode(request) };
        let exchange = async move {
            let body = serde_json::to_vec(&request)?;
            let answer = requests.send(Method::POST, CERTIFICATE, body.into()).await?;
            Ok(serde_json::from_slice(&read_body(answer).await?)?)
        };
        within(CERTIFIED, exchange)
    }

    /// Gives notice, beside whatever else is asked.
    pub(crate) fn notify(
        &self,
        notice: Notice,
    ) -> impl Future<Output = Result<(), AgentError>> + Send + use<> {
        let mut requests = self.requests.clone();
        let exchange = async move {
            let body = serde_json::to_vec(&NoticeRequest { notice })?;
            requests.send(Method::POST, NOTICE, body.into()).await.map(drop)
        };
        within(ANSWER, exchange)
    }
}

impl Requests {
    async fn send(
        &mut self,
        method: Method,
        path: &'static str,
        body: Bytes,
    ) -> Result<Response<Incoming>, AgentError> {
        let request = Request::builder()
            .method(method)
            .uri(format!("https://{}{path}", self.authority))
            .header(header::AUTHORIZATION, bearer(&self.token).await?)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))?;
        self.sender.ready().await?;
        let answer = self.sender.send_request(request).await?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let code = answer.status().as_u16();
        let message = read_body(answer).await.map(|body| message_of(&body)).unwrap_or_default();
        Err(AgentError::Refused { path, code, message })
    }
}

/// The lines of a netmap stream.
pub(crate) struct Updates {
    body: Incoming,
    lines: Lines,
}

impl Updates {
    /// The next update; `None` where the control plane ended the stream in order.
    pub(crate) async fn next(&mut self) -> Result<Option<Update>, AgentError> {
        within(SILENCE, self.next_line()).await
    }

    async fn next_line(&mut self) -> Result<Option<Update>, AgentError> {
        loop {
            if let Some(line) = self.lines.next_line()? {
                match serde_json::from_slice(&line) {
                    Ok(update) => return Ok(Some(update)),
                    // A newer control plane may say things that we do not know.
                    Err(error) => tracing::warn!(%error, "a line of the netmap stream is left out"),
                }
                continue;
            }
            let Some(frame) = self.body.frame().await else { return Ok(None) };
            if let Ok(data) = frame?.into_data() {
                self.lines.feed(&data);
            }
        }
    }
}

async fn open(
    control: &ControlAddress,
    tls: TlsConnector,
    dial: &Dial,
) -> Result<TlsStream<BoxedStream>, AgentError> {
    let mut last = AgentError::NoAddress(control.name.clone());
    for address in addresses(control).await? {
        match open_one(control, address, &tls, dial).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn open_one(
    control: &ControlAddress,
    address: SocketAddr,
    tls: &TlsConnector,
    dial: &Dial,
) -> Result<TlsStream<BoxedStream>, AgentError> {
    let name =
        ServerName::try_from(control.name.clone()).map_err(|_| AgentError::Name(control.name.clone()))?;
    let late = |_| std::io::Error::from(std::io::ErrorKind::TimedOut);
    let stream = timeout(CONNECT, dial(address))
        .await
        .unwrap_or_else(|elapsed| Err(late(elapsed)))
        .map_err(|source| AgentError::Dial { address, source })?;
    timeout(CONNECT, tls.connect(name, stream))
        .await
        .unwrap_or_else(|elapsed| Err(late(elapsed)))
        .map_err(|source| AgentError::Tls { address, source })
}

async fn addresses(control: &ControlAddress) -> Result<Vec<SocketAddr>, AgentError> {
    if !control.addresses.is_empty() {
        return Ok(control.addresses.iter().map(|ip| SocketAddr::new(*ip, control.port)).collect());
    }
    let resolved = timeout(CONNECT, lookup_host((control.name.as_str(), control.port)))
        .await
        .unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()));
    let resolved = resolved.map_err(|source| AgentError::Resolve { name: control.name.clone(), source })?;
    Ok(resolved.collect())
}

/// The token as a header value that logs mask.
async fn bearer(path: &Path) -> Result<HeaderValue, AgentError> {
    let unreadable = |source| AgentError::Token { path: path.to_owned(), source };
    let file = tokio::fs::File::open(path).await.map_err(unreadable)?;
    let mut token = String::new();
    file.take(MAX_TOKEN).read_to_string(&mut token).await.map_err(unreadable)?;
    let token = token.trim();
    let value = HeaderValue::try_from(format!("Bearer {token}"));
    let Some(mut value) = value.ok().filter(|_| !token.is_empty()) else {
        return Err(AgentError::TokenForm(path.to_owned()));
    };
    value.set_sensitive(true);
    Ok(value)
}

async fn read_body(answer: Response<Incoming>) -> Result<Bytes, AgentError> {
    let body = Limited::new(answer.into_body(), MAX_BODY).collect().await;
    body.map(http_body_util::Collected::to_bytes).map_err(|error| match error.downcast::<hyper::Error>() {
        Ok(error) => AgentError::Http(*error),
        Err(error) => {
            debug_assert!(error.is::<LengthLimitError>());
            AgentError::TooLong(MAX_BODY)
        }
    })
}

/// What a refusal says, short enough for a log line.
fn message_of(body: &[u8]) -> String {
    let message = serde_json::from_slice::<Status>(body).map(|status| status.message);
    message.unwrap_or_else(|_| String::from_utf8_lossy(body).into_owned()).chars().take(300).collect()
}

async fn within<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, AgentError>>,
) -> Result<T, AgentError> {
    timeout(limit, work).await.unwrap_or(Err(AgentError::Silence(limit.as_secs())))
}
