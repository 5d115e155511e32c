//! What the cluster says: grants and recorders, the namespace and the pod.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use k8s_openapi::api::core::v1::{self, Namespace};
use kube::{Api, Client, Config, Resource, ResourceExt as _, api::ListParams, config::KubeConfigOptions};
use podwitness_core::{
    allow::Allow,
    grant,
    inject::{self, Inject},
    labels,
};
use podwitness_crd::{Grant, Recorder};
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::Pod;

/// For each request to the API server.
const LIMIT: Duration = Duration::from_secs(30);
/// Objects of one answer of the API server, and how many there may be at all.
const PAGE: u32 = 500;
const MAX_OBJECTS: usize = 10_000;

/// What has to be known of the cluster.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// All grants.
    pub grants: Vec<grant::Grant>,
    /// All recorders.
    pub recorders: Vec<Recorder>,
    /// Grant tags of the namespace, without prefix.
    pub tags: Vec<String>,
    /// The namespace's label that asks for injection.
    pub inject: Option<String>,
    /// What the namespace accepts beyond Pod Security baseline.
    pub allow: Vec<String>,
    /// The pod, if there is one of this name.
    pub pod: Option<PodFacts>,
    /// What could not be found out.
    pub unknown: Vec<String>,
}

/// What a pod is like.
#[derive(Clone, Copy, Debug, Default)]
pub struct PodFacts {
    /// Whether it has the sidecar.
    pub witnessed: bool,
}

impl Facts {
    /// What the namespace accepts of its pods beyond the baseline, if it holds them to it.
    #[must_use]
    pub fn accepted(&self) -> &[String] {
        if self.inject.as_deref() == Some(Inject::Required.as_str()) { &self.allow } else { &[] }
    }

    /// Asks the cluster of the kubeconfig.
    ///
    /// # Errors
    /// Where grants, recorders or the namespace cannot be read.
    pub async fn read(context: Option<&str>, pod: &Pod) -> Result<Self> {
        let options = KubeConfigOptions { context: context.map(ToOwned::to_owned), ..Default::default() };
        let config = match context {
            Some(_) => Config::from_kubeconfig(&options).await?,
            None => Config::infer().await.context("there is neither a kubeconfig nor a service account")?,
        };
        let client = Client::try_from(config)?;
        let grants: Vec<Grant> = all(&client, "grants.podwitness.dev").await?;
        let recorders = all(&client, "recorders.podwitness.dev").await?;
        let api: Api<Namespace> = Api::all(client.clone());
        let what = || format!("cannot read namespace {}", pod.namespace);
        let namespace = within(api.get_opt(&pod.namespace)).await.with_context(what)?;
        let Some(namespace) = namespace else { bail!("there is no namespace {}", pod.namespace) };
        let mut facts = Self {
            grants: grants.iter().map(Grant::named).collect(),
            recorders,
            tags: tags(&namespace),
            inject: namespace.labels().get(labels::INJECT).cloned(),
            allow: allowed(&namespace),
            ..Self::default()
        };
        let api: Api<v1::Pod> = Api::namespaced(client, &pod.namespace);
        match within(api.get_opt(&pod.name)).await {
            Ok(found) => facts.pod = found.as_ref().map(PodFacts::of),
            Err(error) => facts.unknown.push(format!("whether the pod is there: {error:#}")),
        }
        Ok(facts)
    }
}

impl PodFacts {
    fn of(pod: &v1::Pod) -> Self {
        let spec = pod.spec.as_ref();
        let mut first = spec.iter().flat_map(|spec| spec.init_containers.iter().flatten());
        Self { witnessed: first.any(|container| container.name == inject::CONTAINER) }
    }
}

fn tags(namespace: &Namespace) -> Vec<String> {
    let keys = namespace.labels().keys();
    keys.filter_map(|key| key.strip_prefix(labels::TAG_PREFIX)).map(ToOwned::to_owned).collect()
}

fn allowed(namespace: &Namespace) -> Vec<String> {
    let (allow, _) = Allow::parse(namespace.annotations().get(labels::ALLOW).map_or("", String::as_str));
    allow.items().iter().map(ToString::to_string).collect()
}

async fn all<K>(client: &Client, what: &str) -> Result<Vec<K>>
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned,
{
    let api: Api<K> = Api::all(client.clone());
    let mut params = ListParams::default().limit(PAGE);
    let mut found = Vec::new();
    loop {
        let page = within(api.list(&params)).await.with_context(|| format!("cannot list {what}"))?;
        found.extend(page.items);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(_) if found.len() >= MAX_OBJECTS => bail!("there are more than {MAX_OBJECTS} {what}"),
            Some(token) => params = params.continue_token(&token),
            None => return Ok(found),
        }
    }
}

async fn within<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T> {
    Ok(timeout(LIMIT, request).await.context("the API server does not answer")??)
}
