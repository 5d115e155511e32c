//! An API server of three answers: a small object, a watch that says one thing, and a command with much output.

use std::{convert::Infallible, io, sync::LazyLock, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http_body_util::{BodyExt, StreamBody};
use hyper::{
    Request, Response,
    body::{Frame, Incoming},
    header::{AUTHORIZATION, CONNECTION, CONTENT_TYPE, HeaderMap, HeaderValue, UPGRADE},
    upgrade::{self, OnUpgrade},
};
use hyper_util::rt::TokioIo;
use podwitness_lab::https::{Body, full};
use podwitness_wire::ws::{Opcode, close, encode};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, sink},
    time::timeout,
};

/// Output in one frame, as the API server passes it on.
const FRAME: usize = 4 << 10;
/// Text that is different throughout.
const TEXT: usize = 4 << 20;
const STDOUT: u8 = 1;
const STATUS: u8 = 3;
/// How long a client may take to hang up.
const FAREWELL: Duration = Duration::from_secs(5);

/// A log such as commands show, of which no line is like another.
static LOG: LazyLock<Bytes> = LazyLock::new(|| {
    let (mut text, mut state) = (Vec::with_capacity(TEXT), 1_u64);
    while text.len() < TEXT {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let [pod, code, took, ..] = state.to_be_bytes();
        let line = format!(
            "2026-01-02T03:04:05.{pod:03}Z INFO request served path=/api/v1/namespaces/shop/pods/till-{:08x} code={} took={took}ms\n",
            state >> 32,
            200 + u32::from(code) % 8,
        );
        text.extend(line.into_bytes());
    }
    text.into()
});

static OBJECT: LazyLock<Bytes> = LazyLock::new(|| {
    let metadata = json!({"name": "prices", "namespace": "shop", "uid": "9c5c6b0e-7f0c-4b39-9d3c-5e3a5e0f7a11",
        "resourceVersion": "184467", "creationTimestamp": "2026-01-02T03:04:05Z", "labels": {"app": "till"}});
    let object = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": metadata,
        "data": {"currency": "EUR", "vat": "19", "note": "text ".repeat(60)}});
    object.to_string().into()
});

pub async fn answer(mut request: Request<Incoming>) -> Response<Body> {
    let query = request.uri().query().unwrap_or_default().to_owned();
    let value = |key: &str| query.split('&').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='));
    if request.uri().path().ends_with("/selfsubjectreviews") {
        return json_answer(review(request.headers()).to_string());
    }
    if request.headers().contains_key(UPGRADE) {
        let bytes = value("bytes").and_then(|bytes| bytes.parse().ok()).unwrap_or_default();
        tokio::spawn(command(upgrade::on(&mut request), bytes));
        return switched();
    }
    if value("watch").is_some() {
        let line = json!({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "184467"}}});
        let line = stream::iter([Ok::<_, Infallible>(Frame::data(Bytes::from(format!("{line}\n"))))]);
        let body = StreamBody::new(line.chain(stream::pending()));
        let mut answer = Response::new(BodyExt::boxed(body));
        answer.headers_mut().insert(CONTENT_TYPE, media_type());
        return answer;
    }
    json_answer(OBJECT.clone())
}

fn media_type() -> HeaderValue {
    HeaderValue::from_static("application/json")
}

fn json_answer(body: impl Into<Bytes>) -> Response<Body> {
    let mut answer = Response::new(full(body));
    answer.headers_mut().insert(CONTENT_TYPE, media_type());
    answer
}

/// Everybody is who his token says.
fn review(headers: &HeaderMap) -> Value {
    let token = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let token = token.strip_prefix("Bearer ").unwrap_or_default();
    json!({"kind": "SelfSubjectReview", "apiVersion": "authentication.k8s.io/v1", "status": {"userInfo": {
        "username": format!("system:serviceaccount:shop:{token}"),
        "groups": ["system:serviceaccounts", "system:serviceaccounts:shop", "system:authenticated"]}}})
}

fn switched() -> Response<Body> {
    let mut answer = Response::new(full(""));
    *answer.status_mut() = hyper::StatusCode::SWITCHING_PROTOCOLS;
    let headers = answer.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert("sec-websocket-accept", HeaderValue::from_static("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    headers.insert("sec-websocket-protocol", HeaderValue::from_static("v5.channel.k8s.io"));
    answer
}

/// A command that says so many bytes and ends well.
async fn command(upgraded: OnUpgrade, bytes: usize) {
    let Ok(upgraded) = upgraded.await else { return };
    // Whoever reads no further has seen what it wanted.
    let _ = speak(TokioIo::new(upgraded), bytes).await;
}

async fn speak(mut session: impl AsyncRead + AsyncWrite + Unpin, bytes: usize) -> io::Result<()> {
    let mut left = bytes;
    for piece in LOG.chunks(FRAME).cycle() {
        let piece = piece.get(..left.min(piece.len())).unwrap_or_default();
        if piece.is_empty() {
            break;
        }
        session.write_all(&encode(Opcode::Binary, &[&[STDOUT], piece].concat(), None)).await?;
        left -= piece.len();
    }
    let status = [&[STATUS][..], br#"{"metadata":{},"status":"Success"}"#].concat();
    session.write_all(&encode(Opcode::Binary, &status, None)).await?;
    session.write_all(&close(1000, "")).await?;
    session.shutdown().await?;
    // What comes too late is an end too.
    drop(timeout(FAREWELL, tokio::io::copy(&mut session, &mut sink())).await);
    Ok(())
}
