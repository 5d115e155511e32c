//! An S3 server of one test: a pod that holds one bucket, and the Secret that recorders sign with.

use anyhow::Result;
use serde_json::{Value, json};

use crate::{Kubectl, Namespace, SYSTEM, TOOLBOX, VERSITYGW};

/// Name of the pod, and of the Service before it.
const NAME: &str = "s3";
const PORT: u16 = 7070;
const BUCKET: &str = "audit";
const KEY: &str = "AKIDEXAMPLE";
const SECRET: &str = "wJalrXUtnFEMIexample";

/// Runs `test` with a server in this namespace, and takes it away afterwards. What `test` is given is `storage.s3` of a
/// Recorder that acknowledges what is in the bucket.
///
/// # Errors
/// Those of `test`, and where the server does not start.
pub async fn with_bucket(ns: &Namespace, test: impl AsyncFnOnce(&Value) -> Result<()>) -> Result<()> {
    let system = Kubectl::with(&["-n", SYSTEM]);
    let run = async {
        system.create(&secret(&ns.name), &[]).await?.ok()?;
        ns.kubectl.create(&service(), &[]).await?.ok()?;
        ns.start(&server()).await?;
        test(&storage(&ns.name)).await
    };
    let result = run.await;
    let _ = system.run(&["delete", "secret", &ns.name, "--ignore-not-found"]).await;
    result
}

fn storage(ns: &str) -> Value {
    json!({"endpoint": format!("http://{NAME}.{ns}.svc:{PORT}"), "bucket": BUCKET, "prefix": "kept/here",
        "credentials": {"secret": {"name": ns}}, "ack": "object"})
}

/// It has the name of the namespace in which the server is.
fn secret(ns: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": ns},
        "stringData": {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}})
}

fn service() -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": NAME},
        "spec": {"selector": {"app": NAME}, "ports": [{"port": PORT}]}})
}

/// Its buckets are folders.
fn server() -> Value {
    let mounts = json!([{"name": "buckets", "mountPath": "/buckets"}]);
    let port = format!(":{PORT}");
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": NAME, "labels": {"app": NAME}},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "volumes": [{"name": "buckets", "emptyDir": {}}],
            "initContainers": [{
                "name": "bucket", "image": TOOLBOX, "imagePullPolicy": "IfNotPresent",
                "command": ["mkdir", "-p", format!("/buckets/{BUCKET}")], "volumeMounts": mounts
            }],
            "containers": [{
                "name": "app", "image": VERSITYGW, "imagePullPolicy": "IfNotPresent",
                "args": ["--access", KEY, "--secret", SECRET, "--port", port, "--quiet", "posix", "/buckets"],
                "readinessProbe": {"tcpSocket": {"port": PORT}, "periodSeconds": 1},
                "volumeMounts": mounts
            }]
        }
    })
}
