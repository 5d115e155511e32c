//! What is asked: whose request, from which pod, for what.

use podwitness_core::{
    grant::API_VERBS,
    identity::{Caller, User},
    nearest::nearest,
    request_info::RequestInfo,
};
use thiserror::Error;

use crate::args::Explain;

const AUTHENTICATED: &str = "system:authenticated";
/// What kubectl takes in front of the name of a pod.
const POD_TYPES: [&str; 3] = ["pod", "pods", "po"];
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

/// A command line that cannot be understood.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum UsageError {
    /// Two options name different namespaces for the pod.
    #[error(
        "--pod {pod} names namespace {in_pod}, and --namespace says {given}; name the pod's namespace once"
    )]
    Namespaces {
        /// The pod as given.
        pod: String,
        /// Namespace in it.
        in_pod: String,
        /// Namespace of the option.
        given: String,
    },
    /// The option is there and empty.
    #[error(
        "--namespace is empty; name the pod's namespace, or leave the option out for that of the context"
    )]
    NoNamespace,
    /// What kubectl does asks for another resource.
    #[error("--verb {verb} asks for {resource}; leave --resource out, or name an API verb")]
    OtherResource {
        /// The verb.
        verb: String,
        /// What it asks for.
        resource: &'static str,
    },
    /// No such verb.
    #[error("--verb {verb} is unknown{}; it is one of exec, attach, cp, debug, run, port-forward, logs, {}", hint(verb), API_VERBS.join(", "))]
    Verb {
        /// The verb.
        verb: String,
    },
    /// An API verb says nothing without a resource.
    #[error("--verb {verb} needs --resource, such as pods or pods/log")]
    NoResource {
        /// The verb.
        verb: String,
    },
}

fn hint(verb: &str) -> String {
    let known = SESSIONS.iter().map(|(name, _)| *name).chain(API_VERBS);
    nearest(verb, known).map_or_else(String::new, |near| format!("; did you mean {near}?"))
}

impl Question {
    /// Checks everything that needs no cluster, and gives the pod's namespace where the command line names it.
    ///
    /// # Errors
    /// Where options contradict each other.
    pub fn check(args: &Explain) -> Result<Option<String>, UsageError> {
        requests(args, "")?;
        let given = args.namespace.clone();
        if given.as_deref() == Some("") {
            return Err(UsageError::NoNamespace);
        }
        let (in_pod, _) = &args.pod;
        match (in_pod, given) {
            (Some(in_pod), Some(given)) if *in_pod != given && !POD_TYPES.contains(&&**in_pod) => {
                let pod = format!("{in_pod}/{}", args.pod.1);
                Err(UsageError::Namespaces { pod, in_pod: in_pod.clone(), given })
            }
            (in_pod, given) => Ok(given.or_else(|| in_pod.clone())),
        }
    }

    /// Reads a question about a pod in `namespace`.
    ///
    /// # Errors
    /// Where verb and resource do not go together.
    pub fn read(args: &Explain, namespace: &str) -> Result<Self, UsageError> {
        let (namespace, name) = (namespace.to_owned(), args.pod.1.clone());
        let authenticated = user(&args.user, &args.groups);
        let effective = args.impersonating.as_ref().map(|name| user(name, &args.impersonating_groups));
        let caller = Caller {
            effective: effective.unwrap_or_else(|| authenticated.clone()),
            authenticated,
            verified: !args.unverified,
        };
        let (request, older) = requests(args, args.request_namespace.as_deref().unwrap_or(&namespace))?;
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

fn requests(args: &Explain, namespace: &str) -> Result<(RequestInfo, Option<RequestInfo>), UsageError> {
    let verb = args.verb.to_lowercase();
    if let Some((_, resource)) = SESSIONS.iter().find(|(name, _)| *name == verb) {
        if args.resource.as_ref().is_some_and(|said| said != resource) {
            return Err(UsageError::OtherResource { verb, resource });
        }
        let older = (*resource != "pods/log").then(|| request("create", resource, namespace));
        return Ok((request("get", resource, namespace), older));
    }
    if !API_VERBS.contains(&&*verb) {
        return Err(UsageError::Verb { verb });
    }
    let Some(resource) = &args.resource else {
        return Err(UsageError::NoResource { verb });
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
