//! What filters would have refused that only count.

use std::time::Duration;

use lb_core::address::ClientAddress;
use lb_core::log_limit::LogLimit;
use lb_core::reason::Reason;
use lb_security::admission::Network;
use tokio::time::Instant;

use crate::limits::Limited;
use crate::service::Service;

/// Lines of the log at once, and how often another one follows.
static TOLD: LogLimit = LogLimit::new(3, Duration::from_secs(10));

/// Counts a request that such filters would have refused, and tells of it.
#[cold]
pub(crate) fn tell(limited: &Limited, client: ClientAddress, service: &Service) {
    let counters = &service.metrics.worker(service.worker.io.id).filter_dry_runs;
    for (reason, count) in [
        (Reason::Access, limited.access.dry_addresses),
        (Reason::ClientCertificate, limited.access.dry_certificates),
        (Reason::RateLimit, limited.rates.dry_refusals),
        (Reason::Concurrency, limited.dry_crowds),
    ] {
        if count == 0 {
            continue;
        }
        counters.of(reason).add(count.into());
        if let Some(unsaid) = TOLD.admit(Instant::now().into_std()) {
            let (listener, network, reason) = (&service.name, Network::of(client), reason.name());
            tracing::warn!(listener, %network, reason, unsaid, "dry run: a filter would have refused a request");
        }
    }
}
