//! What is counted of QUIC that is forwarded without keys.

use super::families;
use super::label::Label;
use super::labels::PassthroughDrop;
use super::scrape::Scrape;
use super::shards::PassthroughMetrics;
use super::values::Counter;

/// Adds the families of all workers together.
pub(super) fn scrape(scrape: &mut Scrape, workers: &[&PassthroughMetrics]) {
    let sum = |of: fn(&PassthroughMetrics) -> &Counter| workers.iter().map(|worker| of(worker).value()).sum();
    let flows = workers.iter().map(|worker| worker.flows.value()).sum::<i64>();
    scrape.gauge(&families::PASSTHROUGH_FLOWS, &[], flows as f64);
    scrape.counter(&families::PASSTHROUGH_CONNECTIONS, &[], sum(|p| &p.connections));
    scrape.counter(&families::PASSTHROUGH_FLOWS_EVICTED, &[], sum(|p| &p.flows_evicted));
    scrape.counter(&families::PASSTHROUGH_MIGRATIONS, &[], sum(|p| &p.migrations));
    scrape.counter(&families::PASSTHROUGH_RETRY_MINTED, &[], sum(|p| &p.retry_minted));
    scrape.counter(&families::PASSTHROUGH_RETRY_REJECTED, &[], sum(|p| &p.retry_rejected));
    scrape.counter(&families::PASSTHROUGH_HEADER_PARSE_ERRORS, &[], sum(|p| &p.header_parse_errors));
    scrape.counter(&families::PASSTHROUGH_BACKEND_SOCKET_ERRORS, &[], sum(|p| &p.backend_socket_errors));
    for reason in PassthroughDrop::ALL {
        let dropped = workers.iter().map(|worker| worker.dropped.of(*reason).value()).sum();
        scrape.counter(&families::PASSTHROUGH_DROPPED, &[reason.name()], dropped);
    }
}
