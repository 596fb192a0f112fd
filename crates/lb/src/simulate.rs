//! `expressgateway simulate`: replays a recorded access log against a configuration. Nothing is sent.

use std::fs::File;
use std::io::{BufReader, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use lb_config::Config;
use lb_control::{Source, load};
use lb_desk::simulate::{LogFormat, Simulation};

use crate::cli::{SimulateArgs, WrittenAs};

/// What the command ends with where requests would fare otherwise.
const CHANGES: u8 = 2;

/// Replays the log that the arguments name.
pub(crate) fn run(args: &SimulateArgs) -> anyhow::Result<ExitCode> {
    let read = |path: &Path| -> anyhow::Result<Config> {
        let config = load(&Source::File(path.to_owned()).read()?)?;
        lb_control::read_access_files(&config)?;
        Ok(config)
    };
    let config = read(&args.file)?;
    let against = args.against.as_deref().map(read).transpose()?;
    let simulation = Simulation {
        config: &config,
        against: against.as_ref(),
        listener: args.listener.as_deref(),
        host: args.host.as_deref(),
        format: args.format.map(|format| match format {
            WrittenAs::Json => LogFormat::Json,
            WrittenAs::Combined => LogFormat::Combined,
            WrittenAs::Traefik => LogFormat::Traefik,
        }),
    };
    let report = if args.log.as_os_str() == "-" {
        simulation.run(std::io::stdin().lock())
    } else {
        let log = File::open(&args.log).with_context(|| format!("{}: cannot be read", args.log.display()))?;
        simulation.run(BufReader::new(log))
    };
    let report = report.map_err(|reason| anyhow::anyhow!("{}: {reason}", args.log.display()))?;
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{:#}", report.to_json())?;
    } else {
        write!(out, "{report}")?;
    }
    Ok(if report.has_changes() { ExitCode::from(CHANGES) } else { ExitCode::SUCCESS })
}
