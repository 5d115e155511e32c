//! Whether a pod has the shape that admission gives it.
//!
//! A container of our name and image is easily written by hand, beside another that reads its token: such a pod would
//! enrol like an injected one and upload whatever it likes. What is looked at here is what keeps the sidecar's token,
//! keys and process from everybody else in the pod. Image, user and command are looked at by
//! [`role`](super::super::role).

use podwitness_core::inject::{
    CONTAINER, ENV_INJECT, ENV_PREFIX, Inject, MOUNT_SOURCE, MOUNT_TUN, POD_FIELDS, SERVICE_ACCOUNT_DIR,
    TOKEN_AUDIENCE, VOLUME_CA, VOLUME_IDENTITY, VOLUME_PREFIX, VOLUME_SERVICE_ACCOUNT, VOLUME_SOURCE,
    VOLUME_SPOOL, VOLUME_STATE, VOLUME_TUN,
};

use super::spec::{Container, Mount, PodSpec, Volume};

/// How binding injection was when the pod was admitted, or what tells the pod from an admitted one.
pub type Shape = Result<Inject, &'static str>;

/// The shape of a pod with this specification.
///
/// # Errors
/// What tells it from a pod that admission made.
pub fn of(spec: &PodSpec) -> Shape {
    let first = spec.init_containers.split_first();
    let Some((sidecar, later)) = first.filter(|(first, _)| first.name == CONTAINER) else {
        return Err("the container podwitness is not its first init container");
    };
    if spec.host_network {
        return Err("it uses the node's network");
    }
    let others = || later.iter().chain(&spec.containers).chain(&spec.ephemeral_containers);
    if others().any(|container| container.name == CONTAINER) {
        return Err("it has two containers podwitness");
    }
    if others().flat_map(|container| &container.volume_mounts).any(is_of_sidecar) {
        return Err("another container mounts a volume of the sidecar");
    }
    volumes(&spec.volumes)?;
    closed(sidecar)?;
    admitted_as(sidecar).ok_or("the sidecar is not told how binding injection is")
}

/// Whether a mount is of a volume that only the sidecar may have: any of ours but those that stand in for token
/// volumes and the bundle, and those to write.
fn is_of_sidecar(mount: &Mount) -> bool {
    let is_for_others = mount.name.starts_with(VOLUME_SERVICE_ACCOUNT) || mount.name == VOLUME_CA;
    mount.name.starts_with(VOLUME_PREFIX) && !(is_for_others && mount.read_only)
}

fn volumes(volumes: &[Volume]) -> Result<(), &'static str> {
    for volume in volumes {
        let is_ours = volume.name.starts_with(VOLUME_PREFIX);
        if is_ours && !is_as_made(volume) {
            return Err("a volume of the sidecar is another than admission makes");
        }
        if !is_ours && audiences(volume).any(|audience| audience == TOKEN_AUDIENCE) {
            return Err("another volume than the sidecar's projects a token of audience podwitness.dev");
        }
    }
    Ok(())
}

fn is_as_made(volume: &Volume) -> bool {
    match volume.name.as_str() {
        VOLUME_IDENTITY => audiences(volume).eq([TOKEN_AUDIENCE]),
        VOLUME_TUN => volume.host_path.as_ref().is_some_and(|node| node.path == MOUNT_TUN),
        VOLUME_STATE | VOLUME_SPOOL | VOLUME_CA => volume.empty_dir.is_some(),
        name if name.starts_with(VOLUME_SOURCE) => {
            volume.projected.is_some() && audiences(volume).all(|audience| audience != TOKEN_AUDIENCE)
        }
        name => name.starts_with(VOLUME_SERVICE_ACCOUNT) && volume.empty_dir.is_some(),
    }
}

fn audiences(volume: &Volume) -> impl Iterator<Item = &str> {
    let sources = volume.projected.iter().flat_map(|projected| &projected.sources);
    sources.filter_map(|source| source.service_account_token.as_ref()).map(|token| token.audience.as_str())
}

/// Whether nothing reaches into the sidecar's process: no file, variable or command of somebody else.
fn closed(sidecar: &Container) -> Result<(), &'static str> {
    let context = &sidecar.security_context;
    let confined = !context.privileged
        && context.allow_privilege_escalation == Some(false)
        && context.read_only_root_filesystem
        && context.capabilities.add.iter().all(|capability| capability == "NET_ADMIN");
    if !confined {
        return Err("the sidecar has other privileges than admission gives");
    }
    let is_known =
        |name: &str| name.starts_with(ENV_PREFIX) || POD_FIELDS.iter().any(|(known, _)| *known == name);
    if !sidecar.env_from.is_empty() || !sidecar.env.iter().all(|variable| is_known(&variable.name)) {
        return Err("the sidecar has other variables than admission gives");
    }
    if sidecar.lifecycle.is_some() {
        return Err("the sidecar runs other commands than its own");
    }
    let is_token = |mount: &Mount| {
        mount.read_only
            && (mount.mount_path == SERVICE_ACCOUNT_DIR || mount.mount_path.starts_with(MOUNT_SOURCE))
    };
    if !sidecar.volume_mounts.iter().all(|mount| mount.name.starts_with(VOLUME_PREFIX) || is_token(mount)) {
        return Err("the sidecar mounts other volumes than admission gives");
    }
    Ok(())
}

fn admitted_as(sidecar: &Container) -> Option<Inject> {
    let mut told = sidecar.env.iter().filter(|variable| variable.name == ENV_INJECT);
    // Of two with one name the last one counts; admission writes one.
    told.next().filter(|_| told.next().is_none()).and_then(|variable| Inject::parse(&variable.value))
}

#[cfg(test)]
mod tests {
    use podwitness_core::{
        allow::Allow,
        inject::{ApiServerAddresses, ControlAddress, Credentials, Profile, UntilNetmap},
        trust::Trust,
    };
    use serde_json::{Value, json};

    use super::*;
    use crate::{admit, control::pod::testing::pod};

    /// A pod as admission makes it.
    fn admitted(inject: Inject) -> Value {
        let settings = admit::Settings {
            inject,
            profile: Profile::Interface,
            credentials: Credentials::Passthrough,
            namespace_annotations: [].into(),
            allow: Allow::default(),
            version: "0.1.0".into(),
            image: "podwitness.dev/sidecar:dev".into(),
            pull_secrets: vec![],
            amounts: admit::Amounts::default(),
            ranges: admit::Ranges::default(),
            quotas: vec![],
            spool_size: 512 << 20,
            node_tun: true,
            control: ControlAddress { name: "control".into(), port: 8444, addresses: vec![] },
            control_ca: "root".into(),
            api_server: ApiServerAddresses::default(),
            until_netmap: UntilNetmap::Open,
            trust: Trust::Cluster,
        };
        let token = json!({"name": "kube-api-access", "readOnly": true, "mountPath": SERVICE_ACCOUNT_DIR});
        let mut pod = json!({"metadata": {"name": "till", "namespace": "shop"}, "spec": {
            "initContainers": [{"name": "setup", "image": "i", "volumeMounts": [token]}],
            "containers": [{"name": "app", "image": "i", "volumeMounts": [token]}],
            "volumes": [{"name": "kube-api-access", "projected": {"sources": [
                {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
                {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}}]}}],
        }});
        let patch = admit::mutate(&pod, &settings).unwrap();
        json_patch::patch(&mut pod, &patch).unwrap();
        pod
    }

    fn shape(value: Value) -> Shape {
        of(&pod(value).spec)
    }

    #[test]
    fn what_admission_makes_has_the_shape_and_says_the_mode() {
        for inject in [Inject::Required, Inject::Optional] {
            assert_eq!(shape(admitted(inject)), Ok(inject));
        }
    }

    fn push(mut pod: Value, list: &str, item: Value) -> Value {
        let field = pod.pointer_mut(list).unwrap();
        if field.is_null() {
            *field = json!([]);
        }
        field.as_array_mut().unwrap().push(item);
        pod
    }

    fn set(mut pod: Value, parent: &str, key: &str, value: Value) -> Value {
        pod.pointer_mut(parent).unwrap().as_object_mut().unwrap().insert(key.into(), value);
        pod
    }

    fn whole() -> Value {
        admitted(Inject::Required)
    }

    fn mount(name: &str, path: &str, read_only: bool) -> Value {
        json!({"name": name, "mountPath": path, "readOnly": read_only})
    }

    fn mounts(container: &str) -> String {
        format!("/spec/{container}/volumeMounts")
    }

    /// Another volume in the place of one of the sidecar's.
    fn volume(name: &str, source: &str, value: Value) -> Value {
        let mut pod = whole();
        let volumes = pod["spec"]["volumes"].as_array_mut().unwrap();
        let place = volumes.iter_mut().find(|volume| volume["name"] == name).unwrap();
        *place = set(json!({"name": name}), "", source, value);
        pod
    }

    /// Other containers that reach for what is the sidecar's.
    fn beside() -> Vec<(Value, &'static str)> {
        let mut reordered = whole();
        reordered["spec"]["initContainers"].as_array_mut().unwrap().swap(0, 1);
        let identity = mount(VOLUME_IDENTITY, "/stolen", true);
        let debugging = json!([{"name": "d", "volumeMounts": [mount(VOLUME_STATE, "/s", false)]}]);
        let stand_in = mount("podwitness-serviceaccount-0", "/x", false);
        let bundle = mount(VOLUME_CA, "/y", false);
        let mounts_it = "another container mounts";
        vec![
            (reordered, "first init container"),
            (set(whole(), "/spec", "hostNetwork", json!(true)), "network"),
            (push(whole(), "/spec/containers", json!({"name": CONTAINER, "image": "i"})), "two containers"),
            (push(whole(), &mounts("containers/0"), identity.clone()), mounts_it),
            (push(whole(), &mounts("initContainers/1"), identity), mounts_it),
            (set(whole(), "/spec", "ephemeralContainers", debugging), mounts_it),
            (push(whole(), &mounts("containers/0"), stand_in), mounts_it),
            (push(whole(), &mounts("containers/0"), mount("podwitness-source-0", "/x", true)), mounts_it),
            (push(whole(), &mounts("containers/0"), bundle), mounts_it),
        ]
    }

    /// Volumes that others can read or write, and other tokens.
    fn volumes_of_others() -> Vec<(Value, &'static str)> {
        let ours = json!({"serviceAccountToken": {"audience": TOKEN_AUDIENCE, "path": "t"}});
        let second = json!({"name": "mine", "projected": {"sources": [ours]}});
        let other = json!({"name": "podwitness-other", "emptyDir": {}});
        let says = "a volume of the sidecar";
        vec![
            (push(whole(), "/spec/volumes", second), "another volume"),
            (push(whole(), "/spec/volumes", other), says),
            (volume(VOLUME_IDENTITY, "projected", json!({"sources": [ours, ours]})), says),
            (volume(VOLUME_IDENTITY, "emptyDir", json!({})), says),
            (volume(VOLUME_STATE, "hostPath", json!({"path": "/tmp"})), says),
            (volume(VOLUME_CA, "hostPath", json!({"path": "/tmp"})), says),
            (volume(VOLUME_SPOOL, "persistentVolumeClaim", json!({"claimName": "c"})), says),
            (volume(VOLUME_TUN, "hostPath", json!({"path": "/"})), says),
            (volume("podwitness-source-0", "projected", json!({"sources": [ours]})), says),
            (volume("podwitness-source-0", "hostPath", json!({"path": "/"})), says),
        ]
    }

    /// Sidecars into which somebody else reaches.
    fn sidecars() -> Vec<(Value, &'static str)> {
        let sidecar = "/spec/initContainers/0";
        let context = format!("{sidecar}/securityContext");
        let (env, added) = (format!("{sidecar}/env"), format!("{context}/capabilities/add"));
        let variable = |name: &str, value: &str| json!({"name": name, "value": value});
        let hook = json!({"postStart": {"exec": {"command": ["x"]}}});
        let library = mount("data", "/lib", true);
        let source = mount("data", "/var/run/podwitness/source/9", false);
        vec![
            (set(whole(), &context, "privileged", json!(true)), "privileges"),
            (set(whole(), &context, "allowPrivilegeEscalation", json!(true)), "privileges"),
            (set(whole(), &context, "readOnlyRootFilesystem", json!(false)), "privileges"),
            (push(whole(), &added, json!("SYS_PTRACE")), "privileges"),
            (push(whole(), &env, variable("LD_PRELOAD", "/x.so")), "variables"),
            (set(whole(), sidecar, "envFrom", json!([{"secretRef": {"name": "s"}}])), "variables"),
            (set(whole(), sidecar, "lifecycle", hook), "commands"),
            (push(whole(), &mounts("initContainers/0"), library), "mounts other volumes"),
            (push(whole(), &mounts("initContainers/0"), source), "mounts other volumes"),
            (push(whole(), &env, variable(ENV_INJECT, "required")), "how binding"),
        ]
    }

    #[test]
    fn a_look_alike_is_told_from_an_admitted_pod() {
        for (pod, says) in [beside(), volumes_of_others(), sidecars()].concat() {
            let told = shape(pod).unwrap_err();
            assert!(told.contains(says), "{told} does not say {says}");
        }
    }
}
