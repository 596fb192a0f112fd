//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use lb_observe::logs;

use crate::gateway::{self, Outcome, Source};
use crate::{check, demo};

/// Configuration that is read when none is named.
const DEFAULT_CONFIG: &str = "config/default.toml";

/// An L4/L7 load balancer and reverse proxy.
#[derive(Debug, Parser)]
#[command(
    name = "expressgateway",
    version,
    about,
    args_conflicts_with_subcommands = true,
    after_help = "Signals: SIGHUP reloads the configuration, SIGUSR1 reads certificates again, SIGTERM, SIGINT and SIGQUIT drain and stop.\n\
                  Environment: RUST_LOG (default info), LB_LOG_FORMAT=json|text."
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,

    /// Configuration file
    #[arg(default_value = DEFAULT_CONFIG)]
    config: PathBuf,

    /// Start even if this user runs this file already: both share its ports
    #[arg(long)]
    allow_second: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Read and check a configuration file without binding anything; exits with 0 or 1
    Check(CheckArgs),
    /// Run three small backends and a gateway in front of them until Ctrl-C
    Demo(DemoArgs),
}

/// What is checked, and how.
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// Configuration file
    pub(crate) config: PathBuf,
    /// User that will run the gateway; without it that of the systemd unit, if there is one
    #[arg(long, value_name = "NAME")]
    pub(crate) user: Option<String>,
    /// Ask the name servers for every name too
    #[arg(long)]
    pub(crate) resolve: bool,
}

/// Addresses of the demo.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Where the gateway listens; port 0 takes any free one
    #[arg(long, default_value = "127.0.0.1:8080")]
    pub(crate) listen: SocketAddr,
    /// Where the admin port listens; port 0 takes any free one
    #[arg(long, default_value = "127.0.0.1:9090")]
    pub(crate) admin: SocketAddr,
}

/// Runs what the command line asks for.
pub(crate) fn run() -> ExitCode {
    let cli = Cli::parse();
    if matches!(cli.command, Some(Command::Check(_))) {
        lb_io::signals::release();
    }
    let result = match cli.command {
        Some(Command::Check(args)) => check::run(&args),
        Some(Command::Demo(args)) => demo::run(&args),
        None => gateway::run(Source::File(cli.config), cli.allow_second),
    };
    let code = match result {
        Ok(Outcome::Clean) => ExitCode::SUCCESS,
        Ok(Outcome::DrainDeadlineMissed) => ExitCode::from(3),
        Ok(Outcome::WorkerLost) => ExitCode::from(4),
        Err(error) => {
            // Configuration errors are lists, one line each; everything else is a chain of causes on one line.
            logs::say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    };
    // Whoever reads standard error may have stalled, which keeps nobody from leaving.
    logs::finish(logs::LAST_WORDS);
    code
}
