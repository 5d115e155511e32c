//! What a namespace says about the pods in it.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use podwitness_core::{
    allow::Allow,
    exempt,
    inject::{Credentials, Inject, Profile},
    labels,
};

use super::refusal::{Reason, Refusal};

/// Labels and annotations of a namespace, read.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Namespace {
    inject: Option<String>,
    profile: Option<String>,
    credentials: Option<String>,
    /// Label that lets its pods read metrics.
    pub(super) metrics: Option<String>,
    /// Tags by which grants name it, without prefix.
    pub(super) tags: Vec<String>,
    /// Annotations in our domain.
    pub(super) annotations: BTreeMap<String, String>,
}

impl Namespace {
    /// Keeps what matters here.
    pub(super) fn read(meta: &ObjectMeta) -> Self {
        let label = |key: &str| meta.labels.as_ref()?.get(key).cloned();
        let tags = meta.labels.iter().flatten().filter_map(|(key, _)| key.strip_prefix(labels::TAG_PREFIX));
        let annotations = meta.annotations.iter().flatten();
        Self {
            inject: label(labels::INJECT),
            profile: label(labels::PROFILE),
            credentials: label(labels::CREDENTIALS),
            metrics: label(labels::METRICS),
            tags: tags.map(ToOwned::to_owned).collect(),
            annotations: annotations
                .filter(|(key, _)| key.split('/').next() == Some(labels::DOMAIN))
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect(),
        }
    }

    /// Whether and how binding injection is asked for. An unknown value is taken for the stricter one: the policy on
    /// namespaces refuses it, and who gets past that asked for something.
    pub(super) fn inject(&self) -> Option<Inject> {
        self.inject.as_deref().map(|text| Inject::parse(text).unwrap_or(Inject::Required))
    }

    /// What is accepted beyond the baseline where injection is required, and the items that are not understood.
    pub(super) fn allow(&self) -> (Allow, Vec<String>) {
        Allow::parse(self.annotations.get(labels::ALLOW).map_or("", String::as_str))
    }

    /// Whether these labels mean the same to injection and to grants.
    pub(super) fn is_meant_as(&self, other: &Self) -> bool {
        let (mut tags, mut others) = (self.tags.clone(), other.tags.clone());
        tags.sort_unstable();
        others.sort_unstable();
        self.inject == other.inject && tags == others
    }

    /// How connections are intercepted.
    pub(super) fn profile(&self) -> Result<Profile, Refusal> {
        known(self.profile.as_deref(), labels::PROFILE, Profile::parse)
    }

    /// What containers hold as token.
    pub(super) fn credentials(&self) -> Result<Credentials, Refusal> {
        known(self.credentials.as_deref(), labels::CREDENTIALS, Credentials::parse)
    }

    /// Whether pods with these labels are left out ([`exempt`]).
    pub(super) fn exempts<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.annotations.get(labels::EXEMPT).is_some_and(|annotation| exempt::exempts(annotation, label))
    }
}

fn known<T: Default>(
    value: Option<&str>,
    key: &str,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<T, Refusal> {
    let Some(value) = value else { return Ok(T::default()) };
    parse(value).ok_or_else(|| {
        Reason::Unavailable.because(format!("namespace label {key}={value} is not known to this version"))
    })
}

#[cfg(test)]
mod tests;
