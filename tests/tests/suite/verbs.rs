//! Every kubectl verb through the sidecar does what it does without.

use anyhow::{Result, ensure};
use podwitness_core::labels;
use podwitness_e2e::{
    Namespace, TOOLBOX,
    pods::{running, sleeper},
    schedule::{Class, enter},
};

/// Shell scripts whose output and exit code must be equal in a witnessed and in a plain pod. They work in a namespace
/// of their own, `$NS`, and leave it as they found it.
const SCRIPTS: &[(&str, &str)] = &[
    ("version", "kubectl version -o json | grep -c gitVersion"),
    ("api-resources", "kubectl api-resources --no-headers | sort | sha256sum"),
    ("api-versions", "kubectl api-versions | sort | sha256sum"),
    ("explain", "kubectl explain pod.spec.containers | sha256sum"),
    ("get", "kubectl -n $NS get pod target -o jsonpath={.metadata.uid}"),
    ("get raw", "kubectl get --raw /api/v1/namespaces/$NS/pods/target/status | wc -c"),
    ("get missing", "kubectl -n $NS get pod nothing 2>&1"),
    ("get --watch", "shows 1 kubectl -n $NS get pods --watch -o name"),
    ("describe", "kubectl -n $NS describe pod target | head -n 5 | sha256sum"),
    ("logs", "kubectl -n $NS logs talker | head -n 1000 | sha256sum"),
    ("logs -f", "shows 3 kubectl -n $NS logs -f talker"),
    (
        "create and delete",
        "kubectl -n $NS create configmap c --from-literal=a=b 2>&1; kubectl -n $NS delete configmap c 2>&1",
    ),
    (
        "apply, patch, label, annotate, replace",
        "kubectl -n $NS create configmap d --dry-run=client -o yaml >/tmp/d.yaml; kubectl -n $NS apply -f /tmp/d.yaml;
         kubectl -n $NS apply --server-side --force-conflicts -f /tmp/d.yaml;
         kubectl -n $NS patch configmap d -p '{\"data\":{\"x\":\"1\"}}'; kubectl -n $NS label configmap d l=1;
         kubectl -n $NS annotate configmap d n=1; kubectl -n $NS get configmap d -o jsonpath='{.data}{.metadata.labels}';
         kubectl -n $NS delete configmap d",
    ),
    ("large object", "head -c 700000 /dev/zero | tr '\\0' x >/tmp/big; kubectl -n $NS create configmap e --from-file=/tmp/big; kubectl -n $NS get configmap e -o json | wc -c >/dev/null; kubectl -n $NS get configmap e -o jsonpath='{.data.big}' | sha256sum; kubectl -n $NS delete configmap e"),
    ("auth can-i", "kubectl auth can-i create pods; kubectl auth can-i --list >/dev/null; echo $?"),
    (
        "kubeconfig, and denied",
        "export KUBECONFIG=/tmp/kubeconfig; cd /var/run/secrets/kubernetes.io/serviceaccount;
         kubectl config set-cluster c --server=https://kubernetes.default.svc --certificate-authority=$PWD/ca.crt;
         kubectl config set-credentials u --token=$(cat token); kubectl config set-context x --cluster=c --user=u;
         kubectl config use-context x; kubectl -n $NS get pod target -o name;
         kubectl --as=nobody -n $NS get secrets 2>&1",
    ),
    ("scale and rollout", "kubectl -n $NS create deployment f --image=podwitness.dev/toolbox:dev --replicas=0; kubectl -n $NS scale deployment f --replicas=0; kubectl -n $NS rollout history deployment f; kubectl -n $NS delete deployment f"),
    ("wait", "kubectl -n $NS wait pod/target --for=condition=Ready --timeout=30s"),
    ("exec", "kubectl -n $NS exec target -- sh -c 'echo out; echo err >&2; exit 7'"),
    ("exec -i", "head -c 3000000 /dev/zero | kubectl -n $NS exec -i target -- sha256sum"),
    ("exec, SPDY", "KUBECTL_REMOTE_COMMAND_WEBSOCKETS=false kubectl -n $NS exec target -- echo spdy"),
    ("exec, long command", "kubectl -n $NS exec target -- echo $(head -c 60000 /dev/zero | tr '\\0' y) | sha256sum"),
    ("exec missing container", "kubectl -n $NS exec target -c nothing -- true 2>&1"),
    ("cp", "echo hello >/tmp/h; kubectl -n $NS cp /tmp/h target:/tmp/h && kubectl -n $NS cp target:/tmp/h /tmp/h2 >/dev/null 2>&1 && cat /tmp/h2"),
    ("attach", "shows 1 kubectl -n $NS attach talker"),
    ("port-forward", "kubectl -n $NS port-forward pod/server 18080:8080 >/dev/null & p=$!; for i in $(seq 300); do wget -qO- http://127.0.0.1:18080/etc/hostname 2>/dev/null && break; sleep 0.1; done; kill $p"),
    // A container that speaks before its client is attached, or ends at once, loses what it says.
    ("run", "(echo ran; sleep 6) | kubectl -n $NS run once --image=podwitness.dev/toolbox:dev --image-pull-policy=IfNotPresent --restart=Never -i --rm --quiet -- sh -c 'read -r x; echo $x; sleep 2' 2>/dev/null | grep ran"),
    ("debug", "kubectl -n $NS debug target --image=podwitness.dev/toolbox:dev --quiet -- echo debugged >/dev/null 2>&1; echo $?"),
    ("proxy", "kubectl proxy --port=18001 >/dev/null & p=$!; for i in $(seq 300); do wget -qO- http://127.0.0.1:18001/api/v1/namespaces/$NS/pods/server/status 2>/dev/null | wc -c | grep -v '^0$' && break; sleep 0.1; done; kill $p"),
    ("top", "kubectl -n $NS top pods 2>&1 | head -n 1"),
    ("events", "kubectl -n $NS events --for pod/target -o name | wc -l | grep -c ."),
    ("certificates", "kubectl get csr -o name 2>&1 | sha256sum"),
    ("cluster-info", "kubectl cluster-info dump -n $NS -o name | wc -c | grep -c ."),
];

#[tokio::test]
async fn every_verb_gives_what_it_gives_without_the_sidecar() -> Result<()> {
    enter(Class::Long).await;
    Namespace::plain(async |things| {
        things.start(&sleeper("target")).await?;
        things.start(&running("talker", TOOLBOX, TALK)).await?;
        things.start(&running("server", TOOLBOX, "httpd -f -p 8080 -h /")).await?;
        with_client(&[], async |plain| {
            with_client(&[(labels::INJECT, "required")], async |witnessed| {
                for (name, script) in SCRIPTS {
                    let script = format!("NS={}; {SHOWS}{script}", things.name);
                    let expected = outcome(plain, &script).await?;
                    let found = outcome(witnessed, &script).await?;
                    ensure!(found == expected, "{name}: with the sidecar {found:?}, without {expected:?}");
                }
                Ok(())
            })
            .await
        })
        .await
    })
    .await
}

/// `shows COUNT COMMAND…` ends a command that would go on once it has printed that many lines, and prints those.
const SHOWS: &str = r#"shows() {
  count=$1; shift; : >/tmp/shown
  "$@" >/tmp/shown 2>/tmp/said & shows=$!
  until [ $(wc -l </tmp/shown) -ge $count ]; do kill -0 $shows || break; sleep 0.1; done
  kill $shows; wait $shows; head -n $count /tmp/shown
} 2>/dev/null
"#;

const TALK: &str =
    "i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done; while :; do echo more; sleep 1; done";

/// Runs `test` with a namespace that has a pod `client`, which may do everything.
async fn with_client(
    labels: &[(&str, &str)],
    test: impl AsyncFnOnce(&Namespace) -> Result<()>,
) -> Result<()> {
    Namespace::with(labels, async |ns| {
        ns.allow_all().await?;
        ns.start(&sleeper("client")).await?;
        test(ns).await
    })
    .await
}

/// Exit code and what a script printed; the client's namespace is hidden, it differs.
async fn outcome(ns: &Namespace, script: &str) -> Result<(i32, String, String)> {
    let run = ns.shell("client", script).await?;
    let hide = |text: &str| text.replace(&ns.name, "CLIENT");
    Ok((run.code, hide(&run.text()), hide(&run.stderr)))
}
