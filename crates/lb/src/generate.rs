//! `expressgateway schema`, `completions` and `man`: what editors, shells and `man` want to know of the program.

use std::io::Write;
use std::path::Path;

use anyhow::Context;
use clap::Command;
use clap_complete::Shell;
use lb_control::ProcessOutcome;

/// Prints the JSON Schema of the configuration file.
pub(crate) fn schema() -> anyhow::Result<ProcessOutcome> {
    std::io::stdout().lock().write_all(lb_config::render_json_schema().as_bytes())?;
    Ok(ProcessOutcome::Clean)
}

/// Prints what `shell` sources to complete commands and options.
pub(crate) fn completions(shell: Shell, mut command: Command) -> anyhow::Result<ProcessOutcome> {
    let name = command.get_name().to_owned();
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut command, name, &mut text);
    std::io::stdout().lock().write_all(&text)?;
    Ok(ProcessOutcome::Clean)
}

/// Writes one page of section 1 for the program and one for each of its commands into `directory`, which is made.
pub(crate) fn man(directory: &Path, command: Command) -> anyhow::Result<ProcessOutcome> {
    std::fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    clap_mangen::generate_to(command, directory)
        .with_context(|| format!("cannot write into {}", directory.display()))?;
    Ok(ProcessOutcome::Clean)
}
