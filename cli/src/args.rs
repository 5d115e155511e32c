//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Exit code of a command line that cannot be understood (`EX_USAGE` of `sysexits.h`).
pub const EXIT_USAGE: u8 = 64;
/// Exit code where the cluster or a file cannot be read.
pub const EXIT_FAILURE: u8 = 1;
/// Exit code where nothing would be recorded.
pub const EXIT_UNRECORDED: u8 = 3;
/// Exit code where the request would be refused.
pub const EXIT_REFUSED: u8 = 4;

/// Says who is recorded where.
#[derive(Debug, Parser)]
#[command(name = "kubectl-witness", bin_name = "kubectl witness", version = env!("PODWITNESS_VERSION"), about)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Ask and make grants.
    #[command(subcommand)]
    Grants(Grants),
    /// Print the script by which a shell completes this command.
    #[command(after_help = COMPLETION_HELP)]
    Completion {
        /// The shell.
        shell: Shell,
    },
}

/// Shells that can complete the command.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Shell {
    /// GNU Bash.
    Bash,
    /// Z shell.
    Zsh,
    /// fish.
    Fish,
}

const COMPLETION_HELP: &str = "\
Examples:
  source <(kubectl witness completion bash)
  kubectl witness completion zsh > \"${fpath[1]}/_kubectl-witness\"
  kubectl witness completion fish > ~/.config/fish/completions/kubectl-witness.fish

It completes the command under its own name, kubectl-witness.";

/// Commands about grants.
#[derive(Debug, Subcommand)]
pub enum Grants {
    /// Say which grants apply to a user's requests from a pod, and what follows.
    ///
    /// Reads grants, recorders, the namespace and the pod from the cluster, and evaluates the grants as the pod's
    /// sidecar does. Changes nothing.
    #[command(after_help = EXPLAIN_HELP)]
    Explain(Box<Explain>),
    /// Turn a Tailscale policy file into Grant objects.
    ///
    /// Grants with the capability tailscale.com/cap/kubernetes become Grant objects on standard output; what cannot be
    /// carried over is listed on standard error with its place in the file. Needs no cluster.
    #[command(after_help = IMPORT_HELP)]
    Import(Import),
}

const EXPLAIN_HELP: &str = "\
Examples:
  kubectl witness grants explain --as ana@example.com --as-group sre --pod till -n shop
  kubectl witness grants explain --as system:serviceaccount:shop:till --pod shop/till --verb list --resource pods
  kubectl witness grants explain --as ana --pod shop/till --verb port-forward --request-namespace payment -o json

Exit codes:
  0   it is recorded, now or as soon as a recorder is back
  1   the cluster cannot be asked
  3   nothing is recorded
  4   it is refused as things stand: a grant fails closed, and no recorder can take the recording
  64  the command line is wrong

It needs the rights to get namespaces and pods, and to list grants.podwitness.dev and recorders.podwitness.dev. With the
right to list events.events.k8s.io it can say why a pod was let through without a sidecar.";

const IMPORT_HELP: &str = "\
Examples:
  kubectl witness grants import policy.hujson > grants.yaml
  kubectl witness grants import policy.hujson --map tag:k8s-operator=namespace:shop --map group:sre=group:oidc:sre
  kubectl witness grants import - -o json < policy.hujson

What cannot be carried over exactly is carried over so that more is recorded, never less, and the list says so:
src that a cluster does not know becomes *, and dst, which in a policy file names a way into a cluster, becomes every pod.
--map says better. Groups of the file become their members.

Exit codes:
  0   the grants are written; the list on standard error may have entries
  1   the file cannot be read or is no policy file
  64  the command line is wrong";

/// `grants explain`.
#[derive(Args, Debug)]
pub struct Explain {
    /// User whose request it is, as the API server calls it (kubectl auth whoami).
    #[arg(long = "as", value_name = "USER")]
    pub user: String,
    /// Group of the user; may be given again. system:authenticated, and those of a service account, are added.
    #[arg(long = "as-group", value_name = "GROUP")]
    pub groups: Vec<String>,
    /// User on whose behalf the request is made, where it impersonates (kubectl --as).
    #[arg(long = "impersonating", value_name = "USER")]
    pub impersonating: Option<String>,
    /// Group that is impersonated with it; may be given again.
    #[arg(long = "impersonating-group", value_name = "GROUP", requires = "impersonating")]
    pub impersonating_groups: Vec<String>,
    /// Pod from which the request comes; grants match it by dst. It need not exist.
    #[arg(long, value_name = "[NAMESPACE/]POD", value_parser = pod)]
    pub pod: (Option<String>, String),
    /// Namespace of the pod; that of the context by default.
    #[arg(long, short)]
    pub namespace: Option<String>,
    /// What is done: exec, attach, cp, debug, run, port-forward, logs, or an API verb such as list with --resource.
    #[arg(long, default_value = "exec")]
    pub verb: String,
    /// Resource of an API verb, with its subresource: pods, pods/log, deployments.
    #[arg(long)]
    pub resource: Option<String>,
    /// Namespace that the request names; that of the pod by default, empty for cluster scope.
    #[arg(long, value_name = "NAMESPACE")]
    pub request_namespace: Option<String>,
    /// As if the API server could not say who the user is: every src matches.
    #[arg(long)]
    pub unverified: bool,
    /// Form of the answer.
    #[arg(long, short, value_enum, default_value_t = Form::Text)]
    pub output: Form,
    /// Context of the kubeconfig.
    #[arg(long)]
    pub context: Option<String>,
}

/// Form of an answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Form {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// `grants import`.
#[derive(Args, Debug)]
pub struct Import {
    /// Policy file, HuJSON of up to 1 MiB; - reads standard input.
    pub policy: PathBuf,
    /// Carry FROM, an item of src or dst, over as TO; with nothing behind = it is left out. May be given again.
    #[arg(long, value_name = "FROM=TO", value_parser = mapping)]
    pub map: Vec<(String, String)>,
    /// Keep group:NAME instead of its members, where the cluster's identity provider delivers groups of these names.
    #[arg(long)]
    pub keep_groups: bool,
    /// Form of the grants.
    #[arg(long, short, value_enum, default_value_t = GrantForm::Yaml)]
    pub output: GrantForm,
}

/// Form of grants.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum GrantForm {
    /// YAML documents.
    Yaml,
    /// One JSON List.
    Json,
}

fn pod(text: &str) -> Result<(Option<String>, String), String> {
    let (namespace, name) =
        text.split_once('/').map_or((None, text), |(namespace, name)| (Some(namespace), name));
    if name.is_empty() || name.contains('/') || namespace == Some("") {
        return Err("write a pod as POD, with --namespace, or as NAMESPACE/POD".to_owned());
    }
    Ok((namespace.map(ToOwned::to_owned), name.to_owned()))
}

fn mapping(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((from, to)) if !from.is_empty() => Ok((from.to_owned(), to.to_owned())),
        _ => Err("write FROM=TO, such as tag:k8s=namespace:shop".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
        for wrong in [
            &["grants", "explain", "--pod", "shop/till"][..],
            &["grants", "explain", "--as", "ana", "--pod", ""],
            &["grants", "explain", "--as", "ana", "--pod", "/till"],
            &["grants", "explain", "--as", "ana", "--pod", "shop/till/x"],
            &["completion"],
            &["completion", "tcsh"],
            &["grants", "import"],
            &["grants", "import", "p", "--map", "=x"],
            &["grants"],
        ] {
            let words = ["kubectl-witness"].iter().chain(wrong);
            assert!(Cli::try_parse_from(words).is_err(), "{wrong:?}");
        }
    }
}
