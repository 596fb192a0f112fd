//! The bodies of answers that stand in files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use lb_config::{Config, RouteTarget};
use lb_http::AnswerBodies;

/// A body is at most so long.
const MOST_BYTES: u64 = 65_536;

/// Every file of a body that a listener uses.
pub(crate) fn files(config: &Config) -> impl Iterator<Item = &Path> {
    let routes = config.listeners.iter().filter_map(|listener| listener.routing.as_ref());
    routes.flat_map(|routing| &routing.routes).filter_map(|route| match &route.target {
        RouteTarget::Respond(fixed) => fixed.body_file.as_deref(),
        _ => None,
    })
}

/// Reads every file.
pub(crate) fn load(config: &Config) -> anyhow::Result<AnswerBodies> {
    let (bodies, failures) = renew(&AnswerBodies::default(), config);
    failures.into_iter().next().map_or(Ok(bodies), |(_, first)| Err(first))
}

/// Reads every file again. One that cannot be used leaves in force what was read from it before, and is returned with the reason.
pub(crate) fn renew(known: &AnswerBodies, config: &Config) -> (AnswerBodies, Vec<(PathBuf, anyhow::Error)>) {
    let (mut bodies, mut failures) = (AnswerBodies::new(), Vec::new());
    for path in files(config) {
        if bodies.contains_key(path) {
            continue;
        }
        let body = match read(path) {
            Ok(body) => Some(body),
            Err(error) => {
                failures.push((path.to_owned(), error));
                known.get(path).cloned()
            }
        };
        bodies.extend(body.map(|body| (path.to_owned(), body)));
    }
    (bodies, failures)
}

fn read(path: &Path) -> anyhow::Result<Arc<[u8]>> {
    let context = || format!("{}: cannot be read", path.display());
    let size = std::fs::metadata(path).with_context(context)?.len();
    if size > MOST_BYTES {
        bail!("{}: has {size} bytes; the body of an answer has at most {MOST_BYTES}", path.display());
    }
    // A pipe or a device has any number of bytes.
    let file = std::fs::File::open(path).with_context(context)?;
    Ok(lb_io::read_text(file, MOST_BYTES).with_context(context)?.into_bytes().into())
}
