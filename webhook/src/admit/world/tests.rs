use k8s_openapi::{
    api::core::v1::ServicePort, api::core::v1::ServiceSpec, apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::runtime::watcher::Event;
use podwitness_core::trust::TrustSetting;
use serde_json::json;

use super::*;
use crate::{
    admit::testing::{pod, with},
    config::AdmitConfig,
};

/// A world that knows one namespace, these grants, and everything else that it needs.
pub(in crate::admit) fn world(namespace: &str, labels: &[(&str, &str)], grants: &[Value]) -> World {
    let env =
        |name: &str| (name == "PODWITNESS_SIDECAR_IMAGE").then(|| "podwitness.dev/sidecar:dev".to_owned());
    let (_, roots) = watch::channel(Some(Arc::from("-----BEGIN CERTIFICATE-----\n")));
    let world = World::new(AdmitConfig::read(&env).unwrap(), roots, None);
    let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let metadata =
        ObjectMeta { name: Some(namespace.to_owned()), labels: Some(labels), ..ObjectMeta::default() };
    let object = v1::Namespace { metadata, ..v1::Namespace::default() };
    world.namespaces.take(Event::Apply(object), |namespace| Namespace::read(&namespace.metadata));
    for (index, spec) in grants.iter().enumerate() {
        let object: Grant =
            serde_json::from_value(json!({"apiVersion": "podwitness.dev/v1alpha1", "kind": "Grant",
            "metadata": {"name": format!("g{index}")}, "spec": spec}))
            .unwrap();
        world.grants.take(Event::Apply(object), |grant| grant.spec.0.clone());
    }
    world.control.send_replace(world.address(&service(&["10.96.3.4"])));
    world
}

fn service(addresses: &[&str]) -> Service {
    let spec = ServiceSpec {
        cluster_ips: Some(addresses.iter().map(|address| (*address).to_owned()).collect()),
        ports: Some(vec![ServicePort { port: 9444, ..ServicePort::default() }]),
        ..ServiceSpec::default()
    };
    Service { spec: Some(spec), ..Service::default() }
}

fn grant(dst: &str, enforce: bool) -> Value {
    json!({"src": ["*"], "dst": [dst],
        "app": {"tailscale.com/cap/kubernetes": [{"recorder": ["tag:x"], "enforceRecorder": enforce}]}})
}

/// A grant that asks for events.
fn events(dst: &str, enforce: bool, default: bool) -> Value {
    let rule = json!({"recorder": ["tag:x"], "enforceRecorder": enforce, "enableEvents": true});
    json!({"src": ["*"], "dst": [dst], "default": default, "app": {"tailscale.com/cap/kubernetes": [rule]}})
}

async fn settings(world: &World, pod: &Value) -> Settings {
    let namespace = world.namespace("shop").await.unwrap();
    world.settings(&namespace, "shop", pod, Inject::Required).unwrap()
}

#[tokio::test]
async fn a_pod_that_a_closed_grant_means_is_stamped_closed() {
    let tagged: &[(&str, &str)] = &[("tag.podwitness.dev/payments", "")];
    let unnamed = with(pod(), "/metadata", json!({"generateName": "x-"}));
    for (grants, pod, expected) in [
        (vec![], pod(), UntilNetmap::Open),
        (vec![grant("*", false)], pod(), UntilNetmap::Open),
        (vec![grant("*", false), grant("namespace:shop", true)], pod(), UntilNetmap::Closed),
        (vec![grant("namespace:other", true)], pod(), UntilNetmap::Open),
        (vec![grant("tag:payments", true)], pod(), UntilNetmap::Closed),
        (vec![grant("pod:shop/other", true)], pod(), UntilNetmap::Open),
        (vec![grant("pod:shop/other", true)], unnamed, UntilNetmap::Closed),
        (vec![events("*", false, false)], pod(), UntilNetmap::Open),
        (vec![events("*", true, false)], pod(), UntilNetmap::ClosedToAll),
        (vec![events("*", false, false), grant("namespace:shop", true)], pod(), UntilNetmap::ClosedToAll),
        (vec![events("*", false, true), grant("namespace:shop", true)], pod(), UntilNetmap::Closed),
        (vec![events("namespace:other", true, false), grant("*", true)], pod(), UntilNetmap::Closed),
    ] {
        let world = world("shop", tagged, &grants);
        assert_eq!(settings(&world, &pod).await.until_netmap, expected, "{grants:?}");
    }
}

#[tokio::test]
async fn a_sidecar_expects_a_certificate_where_installation_and_namespace_say_so() {
    for (setting, annotation, inject, expected) in [
        (TrustSetting::Pod, Some("cluster"), Inject::Required, Trust::Pod),
        (TrustSetting::Namespace, None, Inject::Required, Trust::Pod),
        (TrustSetting::Namespace, Some("cluster"), Inject::Optional, Trust::Cluster),
        (TrustSetting::Cluster, None, Inject::Required, Trust::Cluster),
        (TrustSetting::Cluster, Some("what"), Inject::Required, Trust::Cluster),
        (TrustSetting::Cluster, Some("pod"), Inject::Required, Trust::Pod),
        (TrustSetting::Cluster, None, Inject::Optional, Trust::Pod),
    ] {
        let mut world = world("shop", &[], &[]);
        world.config.common.trust = setting;
        let mut namespace = (*world.namespace("shop").await.unwrap()).clone();
        let annotation = annotation.map(|value| (labels::TRUST.to_owned(), value.to_owned()));
        namespace.annotations.extend(annotation.clone());
        let settings = world.settings(&namespace, "shop", &pod(), inject).unwrap();
        assert_eq!(settings.trust, expected, "{setting:?} {annotation:?} {inject:?}");
    }
}

#[tokio::test]
async fn the_control_api_is_named_by_its_service() {
    let world = world("shop", &[], &[]);
    let both = world.address(&service(&["10.96.3.4", "fd00::4"])).unwrap();
    assert_eq!(both.name, "podwitness-control.podwitness-system.svc");
    assert_eq!((both.port, both.addresses.len()), (9444, 2));
    assert_eq!(world.address(&service(&["None"])), None);
    assert_eq!(world.address(&Service::default()), None);
}

#[tokio::test]
async fn what_is_not_known_yet_is_said() {
    let mut world = world("shop", &[], &[]);
    let missing = world.namespace("elsewhere").await.unwrap_err();
    assert!(missing.message.contains("elsewhere"), "{missing}");
    world.roots = watch::channel(None).1;
    let namespace = world.namespace("shop").await.unwrap();
    let refusal = world.settings(&namespace, "shop", &pod(), Inject::Required).unwrap_err();
    assert_eq!(refusal.reason, Reason::NotReady);
}
