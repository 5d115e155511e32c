use podwitness_core::inject::Inject;
use serde_json::json;

use super::*;
use crate::admit::{
    mutate,
    testing::{apply, pod, settings, with},
};

/// A pod beyond the baseline: its reason, the field that the message has to name, and the item that accepts it.
struct Beyond {
    pod: Value,
    reason: Reason,
    field: &'static str,
    item: Option<&'static str>,
}

fn beyond(pod: Value, reason: Reason, field: &'static str, item: Option<&'static str>) -> Beyond {
    Beyond { pod, reason, field, item }
}

fn of_pod(pointer: &str, value: Value) -> Value {
    with(pod(), pointer, value)
}

/// The container `app` with this field.
fn app(field: &str, value: Value) -> Value {
    with(pod(), &format!("/spec/containers/0/{field}"), value)
}

fn secured(field: &str, value: &Value) -> Value {
    app("securityContext", json!({field: value}))
}

fn adding(capability: &str) -> Value {
    secured("capabilities", &json!({"add": ["CHOWN", capability]}))
}

/// An init container that adds a capability.
fn init(image: &str, more: &Value) -> Value {
    let mut container = json!({"name": "setup", "image": image,
        "securityContext": {"capabilities": {"add": ["NET_ADMIN"], "drop": ["ALL"]}}});
    container.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    with(pod(), "/spec/initContainers", json!([container]))
}

/// A volume of the pod, mounted by container `app`.
fn volume(source: &Value, read_only: bool) -> Value {
    let mut pod = pod();
    let mut volume = json!({"name": "extra"});
    volume.as_object_mut().unwrap().extend(source.as_object().unwrap().clone());
    pod["spec"]["volumes"].as_array_mut().unwrap().push(volume);
    let mount = json!({"name": "extra", "mountPath": "/extra", "readOnly": read_only});
    pod["spec"]["containers"][0]["volumeMounts"].as_array_mut().unwrap().push(mount);
    pod
}

fn of_node(path: &str, read_only: bool) -> Value {
    volume(&json!({"hostPath": {"path": path, "type": ""}}), read_only)
}

/// Every capability of Linux that the default set does not have (`capability.h`, 6.12), one each, and spellings.
const CAPABILITIES: [(&str, Option<&str>); 33] = [
    ("AUDIT_CONTROL", Some("capability:AUDIT_CONTROL")),
    ("AUDIT_READ", Some("capability:AUDIT_READ")),
    ("BLOCK_SUSPEND", Some("capability:BLOCK_SUSPEND")),
    ("BPF", Some("capability:BPF")),
    ("CHECKPOINT_RESTORE", Some("capability:CHECKPOINT_RESTORE")),
    ("DAC_READ_SEARCH", Some("capability:DAC_READ_SEARCH")),
    ("IPC_LOCK", Some("capability:IPC_LOCK")),
    ("IPC_OWNER", Some("capability:IPC_OWNER")),
    ("LEASE", Some("capability:LEASE")),
    ("LINUX_IMMUTABLE", Some("capability:LINUX_IMMUTABLE")),
    ("MAC_ADMIN", Some("capability:MAC_ADMIN")),
    ("MAC_OVERRIDE", Some("capability:MAC_OVERRIDE")),
    ("NET_ADMIN", Some("capability:NET_ADMIN")),
    ("NET_BROADCAST", Some("capability:NET_BROADCAST")),
    ("NET_RAW", Some("capability:NET_RAW")),
    ("PERFMON", Some("capability:PERFMON")),
    ("SYSLOG", Some("capability:SYSLOG")),
    ("SYS_ADMIN", Some("capability:SYS_ADMIN")),
    ("SYS_BOOT", Some("capability:SYS_BOOT")),
    ("SYS_MODULE", Some("capability:SYS_MODULE")),
    ("SYS_NICE", Some("capability:SYS_NICE")),
    ("SYS_PACCT", Some("capability:SYS_PACCT")),
    ("SYS_PTRACE", Some("capability:SYS_PTRACE")),
    ("SYS_RAWIO", Some("capability:SYS_RAWIO")),
    ("SYS_RESOURCE", Some("capability:SYS_RESOURCE")),
    ("SYS_TIME", Some("capability:SYS_TIME")),
    ("SYS_TTY_CONFIG", Some("capability:SYS_TTY_CONFIG")),
    ("WAKE_ALARM", Some("capability:WAKE_ALARM")),
    ("ALL", None),
    ("all", None),
    ("CAP_SYS_TIME", Some("capability:CAP_SYS_TIME")),
    ("cap_net_raw", None),
    ("net_raw", None),
];

fn table() -> Vec<Beyond> {
    let add = "spec.containers[0].securityContext.capabilities.add[1]";
    let mut rows: Vec<Beyond> = CAPABILITIES
        .into_iter()
        .map(|(name, item)| beyond(adding(name), Reason::Capability, add, item))
        .collect();
    rows.extend(of_the_pod());
    rows.extend(annotated());
    rows.extend(of_containers());
    rows.extend(profiles_of_containers());
    rows.extend(ports_and_probes());
    rows.extend(volumes_of_nodes_and_disks());
    rows
}

/// AppArmor as an annotation.
fn annotated() -> Vec<Beyond> {
    let annotation = |profile: &str| {
        let key = format!("{APPARMOR_ANNOTATION}app");
        with(pod(), "/metadata/annotations", json!({key: profile}))
    };
    let field = "metadata.annotations[container.apparmor.security.beta.kubernetes.io/app]";
    vec![
        beyond(annotation("unconfined"), Reason::AppArmor, field, Some("apparmor:Unconfined")),
        beyond(annotation("other"), Reason::AppArmor, field, None),
    ]
}

fn of_the_pod() -> Vec<Beyond> {
    let context = "/spec/securityContext";
    vec![
        beyond(of_pod("/spec/hostPID", json!(true)), Reason::HostNamespace, "spec.hostPID", None),
        beyond(of_pod("/spec/hostIPC", json!(true)), Reason::HostNamespace, "spec.hostIPC", None),
        beyond(
            of_pod("/spec/shareProcessNamespace", json!(true)),
            Reason::SharedProcesses,
            "spec.shareProcessNamespace",
            None,
        ),
        beyond(
            of_pod(context, json!({"windowsOptions": {"hostProcess": true}})),
            Reason::HostProcess,
            "spec.securityContext.windowsOptions.hostProcess",
            None,
        ),
        beyond(
            of_pod(
                context,
                json!({"sysctls": [{"name": "net.ipv4.tcp_rmem", "value": "1"},
                {"name": "kernel.msgmax", "value": "1"}]}),
            ),
            Reason::Sysctl,
            "spec.securityContext.sysctls[1].name",
            Some("sysctl:kernel.msgmax"),
        ),
        beyond(
            of_pod(context, json!({"seccompProfile": {"type": "Unconfined"}})),
            Reason::Seccomp,
            "spec.securityContext.seccompProfile.type",
            Some("seccomp:Unconfined"),
        ),
        beyond(
            of_pod(context, json!({"appArmorProfile": {"type": "Unconfined"}})),
            Reason::AppArmor,
            "spec.securityContext.appArmorProfile.type",
            Some("apparmor:Unconfined"),
        ),
        beyond(
            of_pod(context, json!({"seLinuxOptions": {"type": "spc_t"}})),
            Reason::SeLinux,
            "spec.securityContext.seLinuxOptions.type",
            Some("selinux:spc_t"),
        ),
        beyond(
            of_pod(context, json!({"seLinuxOptions": {"user": "system_u"}})),
            Reason::SeLinux,
            "spec.securityContext.seLinuxOptions.user",
            None,
        ),
        beyond(
            of_pod(context, json!({"seLinuxOptions": {"role": "system_r"}})),
            Reason::SeLinux,
            "spec.securityContext.seLinuxOptions.role",
            None,
        ),
    ]
}

fn of_containers() -> Vec<Beyond> {
    let native = json!({"restartPolicy": "Always"});
    let add = "spec.initContainers[0].securityContext.capabilities.add[0]";
    let of_init = with(
        pod(),
        "/spec/initContainers",
        json!([{"name": "setup", "image": "i", "securityContext": {"privileged": true}}]),
    );
    vec![
        beyond(
            secured("privileged", &json!(true)),
            Reason::Privileged,
            "spec.containers[0].securityContext.privileged",
            None,
        ),
        beyond(
            of_init.clone(),
            Reason::Privileged,
            "spec.initContainers[0].securityContext.privileged",
            Some("init:privileged:i"),
        ),
        beyond(
            with(of_init, "/spec/initContainers/0/restartPolicy", json!("Always")),
            Reason::Privileged,
            "spec.initContainers[0].securityContext.privileged",
            None,
        ),
        beyond(init("mesh/init:1", &json!({})), Reason::Capability, add, Some("init:NET_ADMIN:mesh/init")),
        beyond(init("mesh/init:1", &json!({})), Reason::Capability, add, Some("capability:NET_ADMIN")),
        beyond(init("mesh/init:1", &native), Reason::Capability, add, Some("capability:NET_ADMIN")),
    ]
}

fn profiles_of_containers() -> Vec<Beyond> {
    vec![
        beyond(
            secured("procMount", &json!("Unmasked")),
            Reason::ProcMount,
            "spec.containers[0].securityContext.procMount",
            Some("procMount:Unmasked"),
        ),
        beyond(
            secured("seccompProfile", &json!({"type": "Unconfined"})),
            Reason::Seccomp,
            "spec.containers[0].securityContext.seccompProfile.type",
            Some("seccomp:Unconfined"),
        ),
        beyond(
            secured("appArmorProfile", &json!({"type": "Unconfined"})),
            Reason::AppArmor,
            "spec.containers[0].securityContext.appArmorProfile.type",
            Some("apparmor:Unconfined"),
        ),
        beyond(
            secured("seLinuxOptions", &json!({"type": "unconfined_t"})),
            Reason::SeLinux,
            "spec.containers[0].securityContext.seLinuxOptions.type",
            Some("selinux:unconfined_t"),
        ),
        beyond(
            secured("windowsOptions", &json!({"hostProcess": true})),
            Reason::HostProcess,
            "spec.containers[0].securityContext.windowsOptions.hostProcess",
            None,
        ),
    ]
}

fn ports_and_probes() -> Vec<Beyond> {
    let probe = |action: &str| json!({action: {"host": "10.0.0.1", "port": 80}});
    let asks = Some("probeHost:10.0.0.1");
    vec![
        beyond(
            app("ports", json!([{"containerPort": 1}, {"containerPort": 80, "hostPort": 8080}])),
            Reason::HostPort,
            "spec.containers[0].ports[1].hostPort",
            Some("hostPort:8080"),
        ),
        beyond(
            app("livenessProbe", probe("httpGet")),
            Reason::ProbeHost,
            "spec.containers[0].livenessProbe.httpGet.host",
            asks,
        ),
        beyond(
            app("readinessProbe", probe("tcpSocket")),
            Reason::ProbeHost,
            "spec.containers[0].readinessProbe.tcpSocket.host",
            asks,
        ),
        beyond(
            app("startupProbe", probe("httpGet")),
            Reason::ProbeHost,
            "spec.containers[0].startupProbe.httpGet.host",
            asks,
        ),
        beyond(
            app("lifecycle", json!({"postStart": probe("httpGet")})),
            Reason::ProbeHost,
            "spec.containers[0].lifecycle.postStart.httpGet.host",
            asks,
        ),
        beyond(
            app("lifecycle", json!({"preStop": probe("tcpSocket")})),
            Reason::ProbeHost,
            "spec.containers[0].lifecycle.preStop.tcpSocket.host",
            asks,
        ),
    ]
}

fn volumes_of_nodes_and_disks() -> Vec<Beyond> {
    let path = "spec.volumes[1].hostPath.path";
    let of_path = |path_of: &str, read_only: bool, item| {
        beyond(of_node(path_of, read_only), Reason::HostPath, path, item)
    };
    let mut rows = vec![
        of_path("/var/log", true, Some("hostPath:/var/log")),
        of_path("/var/log/pods/", true, Some("hostPath:/var/log")),
        of_path("/var/log", true, Some("hostPath:/var/log:rw")),
        of_path("/var/log", false, Some("hostPath:/var/log:rw")),
        of_path("/var/lib/kubelet/pods", true, Some("hostPath:/var/lib/kubelet/pods")),
        of_path("/", true, None),
        of_path("/etc", true, Some("hostPath:/etc")),
        of_path("/etc/ssl", true, Some("hostPath:/etc/ssl")),
        of_path("/etc/ssl/certs", false, Some("hostPath:/etc/ssl/certs:rw")),
        of_path("/etc/ssl/certsx", true, Some("hostPath:/etc/ssl/certsx")),
        of_path("/etc/ssl/certs/../private", true, None),
        of_path("/etc/ssl/certs//x", true, None),
        of_path("/etc/ssl/certs/./x", true, None),
        of_path("etc/localtime", true, None),
        of_path("", true, None),
        beyond(
            volume(&json!({"hostPath": {"path": "/etc/localtime", "type": "FileOrCreate"}}), true),
            Reason::HostPath,
            path,
            Some("hostPath:/etc/localtime:rw"),
        ),
    ];
    for (kind, item) in [
        ("awsElasticBlockStore", "volume:awsElasticBlockStore"),
        ("azureDisk", "volume:azureDisk"),
        ("azureFile", "volume:azureFile"),
        ("cephfs", "volume:cephfs"),
        ("cinder", "volume:cinder"),
        ("fc", "volume:fc"),
        ("flexVolume", "volume:flexVolume"),
        ("flocker", "volume:flocker"),
        ("gcePersistentDisk", "volume:gcePersistentDisk"),
        ("gitRepo", "volume:gitRepo"),
        ("glusterfs", "volume:glusterfs"),
        ("iscsi", "volume:iscsi"),
        ("photonPersistentDisk", "volume:photonPersistentDisk"),
        ("portworxVolume", "volume:portworxVolume"),
        ("quobyte", "volume:quobyte"),
        ("rbd", "volume:rbd"),
        ("scaleIO", "volume:scaleIO"),
        ("storageos", "volume:storageos"),
        ("vsphereVolume", "volume:vsphereVolume"),
        ("ofTomorrow", "volume:ofTomorrow"),
    ] {
        rows.push(beyond(
            volume(&json!({kind: {}}), true),
            Reason::VolumeType,
            "spec.volumes[1].",
            Some(item),
        ));
    }
    rows
}

fn with_item(item: &str) -> super::super::Settings {
    let (allow, unknown) = Allow::parse(item);
    assert_eq!(unknown, Vec::<String>::new());
    super::super::Settings { allow, ..settings(Inject::Required) }
}

#[test]
fn what_is_beyond_the_baseline_is_refused_with_its_field() {
    for Beyond { pod, reason, field, .. } in table() {
        let refusal = mutate(&pod, &settings(Inject::Required)).unwrap_err();
        assert_eq!(refusal.reason, reason, "{refusal}");
        assert!(refusal.message.starts_with(field), "{refusal} does not name {field}");
        assert!(refusal.message.contains("baseline"), "{refusal}");
    }
}

#[test]
fn nothing_is_held_to_the_baseline_where_injection_is_optional() {
    for Beyond { pod, field, .. } in table() {
        assert!(mutate(&pod, &settings(Inject::Optional)).is_ok(), "{field}");
    }
}

#[test]
fn a_namespace_accepts_by_name_and_the_pod_says_so() {
    for Beyond { pod, field, item, .. } in table() {
        let Some(item) = item else { continue };
        let settings = with_item(&format!("hostPort:1, {item}"));
        let patch = mutate(&pod, &settings).unwrap_or_else(|refusal| panic!("{field} {item}: {refusal}"));
        let after = apply(pod, &patch);
        let status = after["metadata"]["annotations"][labels::STATUS].as_str().unwrap();
        let status: Value = serde_json::from_str(status).unwrap();
        assert_eq!(status["allowed"], json!([item]), "{field}");
        assert_eq!(mutate(&after, &settings), Ok(vec![]), "{field} {item}");
    }
}

#[test]
fn what_the_namespace_has_to_say_stands_in_the_message() {
    for Beyond { pod, item, .. } in table() {
        let refusal = mutate(&pod, &settings(Inject::Required)).unwrap_err();
        let names_annotation = refusal.message.contains(labels::ALLOW);
        assert_eq!(names_annotation, item.is_some(), "{refusal}");
    }
}

#[test]
fn an_item_for_other_images_accepts_nothing() {
    for (image, more, item) in [
        ("mesh/init-evil:1", json!({}), "init:NET_ADMIN:mesh/init"),
        ("mesh/init:1", json!({}), "init:NET_RAW:mesh/init"),
        ("mesh/init:1", json!({"restartPolicy": "Always"}), "init:NET_ADMIN:mesh/init"),
    ] {
        let refusal = mutate(&init(image, &more), &with_item(item)).unwrap_err();
        assert_eq!(refusal.reason, Reason::Capability, "{image} {item}");
    }
    let in_app = app("securityContext", json!({"capabilities": {"add": ["NET_ADMIN"]}}));
    let in_app = with(in_app, "/spec/containers/0/image", json!("mesh/init:1"));
    assert!(mutate(&in_app, &with_item("init:NET_ADMIN:mesh/init")).is_err());
}

#[test]
fn what_pods_usually_have_passes() {
    let default = [
        "AUDIT_WRITE",
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "FSETID",
        "KILL",
        "MKNOD",
        "NET_BIND_SERVICE",
        "SETFCAP",
        "SETGID",
        "SETPCAP",
        "SETUID",
        "SYS_CHROOT",
    ];
    let key = format!("{APPARMOR_ANNOTATION}app");
    for pod in [
        secured("capabilities", &json!({"add": default, "drop": ["ALL"]})),
        secured("seccompProfile", &json!({"type": "Localhost", "localhostProfile": "x"})),
        secured("appArmorProfile", &json!({"type": "RuntimeDefault"})),
        secured("seLinuxOptions", &json!({"type": "container_t", "level": "s0:c1"})),
        secured("procMount", &json!("Default")),
        secured("privileged", &json!(false)),
        app("ports", json!([{"containerPort": 80, "hostPort": 0}])),
        app("livenessProbe", json!({"httpGet": {"path": "/", "port": 80}})),
        of_pod(
            "/spec/securityContext",
            json!({"sysctls": SYSCTLS.map(|name| json!({"name": name, "value": "1"}))}),
        ),
        with(pod(), "/metadata/annotations", json!({key: "localhost/x"})),
        of_node("/etc/localtime", true),
        of_node("/usr/share/zoneinfo/", true),
        of_node("/etc/ssl/certs", true),
        of_node("/etc/ssl/certs/ca-certificates.crt", true),
        volume(&json!({"hostPath": {"path": "/etc/pki/tls/certs", "type": "Directory"}}), true),
        volume(&json!({"emptyDir": {}}), false),
        volume(&json!({"persistentVolumeClaim": {"claimName": "c"}, "hostPath": null}), false),
        volume(&json!({"nfs": {"server": "s", "path": "/"}}), false),
        volume(&json!({"image": {"reference": "r"}}), true),
    ] {
        assert_eq!(super::pod(&pod, &Allow::default()), Ok(vec![]), "{pod}");
    }
}

/// The volume of ours is of the node, too, and is the sidecar's alone.
#[test]
fn what_admission_adds_is_not_held_to_it() {
    let patch = mutate(&pod(), &settings(Inject::Required)).unwrap();
    let injected = apply(pod(), &patch);
    assert_eq!(super::pod(&injected, &Allow::default()), Ok(vec![]));
}

#[test]
fn every_violation_is_named_up_to_a_cap() {
    let ports: Vec<Value> = (1..=10).map(|port| json!({"containerPort": port, "hostPort": port})).collect();
    let refusal = mutate(&app("ports", json!(ports)), &settings(Inject::Required)).unwrap_err();
    assert!(refusal.message.contains("ports[7].hostPort"), "{refusal}");
    assert!(!refusal.message.contains("ports[8].hostPort"), "{refusal}");
    assert!(refusal.message.contains("and 2 more"), "{refusal}");
    assert!(refusal.message.contains("hostPort:10"), "the way out is whole: {refusal}");
}

#[test]
fn a_debug_container_mounts_volumes_of_the_node_only_to_read() {
    let mounting = |read_only: bool, path: &str| {
        let mount = json!({"name": "extra", "mountPath": "/x", "readOnly": read_only});
        with(
            of_node(path, true),
            "/spec/ephemeralContainers",
            json!([{"name": "d", "volumeMounts": [mount]}]),
        )
    };
    let result = |pod: &Value, items: &str| {
        let added: Vec<Container<'_>> = super::super::pod::debug(pod).collect();
        debug(pod, &added, &Allow::parse(items).0)
    };
    let field = "spec.ephemeralContainers[0].volumeMounts[0]";
    assert_eq!(result(&mounting(true, "/etc/localtime"), ""), Ok(()));
    assert_eq!(result(&mounting(true, "/var/log"), "hostPath:/var/log"), Ok(()));
    assert_eq!(result(&mounting(false, "/var/log"), "hostPath:/var/log:rw"), Ok(()));
    for (pod, items) in [
        (mounting(false, "/etc/localtime"), ""),
        (mounting(true, "/var/log"), ""),
        (mounting(false, "/var/log"), "hostPath:/var/log"),
    ] {
        let refusal = result(&pod, items).unwrap_err();
        assert!(refusal.reason == Reason::HostPath && refusal.message.starts_with(field), "{refusal}");
    }
}
