//! Puts each command together: read, decide, write.

use std::{
    fs::File,
    io::{Read, Write, stdin},
    path::Path,
};

use anyhow::{Context as _, Result, bail};
use tokio::runtime::Builder;

use crate::{
    args::{Cli, Command, Explain, Form, Grants, Import},
    explain::{self, Facts, Question},
    import::{self, MAX_POLICY},
};

/// Runs a command; what it returns is its exit code.
///
/// # Errors
/// Where a file or the cluster cannot be read, and where nobody takes what is written.
pub fn run(cli: Cli, out: &mut impl Write, err: &mut impl Write) -> Result<u8> {
    match cli.command {
        Command::Grants(Grants::Explain(args)) => run_explain(&args, out),
        Command::Grants(Grants::Import(args)) => run_import(&args, out, err),
    }
}

fn run_explain(args: &Explain, out: &mut impl Write) -> Result<u8> {
    let question = Question::read(args)?;
    // An error says that a provider is installed already, by whoever tests this.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let facts = runtime.block_on(Facts::read(args.context.as_deref(), &question.pod))?;
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
