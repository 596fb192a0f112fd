//! How the families of listeners are scraped.

use super::scrape::Scrape;
use super::shards::{ListenerMetrics, ListenerShard, RequestShard};
use super::{
    Counter, DatagramDrop, DatagramPath, DryRuns, Family, FilterAnswers, FlowEnd, GrpcStatus, HttpVersion,
    Label, ProxyHeaderResult, ReasonSet, StatusClass, TlsResult, TunnelEnd, families, quic,
};

/// The `route` of requests that no named route took.
const UNROUTED: &str = "";

/// Adds every family of the listener `name`.
pub(super) fn scrape(scrape: &mut Scrape, name: &str, listener: &ListenerMetrics) {
    let connections = listener.shards().map(|shard| shard.connections_inflight.value()).sum::<i64>();
    scrape.gauge(&families::CONNECTIONS_INFLIGHT, &[name], connections as f64);
    let places = listener.shards().map(|shard| shard.accept_inflight.value()).sum::<i64>();
    scrape.gauge(&families::ACCEPT_INFLIGHT, &[name], places as f64);
    let shed = listener.shards().map(|shard| shard.accept_shed.value()).sum();
    scrape.counter(&families::ACCEPT_SHED, &[name], shed);
    scrape.gauge(&families::DRAIN_TIMEOUT, &[name], listener.drain_timeout_ms.value() as f64);

    if listener.is_proxied() {
        for result in ProxyHeaderResult::ALL {
            let headers = listener.shards().map(|shard| shard.proxy_headers.of(*result).value());
            scrape.counter(&families::PROXY_HEADERS, &[name, result.name()], headers.sum());
        }
    }
    scrape_tls(scrape, name, listener);
    scrape_grpc(scrape, name, listener);
    scrape_udp(scrape, name, listener);
    quic::scrape_relay(scrape, name, listener);
    if listener.serves_http() {
        let open = listener.shards().map(|shard| shard.websocket_tunnels.value()).sum::<i64>();
        scrape.gauge(&families::WEBSOCKET_TUNNELS, &[name], open as f64);
        for end in TunnelEnd::ALL {
            let ended = listener.shards().map(|shard| shard.websocket_tunnels_ended.of(*end).value());
            scrape.counter(&families::WEBSOCKET_TUNNELS_ENDED, &[name, end.name()], ended.sum());
        }
        for reason in FilterAnswers::REASONS {
            let answers = listener.shards().map(|shard| shard.filter_answers.of(*reason).value());
            scrape.counter(&families::FILTER_ANSWERS, &[name, reason.name()], answers.sum());
        }
    }
    for reason in DryRuns::REASONS {
        let passed: u64 = listener.shards().map(|shard| shard.filter_dry_runs.of(*reason).value()).sum();
        // Other listeners have access lists alone.
        if listener.serves_http() || passed > 0 {
            scrape.counter(&families::FILTER_DRY_RUN, &[name, reason.name()], passed);
        }
    }
    for version in HttpVersion::ALL {
        let shards: Vec<_> = listener.shards().map(|shard| shard.unrouted.version(*version)).collect();
        if listener.is_served(*version) || shards.iter().any(|shard| shard.is_used()) {
            scrape_requests(
                scrape,
                &shards,
                [&families::HTTP_REQUESTS, &families::HTTP_REQUEST_DURATION],
                &[name, UNROUTED, version.name()],
            );
        }
    }
    listener.routes.scrape(scrape, name);
}

/// The TLS families of a listener that has certificates.
fn scrape_tls(scrape: &mut Scrape, name: &str, listener: &ListenerMetrics) {
    let Some(certificates) = listener.certificates() else { return };
    for result in TlsResult::ALL {
        let sum = listener.shards().map(|shard| shard.tls_handshakes.of(*result).value()).sum();
        scrape.counter(&families::TLS_HANDSHAKES, &[name, result.name()], sum);
    }
    let inflight = listener.shards().map(|shard| shard.tls_handshakes_inflight.value()).sum::<i64>();
    scrape.gauge(&families::TLS_HANDSHAKES_INFLIGHT, &[name], inflight as f64);
    scrape.counter(&families::TICKET_KEY_ROTATIONS, &[name], listener.ticket_key_rotations.value());
    scrape.gauge(&families::CERT_LOADED_AT, &[name], certificates.loaded_at as f64);
    for (certificate, expiry) in &certificates.expiries {
        scrape.gauge(&families::CERT_EXPIRY, &[name, certificate], *expiry as f64);
    }
}

fn scrape_udp(scrape: &mut Scrape, name: &str, listener: &ListenerMetrics) {
    if !listener.serves_udp() {
        return;
    }
    let sum = |of: fn(&ListenerShard) -> &Counter| listener.shards().map(|shard| of(shard).value()).sum();
    scrape.counter(&families::UDP_FLOWS, &[name], sum(|shard| &shard.udp_flows));
    scrape.counter(&families::UDP_FLOWS_MOVED, &[name], sum(|shard| &shard.udp_flows_moved));
    let sockets = listener.shards().map(|shard| shard.udp_uplinks.value()).sum::<i64>();
    scrape.gauge(&families::UDP_UPLINKS, &[name], sockets as f64);
    for end in FlowEnd::ALL {
        let ended = listener.shards().map(|shard| shard.udp_flows_ended.of(*end).value());
        scrape.counter(&families::UDP_FLOWS_ENDED, &[name, end.name()], ended.sum());
    }
    for path in DatagramPath::ALL {
        let passed = listener.shards().map(|shard| shard.udp_datagrams.of(*path).value());
        scrape.counter(&families::UDP_DATAGRAMS, &[name, path.name()], passed.sum());
    }
    for reason in DatagramDrop::ALL {
        let dropped = listener.shards().map(|shard| shard.udp_datagrams_dropped.of(*reason).value());
        scrape.counter(&families::UDP_DATAGRAMS_DROPPED, &[name, reason.name()], dropped.sum());
    }
}

/// The calls of a listener that serves gRPC, or has served it.
fn scrape_grpc(scrape: &mut Scrape, name: &str, listener: &ListenerMetrics) {
    let count = |status| listener.shards().map(|shard| shard.grpc_calls.of(status).value()).sum::<u64>();
    let counts = GrpcStatus::ALL.iter().map(|status| (status.name(), count(*status))).collect::<Vec<_>>();
    if listener.serves_grpc() || counts.iter().any(|(_, count)| *count > 0) {
        for (status, count) in counts {
            scrape.counter(&families::GRPC_CALLS, &[name, status], count);
        }
    }
}

/// Adds the counter by status class and the histogram that share these labels.
pub(super) fn scrape_requests(
    scrape: &mut Scrape,
    shards: &[&RequestShard],
    [requests, duration]: [&Family; 2],
    labels: &[&str],
) {
    for class in StatusClass::ALL {
        let sum = shards.iter().map(|shard| shard.requests.of(*class).value()).sum();
        scrape.counter(requests, &[labels, &[class.name()]].concat(), sum);
    }
    scrape.histogram(duration, labels, shards.iter().map(|shard| &shard.duration));
}
