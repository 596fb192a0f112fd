use std::collections::{BTreeMap, BTreeSet};

use super::*;
use lb_core::health::ProbeOutcome;
use lb_core::reason::Reason;

/// What a scrape says, read back from its text.
#[derive(Default)]
pub(super) struct Exposition {
    help: BTreeMap<String, String>,
    kind: BTreeMap<String, String>,
    pub(super) series: BTreeMap<String, f64>,
}

impl Exposition {
    fn parse(text: &str) -> Self {
        let mut parsed = Self::default();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').unwrap();
                assert!(parsed.help.insert(name.to_owned(), help.to_owned()).is_none(), "{name} twice");
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                assert!(parsed.kind.insert(name.to_owned(), kind.to_owned()).is_none(), "{name} twice");
            } else {
                let (series, value) = line.rsplit_once(' ').unwrap();
                let previous = parsed.series.insert(series.to_owned(), value.parse().unwrap());
                assert!(previous.is_none(), "{series} twice");
            }
        }
        parsed
    }

    #[track_caller]
    pub(super) fn value(&self, series: &str) -> f64 {
        *self.series.get(series).unwrap_or_else(|| panic!("no series {series}"))
    }

    pub(super) fn has_any(&self, prefix: &str) -> bool {
        self.series.keys().any(|series| series.starts_with(prefix))
    }
}

pub(super) fn scrape(metrics: &Metrics) -> Exposition {
    Exposition::parse(&metrics.encode())
}

#[test]
fn every_family_is_exposed_with_help_and_type() {
    let metrics = Metrics::new(2);
    metrics.listener("l").serves(&[HttpVersion::H1]);
    metrics.listener("l").set_grpc();
    metrics.listener("l").set_proxied();
    metrics.listener("l").set_udp();
    metrics.listener("l").set_quic_relay();
    let pool = metrics.pool(&"p".into());
    pool.set_kinds(true);
    let expiries = BTreeMap::from([("/c.pem".to_owned(), 2)]);
    metrics.listener("l").set_certificates(Certificates { loaded_at: 1, expiries });
    let _backend = metrics.backend(&"p".into(), true, "b:1");
    let policy = metrics.policy("limit");
    policy.concurrency_limit(0).set(100);
    metrics.pool_backend(&"p".into(), "b").set_healthy(Some(true));
    metrics.pool_backend(&"p".into(), "b").set_ejected(Some(0));
    metrics.reload_applied.inc("listeners.backends");
    metrics.discovery_failures.keep(&["web"]);
    metrics.xdp.show(XdpReading {
        actions: vec![("pass_not_ours", 1)],
        attached: vec![("drv", 1)],
        capacity: [1, 1],
        live: Some([1, 1]),
        backends: vec![XdpBackend { live: Some(1), ..XdpBackend::default() }],
    });
    metrics.reload_restart_required.declare(&["listeners.protocol"]);
    let scraped = scrape(&metrics);
    for family in FAMILIES {
        assert_eq!(scraped.help[family.name], family.help);
        let kind = match family.kind {
            FamilyKind::Counter => "counter",
            FamilyKind::Gauge => "gauge",
            FamilyKind::Histogram(_) => "histogram",
        };
        assert_eq!(scraped.kind[family.name], kind);
        assert!(scraped.has_any(family.name));
    }
    assert_eq!(scraped.help.len(), FAMILIES.len());
}

#[test]
fn labels_are_the_declared_ones() {
    let metrics = Metrics::new(1);
    metrics.listener("l").serves(HttpVersion::ALL);
    let _backend = metrics.backend(&"p".into(), true, "b:1");
    let pool = metrics.pool(&"p".into());
    pool.set_kinds(true);
    let scraped = scrape(&metrics);
    for (series, _) in scraped.series {
        let (name, labels) = series.split_once('{').unwrap_or((&series, "}"));
        let family = FAMILIES
            .iter()
            .find(|family| {
                let suffixes = ["_bucket", "_sum", "_count"].iter();
                name == family.name || suffixes.clone().any(|end| name.strip_suffix(end) == Some(family.name))
            })
            .unwrap_or_else(|| panic!("{name} is not declared"));
        let names = labels.trim_end_matches('}').split(',').filter_map(|pair| pair.split_once('='));
        let names = names.map(|(name, _)| name).filter(|name| *name != "le").collect::<BTreeSet<_>>();
        assert_eq!(names, family.labels.iter().map(|label| label.name).collect(), "{series}");
    }
}

#[test]
fn known_series_are_zero_at_boot() {
    let metrics = Metrics::new(4);
    let listener = metrics.listener("l");
    listener.serves(&[HttpVersion::H1]);
    listener.drain_timeout_ms.set(10_000);
    let scraped = scrape(&metrics);
    for series in [
        "connections_total",
        "panic_total",
        r#"accept_errors_total{kind="fd_exhausted"}"#,
        r#"accept_reject_total{reason="per_ip"}"#,
        r#"accept_shed_total{listener="l"}"#,
        r#"http_requests_total{listener="l",route="",version="h1",status_class="none"}"#,
        r#"http_request_duration_seconds_count{listener="l",route="",version="h1"}"#,
        r#"request_rejected_total{reason="trailer"}"#,
        r#"shutdown_drain_seconds_global_count{phase="XdpDetach",outcome="not_attempted"}"#,
    ] {
        assert_eq!(scraped.value(series), 0.0, "{series}");
    }
    assert_eq!(scraped.value("config_reload_applied_version"), 1.0);
    assert_eq!(scraped.value("workers"), 4.0);
    assert_eq!(scraped.value(r#"lb_drain_timeout_ms_listener{listener="l"}"#), 10_000.0);
    assert_eq!(scraped.value(r#"build_info{version="0.1.0"}"#), 1.0);
    assert!(scraped.value("process_start_time_seconds") > 1.7e9);
    assert!(!scraped.has_any(r#"http_requests_total{listener="l",route="",version="h2""#));
}

#[test]
fn workers_are_summed() {
    let metrics = Metrics::new(3);
    let listener = metrics.listener("l");
    for worker in 0..3 {
        let own = metrics.worker(worker);
        own.connections.add(10);
        own.pool_idle.set(2);
        own.request_rejected.of(Reason::Host).inc();
        listener.worker(worker).connections_inflight.inc();
        listener.worker(worker).unrouted.record(
            HttpVersion::H1,
            StatusClass::of(200),
            Duration::from_millis(1 + 20 * worker as u64),
        );
    }
    metrics.worker(77).connections.inc();
    let scraped = scrape(&metrics);
    assert_eq!(scraped.value("connections_total"), 31.0);
    assert_eq!(scraped.value("pool_idle_gauge"), 6.0);
    assert_eq!(scraped.value(r#"request_rejected_total{reason="host"}"#), 3.0);
    assert_eq!(scraped.value(r#"connections_inflight{listener="l"}"#), 3.0);
    let labels = r#"listener="l",route="",version="h1""#;
    assert_eq!(scraped.value(&format!(r#"http_requests_total{{{labels},status_class="2xx"}}"#)), 3.0);
    assert_eq!(scraped.value(&format!("http_request_duration_seconds_sum{{{labels}}}")), 0.063);
}

#[test]
fn buckets_are_cumulative_and_end_at_the_count() {
    let metrics = Metrics::new(2);
    let shard = metrics.listener("l");
    for millis in [1, 2, 30, 60, 20_000] {
        shard.worker(1).unrouted.record(
            HttpVersion::H2,
            StatusClass::NoResponse,
            Duration::from_millis(millis),
        );
    }
    let scraped = scrape(&metrics);
    let labels = r#"listener="l",route="",version="h2""#;
    let bucket = |bound: &str| {
        scraped.value(&format!(r#"http_request_duration_seconds_bucket{{{labels},le="{bound}"}}"#))
    };
    let bounds = [
        "0.0001", "0.0005", "0.001", "0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5", "5",
        "10", "+Inf",
    ];
    let counts = bounds.map(bucket);
    assert_eq!(counts, [0., 0., 1., 2., 2., 2., 3., 4., 4., 4., 4., 4., 4., 4., 5.]);
    assert_eq!(scraped.value(&format!("http_request_duration_seconds_count{{{labels}}}")), 5.0);
}

#[test]
fn a_listener_keeps_its_counts() {
    let metrics = Metrics::new(1);
    metrics.listener("l").worker(0).accept_shed.inc();
    metrics.listener("l").worker(0).accept_shed.inc();
    assert_eq!(scrape(&metrics).value(r#"accept_shed_total{listener="l"}"#), 2.0);
}

#[test]
fn a_tcp_listener_has_no_request_families() {
    let metrics = Metrics::new(1);
    metrics.listener("tcp");
    assert!(!scrape(&metrics).has_any("http_request"));
}

#[test]
fn label_values_are_escaped() {
    let metrics = Metrics::new(1);
    metrics.listener("a\"b\\c\nd");
    let text = metrics.encode();
    assert!(text.contains(r#"accept_shed_total{listener="a\"b\\c\nd"} 0"#));
}

#[test]
fn drain_phases_are_timed() {
    let metrics = Metrics::new(1);
    metrics.drain_phase(DrainPhase::Total, DrainOutcome::TimedOut, Duration::from_secs(21));
    let scraped = scrape(&metrics);
    let labels = r#"phase="Total",outcome="timed_out""#;
    assert_eq!(scraped.value(&format!("shutdown_drain_seconds_global_sum{{{labels}}}")), 21.0);
    assert_eq!(scraped.value(&format!(r#"shutdown_drain_seconds_global_bucket{{{labels},le="10"}}"#)), 0.0);
    assert_eq!(scraped.value(&format!(r#"shutdown_drain_seconds_global_bucket{{{labels},le="30"}}"#)), 1.0);
}

#[test]
fn series_of_pools_come_with_what_they_are_about_and_go_with_it() {
    let metrics = Metrics::new(1);
    let backend = metrics.pool_backend(&"p".into(), "b:1");
    assert!(!scrape(&metrics).has_any("backend_healthy{"));
    backend.set_healthy(Some(false));
    backend.probes.of(ProbeOutcome::Timeout).inc();
    let scraped = scrape(&metrics);
    assert_eq!(scraped.value("backend_healthy{pool=\"p\",backend=\"b:1\"}"), 0.0);
    let probes = "backend_health_probes_total{pool=\"p\",backend=\"b:1\",result=\"timeout\"}";
    assert_eq!(scraped.value(probes), 1.0);
    assert!(!scraped.has_any("backend_ejected{"), "nothing is ejected in this pool");
    metrics.retain_pool_backends(|pool, backend| (pool, backend) != ("p", "b:1"));
    assert!(!scrape(&metrics).has_any("backend_healthy{"));
}

#[test]
fn a_pool_has_the_families_of_what_it_has_while_somebody_holds_it() {
    let metrics = Metrics::new(2);
    let pool = metrics.pool(&"p".into());
    assert!(!scrape(&metrics).has_any("pool_pending"));
    pool.set_kinds(true);
    pool.worker(1).pending.inc();
    let scraped = scrape(&metrics);
    assert_eq!(scraped.value(r#"pool_pending{pool="p"}"#), 1.0);
    drop(pool);
    assert!(!scrape(&metrics).has_any("pool_pending"));
}
