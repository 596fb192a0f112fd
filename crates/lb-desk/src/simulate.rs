//! A recorded access log against a configuration: which of its requests would have another route, pool or status.
//!
//! A log has less than the requests had: no cookies, few fields, no certificates. A route whose conditions ask for what the log does not have may
//! have taken a request, or not; such a request counts as changed only where none of the routes that may take it fits what was recorded. What depends
//! on time and load, such as limits and failures of backends, is not simulated.

mod compare;
mod judge;
mod record;
mod report;

use std::io::{BufRead, Read};

use lb_config::{Config, Listener};

pub use record::{LogFormat, LoggedRequest};
pub use report::{Axis, Example, SimulationReport};

use compare::{Comparison, compare, compare_files};
use judge::Judge;

/// A longer line is none of an access log.
const MAX_LINE_BYTES: u64 = 64 << 10;

/// What is replayed, and against what.
#[derive(Debug)]
pub struct Simulation<'a> {
    /// The configuration that is tried.
    pub config: &'a Config,
    /// The one that ran when the log was written. Without it, what is recorded is compared.
    pub against: Option<&'a Config>,
    /// The listener that requests come to whose lines do not name one.
    pub listener: Option<&'a str>,
    /// The host of requests whose lines do not have it.
    pub host: Option<&'a str>,
    /// How lines are written; each tells by itself where this is absent.
    pub format: Option<LogFormat>,
}

impl Simulation<'_> {
    /// Replays a log.
    ///
    /// # Errors
    /// When the log cannot be read, or says too little for this configuration: in plain words.
    pub fn run(&self, mut log: impl BufRead) -> Result<SimulationReport, String> {
        let mut judge = Judge::new(self.config);
        let mut before = self.against.map(Judge::new);
        let mut report = SimulationReport::default();
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = log.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut line);
            if read.map_err(|error| format!("the log cannot be read: {error}"))? == 0 {
                return Ok(report);
            }
            let number = report.next_line();
            if line.len() as u64 == MAX_LINE_BYTES && line.last() != Some(&b'\n') {
                skip_line(&mut log).map_err(|error| format!("the log cannot be read: {error}"))?;
                report.unreadable(number, "the line is too long");
                continue;
            }
            let text = String::from_utf8_lossy(&line);
            let text = text.trim();
            if text.is_empty() {
                continue;
            }
            let request = match LoggedRequest::parse(text, self.format) {
                Ok(request) => request,
                Err(reason) => {
                    report.unreadable(number, &reason);
                    continue;
                }
            };
            let host = match (&request.host, self.host) {
                (Some(host), _) => host.clone(),
                (None, Some(host)) => host.to_owned(),
                (None, None) if !judge.needs_hosts() => String::from("localhost"),
                (None, None) => {
                    return Err(format!(
                        "line {number}: the log does not say which host was asked for, and the configuration has routes by host: --host names it"
                    ));
                }
            };
            let found = judge.judge(&request, &host, self.listener_of(self.config, &request)?);
            let compared = match (&mut before, self.against) {
                (Some(before), Some(config)) => {
                    let was = before.judge(&request, &host, self.listener_of(config, &request)?);
                    compare_files(&was, &found)
                }
                _ => compare(&request, &found, self.config),
            };
            if let Some(last) = found.last() {
                report.went(&last.to_string());
            }
            match compared {
                Comparison::Same => report.unchanged(),
                Comparison::Undecided(why) => report.undecided(why),
                Comparison::Changed(changes) => {
                    let what = format!("{} {host}{}", request.method, request.target);
                    report.changed(number, &what, changes);
                }
            }
        }
    }

    /// The listener that a request comes to; `None` where the configuration has it no more.
    fn listener_of<'c>(
        &self,
        config: &'c Config,
        request: &LoggedRequest,
    ) -> Result<Option<&'c Listener>, String> {
        let http = || config.listeners.iter().filter(|listener| listener.is_http() && listener.starts());
        let named = |name: &str| http().find(|listener| listener.name == name || listener.written == name);
        if let Some(name) = self.listener {
            return named(name).map(Some).ok_or_else(|| format!("no listener {name} speaks HTTP"));
        }
        if let Some(name) = &request.listener {
            return Ok(named(name));
        }
        let mut all = http();
        match (all.next(), all.next()) {
            (Some(listener), None) => Ok(Some(listener)),
            (None, _) => Err("no listener speaks HTTP".to_owned()),
            // Nothing tells ports apart in such a log but the scheme.
            (Some(_), Some(_)) => {
                let secure = request.scheme.map(|scheme| scheme == lb_core::route::Scheme::Https);
                let mut fits = http().filter(|listener| secure == Some(listener.tls.is_some()));
                match (fits.next(), fits.next()) {
                    (Some(listener), None) => Ok(Some(listener)),
                    _ => Err("the log does not say which listener a request came to: --listener names it"
                        .to_owned()),
                }
            }
        }
    }
}

fn skip_line(log: &mut impl BufRead) -> std::io::Result<()> {
    loop {
        let buffer = log.fill_buf()?;
        if buffer.is_empty() {
            return Ok(());
        }
        let (taken, ended) = match buffer.iter().position(|byte| *byte == b'\n') {
            Some(at) => (at.saturating_add(1), true),
            None => (buffer.len(), false),
        };
        log.consume(taken);
        if ended {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests;
