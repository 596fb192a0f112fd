use super::super::tests::scrape;
use super::super::{Metrics, StatusClass};
use super::*;
use std::time::Duration;

use lb_core::health::ProbeOutcome;
use lb_core::identity::Transport;
use lb_core::outlier::EjectionCause;

fn of_named(metrics: &Metrics, backend: &str) -> Arc<BackendMetrics> {
    metrics.backend(&"p".into(), true, backend)
}

fn of_tcp(metrics: &Metrics, backend: &str) -> Arc<BackendMetrics> {
    metrics.backend(&PoolId::Listener("l:1".into(), Transport::Tcp), false, backend)
}

fn named(backend: &str) -> String {
    format!(r#"listener="",pool="p",backend="{backend}""#)
}

fn use_once(metrics: &Metrics, backend: &str) -> Arc<BackendMetrics> {
    let backend = of_named(metrics, backend);
    backend.worker(0).connections.inc();
    backend.worker(0).record(StatusClass::of(200), Duration::from_millis(1));
    backend
}

#[test]
fn a_backend_has_one_set_of_series_however_many_listeners_share_its_pool_and_none_before_it_is_used() {
    let metrics = Metrics::new(2);
    let held: Vec<_> = (0..100).map(|_| of_named(&metrics, "a:1")).collect();
    let unused = of_named(&metrics, "b:1");
    let before = scrape(&metrics);
    assert!(!before.has_any(&format!("backend_requests_total{{{}", named("a:1"))));
    for family in
        ["backend_connect_failures_total", "backend_inflight", "backend_request_duration_seconds_count"]
    {
        assert_eq!(before.value(&format!("{family}{{{}}}", named(OTHER))), 0.0, "there from the start");
    }
    assert_eq!(before.value(&format!("backend_reachable{{{}}}", named(OTHER))), 1.0);
    for (worker, backend) in [(0, &held[7]), (1, &held[99])] {
        backend.worker(worker).record(StatusClass::of(503), Duration::from_millis(1));
    }
    let after = scrape(&metrics);
    assert_eq!(
        after.value(&format!(r#"backend_requests_total{{{},status_class="5xx"}}"#, named("a:1"))),
        2.0
    );
    assert_eq!(
        after.value(&format!(r#"backend_requests_total{{{},status_class="2xx"}}"#, named("a:1"))),
        0.0
    );
    assert!(!after.has_any(&format!("backend_inflight{{{}", named("b:1"))));
    assert_eq!(after.value("backends_exported"), 1.0);
    drop(unused);
}

#[test]
fn beyond_the_bound_backends_are_added_up_and_no_count_goes_back() {
    let metrics = Metrics::new(1);
    metrics.export_backends(2);
    let mut held: Vec<_> = (0..5).map(|number| use_once(&metrics, &format!("{number}:1"))).collect();
    let requests =
        |backend: &str| format!(r#"backend_requests_total{{{},status_class="2xx"}}"#, named(backend));
    let listed = |scraped: &super::super::tests::Exposition| {
        (0..5)
            .filter(|number| scraped.series.contains_key(&requests(&format!("{number}:1"))))
            .collect::<Vec<_>>()
    };
    let first = scrape(&metrics);
    assert_eq!(listed(&first), [0, 1]);
    assert_eq!((first.value(&requests(OTHER)), first.value("backends_exported")), (3.0, 2.0));
    assert_eq!(first.value(&format!("backend_request_duration_seconds_count{{{}}}", named(OTHER))), 3.0);
    held[4].set_reachable(false);
    assert_eq!(scrape(&metrics).value(&format!("backend_reachable{{{}}}", named(OTHER))), 0.0);

    // One with series of its own goes, and one without. Those that were counted among the others stay there.
    metrics.retain_backends(|_, backend| !["1:1", "4:1"].contains(&backend));
    held.truncate(4);
    held.remove(1);
    let second = scrape(&metrics);
    assert_eq!(listed(&second), [0]);
    assert_eq!(second.value(&requests(OTHER)), 3.0);
    assert_eq!(second.value(&format!("backend_reachable{{{}}}", named(OTHER))), 1.0);
    // There is room for a new one, and a larger bound makes more.
    metrics.export_backends(3);
    let _new = (use_once(&metrics, "8:1"), use_once(&metrics, "9:1"), use_once(&metrics, "9:2"));
    let third = scrape(&metrics);
    assert_eq!(third.value("backends_exported"), 3.0);
    assert_eq!((third.value(&requests("8:1")), third.value(&requests("9:1"))), (1.0, 1.0));
    assert_eq!(third.value(&requests(OTHER)), 4.0);
}

#[test]
fn an_idle_gateway_with_many_listeners_and_backends_has_a_small_scrape() {
    let metrics = Metrics::new(2);
    for _ in 0..199 {
        for number in 0..100 {
            of_named(&metrics, &format!("10.0.0.{number}:80"));
        }
    }
    let idle = metrics.encode().len();
    let used: Vec<_> = (0..3000).map(|number| use_once(&metrics, &format!("10.1.0.0:{number}"))).collect();
    let busy = metrics.encode().len();
    assert!(idle < 40_000 && busy < 2_000_000, "{idle} and {busy} bytes");
    drop(used);
}

#[test]
fn health_checks_count_as_use_and_alerts_see_the_others() {
    let metrics = Metrics::new(1);
    metrics.export_backends(1);
    let checked: Vec<_> = ["a:1", "b:1"].map(|backend| metrics.pool_backend(&"p".into(), backend)).into();
    for backend in &checked {
        backend.set_healthy(Some(true));
        backend.set_ejected(Some(0));
    }
    let other = r#"pool="p",backend="other""#;
    let start = scrape(&metrics);
    assert_eq!(start.value(&format!("backend_healthy{{{other}}}")), 1.0);
    assert_eq!(start.value(&format!(r#"backend_ejections_total{{{other},cause="latency"}}"#)), 0.0);
    assert!(!start.has_any(r#"backend_healthy{pool="p",backend="a:1""#));
    for backend in &checked {
        backend.probes.of(ProbeOutcome::Timeout).inc();
        backend.ejections.of(EjectionCause::Latency).inc();
        backend.set_healthy(Some(false));
        backend.set_ejected(Some(2));
    }
    let scraped = scrape(&metrics);
    for backend in ["a:1", "other"] {
        let labels = format!(r#"pool="p",backend="{backend}""#);
        assert_eq!(scraped.value(&format!("backend_healthy{{{labels}}}")), 0.0);
        assert_eq!(scraped.value(&format!("backend_ejected{{{labels}}}")), 2.0);
        assert_eq!(
            scraped.value(&format!(r#"backend_health_probes_total{{{labels},result="timeout"}}"#)),
            1.0
        );
    }
    metrics.retain_pool_backends(|_, backend| backend != "b:1");
    let left = scrape(&metrics);
    assert_eq!(left.value(&format!(r#"backend_ejections_total{{{other},cause="latency"}}"#)), 1.0);
}

#[test]
fn a_removed_backend_stays_until_its_work_ends() {
    let metrics = Metrics::new(1);
    let busy = use_once(&metrics, "busy:1");
    busy.worker(0).inflight.inc();
    drop((use_once(&metrics, "gone:1"), use_once(&metrics, "kept:1")));
    let of_tcp = of_tcp(&metrics, "gone:1");
    of_tcp.worker(0).connections.inc();
    metrics.retain_backends(|pool, backend| (pool, backend) == ("p", "kept:1") || pool == "l:1");
    let inflight = |backend: &str| format!("backend_inflight{{{}}}", named(backend));
    let scraped = scrape(&metrics);
    assert_eq!(scraped.value(&inflight("busy:1")), 1.0);
    assert_eq!(scraped.value(&inflight("kept:1")), 0.0);
    assert!(!scraped.series.contains_key(&inflight("gone:1")));
    assert_eq!(scraped.value(r#"backend_inflight{listener="l:1",pool="l:1",backend="gone:1"}"#), 0.0);
    // One that returns goes on where it was.
    let again = of_named(&metrics, "busy:1");
    drop((busy, again));
    assert_eq!(scrape(&metrics).value(&format!("backend_connections_total{{{}}}", named("busy:1"))), 1.0);
    metrics.retain_backends(|_, _| false);
    assert!(!scrape(&metrics).has_any(r#"backend_inflight{listener="",pool="p""#));
}

#[test]
fn a_tcp_listener_has_no_request_families() {
    let metrics = Metrics::new(1);
    let backend = of_tcp(&metrics, "b:1");
    backend.worker(0).connections.inc();
    assert!(!scrape(&metrics).has_any("backend_request"));
    backend.worker(0).record(StatusClass::of(502), Duration::ZERO);
    assert!(scrape(&metrics).has_any("backend_requests_total"));
}
