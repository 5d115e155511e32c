//! Prints the custom resource definitions as YAML.

use std::{io::Write as _, process::ExitCode};

fn main() -> ExitCode {
    let printed = podwitness_crd::manifests()
        .map_err(|error| error.to_string())
        .and_then(|text| std::io::stdout().write_all(text.as_bytes()).map_err(|error| error.to_string()));
    match printed {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("podwitness-crd: {error}");
            ExitCode::FAILURE
        }
    }
}
