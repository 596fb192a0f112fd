//! Traces, as a collector gets them that reads OTLP with the library of the OpenTelemetry project.

use std::collections::HashMap;
use std::time::Duration;

use crate::rig::{listener_to, one_worker};
use serde_json::Value;
use testkit::backend::Request;
use testkit::harness::Case;
use testkit::peers::{Peer, scenario};
use testkit::tools::Tool::Peers;
use testkit::{Backend, Config, Gateway, H2Client, H3Client, Listener, ms, ports, seconds};

pub(crate) fn cases() -> Vec<Case> {
    testkit::cases![
        a_trace_is_whole_over_http,
        a_trace_is_whole_over_grpc,
        a_trace_over_each_version_of_http,
        tries_and_hedges_stand_below_their_request,
        waiting_for_room_shows,
        a_share_of_traces_is_recorded,
        senders_decide_where_they_are_heeded,
        spans_are_dropped_and_counted_when_nobody_takes_them,
        what_waits_is_sent_before_the_end,
    ]
    .into_iter()
    .map(|case| case.needs(&[Peers]))
    .collect()
}

const CALLER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const LIMIT: Duration = Duration::from_secs(20);

fn traced(collector: &Peer) -> Config {
    let endpoint = format!("http://{}", collector.address);
    one_worker(Config::new()).block("tracing", "endpoint", endpoint).block("tracing", "sample", "100%")
}

fn over(collector: &Peer, backends: &[&Backend]) -> Gateway {
    let backends: Vec<_> = backends.iter().map(|backend| (backend.address, "")).collect();
    Gateway::start(traced(collector).listener(listener_to(Listener::h1(), &backends)))
}

/// All spans of a trace, by their kind and name, once there are so many.
#[track_caller]
fn spans(collector: &Peer, trace: &str, count: usize) -> Vec<Value> {
    let of_trace = || -> Vec<Value> {
        collector.events("span").into_iter().filter(|span| span["trace"] == trace).collect()
    };
    testkit::eventually("the spans arrive", LIMIT, || of_trace().len() >= count);
    let all = of_trace();
    assert_eq!(all.len(), count, "{all:#?}");
    for span in &all {
        assert!(span["start"].as_u64() <= span["end"].as_u64() && span["start"].as_u64() > Some(0), "{span}");
        assert_eq!(span["resource"]["service.name"], "expressgateway");
    }
    all
}

#[track_caller]
fn one<'a>(spans: &'a [Value], kind: &str) -> &'a Value {
    let found: Vec<_> = spans.iter().filter(|span| span["kind"] == kind).collect();
    assert_eq!(found.len(), 1, "{kind}: {spans:#?}");
    found[0]
}

fn parent_of(request: &Request) -> String {
    request.header("traceparent").expect("a traceparent")
}

/// The span that the backend was told is the one of the try, below that of the request, below that of the caller.
#[track_caller]
fn assert_chain(spans: &[Value], told: &str) {
    let (server, client) = (one(spans, "server"), one(spans, "client"));
    assert_eq!(server["parent"], "b7ad6b7169203331");
    assert_eq!(client["parent"], server["span"]);
    assert_eq!(told, format!("00-{TRACE}-{}-01", client["span"].as_str().unwrap()));
    assert!(
        server["start"].as_u64() <= client["start"].as_u64()
            && client["end"].as_u64() <= server["end"].as_u64()
    );
}

fn whole(collector: &Peer, config: Config) {
    let backend = Backend::standard("one");
    let log = tempfile::tempdir().unwrap();
    let log = log.path().join("access.log");
    let config = config.block("observability", "access_log", log.to_str().unwrap());
    let gateway = Gateway::start(config.listener(listener_to(Listener::h1(), &[(backend.address, "")])));
    let mut client = gateway.client();
    let response = client.request("GET", "/status/404?secret=1", &[("traceparent", CALLER)], b"").unwrap();
    assert_eq!(response.status, 404);
    // The request, its try, and the connection that had to be made.
    let all = spans(collector, TRACE, 3);
    assert_chain(&all, &parent_of(&backend.last_request()));
    let server = one(&all, "server");
    let of = |name: &str| &server["attributes"][name];
    assert_eq!((server["name"].as_str(), &server["error"]), (Some("GET"), &Value::Bool(false)));
    assert_eq!(
        (of("http.request.method").as_str(), of("url.path").as_str()),
        (Some("GET"), Some("/status/404"))
    );
    assert_eq!(of("http.response.status_code"), 404);
    assert_eq!(
        (of("network.protocol.version").as_str(), of("url.scheme").as_str()),
        (Some("1.1"), Some("http"))
    );
    assert_eq!(
        (of("client.address").as_str(), of("expressgateway.pool").as_str()),
        (Some("127.0.0.1"), Some("p"))
    );
    assert!(!server.to_string().contains("secret"), "{server}");
    let attempt = one(&all, "client");
    assert_eq!(attempt["attributes"]["expressgateway.backend"], backend.address.to_string());
    assert_eq!(attempt["attributes"]["http.response.status_code"], 404);
    let connect = one(&all, "internal");
    assert_eq!((connect["name"].as_str(), &connect["parent"]), (Some("connect"), &attempt["span"]));
    // The next request needs no connection, and one without a caller has a trace of its own.
    client.get("/").unwrap();
    let own = parent_of(&backend.last_request());
    let all = spans(collector, &own[3..35], 2);
    assert_eq!((one(&all, "server")["parent"].as_str(), &own[53..]), (Some(""), "01"));
    let lines = || std::fs::read_to_string(&log).unwrap_or_default();
    testkit::eventually("two lines", LIMIT, || lines().lines().count() == 2);
    let ids: Vec<String> = lines()
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["trace_id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(ids, [TRACE, &own[3..35]]);
    gateway.wait_metric("trace_spans_total", &[], |spans| spans == 5.0);
}

fn a_trace_is_whole_over_http() {
    let collector = Peer::start("otlp_collector.py", &[]);
    whole(&collector, traced(&collector).block("tracing", "headers", vec!["x-tenant: north".to_owned()]));
    let batch = &collector.events("batch")[0];
    assert_eq!(
        (batch["path"].as_str(), batch["fields"]["x-tenant"].as_str()),
        (Some("/v1/traces"), Some("north"))
    );
}

fn a_trace_is_whole_over_grpc() {
    let collector = Peer::start("otlp_collector.py", &["--grpc"]);
    let config = traced(&collector).block("tracing", "protocol", "grpc");
    whole(&collector, config.block("tracing", "headers", vec!["x-tenant: north".to_owned()]));
    assert_eq!(collector.events("batch")[0]["fields"]["x-tenant"], "north");
}

fn a_trace_over_each_version_of_http() {
    let collector = Peer::start("otlp_collector.py", &[]);
    let backend = Backend::standard("one");
    let calls = Peer::start("grpc_server.py", &[]);
    let gateway = Gateway::start(
        traced(&collector)
            .listener(Listener::h2c().backend(backend.address))
            .listener(Listener::quic().backend(backend.address))
            .listener(Listener::h2c().h2_backend(calls.address).block("grpc", "", true)),
    );
    let mut h2 = H2Client::connect(gateway.front()).unwrap();
    h2.request("GET", "/", &[("traceparent", CALLER)], b"").unwrap();
    let all = spans(&collector, TRACE, 3);
    assert_chain(&all, &parent_of(&backend.last_request()));
    assert_eq!(one(&all, "server")["attributes"]["network.protocol.version"], "2");

    let other = CALLER.replace("0af7", "1af7");
    let mut h3 = H3Client::connect(gateway.config.address(1)).unwrap();
    h3.request("GET", "/", &[("traceparent", &other)], b"").unwrap();
    // The connection to the backend is there already.
    let all = spans(&collector, &other[3..35], 2);
    let server = one(&all, "server");
    assert_eq!(
        (&server["attributes"]["network.protocol.version"], &server["attributes"]["url.scheme"]),
        (&Value::from("3"), &Value::from("https"))
    );

    let seen = scenario("grpc_client.py", gateway.config.address(2), "unary", &[]);
    assert!(seen.get("error").is_none_or(Value::is_null), "{seen}");
    let calls = || -> Vec<Value> {
        let all = collector.events("span");
        all.into_iter().filter(|span| span["attributes"]["rpc.grpc.status_code"] == 0).collect()
    };
    testkit::eventually("the call is recorded", LIMIT, || !calls().is_empty());
    assert_eq!(
        (&calls()[0]["attributes"]["rpc.system"], &calls()[0]["kind"]),
        (&Value::from("grpc"), &Value::from("server"))
    );
}

fn tries_and_hedges_stand_below_their_request() {
    let collector = Peer::start("otlp_collector.py", &[]);
    let dead = ports::reserve();
    // The first request for a path is slow, the next one is not.
    let seen = std::sync::Mutex::new(HashMap::<String, usize>::new());
    let backend = Backend::each(move |request, conn| {
        let count = {
            let mut seen = seen.lock().unwrap();
            let count = seen.entry(request.target().to_owned()).or_default();
            *count += 1;
            *count
        };
        if request.target().starts_with("/slow") && count == 1 {
            conn.pause(seconds(20));
        }
        conn.respond(200, &[], b"answer")
    });
    let other = Backend::standard("other");
    let retry = "\n[pools.p.retry]\nattempts = 2\non = [\"connect\"]\n";
    let listener = listener_to(Listener::h1(), &[(dead, ""), (backend.address, "")]).text(retry);
    let gateway =
        Gateway::start(traced(&collector).block("pools.p", "policy", "round_robin").listener(listener));
    let mut client = gateway.client();
    // One of two requests meets the backend that does not listen first.
    for number in 0..2 {
        let caller = CALLER.replace("0af7", &format!("{number}af7"));
        assert_eq!(client.request("GET", "/", &[("traceparent", &caller)], b"").unwrap().status, 200);
    }
    let failed = || -> Vec<Value> {
        let all = collector.events("span");
        all.into_iter().filter(|span| span["kind"] == "client" && span["error"] == true).collect()
    };
    testkit::eventually("the try that failed is recorded", LIMIT, || !failed().is_empty());
    let failed = failed().remove(0);
    assert_eq!(failed["attributes"]["expressgateway.backend"], dead.to_string());
    assert_eq!(failed["attributes"]["http.request.resend_count"], 0);
    assert!(failed["attributes"]["error.type"].as_str().is_some_and(|reason| !reason.is_empty()), "{failed}");
    let trace = failed["trace"].as_str().unwrap();
    testkit::eventually("all of it", LIMIT, || {
        collector
            .events("span")
            .iter()
            .filter(|span| span["trace"] == trace && span["kind"] == "client")
            .count()
            == 2
    });
    let all: Vec<Value> =
        collector.events("span").into_iter().filter(|span| span["trace"] == trace).collect();
    let server = one(&all, "server");
    assert_eq!(
        (&server["attributes"]["expressgateway.retries"], &server["error"]),
        (&Value::from(1), &Value::Bool(false))
    );
    let second = all.iter().find(|span| span["attributes"]["http.request.resend_count"] == 1).unwrap();
    assert_eq!((&second["parent"], &failed["parent"]), (&server["span"], &server["span"]));
    drop(gateway);

    let hedge = "\n[pools.p.retry]\nattempts = 1\non = [\"connect\"]\nhedge_percentile = 99\nhedge_min_delay_ms = 100\n";
    let listener = listener_to(Listener::h1(), &[(backend.address, ""), (other.address, "")]).text(hedge);
    let config =
        traced(&collector).block("tracing", "sample", "0%").runtime("max_keepalive_requests", 10_000);
    let gateway = Gateway::start(config.listener(listener));
    let mut client = gateway.client();
    client.set_timeout(seconds(60));
    for _ in 0..200 {
        client.get("/warm").unwrap();
    }
    // Of requests that meet the slow backend first, the hedge goes to the other one.
    for number in 0..2 {
        let caller = CALLER.replace("0af7", &format!("{number}bf7"));
        client.request("GET", &format!("/slow/{number}"), &[("traceparent", &caller)], b"").unwrap();
    }
    let hedges = || -> Vec<Value> {
        let all = collector.events("span");
        all.into_iter().filter(|span| span["attributes"]["expressgateway.hedge"] == true).collect()
    };
    testkit::eventually("the hedge is recorded", LIMIT, || !hedges().is_empty());
    let hedge = hedges().remove(0);
    let all = collector.events("span");
    let beside: Vec<_> = all
        .iter()
        .filter(|span| span["parent"] == hedge["parent"] && span["span"] != hedge["span"])
        .collect();
    assert_eq!(beside.len(), 1, "{beside:#?}");
    assert!(beside[0]["start"].as_u64() < hedge["start"].as_u64(), "{beside:#?}");
}

fn waiting_for_room_shows() {
    let collector = Peer::start("otlp_collector.py", &[]);
    let backend = Backend::each(|_, conn| {
        conn.pause(ms(300));
        conn.respond(200, &[], b"slow")
    });
    let limits = "\n[pools.p.limits]\nmax_connections = 1\nmax_pending = 10\npending_timeout_ms = 20000\n";
    let listener = listener_to(Listener::h1(), &[(backend.address, "")]).text(limits);
    let gateway = Gateway::start(traced(&collector).listener(listener));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| assert_eq!(gateway.get("/").status, 200));
        }
    });
    let queues = || -> Vec<Value> {
        collector.events("span").into_iter().filter(|span| span["name"] == "queue").collect()
    };
    testkit::eventually("the wait is recorded", LIMIT, || !queues().is_empty());
    let queue = queues().remove(0);
    assert!(queue["end"].as_u64().unwrap() > queue["start"].as_u64().unwrap(), "{queue}");
    testkit::eventually("its try is recorded", LIMIT, || {
        collector
            .events("span")
            .iter()
            .any(|span| span["span"] == queue["parent"] && span["kind"] == "client")
    });
}

fn a_share_of_traces_is_recorded() {
    let collector = Peer::start("otlp_collector.py", &[]);
    let backend = Backend::standard("one");
    let config =
        traced(&collector).block("tracing", "sample", "50%").runtime("max_keepalive_requests", 10_000);
    let mut gateway =
        Gateway::start(config.clone().listener(listener_to(Listener::h1(), &[(backend.address, "")])));
    let mut client = gateway.client();
    for _ in 0..200 {
        client.get("/").unwrap();
    }
    let told: Vec<String> = backend.requests().iter().map(parent_of).collect();
    let recorded = told.iter().filter(|told| told.ends_with("-01")).count();
    assert!((60..140).contains(&recorded), "{recorded} of 200");
    let servers = || collector.events("span").iter().filter(|span| span["kind"] == "server").count();
    testkit::eventually("those that say so arrive", LIMIT, || servers() == recorded);
    // The share changes while the gateway runs.
    gateway.reload(
        config
            .block("tracing", "sample", "0%")
            .listener(listener_to(Listener::h1(), &[(backend.address, "")])),
    );
    backend.forget();
    let mut client = gateway.client();
    for _ in 0..50 {
        client.get("/").unwrap();
    }
    assert!(backend.requests().iter().map(parent_of).all(|told| told.ends_with("-00")));
}

fn senders_decide_where_they_are_heeded() {
    let collector = Peer::start("otlp_collector.py", &[]);
    let backend = Backend::standard("one");
    let told = |heeds: bool, sample: &str, caller: &str| -> String {
        let config =
            traced(&collector).block("tracing", "sample", sample).block("tracing", "parent_based", heeds);
        let gateway = Gateway::start(config.listener(listener_to(Listener::h1(), &[(backend.address, "")])));
        gateway.client().request("GET", "/", &[("traceparent", caller)], b"").unwrap();
        parent_of(&backend.last_request())[53..].to_owned()
    };
    let unsampled = CALLER.replace("-01", "-00");
    assert_eq!(told(true, "0%", CALLER), "01");
    assert_eq!(told(true, "100%", &unsampled), "00");
    assert_eq!(told(false, "0%", CALLER), "00");
    assert_eq!(told(false, "100%", &unsampled), "01");
}

fn spans_are_dropped_and_counted_when_nobody_takes_them() {
    let backend = Backend::standard("one");
    let sent = 400u32;
    for option in ["--refuse", "--stall"] {
        let collector = Peer::start("otlp_collector.py", &[option]);
        let config = traced(&collector).block("tracing", "queue", 64).block("tracing", "timeout_ms", 500);
        let config = config.runtime("max_keepalive_requests", 10_000);
        let gateway = Gateway::start(config.listener(listener_to(Listener::h1(), &[(backend.address, "")])));
        let mut client = gateway.client();
        for _ in 0..sent {
            assert_eq!(client.get("/").unwrap().status, 200);
        }
        // Each request has two spans, and one has that of the connection.
        let spans = f64::from(2 * sent + 1);
        gateway.wait_metric("trace_spans_dropped_total", &[], |dropped| dropped == spans);
        assert_eq!(gateway.metric("trace_spans_total", &[]), 0.0);
        assert!(gateway.process.stderr.count("has not accepted spans") > 0, "{option}");
    }
}

fn what_waits_is_sent_before_the_end() {
    let collector = Peer::start("otlp_collector.py", &[]);
    let backend = Backend::standard("one");
    let mut gateway = over(&collector, &[&backend]);
    for _ in 0..20 {
        assert_eq!(gateway.get("/").status, 200);
    }
    gateway.process.signal(15);
    assert_eq!(gateway.process.wait_exit(seconds(20)), Some(0));
    let servers = || collector.events("span").iter().filter(|span| span["kind"] == "server").count();
    testkit::eventually("all arrive", seconds(5), || servers() == 20);
}
