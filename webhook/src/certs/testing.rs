//! An API server in memory that knows Secrets and one webhook configuration, and a TLS verifier.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use kube::Client;
use rustls::{
    RootCertStore,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier as _},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject as _},
};
use serde_json::{Value, json};

#[derive(Default)]
pub(super) struct Stored {
    pub(super) secrets: BTreeMap<String, Value>,
    pub(super) webhooks: Option<Value>,
    /// Who writes is told of a conflict this many times, after the content was changed as if by another replica.
    pub(super) conflicts: u32,
    version: u64,
}

/// Shared with the fake server.
#[derive(Clone, Default)]
pub(super) struct Cluster(pub(super) Arc<Mutex<Stored>>);

impl Cluster {
    pub(super) fn client(&self) -> Client {
        let secrets = "/api/v1/namespaces/{ns}/secrets";
        let webhooks = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/{name}";
        let router = Router::new()
            .route(secrets, axum::routing::post(create))
            .route(&format!("{secrets}/{{name}}"), get(read).put(replace))
            .route(webhooks, get(read_webhooks).patch(patch_webhooks))
            .with_state(self.clone());
        Client::new(router, "default")
    }

    /// The text under `entry` of a Secret.
    pub(super) fn entry(&self, secret: &str, entry: &str) -> String {
        use base64::Engine as _;
        let stored = self.0.lock().unwrap();
        let text = stored.secrets[secret]["data"][entry].as_str().unwrap();
        String::from_utf8(base64::engine::general_purpose::STANDARD.decode(text).unwrap()).unwrap()
    }
}

fn failure(code: StatusCode) -> Response {
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "",
        "reason": code.canonical_reason().unwrap().replace(' ', ""), "code": code.as_u16()});
    (code, Json(status)).into_response()
}

fn store(stored: &mut Stored, name: &str, mut secret: Value) -> Response {
    stored.version += 1;
    secret["metadata"]["resourceVersion"] = json!(stored.version.to_string());
    stored.secrets.insert(name.to_owned(), secret.clone());
    Json(secret).into_response()
}

async fn read(State(cluster): State<Cluster>, Path((_, name)): Path<(String, String)>) -> Response {
    match cluster.0.lock().unwrap().secrets.get(&name) {
        Some(secret) => Json(secret.clone()).into_response(),
        None => failure(StatusCode::NOT_FOUND),
    }
}

async fn create(State(cluster): State<Cluster>, Json(secret): Json<Value>) -> Response {
    let mut stored = cluster.0.lock().unwrap();
    let name = secret["metadata"]["name"].as_str().unwrap().to_owned();
    if stored.secrets.contains_key(&name) {
        return failure(StatusCode::CONFLICT);
    }
    store(&mut stored, &name, secret)
}

async fn replace(
    State(cluster): State<Cluster>,
    Path((_, name)): Path<(String, String)>,
    Json(secret): Json<Value>,
) -> Response {
    let mut stored = cluster.0.lock().unwrap();
    let current = stored.secrets[&name]["metadata"]["resourceVersion"].clone();
    if stored.conflicts > 0 || secret["metadata"]["resourceVersion"] != current {
        stored.conflicts = stored.conflicts.saturating_sub(1);
        return failure(StatusCode::CONFLICT);
    }
    store(&mut stored, &name, secret)
}

async fn read_webhooks(State(cluster): State<Cluster>) -> Response {
    match &cluster.0.lock().unwrap().webhooks {
        Some(configuration) => Json(configuration.clone()).into_response(),
        None => failure(StatusCode::NOT_FOUND),
    }
}

/// The part of a strategic merge that matters: entries are merged by name.
async fn patch_webhooks(State(cluster): State<Cluster>, body: String) -> Response {
    let patch: Value = serde_json::from_str(&body).unwrap();
    let mut stored = cluster.0.lock().unwrap();
    let configuration = stored.webhooks.as_mut().unwrap();
    for entry in patch["webhooks"].as_array().unwrap() {
        let entries = configuration["webhooks"].as_array_mut().unwrap();
        let target = entries.iter_mut().find(|target| target["name"] == entry["name"]).unwrap();
        target["clientConfig"]["caBundle"] = entry["clientConfig"]["caBundle"].clone();
    }
    Json(configuration.clone()).into_response()
}

/// Whether a client that trusts `roots` would accept `chain` for `host` at `now`.
pub(super) fn accepts(roots: &str, chain: &str, host: &str, now: i64) -> Result<(), rustls::Error> {
    let mut store = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(roots.as_bytes()) {
        store.add(root.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider).build().unwrap();
    let chain: Vec<CertificateDer<'_>> =
        CertificateDer::pem_slice_iter(chain.as_bytes()).map(Result::unwrap).collect();
    let time = UnixTime::since_unix_epoch(std::time::Duration::from_secs(now.try_into().unwrap()));
    let host = ServerName::try_from(host.to_owned()).unwrap();
    verifier.verify_server_cert(&chain[0], &chain[1..], &host, &[], time).map(|_| ())
}
