mod pods;

use clap::Parser as _;
use podwitness_core::grant::Grant;
use podwitness_crd::Recorder;
use serde_json::{Value, json};

use super::*;
use crate::args::{Cli, Command, Grants};

/// The question as the program reads it, where the context's namespace is `office`.
fn ask_of(pod: &str, words: &[&str]) -> anyhow::Result<Question> {
    let all = ["kubectl-witness", "grants", "explain", "--pod", pod];
    let Command::Grants(Grants::Explain(args)) = Cli::try_parse_from(all.iter().chain(words))?.command else {
        anyhow::bail!("that is another command")
    };
    let namespace = Question::check(&args)?;
    Ok(Question::read(&args, namespace.as_deref().unwrap_or("office"))?)
}

fn ask(words: &[&str]) -> anyhow::Result<Question> {
    ask_of("shop/till", words)
}

const NOW: i64 = 1_800_000_000;

fn grant(name: &str, src: &str, dst: &str, rule: &Value) -> Grant {
    let app = json!({"tailscale.com/cap/kubernetes": [rule]});
    let spec = json!({"src": [src], "dst": [dst], "app": app});
    Grant { name: name.into(), spec: serde_json::from_value(spec).unwrap() }
}

fn recorder(name: &str, tag: &str, ready: bool) -> Recorder {
    let ready = if ready { ("True", "1 of 1 replicas are ready") } else { ("False", "no pod has enrolled") };
    let condition = json!({"type": "Ready", "status": ready.0, "reason": "R", "message": ready.1,
        "lastTransitionTime": "2027-01-15T08:00:00Z"});
    let replica = json!({"pod": format!("{name}-0"), "podUID": "u", "key": "k", "address": "fd70::1",
        "endpoint": "10.0.0.1:51820", "ack": "volume"});
    serde_json::from_value(json!({"apiVersion": "podwitness.dev/v1alpha1", "kind": "Recorder",
        "metadata": {"name": name}, "spec": {"tags": [tag]},
        "status": {"conditions": [condition], "replicas": [replica]}}))
    .unwrap()
}

fn facts(grants: Vec<Grant>) -> Facts {
    Facts {
        grants,
        recorders: vec![recorder("here", "tag:here", true), recorder("down", "tag:down", false)],
        tags: vec!["pci".into()],
        inject: Some("required".into()),
        pod: Some(PodFacts { witnessed: true, ..PodFacts::default() }),
        now: NOW,
        ..Facts::default()
    }
}

fn default_grant() -> Grant {
    let mut grant = grant("default", "*", "*", &json!({"recorder": ["tag:here"], "enableEvents": true}));
    grant.spec.default = true;
    grant
}

#[test]
fn an_answer_for_people_says_everything() {
    let mut pci = grant(
        "pci",
        "group:sre",
        "tag:pci",
        &json!({"recorder": ["tag:here", "tag:down"], "enforceRecorder": true, "requireAck": "volume",
            "lead": 65536, "maskFlags": ["--password"], "resources": ["pods/*"]}),
    );
    pci.spec.priority = 5;
    let grants = vec![
        grant(
            "all",
            "ana@example.com",
            "namespace:shop",
            &json!({"recorder": ["tag:none"], "enableEvents": true}),
        ),
        grant("bob", "user:bob@example.com", "*", &json!({"recorder": ["tag:here"]})),
        grant("lists", "*", "*", &json!({"verbs": ["list"], "resources": ["pods"]})),
        grant("office", "*", "namespace:office", &json!({"recorder": ["tag:here"]})),
        default_grant(),
        pci,
    ];
    let question = ask(&["--as", "ana@example.com", "--as-group", "sre"]).unwrap();
    let answer = answer(&question, &facts(grants));
    assert_eq!((answer.outcome, answer.outcome.exit_code()), (Outcome::Recorded, 0));
    let expected = "\
RECORDED: recorder here is ready

Request     get pods/exec in namespace shop
User        ana@example.com (groups sre, system:authenticated)
From pod    shop/till

Grants that apply, in order
  1. pci (priority 5): src group:sre; dst tag:pci
     recorder tag:here, tag:down; enforceRecorder; requireAck volume; lead 65536; maskFlags --password
  2. all (priority 0): src ana@example.com; dst namespace:shop
     recorder tag:none; enableEvents

Grants that match the pod, but do not apply
  bob: src user:bob@example.com matches neither ana@example.com nor their groups
  lists: no rule covers get pods/exec there; it has: verbs list and resources pods
  default: it is a default grant, and others apply

1 grant matches other pods

What follows
  Fails       closed: what cannot be recorded does not happen
  Recorders   tag:here: recorder here is ready (1 of 1 replicas are ready, acknowledges volume)
              tag:down: recorder down is not ready: no pod has enrolled
              tag:none (does not count: its rule does not enforce): no Recorder has this tag
  Events      every request
  Acks        volume; 65536 bytes are shown before they are acknowledged
  Masked      --password
  Opaque      upgrades that cannot be inspected: refused
";
    assert_eq!(answer.to_string(), expected);
}

#[test]
fn what_becomes_of_a_request_is_an_exit_code() {
    let closed = |tag: &str| vec![grant("g", "*", "*", &json!({"recorder": [tag], "enforceRecorder": true}))];
    let open = |tag: &str| vec![grant("g", "*", "*", &json!({"recorder": [tag]}))];
    let exec: &[&str] = &["--as", "ana"];
    let list: &[&str] = &["--as", "ana", "--verb", "list", "--resource", "pods"];
    for (words, grants, outcome, code) in [
        (exec, closed("tag:here"), Outcome::Recorded, 0),
        (exec, open("tag:down"), Outcome::Kept, 0),
        (exec, closed("tag:down"), Outcome::Refused, 4),
        (exec, closed("tag:none"), Outcome::Refused, 4),
        (exec, vec![], Outcome::NotRecorded, 3),
        (exec, vec![grant("g", "*", "*", &json!({}))], Outcome::NotRecorded, 3),
        (list, open("tag:here"), Outcome::NotRecorded, 3),
        (list, vec![default_grant()], Outcome::Recorded, 0),
    ] {
        let found = answer(&ask(words).unwrap(), &facts(grants.clone()));
        assert_eq!((found.outcome, found.outcome.exit_code()), (outcome, code), "{grants:?}: {found}");
    }
}

#[test]
fn grants_that_name_no_recorder_are_said_to_keep_the_default_one_away() {
    let silent = grant("silent", "*", "*", &json!({"recorder": []}));
    let question = ask(&["--as", "ana"]).unwrap();
    let alone = answer(&question, &facts(vec![silent.clone()]));
    assert_eq!(alone.because, "no grant that applies names a recorder; name a tag in recorder");
    let found = answer(&question, &facts(vec![silent, default_grant()]));
    assert_eq!((found.outcome, found.outcome.exit_code()), (Outcome::NotRecorded, 3));
    assert_eq!(
        found.because,
        "no grant that applies names a recorder, and they keep the default grant away; name a tag in recorder, or \
         delete them"
    );
    assert_eq!((&*found.others[0].name, found.others[0].reason), ("default", "behind-others"));
}

#[test]
fn a_pod_without_a_sidecar_is_not_recorded_whatever_grants_say() {
    let question = ask(&["--as", "ana"]).unwrap();
    let mut facts = facts(vec![default_grant()]);
    facts.pod = Some(PodFacts::default());
    assert_eq!(answer(&question, &facts).outcome, Outcome::NotRecorded);
    facts.pod = None;
    let planned = answer(&question, &facts);
    assert_eq!(planned.outcome, Outcome::Recorded);
    assert!(planned.notes[0].contains("no pod of this name"), "{:?}", planned.notes);
    facts.inject = None;
    assert_eq!(answer(&question, &facts).outcome, Outcome::NotRecorded);
}

#[test]
fn the_namespace_is_that_of_the_pod_as_kubectl_takes_it() {
    for (pod, words, namespace) in [
        ("till", &[][..], "office"),
        ("till", &["-n", "shop"], "shop"),
        ("till", &["--namespace", "shop"], "shop"),
        ("shop/till", &[], "shop"),
        ("shop/till", &["-n", "shop"], "shop"),
        ("pod/till", &["-n", "shop"], "shop"),
    ] {
        let question = ask_of(pod, &[&["--as", "ana"], words].concat()).unwrap();
        let Pod { namespace: of_pod, name } = &question.pod;
        assert_eq!((&**of_pod, &**name), (namespace, "till"), "{pod} {words:?}");
        assert_eq!(question.request.namespace, namespace, "{pod} {words:?}");
    }
    for (pod, words, says) in [
        (
            "shop/till",
            &["-n", "office"][..],
            "--pod shop/till names namespace shop, and --namespace says office",
        ),
        ("till", &["-n", ""], "--namespace is empty"),
        ("till", &["--verb", "exce"], "did you mean exec?"),
        ("till", &["--verb", "list"], "needs --resource"),
        ("till", &["--verb", "exec", "--resource", "pods"], "asks for pods/exec"),
    ] {
        let error = ask_of(pod, &[&["--as", "ana"], words].concat()).unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
        assert_eq!(crate::app::exit_code(&error), 64, "{error}");
    }
}

#[test]
fn what_a_namespace_accepts_is_told_where_it_counts() {
    let question = ask(&["--as", "ana"]).unwrap();
    let mut facts = facts(vec![default_grant()]);
    assert_eq!(answer(&question, &facts).notes, Vec::<String>::new());
    facts.allow = vec!["capability:SYS_TIME".into(), "hostPath:/var/log".into()];
    let notes = answer(&question, &facts).notes;
    assert!(notes[0].contains("(capability:SYS_TIME, hostPath:/var/log)"), "{notes:?}");
    facts.inject = Some("optional".into());
    assert_eq!(answer(&question, &facts).notes, Vec::<String>::new());
}

#[test]
fn users_come_with_the_groups_that_the_api_server_adds() {
    let account = ask(&["--as", "system:serviceaccount:shop:till"]).unwrap().caller.authenticated;
    let groups = ["system:serviceaccounts", "system:serviceaccounts:shop", "system:authenticated"];
    assert!(groups.iter().all(|group| account.groups.iter().any(|has| has == group)), "{account:?}");
    let both = ask(&["--as", "proxy", "--impersonating", "ana", "--impersonating-group", "sre"]).unwrap();
    assert_eq!((&*both.caller.authenticated.name, &*both.caller.effective.name), ("proxy", "ana"));
    let sre = vec![grant("sre", "group:sre", "*", &json!({"recorder": ["tag:here"]}))];
    assert_eq!(answer(&both, &facts(sre.clone())).applies[0].name, "sre");
    let unknown = ask(&["--as", "x", "--unverified"]).unwrap();
    assert_eq!(answer(&unknown, &facts(sre)).applies[0].src, ["group:sre"]);
}

#[test]
fn verbs_are_those_of_kubectl_or_of_the_api() {
    for (words, verb, resource) in [
        (&[][..], "get", "pods/exec"),
        (&["--verb", "port-forward"], "get", "pods/portforward"),
        (&["--verb", "debug"], "get", "pods/attach"),
        (&["--verb", "exec", "--resource", "pods/exec"], "get", "pods/exec"),
        (&["--verb", "patch", "--resource", "deployments/scale"], "patch", "deployments/scale"),
    ] {
        let request = ask(&[&["--as", "ana"], words].concat()).unwrap().request;
        let found = format!("{}/{}", request.resource, request.subresource);
        assert_eq!((&*request.verb, &*found, &*request.namespace), (verb, resource, "shop"));
    }
    for words in [&["--verb", "dance"][..], &["--verb", "list"], &["--verb", "exec", "--resource", "pods"]] {
        assert!(ask(&[&["--as", "ana"], words].concat()).is_err(), "{words:?}");
    }
    let cluster = ask(&["--as", "ana", "--request-namespace", ""]).unwrap();
    assert_eq!((&*cluster.request.namespace, &*cluster.pod.namespace), ("", "shop"));
}

#[test]
fn a_rule_that_only_some_clients_meet_is_told() {
    let only_create = vec![grant("g", "*", "*", &json!({"recorder": ["tag:here"], "verbs": ["create"]}))];
    let found = answer(&ask(&["--as", "ana"]).unwrap(), &facts(only_create));
    assert_eq!(found.outcome, Outcome::NotRecorded);
    assert!(found.notes[0].contains("verb create, to which g apply"), "{:?}", found.notes);
}

#[test]
fn programs_get_the_same_answer() {
    let found = answer(&ask(&["--as", "ana"]).unwrap(), &facts(vec![default_grant()]));
    let json = serde_json::to_value(&found).unwrap();
    assert_eq!(json["outcome"], "recorded");
    assert_eq!(json["follows"]["recorders"][0]["recorders"][0]["name"], "here");
    assert_eq!(json["applies"][0]["rules"][0]["enableEvents"], true);
    assert_eq!((&json["follows"]["failClosed"], &json["elsewhere"]), (&json!(false), &json!(0)));
}
