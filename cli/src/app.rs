//! Puts each command together: read, decide, write.

use std::{
    fs::File,
    io::{Read, Write, stdin},
    path::Path,
};

use anyhow::{Context as _, Result, bail};
use clap::CommandFactory as _;
use tokio::runtime::Builder;

use crate::{
    args::{Cli, Command, EXIT_FAILURE, EXIT_USAGE, Explain, Form, Grants, Import, Shell},
    cluster::Cluster,
    explain::{self, Facts, Question, UsageError},
    import::{self, MAX_POLICY},
};

/// Runs a command; what it returns is its exit code.
///
/// # Errors
/// Where a file or the cluster cannot be read, where options contradict each other ([`UsageError`]), and where the output
/// is closed.
pub fn run(cli: Cli, out: &mut impl Write, err: &mut impl Write) -> Result<u8> {
    match cli.command {
        Command::Grants(Grants::Explain(args)) => run_explain(&args, out),
        Command::Grants(Grants::Import(args)) => run_import(&args, out, err),
        Command::Completion { shell } => Ok(complete(shell, out)?),
    }
}

/// The exit code of an error.
#[must_use]
pub fn exit_code(error: &anyhow::Error) -> u8 {
    if error.is::<UsageError>() { EXIT_USAGE } else { EXIT_FAILURE }
}

fn complete(shell: Shell, out: &mut impl Write) -> std::io::Result<u8> {
    let shell = match shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Zsh => clap_complete::Shell::Zsh,
        Shell::Fish => clap_complete::Shell::Fish,
    };
    // Written at once: the generator panics where its output is closed.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "kubectl-witness", &mut script);
    out.write_all(&script)?;
    Ok(0)
}

fn run_explain(args: &Explain, out: &mut impl Write) -> Result<u8> {
    let namespace = Question::check(args)?;
    // An error says that a test has installed a provider already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let (question, facts) = runtime.block_on(async {
        let cluster = Cluster::connect(args.context.as_deref()).await?;
        let question = Question::read(args, namespace.as_deref().unwrap_or_else(|| cluster.namespace()))?;
        let facts = Facts::read(&cluster, &question.pod).await?;
        anyhow::Ok((question, facts))
    })?;
    let answer = explain::answer(&question, &facts);
    match args.output {
        Form::Json => writeln!(out, "{}", serde_json::to_string_pretty(&answer)?)?,
        Form::Text => write!(out, "{answer}")?,
    }
    Ok(answer.outcome.exit_code())
}

fn run_import(args: &Import, out: &mut impl Write, err: &mut impl Write) -> Result<u8> {
    let text = read_policy(&args.policy)?;
    let options = import::Options { map: args.map.iter().cloned().collect(), keep_groups: args.keep_groups };
    let name = args.policy.display().to_string();
    let imported = import::import(&text, &options).with_context(|| name.clone())?;
    out.write_all(imported.print(args.output)?.as_bytes())?;
    err.write_all(imported.report(&name).as_bytes())?;
    Ok(0)
}

fn read_policy(path: &Path) -> Result<String> {
    let input: Box<dyn Read> = if path == Path::new("-") {
        Box::new(stdin())
    } else {
        Box::new(File::open(path).with_context(|| format!("cannot open {}", path.display()))?)
    };
    let mut text = String::new();
    let limit = MAX_POLICY.saturating_add(1);
    input.take(limit).read_to_string(&mut text).with_context(|| format!("cannot read {}", path.display()))?;
    if u64::try_from(text.len())? == limit {
        bail!("{} is larger than 1 MiB; is it a policy file?", path.display());
    }
    Ok(text)
}
