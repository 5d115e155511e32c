//! In `required` namespaces no container has more of the node than Pod Security baseline gives, unless the Namespace
//! accepts it by name; in `optional` ones nothing is held to it.

use anyhow::{Context as _, Result, ensure};
use podwitness_core::labels;
use podwitness_e2e::{Kubectl, Namespace, Run, TOOLBOX, eventually, pods::sleeper};
use serde_json::{Value, json};

/// A pod beyond the baseline: its name in messages, how a sleeper has to be edited, the field that the refusal names,
/// and the item that accepts it.
struct Beyond {
    name: &'static str,
    edit: Edit,
    field: &'static str,
    item: Option<&'static str>,
}

/// What is merged into a pod.
#[derive(Clone)]
enum Edit {
    /// Fields of the specification.
    Spec(Value),
    /// Fields of container `app`.
    App(Value),
    /// Another init container.
    Init(Value),
    /// A volume, mounted by container `app`, and whether read-only.
    Volume(Value, bool),
}

fn fields<'a>(object: &'a mut Value, pointer: &str) -> Result<&'a mut serde_json::Map<String, Value>> {
    let object = object.pointer_mut(pointer).with_context(|| format!("no {pointer}"))?;
    if object.is_null() {
        *object = json!({});
    }
    object.as_object_mut().with_context(|| format!("{pointer} is no object"))
}

/// Appends to a list of an object.
fn push(object: &mut serde_json::Map<String, Value>, key: &str, item: Value) -> Result<()> {
    let list = object.entry(key).or_insert_with(|| json!([]));
    list.as_array_mut().with_context(|| format!("{key} is no list"))?.push(item);
    Ok(())
}

/// Fields of `more` take the place of those in `object`; objects in it are merged.
fn merge(object: &mut serde_json::Map<String, Value>, more: &Value) -> Result<()> {
    for (key, value) in more.as_object().context("no fields")? {
        match (object.get_mut(key).and_then(Value::as_object_mut), value) {
            (Some(inner), Value::Object(_)) => merge(inner, value)?,
            _ => drop(object.insert(key.clone(), value.clone())),
        }
    }
    Ok(())
}

fn edited(mut pod: Value, edit: &Edit) -> Result<Value> {
    match edit {
        Edit::Spec(more) => merge(fields(&mut pod, "/spec")?, more)?,
        Edit::App(more) => merge(fields(&mut pod, "/spec/containers/0")?, more)?,
        Edit::Init(container) => push(fields(&mut pod, "/spec")?, "initContainers", container.clone())?,
        Edit::Volume(source, read_only) => {
            let mut volume = json!({"name": "extra"});
            merge(fields(&mut volume, "")?, source)?;
            push(fields(&mut pod, "/spec")?, "volumes", volume)?;
            let mount = json!({"name": "extra", "mountPath": "/extra", "readOnly": read_only});
            push(fields(&mut pod, "/spec/containers/0")?, "volumeMounts", mount)?;
        }
    }
    Ok(pod)
}

fn secured(field: &str, value: &Value) -> Edit {
    Edit::App(json!({"securityContext": {field: value}}))
}

fn adding(capability: &str) -> Edit {
    secured("capabilities", &json!({"add": [capability]}))
}

fn of_node(path: &str, read_only: bool) -> Edit {
    Edit::Volume(json!({"hostPath": {"path": path}}), read_only)
}

fn mesh_init() -> Value {
    json!({"name": "mesh", "image": "podwitness.dev/mesh/init:1", "imagePullPolicy": "IfNotPresent",
        "securityContext": {"capabilities": {"add": ["NET_ADMIN"], "drop": ["ALL"]}}})
}

/// As charts have it that set a kernel parameter of the node; or a container that goes on.
fn privileged_init(restart: Option<&str>) -> Edit {
    Edit::Init(
        json!({"name": "sysctl", "image": "podwitness.dev/search:1", "imagePullPolicy": "IfNotPresent",
        "restartPolicy": restart,
        "securityContext": {"privileged": true, "runAsUser": 0, "capabilities": {"drop": ["NET_RAW"]}}}),
    )
}

const fn row(name: &'static str, edit: Edit, field: &'static str, item: Option<&'static str>) -> Beyond {
    Beyond { name, edit, field, item }
}

/// A row for each check of Pod Security baseline, and for what was seen to reach recordings.
fn table() -> Vec<Beyond> {
    let capability =
        |(name, item)| row(name, adding(name), "securityContext.capabilities.add[0]", Some(item));
    let capabilities = CAPABILITIES.into_iter().map(capability);
    [namespaces_and_privileges(), profiles(), ports_and_probes(), volumes()]
        .into_iter()
        .flatten()
        .chain(capabilities)
        .collect()
}

const CAPABILITIES: [(&str, &str); 16] = [
    ("BPF", "capability:BPF"),
    ("CAP_DAC_READ_SEARCH", "capability:CAP_DAC_READ_SEARCH"),
    ("CHECKPOINT_RESTORE", "capability:CHECKPOINT_RESTORE"),
    ("DAC_READ_SEARCH", "capability:DAC_READ_SEARCH"),
    ("MAC_ADMIN", "capability:MAC_ADMIN"),
    ("NET_ADMIN", "capability:NET_ADMIN"),
    ("NET_RAW", "capability:NET_RAW"),
    ("PERFMON", "capability:PERFMON"),
    ("SYSLOG", "capability:SYSLOG"),
    ("SYS_ADMIN", "capability:SYS_ADMIN"),
    ("SYS_BOOT", "capability:SYS_BOOT"),
    ("SYS_MODULE", "capability:SYS_MODULE"),
    ("SYS_PTRACE", "capability:SYS_PTRACE"),
    ("SYS_RAWIO", "capability:SYS_RAWIO"),
    ("SYS_RESOURCE", "capability:SYS_RESOURCE"),
    ("SYS_TIME", "capability:SYS_TIME"),
];

/// Fields of the pod's security context.
fn context(field: &str, value: &Value) -> Edit {
    Edit::Spec(json!({"securityContext": {field: value}}))
}

fn namespaces_and_privileges() -> Vec<Beyond> {
    let (add, privileged) = ("securityContext.capabilities.add[0]", "securityContext.privileged");
    let sysctls = json!([{"name": "net.core.somaxconn", "value": "1024"}]);
    vec![
        row("hostPID", Edit::Spec(json!({"hostPID": true})), "spec.hostPID", None),
        row("hostIPC", Edit::Spec(json!({"hostIPC": true})), "spec.hostIPC", None),
        row("shared", Edit::Spec(json!({"shareProcessNamespace": true})), "spec.shareProcessNamespace", None),
        row("privileged", secured("privileged", &json!(true)), privileged, None),
        row("init", privileged_init(None), privileged, Some("init:privileged:podwitness.dev/search")),
        row("sidecar", privileged_init(Some("Always")), privileged, None),
        row("all", adding("ALL"), add, None),
        row("mesh", Edit::Init(mesh_init()), add, Some("init:NET_ADMIN:podwitness.dev/mesh/init")),
        row("sysctl", context("sysctls", &sysctls), "sysctls[0].name", Some("sysctl:net.core.somaxconn")),
    ]
}

fn profiles() -> Vec<Beyond> {
    let unconfined = json!({"type": "Unconfined"});
    let (seccomp, apparmor) = ("seccompProfile", "appArmorProfile");
    let (seccomp_type, seccomp_item) = ("seccompProfile.type", Some("seccomp:Unconfined"));
    let (apparmor_type, apparmor_item) = ("appArmorProfile.type", Some("apparmor:Unconfined"));
    let selinux = |key: &str, value: &str| secured("seLinuxOptions", &json!({key: value}));
    let role = json!({"role": "r"});
    vec![
        row("seccomp", secured(seccomp, &unconfined), seccomp_type, seccomp_item),
        row("seccomp of the pod", context(seccomp, &unconfined), seccomp_type, seccomp_item),
        row("apparmor", secured(apparmor, &unconfined), apparmor_type, apparmor_item),
        row("apparmor of the pod", context(apparmor, &unconfined), apparmor_type, apparmor_item),
        row("selinux", selinux("type", "spc_t"), "seLinuxOptions.type", Some("selinux:spc_t")),
        row("selinux user", selinux("user", "u"), "seLinuxOptions.user", None),
        row("selinux role", context("seLinuxOptions", &role), "seLinuxOptions.role", None),
    ]
}

fn ports_and_probes() -> Vec<Beyond> {
    let host = json!({"httpGet": {"host": "10.0.0.1", "port": 80}});
    let asks = Some("probeHost:10.0.0.1");
    let port = Edit::App(json!({"ports": [{"containerPort": 80, "hostPort": 18080}]}));
    let probe = Edit::App(json!({"livenessProbe": host}));
    let hook = Edit::App(json!({"lifecycle": {"postStart": host}}));
    vec![
        row("port", port, "ports[0].hostPort", Some("hostPort:18080")),
        row("probe", probe, "livenessProbe.httpGet.host", asks),
        row("lifecycle", hook, "lifecycle.postStart.httpGet.host", asks),
    ]
}

fn volumes() -> Vec<Beyond> {
    let disk = json!({"iscsi": {"targetPortal": "10.0.0.1", "iqn": "iqn.2001-04.x:y", "lun": 0}});
    let driver = json!({"flexVolume": {"driver": "x/y"}});
    let node = |name, path, read_only, item| row(name, of_node(path, read_only), "hostPath.path", item);
    vec![
        node("kubelet", "/var/lib/kubelet/pods", true, Some("hostPath:/var/lib/kubelet/pods")),
        node("log", "/var/log", true, Some("hostPath:/var/log")),
        node("log, writable", "/var/log", false, Some("hostPath:/var/log:rw")),
        node("root", "/", true, None),
        node("certificates, writable", "/etc/ssl/certs", false, Some("hostPath:/etc/ssl/certs:rw")),
        node("beside certificates", "/etc/ssl/private", true, Some("hostPath:/etc/ssl/private")),
        node("twice a slash", "/etc//ssl/certs", true, None),
        row("disk", Edit::Volume(disk, true), "spec.volumes", Some("volume:iscsi")),
        row("driver", Edit::Volume(driver, true), "spec.volumes", Some("volume:flexVolume")),
    ]
}

/// What would be created, or why not.
async fn tried(ns: &Namespace, pod: &Value) -> Result<Run> {
    ns.kubectl.create(pod, &["--dry-run=server", "-o", "json"]).await
}

/// Sets the annotation that widens the baseline.
async fn allow(ns: &Namespace, items: &str) -> Result<Run> {
    let annotation = format!("{}={items}", labels::ALLOW);
    Kubectl::default().run(&["annotate", "namespace", &ns.name, &annotation, "--overwrite"]).await
}

/// Tells of all rows that end otherwise.
fn none_wrong(wrong: &[String]) -> Result<()> {
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

#[tokio::test]
async fn nothing_beyond_the_baseline_runs_where_recording_is_required() -> Result<()> {
    Namespace::witnessed(async |ns| {
        let mut wrong = Vec::new();
        for Beyond { name, edit, field, .. } in table() {
            let run = tried(ns, &edited(sleeper("pod"), &edit)?).await?;
            if run.code == 0 || !run.stderr.contains("podwitness: ") || !run.stderr.contains(field) {
                wrong.push(format!("{name}: {run:?}"));
            }
        }
        none_wrong(&wrong)
    })
    .await
}

#[tokio::test]
async fn a_namespace_accepts_what_it_names_and_the_pod_says_so() -> Result<()> {
    Namespace::witnessed(async |ns| {
        let rows: Vec<Beyond> = table().into_iter().filter(|row| row.item.is_some()).collect();
        let items: Vec<&str> = rows.iter().filter_map(|row| row.item).collect();
        let set = allow(ns, &items.join(",")).await?.ok()?;
        ensure!(set.stderr.contains("Warning: podwitness: annotation podwitness.dev/allow"), "{set:?}");
        eventually("admission knows the annotation", async || {
            tried(ns, &edited(sleeper("pod"), &adding("SYS_TIME"))?).await?.ok()
        })
        .await?;
        let mut wrong = Vec::new();
        for Beyond { name, edit, item, .. } in rows {
            let run = tried(ns, &edited(sleeper("pod"), &edit)?).await?;
            let stored: Value = serde_json::from_slice(&run.stdout).unwrap_or_default();
            let status =
                stored.pointer("/metadata/annotations/podwitness.dev~1status").and_then(Value::as_str);
            let says = status.is_some_and(|status| item.is_some_and(|item| status.contains(item)));
            if run.code != 0 || !says {
                wrong.push(format!("{name}: {status:?}, {}", run.stderr));
            }
        }
        none_wrong(&wrong)
    })
    .await
}

#[tokio::test]
async fn pods_within_the_baseline_are_left_alone() -> Result<()> {
    Namespace::witnessed(async |ns| {
        for edit in [
            of_node("/etc/localtime", true),
            of_node("/usr/share/zoneinfo", true),
            of_node("/etc/ssl/certs", true),
            adding("NET_BIND_SERVICE"),
            secured("seccompProfile", &json!({"type": "RuntimeDefault"})),
            Edit::Spec(
                json!({"securityContext": {"sysctls": [{"name": "net.ipv4.tcp_syncookies", "value": "1"}]}}),
            ),
            Edit::Volume(json!({"emptyDir": {}}), false),
        ] {
            tried(ns, &edited(sleeper("pod"), &edit)?).await?.ok()?;
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn nothing_is_held_to_the_baseline_where_recording_is_optional() -> Result<()> {
    Namespace::with(&[(labels::INJECT, "optional")], async |ns| {
        let mut wrong = Vec::new();
        for Beyond { name, edit, .. } in table() {
            let run = tried(ns, &edited(sleeper("pod"), &edit)?).await?;
            if run.stderr.contains("podwitness: ") || run.stderr.contains("not recorded") {
                wrong.push(format!("{name}: {run:?}"));
            }
        }
        none_wrong(&wrong)
    })
    .await
}

#[tokio::test]
async fn a_wrong_item_is_refused_when_it_is_set() -> Result<()> {
    Namespace::witnessed(async |ns| {
        for item in [
            "capability:ALL",
            "capability:sys_time",
            "init:NET_ADMIN",
            "init:ALL:mesh/init",
            "hostPath:/",
            "hostPath:/var/../etc",
            "hostPath:relative",
            "volume:hostPath",
            "hostPort:0",
            "privileged",
            "hostPID:true",
            "seccomp:Anything",
        ] {
            let run = allow(ns, &format!("capability:SYS_TIME,{item}")).await?;
            ensure!(run.code != 0 && run.stderr.contains(item), "{item}: {run:?}");
        }
        allow(ns, "capability:SYS_TIME, init:NET_ADMIN:docker.io/mesh/init, hostPath:/var/log:rw")
            .await?
            .ok()?;
        let pod = format!("{}/any", ns.name);
        let explained =
            Kubectl::default().run(&["witness", "grants", "explain", "--pod", &pod, "--as", "ana"]).await?;
        let said = explained.text();
        ensure!(
            said.contains("capability:SYS_TIME") && said.contains("hostPath:/var/log:rw"),
            "{explained:?}"
        );
        Ok(())
    })
    .await
}

/// The policy that holds where another webhook comes after ours, alone: bound to a namespace that no webhook of ours
/// looks at, it finds the same pods. It only warns there, because of several policies that deny one is named.
#[tokio::test]
async fn the_policy_alone_denies_what_admission_refuses() -> Result<()> {
    Namespace::witnessed(async |ns| {
        let admitted = tried(ns, &sleeper("pod")).await?.ok()?;
        let admitted: Value = serde_json::from_slice(&admitted.stdout)?;
        Namespace::plain(async |plain| {
            let policy = PolicyCopy::of("podwitness-pods", &plain.name).await?;
            let result = policy.denies_the_table(plain, &admitted).await;
            policy.delete().await;
            result
        })
        .await
    })
    .await
}

/// A policy of ours under another name and binding.
struct PolicyCopy(String);

impl PolicyCopy {
    async fn of(name: &str, namespace: &str) -> Result<Self> {
        let kubectl = Kubectl::default();
        let policy = kubectl.get(&["validatingadmissionpolicy", name]).await?;
        let spec = policy.get("spec").context("no spec")?;
        let copy = format!("{name}-{namespace}");
        let meta = json!({"name": copy});
        kubectl
            .create(
                &json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
                "metadata": meta, "spec": spec}),
                &[],
            )
            .await?
            .ok()?;
        kubectl
            .create(&json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
                "metadata": meta, "spec": {"policyName": copy, "validationActions": ["Warn"], "matchResources":
                    {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}}}}), &[])
            .await?
            .ok()?;
        Ok(Self(copy))
    }

    async fn delete(&self) {
        let kubectl = Kubectl::default();
        for kind in ["validatingadmissionpolicybinding", "validatingadmissionpolicy"] {
            let _ = kubectl.run(&["delete", kind, &self.0, "--ignore-not-found"]).await;
        }
    }

    /// `admitted` is a pod as admission makes it.
    async fn denies_the_table(&self, ns: &Namespace, admitted: &Value) -> Result<()> {
        let mut admitted = admitted.clone();
        let meta = fields(&mut admitted, "/metadata")?;
        meta.insert("namespace".to_owned(), json!(ns.name));
        let denied = |run: &Run| run.stderr.contains(&self.0);
        eventually("the policy is in force", async || {
            let run = tried(ns, &edited(admitted.clone(), &secured("privileged", &json!(true)))?).await?;
            ensure!(denied(&run), "{run:?}");
            Ok(())
        })
        .await?;
        let whole = tried(ns, &admitted).await?;
        ensure!(!denied(&whole), "it denies what admission makes: {whole:?}");
        let mut wrong = Vec::new();
        let rows = table();
        for Beyond { name, edit, .. } in &rows {
            if !denied(&tried(ns, &edited(admitted.clone(), edit)?).await?) {
                wrong.push(format!("{name} is not denied"));
            }
        }
        let items: Vec<&str> = rows.iter().filter_map(|row| row.item).collect();
        allow(ns, &items.join(",")).await?.ok()?;
        eventually("the policy sees the annotation", async || {
            let run = tried(ns, &edited(admitted.clone(), &adding("SYS_TIME"))?).await?;
            ensure!(!denied(&run), "{run:?}");
            Ok(())
        })
        .await?;
        for Beyond { name, edit, item, .. } in &rows {
            let run = tried(ns, &edited(admitted.clone(), edit)?).await?;
            if denied(&run) != item.is_none() {
                wrong.push(format!("{name}, with {item:?}: {}", run.stderr));
            }
        }
        none_wrong(&wrong)
    }
}

/// What kubectl debug can ask for, and what it cannot.
#[tokio::test]
async fn debug_containers_are_held_to_the_baseline_too() -> Result<()> {
    Namespace::witnessed(async |ns| {
        let zones = edited(sleeper("pod"), &of_node("/usr/share/zoneinfo", true))?;
        ns.start(&zones).await?;
        let add = async |number: usize, more: &Value| {
            let mut container = json!({"name": format!("debug-{number}"), "image": TOOLBOX, "command": ["true"]});
            merge(fields(&mut container, "")?, more)?;
            let patch = json!({"spec": {"ephemeralContainers": [container]}}).to_string();
            let args = ["patch", "pod", "pod", "--subresource=ephemeralcontainers", "-p", &patch, "--dry-run=server"];
            ns.kubectl.run(&args).await
        };
        let mount = |read_only: bool| json!({"volumeMounts": [{"name": "extra", "mountPath": "/x", "readOnly": read_only}]});
        for (number, (more, names)) in [
            (json!({"securityContext": {"privileged": true}}), "privileged"),
            (json!({"securityContext": {"capabilities": {"add": ["DAC_READ_SEARCH"]}}}), "DAC_READ_SEARCH"),
            (json!({"securityContext": {"capabilities": {"add": ["SYS_PTRACE"]}}}), "SYS_PTRACE"),
            (json!({"securityContext": {"seccompProfile": {"type": "Unconfined"}}}), "seccompProfile.type"),
            (json!({"securityContext": {"appArmorProfile": {"type": "Unconfined"}}}), "appArmorProfile.type"),
            (json!({"securityContext": {"seLinuxOptions": {"type": "spc_t"}}}), "seLinuxOptions.type"),
            (mount(false), "spec.ephemeralContainers[0].volumeMounts[0]"),
        ]
        .iter()
        .enumerate()
        {
            let run = add(number, more).await?;
            ensure!(run.code != 0 && run.stderr.contains(names), "{more}: {run:?}");
        }
        add(90, &mount(true)).await?.ok()?;
        add(91, &json!({})).await?.ok()?;
        Ok(())
    })
    .await
}

/// The image by which an init container was accepted cannot be exchanged for another while the pod waits.
#[tokio::test]
async fn an_accepted_init_container_keeps_its_kind_of_image() -> Result<()> {
    Namespace::witnessed(async |ns| {
        allow(ns, "init:NET_ADMIN:podwitness.dev/mesh/init").await?.ok()?;
        let pod = edited(sleeper("pod"), &Edit::Init(mesh_init()))?;
        let waiting =
            edited(pod, &Edit::Spec(json!({"schedulingGates": [{"name": "e2e.podwitness.dev/wait"}]})))?;
        eventually("admission knows the annotation", async || ns.kubectl.create(&waiting, &[]).await?.ok())
            .await?;
        let exchange = async |image: &str| {
            let patch = json!({"spec": {"initContainers": [{"name": "mesh", "image": image}]}}).to_string();
            ns.kubectl.run(&["patch", "pod", "pod", "-p", &patch, "--dry-run=server"]).await
        };
        exchange("podwitness.dev/mesh/init:2").await?.ok()?;
        for image in [TOOLBOX, "podwitness.dev/mesh/init-other:1"] {
            let run = exchange(image).await?;
            ensure!(run.code != 0 && run.stderr.contains("for other images only"), "{image}: {run:?}");
        }
        Ok(())
    })
    .await
}

/// The API server type-checks expressions against its own schema and says what it does not understand.
#[tokio::test]
async fn the_api_server_has_nothing_to_say_about_our_policies() -> Result<()> {
    let all = Kubectl::default().get(&["validatingadmissionpolicies"]).await?;
    let items = all.pointer("/items").and_then(Value::as_array).context("no policies")?;
    let name = |policy: &Value| {
        policy.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let ours: Vec<&Value> = items.iter().filter(|policy| name(policy).starts_with("podwitness-")).collect();
    ensure!(ours.len() >= 9, "{} policies", ours.len());
    for policy in ours {
        let warnings = policy.pointer("/status/typeChecking/expressionWarnings");
        ensure!(warnings.is_none(), "{}: {warnings:?}", name(policy));
    }
    Ok(())
}
