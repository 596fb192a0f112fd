//! A well-shaped document to a [`Config`]: the rules between keys, and the types that come out.

mod backend;
mod client;
mod condition;
mod filter;
mod limits;
mod listener;
mod loops;
mod mirror;
mod passing;
mod passthrough;
mod policy;
mod pool;
mod process;
mod rate;
mod raw_proxy;
mod raw_route;
mod resilience;
mod route;
mod split;
mod tls;
mod tracing;
mod xdp;

use crate::config::{Backend, Config, Listener, PoolId};
use crate::document::{Source, View};
use crate::error::{ConfigError, Errors};
use crate::not_built;
use crate::places::Places;
use crate::written::{Written, WrittenKeys};

/// Applies every rule between keys.
pub(crate) fn config(root: View<'_>, source: &Source<'_>) -> Result<Config, Errors> {
    let mut report = Report { source, errors: Vec::new(), warnings: Vec::new() };
    match read(root, &mut report) {
        Some(config) if report.errors.is_empty() => Ok(Config { warnings: report.warnings, ..config }),
        _ if report.errors.is_empty() => {
            // The walk has found every required key, so nothing can be missing here.
            debug_assert!(false, "a key is missing that the schema does not require");
            Err(Errors::new(vec![source.file_error(None, "a required key is missing")]))
        }
        _ => Err(Errors::new(report.errors)),
    }
}

/// The backends of a list outside the configuration.
pub(crate) fn backends(list: View<'_>, source: &Source<'_>) -> Result<Vec<Backend>, Errors> {
    let mut report = Report { source, errors: Vec::new(), warnings: Vec::new() };
    let backends = backend::all(list, &mut report).unwrap_or_default();
    backend::refuse_unix(list, &backends, &mut report);
    report.errors.extend(not_built::find(list, source));
    if report.errors.is_empty() { Ok(backends) } else { Err(Errors::new(report.errors)) }
}

/// What the rules have found so far.
struct Report<'a> {
    source: &'a Source<'a>,
    errors: Vec<ConfigError>,
    warnings: Vec<String>,
}

impl Report<'_> {
    /// Notes an error at the key, or at its block when the key is absent.
    fn error(&mut self, view: View<'_>, name: &str, problem: impl Into<String>) {
        self.errors.push(self.source.error_about(view, name, problem));
    }

    /// Notes that a block is probably not meant.
    fn warn_about(&mut self, view: View<'_>, problem: impl Into<String>) {
        self.warnings.push(self.source.error_about_block(view, problem).to_string());
    }

    /// Notes something that is allowed but probably not meant.
    fn warn(&mut self, view: View<'_>, name: &str, problem: impl Into<String>) {
        self.warnings.push(self.source.error_about(view, name, problem).to_string());
    }
}

fn read(root: View<'_>, report: &mut Report<'_>) -> Option<Config> {
    let is_in_kernel =
        root.block("runtime").flag("xdp_enabled") && !root.block("xdp").blocks("services").is_empty();
    if root.blocks("listeners").is_empty() && root.present("passthrough").is_none() && !is_in_kernel {
        let problem = "nothing to do: at least one [[listeners]] or a [passthrough] block must be there, or [[xdp.services]] with \
                       runtime.xdp_enabled";
        report.errors.push(report.source.file_error(None, problem));
    }
    let runtime = process::runtime(root.block("runtime"), report)?;
    let pools = pool::all(root, report)?;
    let admin = process::admin(root.block("admin"));
    let mut tables = route::Tables::read(root, &pools, report);
    let listeners = listener::all(root, &runtime, &pools, &mut tables, report)?;
    tables.warn_unused(report);
    // That of [passthrough] has no block there.
    let views: Vec<(View<'_>, &Listener)> = root.blocks("listeners").into_iter().zip(&listeners).collect();
    let xdp = xdp::plane(root.block("xdp"), &runtime.xdp, &pools, &views, report)?;
    Some(Config {
        source_name: report.source.place(0).0.to_owned(),
        written: written(root, &listeners),
        places: Places::of(root, &owners(&listeners), report.source),
        listeners,
        pools: pools.into_values().collect(),
        route_tables: tables.into_routes(),
        runtime,
        pool: process::pool(root.block("pool")),
        dns: process::dns(root.block("dns"), report),
        observability: process::observability(root.block("observability"), &admin, report),
        tracing: tracing::tracing(root, report),
        admin,
        security: process::security(root.block("security")),
        xdp,
        warnings: Vec::new(),
        not_built_yet: not_built::find(root, report.source),
    })
}

fn written(root: View<'_>, listeners: &[Listener]) -> Written {
    let views = root.blocks("listeners");
    // That of [passthrough] comes last, and its settings stand beside those of the process.
    let written = views.into_iter().map(WrittenKeys::of).chain([WrittenKeys::of(root)]);
    Written {
        process: WrittenKeys::of(root),
        listeners: listeners.iter().map(Listener::id).zip(written).collect(),
        pools: root.named("pools").map(|(name, view)| (name.to_owned(), WrittenKeys::of(view))).collect(),
    }
}

fn owners(listeners: &[Listener]) -> Vec<PoolId> {
    let own = |listener: &Listener| PoolId::Listener(listener.name.as_str().into(), listener.transport());
    listeners.iter().map(own).collect()
}
