use podwitness_core::inject::{MAX_SERVICE_ACCOUNT_DIRS, SidecarEnv, UntilNetmap};
use proptest::prelude::*;

use super::*;
use crate::admit::{
    refusal::Reason,
    testing::{apply, pod, service_account_plugin, settings, token_mount, token_volume, with},
};

fn required(pod: &Value) -> Result<Vec<PatchOperation>, Refusal> {
    mutate(pod, &settings(Inject::Required))
}

fn injected(pod: Value) -> Value {
    let patch = required(&pod).unwrap();
    apply(pod, &patch)
}

/// The sidecar's environment, read as the sidecar reads it.
fn told(pod: &Value) -> SidecarEnv {
    let env = pod["spec"]["initContainers"][0]["env"].as_array().unwrap().clone();
    let get = move |name: &str| {
        env.iter()
            .find(|var| var["name"] == name)
            .and_then(|var| var["value"].as_str())
            .map(ToOwned::to_owned)
    };
    SidecarEnv::from_env(&get).unwrap()
}

#[test]
fn a_pod_that_is_witnessed_is_not_patched_again() {
    let once = injected(pod());
    assert_eq!(required(&once), Ok(vec![]));
}

#[test]
fn the_service_account_plugins_second_pass_changes_nothing() {
    let once = injected(service_account_plugin(with(pod(), "/spec/volumes", json!([]))));
    let again = service_account_plugin(once.clone());
    assert_eq!(again, once);
    assert_eq!(required(&again), Ok(vec![]));
}

#[test]
fn a_pod_without_a_token_is_stable_whatever_the_service_account_says() {
    let mut bare = with(pod(), "/spec/volumes", json!([]));
    bare["spec"]["containers"][0]["volumeMounts"] = json!([]);
    let once = injected(bare);
    let sidecar = once["spec"]["initContainers"][0].clone();
    assert_eq!(service_account_plugin(once)["spec"]["initContainers"][0], sidecar);
}

#[test]
fn what_newer_api_servers_fill_in_is_no_drift() {
    let default = json!([{"resourceName": "cpu", "restartPolicy": "NotRequired"}]);
    let filled = with(injected(pod()), "/spec/initContainers/0/resizePolicy", default);
    assert_eq!(required(&filled), Ok(vec![]));
    let other = json!([{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]);
    let changed = with(injected(pod()), "/spec/initContainers/0/resizePolicy", other);
    assert_eq!(injected(changed), injected(pod()));
}

#[test]
fn drift_is_repaired() {
    let whole = injected(pod());
    for (pointer, value) in [
        ("/spec/initContainers/0/image", json!("elsewhere.example/fake:1")),
        ("/spec/initContainers/0/command", json!(["sleep"])),
        ("/spec/initContainers/0/lifecycle", json!({"postStart": {"exec": {"command": ["x"]}}})),
        ("/spec/initContainers/0/env/2/value", json!("ajar")),
        ("/spec/initContainers/0/volumeMounts/0/readOnly", json!(false)),
        ("/spec/volumes/2/emptyDir", json!({})),
        ("/metadata/annotations/podwitness.dev~1status", json!("forged")),
        ("/metadata/annotations/kubectl.kubernetes.io~1default-container", json!("podwitness")),
    ] {
        let mut altered = whole.clone();
        match altered.pointer_mut(pointer) {
            Some(place) => *place = value,
            None => altered = with(altered, pointer, value),
        }
        assert_ne!(altered, whole, "{pointer}");
        let repaired = injected(altered);
        assert_eq!(repaired, whole, "{pointer}");
    }
}

#[test]
fn a_pod_that_kept_our_mounts_but_not_the_sidecar_is_refused() {
    let mut stripped = injected(pod());
    stripped["spec"].as_object_mut().unwrap().remove("initContainers");
    assert_eq!(required(&stripped).unwrap_err().reason, Reason::Volume);
    let forgetful = with(injected(pod()), "/spec/initContainers/0/env", json!([]));
    assert_eq!(required(&forgetful).unwrap_err().reason, Reason::Volume);
    let without_mounts = with(injected(pod()), "/spec/initContainers/0/volumeMounts", json!([]));
    assert_eq!(injected(without_mounts), injected(pod()));
}

/// What a container mounts at the path of the bundle.
fn bundle_of(pod: &Value, container: &str) -> Vec<Value> {
    let mounts = pod.pointer(container).unwrap()["volumeMounts"].as_array().unwrap().clone();
    mounts.into_iter().filter(|mount| mount["mountPath"] == "/var/run/podwitness/ca").collect()
}

#[test]
fn every_container_has_the_bundle_also_one_without_a_token() {
    let mut bare = with(pod(), "/spec/volumes", json!([]));
    bare["spec"]["containers"][0].as_object_mut().unwrap().remove("volumeMounts");
    bare["spec"]["initContainers"] = json!([{"name": "setup", "image": "i"}]);
    let once = injected(bare);
    let read_only = json!({"name": "podwitness-ca", "mountPath": "/var/run/podwitness/ca", "readOnly": true});
    for container in ["/spec/containers/0", "/spec/initContainers/1"] {
        assert_eq!(bundle_of(&once, container), std::slice::from_ref(&read_only), "{container}");
    }
    assert_eq!(bundle_of(&once, "/spec/initContainers/0")[0].get("readOnly"), None, "the sidecar writes it");
    assert_eq!(required(&once), Ok(vec![]));
    let path = "/spec/containers/0/volumeMounts/0";
    for drifted in [json!("/elsewhere"), json!("/var/run/podwitness/ca/deeper")] {
        let moved = with(once.clone(), &format!("{path}/mountPath"), drifted);
        assert_eq!(injected(moved), once);
    }
    let mut writable = once.clone();
    writable.pointer_mut(path).unwrap().as_object_mut().unwrap().remove("readOnly");
    assert_eq!(injected(writable), once);
}

#[test]
fn what_a_container_has_at_the_path_of_the_bundle_is_left_to_it() {
    let mut own = pod();
    let mount = json!({"name": "mine", "mountPath": "/var/run/podwitness/ca"});
    own["spec"]["containers"][0]["volumeMounts"].as_array_mut().unwrap().push(mount.clone());
    own["spec"]["volumes"].as_array_mut().unwrap().push(json!({"name": "mine", "emptyDir": {}}));
    let once = injected(own);
    assert_eq!(bundle_of(&once, "/spec/containers/0"), [mount]);
    assert_eq!(required(&once), Ok(vec![]));
}

#[test]
fn a_sidecar_that_is_not_first_is_moved() {
    let mut pushed = injected(pod());
    let inits = pushed["spec"]["initContainers"].as_array_mut().unwrap();
    inits.insert(0, json!({"name": "first", "image": "i", "volumeMounts": [token_mount()]}));
    let again = injected(pushed);
    let names: Vec<&str> = again["spec"]["initContainers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, [CONTAINER, "first"]);
    assert_eq!(required(&again), Ok(vec![]));
}

#[test]
fn a_resubmitted_pod_with_one_more_volume_has_one_more_directory() {
    let mut more = with_second_token(injected(pod()));
    let containers = more["spec"]["containers"].as_array_mut().unwrap();
    containers.insert(0, json!({"name": "new", "image": "i", "volumeMounts": [second_mount()]}));
    let again = injected(more);
    let dirs = told(&again).service_accounts;
    assert_eq!(dirs.iter().map(|dir| dir.container.as_str()).collect::<Vec<_>>(), ["new", "app"]);
    for (index, dir) in dirs.iter().enumerate() {
        let mount = &again["spec"]["containers"][index]["volumeMounts"][0];
        assert_eq!(mount["name"], json!(format!("podwitness-serviceaccount-{index}")), "{}", dir.container);
        let mounts = again["spec"]["initContainers"][0]["volumeMounts"].as_array().unwrap().clone();
        let at = |path: &str| mounts.iter().find(|mount| mount["mountPath"] == path).unwrap()["name"].clone();
        assert_eq!(at(&dir.source), json!(format!("podwitness-source-{index}")));
        assert_eq!(at(&dir.target), mount["name"]);
    }
    assert_eq!([&dirs[0].volume, &dirs[1].volume], ["second", "kube-api-access-abcde"]);
    assert_eq!(required(&again), Ok(vec![]));
}

#[test]
fn a_directory_that_is_no_longer_needed_goes() {
    let mut two = with_second_token(pod());
    let container = json!({"name": "other", "image": "i", "volumeMounts": [second_mount()]});
    two["spec"]["containers"].as_array_mut().unwrap().push(container);
    let mut fewer = injected(two);
    fewer["spec"]["containers"].as_array_mut().unwrap().pop();
    assert_eq!(injected(fewer), injected(with_second_token(pod())));
}

/// `pod` with another volume that holds a token; nothing mounts it yet.
fn with_second_token(mut pod: Value) -> Value {
    let volume = with(token_volume(), "/name", json!("second"));
    pod["spec"]["volumes"].as_array_mut().unwrap().insert(1, volume);
    pod
}

fn second_mount() -> Value {
    with(token_mount(), "/name", json!("second"))
}

#[test]
fn a_pod_that_an_older_version_injected_is_brought_up_to_date() {
    let mut old = injected(pod());
    let sidecar = &mut old["spec"]["initContainers"][0];
    let env = sidecar["env"].as_array_mut().unwrap();
    let told = env.iter_mut().find(|variable| variable["name"] == "PODWITNESS_SERVICE_ACCOUNTS").unwrap();
    let dir = json!([{"container": "app", "source": "/var/run/podwitness/source/0",
        "target": "/var/run/podwitness/serviceaccount/0"}]);
    told["value"] = json!(dir.to_string());
    for mount in sidecar["volumeMounts"].as_array_mut().unwrap() {
        if mount["name"] == "podwitness-source-0" {
            mount["name"] = json!("kube-api-access-abcde");
        }
    }
    old["spec"]["volumes"].as_array_mut().unwrap().retain(|volume| volume["name"] != "podwitness-source-0");
    let mut updated = injected(old);
    // The order of volumes is that of their making.
    let sorted = |pod: &mut Value| {
        let volumes = pod["spec"]["volumes"].as_array_mut().unwrap();
        volumes.sort_by_key(|volume| volume["name"].to_string());
    };
    let mut expected = injected(pod());
    sorted(&mut updated);
    sorted(&mut expected);
    assert_eq!(updated, expected);
}

#[test]
fn every_mount_of_the_clusters_ca_is_replaced_and_no_other() {
    let mut hand_made = pod();
    let volumes = hand_made["spec"]["volumes"].as_array_mut().unwrap();
    volumes.push(json!({"name": "ca", "configMap": {"name": "kube-root-ca.crt"}}));
    volumes.push(json!({"name": "vault", "projected": {"sources": [
        {"serviceAccountToken": {"audience": "vault", "path": "token"}}]}}));
    let mounts = hand_made["spec"]["containers"][0]["volumeMounts"].as_array_mut().unwrap();
    let file = json!({"name": "ca", "mountPath": "/etc/ca.crt", "subPath": "ca.crt"});
    mounts.extend([file, json!({"name": "vault", "mountPath": "/vault"})]);
    let after = injected(hand_made.clone());
    let mounts = &after["spec"]["containers"][0]["volumeMounts"];
    let expected = json!({"name": "podwitness-serviceaccount-1", "mountPath": "/etc/ca.crt", "subPath": "ca.crt",
        "readOnly": true});
    assert_eq!(mounts[1], expected);
    assert_eq!(mounts[2], hand_made["spec"]["containers"][0]["volumeMounts"][2]);
    assert_eq!(required(&after), Ok(vec![]));
}

#[test]
fn net_raw_is_dropped_where_injection_is_required_and_only_there() {
    for (context, expected) in [
        (json!(null), json!({"capabilities": {"drop": ["NET_RAW"]}})),
        (json!({"runAsUser": 5}), json!({"runAsUser": 5, "capabilities": {"drop": ["NET_RAW"]}})),
        (
            json!({"capabilities": {"add": ["CHOWN"]}}),
            json!({"capabilities": {"add": ["CHOWN"], "drop": ["NET_RAW"]}}),
        ),
        (json!({"capabilities": {"drop": ["KILL"]}}), json!({"capabilities": {"drop": ["KILL", "NET_RAW"]}})),
        (json!({"capabilities": {"drop": ["all"]}}), json!({"capabilities": {"drop": ["all"]}})),
        (
            json!({"capabilities": {"drop": ["CAP_NET_RAW"]}}),
            json!({"capabilities": {"drop": ["CAP_NET_RAW"]}}),
        ),
    ] {
        let before = with(pod(), "/spec/containers/0/securityContext", context.clone());
        assert_eq!(injected(before.clone())["spec"]["containers"][0]["securityContext"], expected);
        let optional = mutate(&before, &settings(Inject::Optional)).unwrap();
        assert_eq!(apply(before, &optional)["spec"]["containers"][0]["securityContext"], context);
    }
}

#[test]
fn what_the_settings_say_the_sidecar_is_told() {
    let mut settings = settings(Inject::Required);
    settings.until_netmap = UntilNetmap::Closed;
    settings.pull_secrets = vec!["a".into(), "b".into()];
    let before = with(pod(), "/spec/imagePullSecrets", json!([{"name": "a"}]));
    let patch = mutate(&before, &settings).unwrap();
    let after = apply(before, &patch);
    assert_eq!(after["spec"]["imagePullSecrets"], json!([{"name": "a"}, {"name": "b"}]));
    let told = told(&after);
    assert_eq!(
        (told.until_netmap, told.control, told.spool_limit),
        (UntilNetmap::Closed, settings.control, 256 << 20)
    );
}

#[test]
fn a_default_container_that_was_chosen_stays() {
    let key = "/metadata/annotations";
    let before = with(pod(), key, json!({DEFAULT_CONTAINER: "sidekick"}));
    assert_eq!(injected(before)["metadata"]["annotations"][DEFAULT_CONTAINER], "sidekick");
    assert_eq!(injected(pod())["metadata"]["annotations"][DEFAULT_CONTAINER], "app");
}

/// Pods that are refused everywhere, with the reason and what the message has to name.
fn never() -> Vec<(Value, Reason, &'static str)> {
    let volume = |volume: Value| {
        let mut pod = pod();
        pod["spec"]["volumes"].as_array_mut().unwrap().push(volume);
        pod
    };
    let mounting = |name: &str| {
        let mut pod = injected(pod());
        let mount = json!({"name": name, "mountPath": "/x"});
        pod["spec"]["containers"][0]["volumeMounts"].as_array_mut().unwrap().push(mount);
        pod
    };
    let numbers = 0..=MAX_SERVICE_ACCOUNT_DIRS;
    let name = |number| json!(format!("token-{number}"));
    let mut many = pod();
    many["spec"]["volumes"] =
        numbers.clone().map(|number| with(token_volume(), "/name", name(number))).collect();
    many["spec"]["containers"][0]["volumeMounts"] = numbers
        .map(|number| json!({"name": name(number), "mountPath": format!("/{number}"), "readOnly": true}))
        .collect();
    let mut detailed = pod();
    let items: Value = (0..4000)
        .map(|number| json!({"key": "k", "path": format!("a/rather/long/path/{number}"), "mode": 0o400}))
        .collect();
    detailed["spec"]["volumes"][0]["projected"]["sources"][2]["downwardAPI"]["items"] = items;
    let ours = json!({"serviceAccountToken": {"audience": "podwitness.dev", "path": "t"}});
    let container = "/spec/containers/0/securityContext";
    vec![
        (json!({"spec": {}}), Reason::Malformed, "containers"),
        (with(pod(), "/spec/hostNetwork", json!(true)), Reason::HostNetwork, "hostNetwork"),
        (with(pod(), "/spec/os", json!({"name": "windows"})), Reason::Windows, "Windows"),
        (with(pod(), "/spec/containers/0/name", json!(CONTAINER)), Reason::Container, CONTAINER),
        (with(pod(), container, json!({"runAsUser": 64321})), Reason::User, "64321"),
        (with(pod(), "/spec/securityContext", json!({"runAsUser": 64321})), Reason::User, "64321"),
        (volume(json!({"name": "podwitness-state", "emptyDir": {}})), Reason::Volume, "podwitness-state"),
        (volume(json!({"name": "podwitness-x", "emptyDir": {}})), Reason::Volume, "podwitness-"),
        (volume(json!({"name": "t", "projected": {"sources": [ours]}})), Reason::Audience, "podwitness.dev"),
        (mounting("podwitness-state"), Reason::Volume, "podwitness-state"),
        (mounting("podwitness-identity"), Reason::Volume, "podwitness-identity"),
        (mounting("podwitness-serviceaccount-7"), Reason::Volume, "podwitness-serviceaccount-7"),
        (many, Reason::Directories, "65"),
        (detailed, Reason::Directories, "defaultMode"),
    ]
}

/// Pods that are refused where injection is required.
fn not_where_required() -> Vec<(Value, Reason, &'static str)> {
    let container = "/spec/containers/0/securityContext";
    let adding = |capability: &str| with(pod(), container, json!({"capabilities": {"add": [capability]}}));
    let annotated = |key: &str, value: &str| with(pod(), "/metadata/annotations", json!({key: value}));
    let init = json!([{"name": "i", "image": "i", "securityContext": {"privileged": true}}]);
    vec![
        (with(pod(), "/spec/hostPID", json!(true)), Reason::HostNamespace, "hostPID"),
        (with(pod(), "/spec/hostIPC", json!(true)), Reason::HostNamespace, "hostIPC"),
        (
            with(pod(), "/spec/shareProcessNamespace", json!(true)),
            Reason::SharedProcesses,
            "--share-processes=false",
        ),
        (with(pod(), container, json!({"privileged": true})), Reason::Privileged, "app"),
        (with(pod(), "/spec/initContainers", init), Reason::Privileged, "container i"),
        (adding("NET_ADMIN"), Reason::Capability, "NET_ADMIN"),
        (adding("NET_RAW"), Reason::Capability, "NET_RAW"),
        (adding("SYS_ADMIN"), Reason::Capability, "SYS_ADMIN"),
        (adding("SYS_PTRACE"), Reason::Capability, "SYS_PTRACE"),
        (adding("BPF"), Reason::Capability, "BPF"),
        (adding("ALL"), Reason::Capability, "ALL"),
        (adding("cap_net_raw"), Reason::Capability, "cap_net_raw"),
        (annotated(labels::MEMORY_LIMIT, "1Mi"), Reason::Annotation, labels::MEMORY_LIMIT),
        (annotated(labels::LOG_LEVEL, "off"), Reason::Annotation, labels::LOG_LEVEL),
    ]
}

#[test]
fn what_cannot_be_injected_is_refused_with_its_name() {
    for (pod, reason, names) in never() {
        for inject in [Inject::Required, Inject::Optional] {
            let refusal = mutate(&pod, &settings(inject)).unwrap_err();
            assert_eq!(refusal.reason, reason, "{refusal}");
            assert!(refusal.message.contains(names), "{refusal} does not name {names}");
        }
    }
}

#[test]
fn what_could_undo_recording_is_refused_where_it_is_required() {
    for (pod, reason, names) in not_where_required() {
        let refusal = required(&pod).unwrap_err();
        assert_eq!(refusal.reason, reason, "{refusal}");
        assert!(refusal.message.contains(names), "{refusal} does not name {names}");
        let patch = mutate(&pod, &settings(Inject::Optional)).unwrap();
        assert!(!patch.is_empty(), "optional injects it all the same");
    }
}

#[test]
fn every_refusal_says_what_to_change() {
    let ways = [
        "choose another",
        "otherwise",
        "run the pod",
        "must be",
        labels::ALLOW,
        labels::EXEMPT,
        "mount",
        "use ",
    ];
    let all = never().into_iter().chain(not_where_required());
    for (pod, ..) in all.filter(|(_, reason, _)| !matches!(reason, Reason::Malformed | Reason::Windows)) {
        let message = required(&pod).unwrap_err().message;
        assert!(ways.iter().any(|way| message.contains(way)), "{message}");
    }
}

#[test]
fn what_has_no_item_names_how_the_pod_is_left_out() {
    let labelled =
        |labels: Value| with(with(pod(), "/spec/hostPID", json!(true)), "/metadata/labels", labels);
    for (labels, term) in [
        (json!({"app": "agent", "app.kubernetes.io/name": "exporter"}), "app.kubernetes.io/name=exporter"),
        (json!({"app": "agent", "tier": "node"}), "app=agent"),
        (json!({"tier": "node"}), "LABEL=VALUE"),
    ] {
        let message = required(&labelled(labels)).unwrap_err().message;
        assert!(message.contains(&format!("podwitness.dev/exempt={term} on the Namespace")), "{message}");
    }
}

#[test]
fn a_container_added_to_an_injected_pod_is_checked_too() {
    let mut more = injected(pod());
    let bad = json!({"name": "more", "image": "i", "securityContext": {"privileged": true}});
    more["spec"]["containers"].as_array_mut().unwrap().push(bad);
    assert_eq!(required(&more).unwrap_err().reason, Reason::Privileged);
}

#[test]
fn profiles_of_later_versions_are_refused() {
    use podwitness_core::inject::{Credentials, Profile};
    let settings = settings(Inject::Optional);
    let restricted = Settings { profile: Profile::Restricted, ..settings.clone() };
    let sealed = Settings { credentials: Credentials::Sealed, ..settings };
    for settings in [restricted, sealed] {
        assert_eq!(mutate(&pod(), &settings).unwrap_err().reason, Reason::Unavailable);
    }
}

fn any_container(name: String) -> impl Strategy<Value = Value> {
    let context = prop_oneof![
        Just(json!(null)),
        Just(json!({})),
        Just(json!({"runAsUser": 1000})),
        Just(json!({"capabilities": {"drop": ["ALL"]}})),
        Just(json!({"capabilities": {"add": ["CHOWN"]}})),
    ];
    let mounts = proptest::collection::vec(
        prop_oneof![
            Just(token_mount()),
            Just(json!({"name": "data", "mountPath": "/data"})),
            Just(json!({"name": "ca", "mountPath": "/ca", "readOnly": true})),
        ],
        0..3,
    );
    let resources = prop_oneof![
        Just(json!({})),
        Just(json!({"limits": {"cpu": "1", "memory": "1Gi"}})),
        Just(
            json!({"limits": {"cpu": "500m", "memory": "64Mi"}, "requests": {"cpu": "0.5", "memory": "64Mi"}})
        ),
    ];
    (context, mounts, resources).prop_map(move |(context, mut mounts, resources)| {
        mounts.dedup();
        json!({"name": name, "image": "i", "securityContext": context, "volumeMounts": mounts,
            "resources": resources, "later": {"unknown": true}})
    })
}

fn any_pod() -> impl Strategy<Value = Value> {
    let list = |prefix: &'static str, min: usize| {
        (min..4_usize).prop_flat_map(move |count| {
            (0..count).map(|index| any_container(format!("{prefix}{index}"))).collect::<Vec<_>>()
        })
    };
    (list("init", 0), list("app", 1), any::<bool>(), any::<bool>()).prop_map(
        |(inits, apps, volumes, annotated)| {
            let mut pod = pod();
            let spec = pod["spec"].as_object_mut().unwrap();
            spec.insert("containers".into(), json!(apps));
            if !inits.is_empty() {
                spec.insert("initContainers".into(), json!(inits));
            }
            let ca = json!({"name": "ca", "configMap": {"name": "kube-root-ca.crt"}});
            let all = json!([token_volume(), ca, {"name": "data", "emptyDir": {}}]);
            spec.insert("volumes".into(), if volumes { all } else { json!([]) });
            if annotated {
                pod = with(pod, "/metadata/annotations", json!({"a": "b"}));
            }
            pod
        },
    )
}

proptest! {
    #[test]
    fn injecting_twice_is_injecting_once(pod in any_pod(), required in any::<bool>()) {
        let settings = settings(if required { Inject::Required } else { Inject::Optional });
        let once = apply(pod.clone(), &mutate(&pod, &settings).unwrap());
        let again = mutate(&once, &settings).unwrap();
        prop_assert_eq!(again, vec![]);
        let reinvoked = service_account_plugin(once);
        let settled = apply(reinvoked.clone(), &mutate(&reinvoked, &settings).unwrap());
        prop_assert_eq!(mutate(&settled, &settings).unwrap(), vec![]);
    }

    #[test]
    fn other_containers_keep_everything_but_their_mounts_and_capabilities(pod in any_pod()) {
        let after = injected(pod.clone());
        for list in ["initContainers", "containers"] {
            let before = pod["spec"][list].as_array().cloned().unwrap_or_default();
            let after = after["spec"][list].as_array().cloned().unwrap_or_default();
            let others = after.into_iter().filter(|container| container["name"] != CONTAINER);
            for (mut before, mut after) in before.into_iter().zip(others) {
                for changed in ["securityContext", "volumeMounts"] {
                    before[changed].take();
                    after[changed].take();
                }
                prop_assert_eq!(before, after);
            }
        }
    }
}
