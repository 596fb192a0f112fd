//! The command line.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use lb_control::{ProcessOutcome, Source};
use lb_io::inherited::Inherited;
use lb_observe::logs;

use crate::admin_client::AdminArgs;
use crate::tap::TapArgs;
use crate::top::TopArgs;
use crate::{check, demo, explain, gateway, generate, import, plan, simulate, tap, top, xdp};

/// Configuration that is read when none is named.
const DEFAULT_CONFIG: &str = "config/default.toml";

/// An L4/L7 load balancer and reverse proxy.
#[derive(Debug, Parser)]
#[command(
    name = "expressgateway",
    version,
    about,
    args_conflicts_with_subcommands = true,
    after_help = "Signals: SIGHUP reloads the configuration, SIGUSR1 reads certificates again, SIGUSR2 hands over to a new \
                  process of the binary, SIGTERM, SIGINT and SIGQUIT drain and stop.\n\
                  Environment: RUST_LOG (default info), LB_LOG_FORMAT=json|text."
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,

    #[command(flatten)]
    file: FileArgs,

    /// Only check the configuration, as `check` does
    #[arg(short = 't', long = "test", conflicts_with = "allow_second")]
    test: bool,

    /// Start even if this user runs this file already: both share its ports
    #[arg(long)]
    allow_second: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Read and check a configuration file without binding anything; exits with 0 or 1
    Check(CheckArgs),
    /// Say which route takes a request, and why others do not; reads the file and binds nothing
    Explain(ExplainArgs),
    /// Ask a process that runs what a reload with a file would change; exits with 0 for nothing, 2 for changes and 1 for errors
    Plan(PlanArgs),
    /// Replay an access log against a file: which requests would have another route, pool or status; exits with 0 for none, 2 for some and 1 for errors
    Simulate(SimulateArgs),
    /// Write the configuration of another proxy as one of ours, and on standard error each directive that could not be carried
    Import(ImportArgs),
    /// Show what is balanced in the kernel, or take it away; works while no gateway runs
    Xdp(XdpArgs),
    /// Run three small backends and a gateway in front of them until Ctrl-C
    Demo(DemoArgs),
    /// Show how a running gateway stands: pools, backends, routes, listeners, errors, certificates
    Top(TopArgs),
    /// Show requests of a running gateway as they end; needs the token of its admin port
    Tap(TapArgs),
    /// Print the JSON Schema of the configuration file, for editors
    Schema,
    /// Print what a shell sources to complete commands and options
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Write the man pages of the program and its commands
    Man {
        /// The directory for them, which is made
        directory: PathBuf,
    },
}

impl Command {
    /// Whether it reads or writes something and is over, so that signals end it as they end other programs.
    fn is_short(&self) -> bool {
        !matches!(self, Self::Demo(_))
    }
}

/// Which file is meant: an argument of its own, or one that a flag names.
#[derive(Debug, Default, Args)]
struct FileArgs {
    /// Configuration file [default: config/default.toml]
    config: Option<PathBuf>,
    /// The same
    #[arg(short = 'c', long = "config", value_name = "CONFIG", conflicts_with = "config")]
    named: Option<PathBuf>,
}

impl FileArgs {
    fn path(self) -> PathBuf {
        self.config.or(self.named).unwrap_or_else(|| DEFAULT_CONFIG.into())
    }
}

/// What is checked, and how.
#[derive(Debug, Default, Args)]
pub(crate) struct CheckArgs {
    /// Configuration file
    #[arg(required_unless_present = "named")]
    config: Option<PathBuf>,
    /// The same
    #[arg(short = 'c', long = "config", value_name = "CONFIG", conflicts_with = "config")]
    named: Option<PathBuf>,
    /// User that will run the gateway; without it that of the systemd unit, if there is one
    #[arg(long, value_name = "NAME")]
    pub(crate) user: Option<String>,
    /// Ask the name servers for every name too
    #[arg(long)]
    pub(crate) resolve: bool,
}

impl CheckArgs {
    /// The file that is meant.
    pub(crate) fn path(&self) -> &Path {
        self.config.as_deref().or(self.named.as_deref()).unwrap_or(Path::new(DEFAULT_CONFIG))
    }
}

/// A request to be explained.
#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// Configuration file
    pub(crate) config: PathBuf,
    /// The method
    pub(crate) method: String,
    /// The URL, such as `https://shop.example.com/cart?id=1`
    pub(crate) url: String,
    /// A field of the request, "name: value"; any number
    #[arg(short = 'H', value_name = "FIELD")]
    pub(crate) fields: Vec<String>,
    /// Where the client is
    #[arg(long, value_name = "IP", default_value = "127.0.0.1")]
    pub(crate) from: IpAddr,
    /// The server name that it asks for in TLS; without it an https URL asks for its host
    #[arg(long, value_name = "NAME")]
    pub(crate) sni: Option<String>,
    /// The listener that it comes to, by its address in the file; without it all that have routes
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listener: Option<String>,
}

/// A file that a process is asked about.
#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    /// The new configuration file; those that it includes belong to it
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) admin: AdminArgs,
    /// As JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// A log that is replayed, and against what.
#[derive(Debug, Args)]
pub(crate) struct SimulateArgs {
    /// The configuration file that is tried
    pub(crate) file: PathBuf,
    /// The access log; `-` is standard input
    #[arg(long, value_name = "FILE")]
    pub(crate) log: PathBuf,
    /// The configuration that ran when the log was written; without it what the log says is compared
    #[arg(long, value_name = "CONFIG")]
    pub(crate) against: Option<PathBuf>,
    /// How lines are written; without it each line tells
    #[arg(long, value_name = "FORMAT")]
    pub(crate) format: Option<WrittenAs>,
    /// The listener that requests come to, by its address in the file, where the log does not say
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listener: Option<String>,
    /// The host of requests whose lines do not have it
    #[arg(long, value_name = "NAME")]
    pub(crate) host: Option<String>,
    /// As JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// How the lines of a log are written.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum WrittenAs {
    /// Our own, as JSON
    Json,
    /// nginx's and Apache's combined
    Combined,
    /// Traefik's, as JSON
    Traefik,
}

/// A configuration of another proxy.
#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// The file: nginx.conf, haproxy.cfg or traefik.yml
    pub(crate) file: PathBuf,
    /// Whose it is; without it the name of the file tells
    #[arg(long, value_name = "KIND")]
    pub(crate) from: Option<ImportedFrom>,
    /// Tell of every directive, also of those that are carried and those that nothing has to be done for
    #[arg(long)]
    pub(crate) verbose: bool,
}

/// Whose configuration it is.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum ImportedFrom {
    /// nginx's
    Nginx,
    /// HAProxy's
    Haproxy,
    /// Traefik's, in YAML: static, dynamic, or both
    Traefik,
}

/// What is to be done with what is pinned.
#[derive(Debug, Args)]
pub(crate) struct XdpArgs {
    #[command(subcommand)]
    pub(crate) command: XdpCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum XdpCommand {
    /// Interfaces, services, backends and counts
    Status(XdpPlace),
    /// The flows that had a packet last, with their backends
    Flows(XdpFlows),
    /// Take the programs off all interfaces, and forget all flows
    Detach(XdpPlace),
}

/// Where it is pinned, and how it is shown.
#[derive(Debug, Args)]
pub(crate) struct XdpPlace {
    /// The directory, as `[xdp] pin_dir` names it
    #[arg(long, value_name = "DIRECTORY", default_value = "/sys/fs/bpf/expressgateway")]
    pub(crate) pins: PathBuf,
    /// As one line of JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Which flows are shown, and how.
#[derive(Debug, Args)]
pub(crate) struct XdpFlows {
    #[command(flatten)]
    pub(crate) place: XdpPlace,
    /// How many are shown at most
    #[arg(long, value_name = "COUNT", default_value = "20")]
    pub(crate) limit: usize,
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
pub(crate) fn run(inherited: Inherited) -> ExitCode {
    let mut cli = Cli::parse();
    if cli.test {
        // As nginx does: -t tests and starts nothing.
        let config = Some(std::mem::take(&mut cli.file).path());
        cli.command = Some(Command::Check(CheckArgs { config, ..CheckArgs::default() }));
    }
    if cli.command.as_ref().is_some_and(Command::is_short) {
        lb_io::signals::release();
    }
    let result = match cli.command {
        Some(Command::Check(args)) => check::run(&args).map(code_of),
        Some(Command::Explain(args)) => explain::run(&args).map(code_of),
        Some(Command::Plan(args)) => plan::run(&args),
        Some(Command::Simulate(args)) => simulate::run(&args),
        Some(Command::Import(args)) => import::run(&args).map(code_of),
        Some(Command::Xdp(args)) => xdp::run(&args).map(code_of),
        Some(Command::Demo(args)) => demo::run(&args).map(code_of),
        Some(Command::Top(args)) => top::run(&args).map(code_of),
        Some(Command::Tap(args)) => tap::run(&args).map(code_of),
        Some(Command::Schema) => generate::schema().map(code_of),
        Some(Command::Completions { shell }) => generate::completions(shell, Cli::command()).map(code_of),
        Some(Command::Man { directory }) => generate::man(&directory, Cli::command()).map(code_of),
        None => gateway::run(Source::File(cli.file.path()), cli.allow_second, inherited).map(code_of),
    };
    let code = result.unwrap_or_else(|error| {
        // Configuration errors are lists, one line each; everything else is a chain of causes on one line.
        logs::say(&format!("error: {error:#}"));
        ExitCode::FAILURE
    });
    // Whoever reads standard error may have stalled, which keeps nobody from leaving.
    logs::finish(logs::LAST_WORDS);
    code
}

fn code_of(outcome: ProcessOutcome) -> ExitCode {
    match outcome {
        ProcessOutcome::Clean => ExitCode::SUCCESS,
        ProcessOutcome::DrainDeadlineMissed => ExitCode::from(3),
        ProcessOutcome::WorkerLost => ExitCode::from(4),
    }
}
