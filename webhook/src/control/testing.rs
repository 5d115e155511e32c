//! An API server for tests: fixed answers by method and path, 404 for everything else, and a memory of what was asked.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use http::StatusCode;
use kube::Client;
use serde_json::{Value, json};

/// The API server; clones are the same.
#[derive(Clone, Default)]
pub struct Api(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    answers: HashMap<(String, String), (u16, Value)>,
    asked: Vec<(String, String, Value)>,
}

impl Api {
    /// From now on answers so, with 200.
    pub fn answer(&self, method: &str, path: &str, body: Value) {
        self.answer_with(method, path, 200, body);
    }

    /// From now on answers so.
    pub fn answer_with(&self, method: &str, path: &str, code: u16, body: Value) {
        self.inner().answers.insert((method.into(), path.into()), (code, body));
    }

    /// From now on answers 404.
    pub fn forget(&self, method: &str, path: &str) {
        self.inner().answers.remove(&(method.into(), path.into()));
    }

    /// How often the path was asked for.
    pub fn count(&self, path: &str) -> usize {
        self.inner().asked.iter().filter(|(_, asked, _)| asked == path).count()
    }

    /// Bodies of the requests to a path.
    pub fn bodies(&self, method: &str, path: &str) -> Vec<Value> {
        let inner = self.inner();
        let asked = inner.asked.iter().filter(|(m, p, _)| m == method && p == path);
        asked.map(|(_, _, body)| body.clone()).collect()
    }

    /// A client of it.
    pub fn client(&self) -> Client {
        let router: Router = Router::new().fallback(respond).with_state(self.clone());
        Client::new(router, "default")
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }
}

async fn respond(State(api): State<Api>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, 1 << 20).await.unwrap();
    let key = (parts.method.to_string(), parts.uri.path().to_owned());
    let mut inner = api.inner();
    inner.asked.push((key.0.clone(), key.1.clone(), serde_json::from_slice(&body).unwrap_or_default()));
    let missing = || (404, status(404, "NotFound"));
    let (code, body) = inner.answers.get(&key).cloned().unwrap_or_else(missing);
    (StatusCode::from_u16(code).unwrap(), Body::from(body.to_string())).into_response()
}

/// A failure as the API server reports it.
pub fn status(code: u16, reason: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": reason,
        "reason": reason, "code": code})
}
