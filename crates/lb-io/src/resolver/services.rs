//! SRV records (RFC 2782): names to hosts with ports, priorities and weights.

use std::time::Duration;

use hickory_resolver::proto::rr::{RData, RecordType};
use tokio::time::Instant;

use super::{ResolveError, Resolver};

/// Records kept of one answer; a hostile answer cannot make a pool grow without bound (attack C-03).
pub const MAX_SERVICES: usize = 64;

/// An SRV record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServiceRecord {
    /// Records with the lowest priority are to be used first.
    pub priority: u16,
    /// The host, in lower case and without the last dot. Never an address: RFC 2782 asks for a name.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The share among records of one priority; 0 is the smallest.
    pub weight: u16,
}

/// The answer to a question for SRV records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Services {
    /// Sorted, at most [`MAX_SERVICES`]. Empty only when the answer is that the service is not offered.
    pub records: Vec<ServiceRecord>,
    /// For how long the answer is good.
    pub ttl: Duration,
}

impl Resolver {
    /// The SRV records of a name. Nothing is remembered.
    ///
    /// # Errors
    /// When there are none that can be used, or no server answers.
    pub async fn services(&self, name: &str) -> Result<Services, ResolveError> {
        let failed = |reason: String| ResolveError { name: name.to_owned(), reason };
        let answer =
            self.inner.lookup(name, RecordType::SRV).await.map_err(|error| failed(super::words(&error)))?;
        let ttl = answer.valid_until().saturating_duration_since(Instant::now().into_std());
        let all = answer.answers().iter().filter_map(|record| match &record.data {
            RData::SRV(srv) => Some((srv.priority, srv.weight, srv.port, srv.target.to_ascii())),
            _ => None,
        });
        let records = usable(all).map_err(failed)?;
        let (least, most) = (self.options.min_ttl, self.options.max_ttl);
        Ok(Services { records, ttl: ttl.clamp(least, most.max(least)) })
    }
}

/// The records of an answer that can be used.
fn usable(all: impl Iterator<Item = (u16, u16, u16, String)>) -> Result<Vec<ServiceRecord>, String> {
    let (mut records, mut seen, mut withdrawn) = (Vec::new(), 0usize, false);
    // A message is short enough to be looked at whole.
    for (priority, weight, port, target) in all {
        seen = seen.saturating_add(1);
        let host = target.strip_suffix('.').unwrap_or(&target).to_ascii_lowercase();
        if host.is_empty() {
            withdrawn = true;
        } else if port != 0 && is_host_name(&host) {
            records.push(ServiceRecord { priority, host, port, weight });
        }
    }
    records.sort_unstable();
    records.dedup_by(|next, first| (&next.host, next.port) == (&first.host, first.port));
    records.truncate(MAX_SERVICES);
    // RFC 2782: a single record with the target "." means that the service is decidedly not available.
    match (records.is_empty(), seen) {
        (false, _) => Ok(records),
        (true, 1) if withdrawn => Ok(records),
        (true, 0) => Err("the answer holds no SRV record".to_owned()),
        (true, _) => Err("no SRV record names a host and a port".to_owned()),
    }
}

/// Whether it is the name of a host and not an address, which would pass by the rules for what names may lead to.
fn is_host_name(host: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let label_ok = |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(fits);
    let last = host.rsplit('.').next().unwrap_or_default();
    host.len() <= 253 && host.split('.').all(label_ok) && !last.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(records: &[(u16, u16, u16, &str)]) -> Result<Vec<(u16, String)>, String> {
        let all = records
            .iter()
            .map(|(priority, weight, port, target)| (*priority, *weight, *port, (*target).to_owned()));
        let records = usable(all)?;
        let text = |record: ServiceRecord| (record.priority, format!("{}:{}", record.host, record.port));
        Ok(records.into_iter().map(text).collect())
    }

    #[test]
    fn c_03_only_names_of_hosts_pass() {
        for target in ["127.0.0.1.", "169.254.169.254.", "a b.", "", "a..b.", "x/y.", "1."] {
            let read = read(&[(0, 1, 80, target), (0, 1, 80, "good.test.")]);
            assert_eq!(read, Ok(vec![(0, "good.test:80".to_owned())]), "{target}");
        }
        assert!(read(&[(0, 1, 80, "127.0.0.1.")]).is_err());
        assert!(read(&[(0, 1, 0, "good.test.")]).is_err(), "port 0");
        assert!(read(&[]).is_err());
        assert_eq!(read(&[(0, 0, 0, ".")]), Ok(Vec::new()), "the service is withdrawn");
        assert!(read(&[(0, 0, 0, "."), (0, 0, 80, "1.2.3.4.")]).is_err());
    }

    #[test]
    fn c_03_answers_are_bounded_sorted_and_without_repetition() {
        let targets: Vec<String> = (0..1000).map(|at| format!("H{at}.test.")).collect();
        let many: Vec<_> = targets.iter().rev().map(|target| (7, 1, 80, target.as_str())).collect();
        let records = read(&many).unwrap();
        assert_eq!(records.len(), MAX_SERVICES);
        assert!(records.is_sorted());
        let twice = read(&[(2, 1, 80, "b.test."), (1, 5, 80, "a.test."), (1, 5, 80, "A.test.")]);
        assert_eq!(twice, Ok(vec![(1, "a.test:80".to_owned()), (2, "b.test:80".to_owned())]));
    }
}
