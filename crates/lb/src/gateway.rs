//! The life of a gateway process, from its configuration to its exit code.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use lb_config::{Config, ConfigText};
use lb_control::{Alone, ProcessOutcome, Program, Signals, Source, Start, load};
use lb_io::inherited::Inherited;
use lb_observe::logs;
use lb_observe::metrics::Metrics;
use tokio::runtime::{Builder, LocalOptions};
use tokio::task::spawn_blocking;

use crate::boot;

/// Runs a gateway until it is told to stop. `allow_second`: even if another process runs this file.
pub(crate) fn run(
    source: Source,
    allow_second: bool,
    inherited: Inherited,
) -> anyhow::Result<ProcessOutcome> {
    let control = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .context("the control thread's event loop cannot be set up")?;
    let result = control.block_on(live(source, allow_second, inherited));
    // A file that is still being read, from a file system that does not answer, keeps nobody from leaving.
    control.shutdown_background();
    result
}

async fn live(source: Source, allow_second: bool, inherited: Inherited) -> anyhow::Result<ProcessOutcome> {
    let mut signals = Signals::new().context("signal handlers cannot be installed")?;
    lb_io::signals::release();
    // A configuration that cannot be used is reported on a line of its own, before any log.
    let reading = source.clone();
    let text = tokio::select! {
        biased;
        _ = signals.terminated() => return Ok(ProcessOutcome::Clean),
        text = spawn_blocking(move || reading.read()) => text??,
    };
    let config = load(&text)?;
    logs::init().context("logging cannot be set up")?;
    tracing::info!("ExpressGateway v{}", env!("CARGO_PKG_VERSION"));
    tracing::info!(
        listeners = config.listeners.len(),
        "configuration loaded from {}",
        source.path().display()
    );
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let alone = match &source {
        // The process that this one takes over from has the claim until it drains.
        Source::File(path) if !allow_second && inherited.takes_over() => {
            Ok(Some(Alone::claim_when_free(path.clone())))
        }
        Source::File(path) if !allow_second => Alone::claim(path),
        _ => Ok(None),
    };
    let result = match alone {
        Ok(alone) => serve(source, text, config, (alone, inherited), signals).await,
        Err(error) => Err(error),
    };
    if let Err(error) = &result {
        tracing::error!(error = format!("{error:#}"), "startup failed");
    }
    result
}

async fn serve(
    source: Source,
    text: ConfigText,
    config: Config,
    (alone, inherited): (Option<Alone>, Inherited),
    mut signals: Signals,
) -> anyhow::Result<ProcessOutcome> {
    let workers = boot::worker_count(&config);
    let metrics = Metrics::new(workers);
    logs::install_panic_hook(Arc::clone(&metrics));
    boot::raise_limit();
    let program = program()?;
    let start = Start { source, text, config, alone, inherited, program, metrics, workers };
    // Nothing is served yet, so that an order to end is obeyed at once; the other signals are kept until they are served.
    let control = tokio::select! {
        biased;
        signal = signals.terminated() => {
            tracing::info!(signal, "terminal signal during the start — nothing is served yet");
            return Ok(ProcessOutcome::Clean);
        }
        started = boot::start(start) => started?,
    };
    Ok(control.run(signals).await)
}

/// How this process was started: what stands there by then is what takes over.
fn program() -> anyhow::Result<Program> {
    let real = std::env::current_exe().context("the place of the program is unknown")?;
    let mut arguments = std::env::args_os();
    let called = arguments.next().and_then(|called| as_called(&called, &real));
    Ok(Program { path: called.unwrap_or(real), arguments: arguments.collect() })
}

/// Where the program was called, if it stands there: a symbolic link may lead to another version later, and the real place does not change
/// with it.
fn as_called(called: &OsStr, real: &Path) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places: Vec<PathBuf> = if called.as_bytes().contains(&b'/') {
        vec![PathBuf::from(called)]
    } else {
        std::env::split_paths(&path).map(|dir| dir.join(called)).collect()
    };
    let place = places.into_iter().find(|place| place.canonicalize().is_ok_and(|place| place == real))?;
    std::path::absolute(place).ok()
}
