//! What is asked: whose request, from which pod, for what.

use anyhow::{Result, bail};
use podwitness_core::{
    identity::{Caller, User},
    request_info::RequestInfo,
};

use crate::args::Explain;

const AUTHENTICATED: &str = "system:authenticated";
const API_VERBS: [&str; 8] =
    ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
/// What kubectl does, and the resource that it asks for.
const SESSIONS: [(&str, &str); 9] = [
    ("exec", "pods/exec"),
    ("cp", "pods/exec"),
    ("attach", "pods/attach"),
    ("run", "pods/attach"),
    ("debug", "pods/attach"),
    ("port-forward", "pods/portforward"),
    ("portforward", "pods/portforward"),
    ("log", "pods/log"),
    ("logs", "pods/log"),
];

/// The pod from which the request comes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Pod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// A question.
#[derive(Clone, Debug)]
pub struct Question {
    /// The pod.
    pub pod: Pod,
    /// Whose request it is.
    pub caller: Caller,
    /// What it asks for.
    pub request: RequestInfo,
    /// The same as older clients ask for it, where they do it with another verb.
    pub older: Option<RequestInfo>,
}

impl Question {
    /// Reads a question.
    ///
    /// # Errors
    /// Where verb and resource do not go together.
    pub fn read(args: &Explain) -> Result<Self> {
        let (namespace, name) = args.pod.clone();
        let authenticated = user(&args.user, &args.groups);
        let effective = args.impersonating.as_ref().map(|name| user(name, &args.impersonating_groups));
        let caller = Caller {
            effective: effective.unwrap_or_else(|| authenticated.clone()),
            authenticated,
            verified: !args.unverified,
        };
        let (request, older) = requests(args, args.namespace.as_deref().unwrap_or(&namespace))?;
        Ok(Self { pod: Pod { namespace, name }, caller, request, older })
    }
}

/// A user with the groups that the API server adds by itself.
fn user(name: &str, groups: &[String]) -> User {
    let mut user = User { name: name.to_owned(), groups: groups.to_vec() };
    let mut added = vec![AUTHENTICATED.to_owned()];
    if let Some((namespace, _)) = user.service_account() {
        added.insert(0, format!("system:serviceaccounts:{namespace}"));
        added.insert(0, "system:serviceaccounts".to_owned());
    }
    for group in added {
        if !user.groups.contains(&group) {
            user.groups.push(group);
        }
    }
    user
}

fn requests(args: &Explain, namespace: &str) -> Result<(RequestInfo, Option<RequestInfo>)> {
    let verb = args.verb.to_lowercase();
    if let Some((_, resource)) = SESSIONS.iter().find(|(name, _)| *name == verb) {
        if args.resource.as_ref().is_some_and(|said| said != resource) {
            bail!("--verb {verb} asks for {resource}; leave --resource away, or name an API verb");
        }
        let older = (*resource != "pods/log").then(|| request("create", resource, namespace));
        return Ok((request("get", resource, namespace), older));
    }
    if !API_VERBS.contains(&&*verb) {
        bail!(
            "--verb {verb} is none of exec, attach, cp, debug, run, port-forward, logs, {}",
            API_VERBS.join(", ")
        );
    }
    let Some(resource) = &args.resource else {
        bail!("--verb {verb} needs --resource, such as pods or pods/log");
    };
    Ok((request(&verb, resource, namespace), None))
}

fn request(verb: &str, resource: &str, namespace: &str) -> RequestInfo {
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    RequestInfo {
        is_resource_request: true,
        verb: verb.to_owned(),
        resource: resource.to_owned(),
        subresource: subresource.to_owned(),
        namespace: namespace.to_owned(),
        ..RequestInfo::default()
    }
}
