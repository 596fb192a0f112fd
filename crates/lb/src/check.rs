//! `expressgateway check`: says of a configuration whether a start would succeed.

use std::io::Write;

use lb_control::{Findings, ProcessOutcome, inspect};

use crate::cli::CheckArgs;

/// Looks at the file that the arguments name, and writes down what is found.
pub(crate) fn run(args: &CheckArgs) -> anyhow::Result<ProcessOutcome> {
    let path = args.path();
    let Findings { listeners, warnings, notes } = inspect(path, args.user.as_deref(), args.resolve)?;
    let mut out = std::io::stdout().lock();
    for warning in &warnings {
        writeln!(out, "warning: {warning}")?;
    }
    for note in &notes {
        writeln!(out, "note: {note}")?;
    }
    writeln!(out, "{}: ok, {listeners} listener(s)", path.display())?;
    Ok(ProcessOutcome::Clean)
}
