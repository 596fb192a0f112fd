//! Pools of right files: what they share, inherit and default to.

use std::time::Duration;

use lb_core::health::ProbeSettings;
use lb_core::pool::PoolSettings;
use lb_core::retry::{Conditions, RetrySettings};

use super::{h1, parse};
use crate::config::{
    BackendPool, BackendProtocol, DiscoverySource, HashKey, Policy, PoolId, Probe, ProbeMethod, SameSite,
    Transport,
};

/// `[pools.web]` with `lines` and one backend, behind an h1 listener.
fn web(lines: &str) -> BackendPool {
    let config = parse(&format!(
        "[[listeners]]\naddress = \"0.0.0.0:80\"\nprotocol = \"h1\"\npool = \"web\"\n\
         [[pools.web.backends]]\naddress = \"10.0.0.1:80\"\n[pools.web]\n{lines}"
    ));
    BackendPool::clone(&config.pools[0])
}

#[test]
fn listeners_share_a_pool_and_others_have_their_own() {
    let listener = |address: &str, protocol: &str, lines: &str| {
        format!("[[listeners]]\naddress = \"{address}\"\nprotocol = \"{protocol}\"\n{lines}\n")
    };
    let backend = "[[listeners.backends]]\naddress = \"10.0.0.9:80\"";
    let config = parse(&format!(
        "{}{}{}{}[[pools.web.backends]]\naddress = \"10.0.0.1:80\"\npriority = 1\n\
         [[pools.Spare_1.backends]]\naddress = \"10.0.0.2:80\"\n",
        listener("0.0.0.0:80", "h1", "pool = \"web\""),
        listener("0.0.0.0:81", "tcp", backend),
        listener("0.0.0.0:82", "tcp", "pool = \" web \""),
        listener("0.0.0.0:83", "tcp", ""),
    ));
    assert_eq!(
        config.warnings,
        [
            "lb.toml:21: pools.Spare_1: no listener uses it",
            "lb.toml:14: listeners[3].backends: the listener has no backends, so it is not started",
        ]
    );
    let ids: Vec<_> = config.pools.iter().map(|pool| pool.id.name()).collect();
    assert_eq!(ids, ["Spare_1", "web"]);
    let own = PoolId::Listener("0.0.0.0:81".into(), Transport::Tcp);
    let used: Vec<_> = config.pools_in_use().into_iter().map(|pool| pool.id.clone()).collect();
    assert_eq!(used, [PoolId::from("web"), own]);
    let names: Vec<_> = config.listeners.iter().flat_map(|listener| &listener.pool.backends).collect();
    assert_eq!(
        names.iter().map(|backend| backend.name.as_str()).collect::<Vec<_>>(),
        ["10.0.0.1:80", "10.0.0.9:80", "10.0.0.1:80"]
    );
    assert_eq!((names[0].priority, names[1].priority), (1, 0));
}

#[test]
fn a_pool_without_rules_has_the_defaults_of_backends_inside_a_listener() {
    let own = h1("").pool;
    let named = web("");
    assert_eq!(BackendPool { id: own.id.clone(), ..named.clone() }, *own);
    assert_eq!(
        (named.settings.balance.policy, &named.hash_key),
        (Policy::RoundRobin, &HashKey::SourceAddress)
    );
    // Without a word about it a pool has the defaults of the types themselves, but that unreachable backends rest.
    let rest = Some(Duration::from_secs(10));
    assert_eq!(named.settings, PoolSettings { rest, ..PoolSettings::default() });
    assert!(named.sticky.is_none() && named.health.is_none() && named.discovery.is_none());
}

#[test]
fn empty_blocks_of_a_pool_have_the_documented_defaults() {
    let pool = web("sticky = {}\nhealth = { type = \"http\" }\noutlier = {}\nretry = {}");
    let sticky = pool.sticky.unwrap();
    assert_eq!((sticky.cookie.as_str(), sticky.path.as_str(), sticky.ttl), ("eg_sticky", "/", None));
    assert_eq!((sticky.secure, sticky.http_only, sticky.same_site), (true, true, SameSite::Lax));
    let health = pool.health.unwrap();
    let Probe::Http(http) = health.probe else { panic!("{:?}", health.probe) };
    assert_eq!(
        (http.method, http.path.as_str(), http.expected_statuses),
        (ProbeMethod::Get, "/", vec![200..=399])
    );
    assert_eq!(health.port, None);
    let PoolSettings { health, outlier, retry, .. } = pool.settings;
    assert_eq!(health, Some(ProbeSettings::default()));
    let outlier = outlier.unwrap();
    assert_eq!((outlier.streaks, outlier.ejection), Default::default());
    assert_eq!(outlier.analysis.error_rate_percent, 0);
    assert_eq!(retry, RetrySettings { attempts: Some(1), ..RetrySettings::default() });
}

#[test]
fn every_hash_key_is_read() {
    let key = |text: &str| web(&format!("policy = \"maglev\"\nhash_key = \"{text}\"")).hash_key;
    assert_eq!(key("source_address"), HashKey::SourceAddress);
    assert_eq!(key("header:X-User"), HashKey::Header("x-user".to_owned()));
    assert_eq!(key("cookie:User"), HashKey::Cookie("User".to_owned()));
    assert_eq!(key("query:a[]"), HashKey::Query("a[]".to_owned()));
    assert_eq!(key("path"), HashKey::Path);
    assert_eq!(key("connection_id"), HashKey::ConnectionId);
}

#[test]
fn lists_of_a_pool_are_in_order_and_without_repetition() {
    let pool = web("retry = { on = [\"503\", \"connect\", \" 503 \"] }\n\
         health = { type = \"http\", expected_statuses = [\"204\", \"300 - 308\"], host = \"[::1]\" }");
    let statuses = [503].into_iter().collect();
    assert_eq!(pool.settings.retry.conditions, Conditions { connect: true, statuses, ..Conditions::NONE });
    let Probe::Http(http) = pool.health.unwrap().probe else { panic!("another probe") };
    assert_eq!(http.expected_statuses, [204..=204, 300..=308]);
}

#[test]
fn a_pool_that_is_discovered_needs_no_backends() {
    let text = "[[listeners]]\naddress = \"0.0.0.0:80\"\nprotocol = \"tcp\"\npool = \"web\"\n[pools.web.discovery]\n";
    let config = parse(&format!("{text}srv = \"_http._tcp.Example.org\"\nprotocol = \"h2\""));
    assert!(config.listeners[0].starts());
    let source = DiscoverySource::Srv {
        name: "_http._tcp.example.org".to_owned(),
        protocol: BackendProtocol::H2,
        allow_loopback: false,
    };
    assert_eq!(config.listeners[0].pool.discovery.as_ref().unwrap().source, source);
}

#[test]
fn connection_ids_are_missed_where_there_are_none() {
    let listener = |port: u16, protocol: &str| {
        format!("[[listeners]]\naddress = \"0.0.0.0:{port}\"\nprotocol = \"{protocol}\"\npool = \"web\"\n")
    };
    let pool =
        |lines: &str| format!("[pools.web]\n{lines}[[pools.web.backends]]\naddress = \"10.0.0.1:80\"\n");
    let keyed = pool("policy = \"maglev\"\nhash_key = \"connection_id\"\n");
    let config = parse(&[listener(80, "tcp"), listener(81, "h1"), keyed].concat());
    assert!(config.not_built_yet().is_empty());
    let warning = |line: u32, index: u32, protocol: &str, port: u16| {
        format!(
            "lb.toml:{line}: listeners[{index}].pool = \"web\": its hash_key is \"connection_id\", which connections of \"{protocol}\" \
             listeners do not have: those of listener 0.0.0.0:{port} go by the client's IP address, as with \"source_address\""
        )
    };
    assert_eq!(config.warnings, [warning(4, 0, "tcp", 80), warning(8, 1, "h1", 81)]);
    let other = parse(&[listener(80, "h1"), pool("policy = \"maglev\"\nhash_key = \"path\"\n")].concat());
    assert_eq!(other.warnings, [""; 0]);
}

#[test]
fn rules_of_a_pool_that_do_nothing_are_warnings() {
    let config = parse(
        "[[listeners]]\naddress = \"0.0.0.0:80\"\nprotocol = \"tcp\"\npool = \"web\"\n\
         [pools.web]\npolicy = \"random\"\nhash_key = \"source_address\"\newma_decay_ms = 1\n\
         [[pools.web.backends]]\naddress = \"10.0.0.1:80\"\nprotocol = \"h1\"\n\
         [pools.web.outlier]\nconsecutive_5xx = 0\nconsecutive_gateway_failures = 0\n",
    );
    assert_eq!(
        config.warnings,
        [
            "lb.toml:7: pools.web.hash_key = \"source_address\": does nothing with policy = \"random\", only with \"maglev\", \"ring_hash\", \"rendezvous\"",
            "lb.toml:8: pools.web.ewma_decay_ms = 1: does nothing with policy = \"random\", only with \"p2c_ewma\"",
            "lb.toml:12: pools.web.outlier: does nothing, because every rule in it is 0",
            "lb.toml:11: pools.web.backends[0].protocol = \"h1\": does nothing on \"tcp\" listeners, which carry raw bytes",
        ]
    );
}
