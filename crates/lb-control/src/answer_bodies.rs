//! The bodies of answers that stand in files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use lb_config::{Config, RouteTarget};
use lb_http::AnswerBodies;

use crate::faults;

/// A body is at most so long.
const MOST_BYTES: u64 = 65_536;

/// Every file of a body that a listener uses: those of fixed answers, and error pages.
pub(crate) fn files(config: &Config) -> impl Iterator<Item = &Path> {
    let routings = || config.listeners.iter().filter_map(|listener| listener.routing.as_ref());
    let fixed = routings().flat_map(|routing| &routing.routes).filter_map(|route| match &route.target {
        RouteTarget::Respond(fixed) => fixed.body_file.as_deref(),
        _ => None,
    });
    let pages = routings().flat_map(|routing| routing.error_pages()).map(|page| page.file.as_path());
    fixed.chain(pages)
}

/// Reads every file.
pub(crate) fn load(config: &Config) -> anyhow::Result<AnswerBodies> {
    let (bodies, failures) = renew(&AnswerBodies::default(), config);
    if failures.is_empty() {
        return Ok(bodies);
    }
    let place = |(path, error): &(PathBuf, anyhow::Error)| {
        config.faults_wherever(&path.display().to_string(), &format!("{error:#}"))
    };
    Err(faults::lines(&failures.iter().flat_map(place).collect::<Vec<_>>()))
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
    let context = || "cannot be read";
    let size = std::fs::metadata(path).with_context(context)?.len();
    if size > MOST_BYTES {
        bail!("has {size} bytes; the body of an answer has at most {MOST_BYTES}");
    }
    // A pipe or a device has any number of bytes.
    let file = std::fs::File::open(path).with_context(context)?;
    Ok(lb_io::read_text(file, MOST_BYTES).with_context(context)?.into_bytes().into())
}
