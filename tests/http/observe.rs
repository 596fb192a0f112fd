//! Metrics and the access log tell what happened.

use crate::rig::{gateway, gateway_with};
use serde_json::Value;
use testkit::{Backend, Config, Gateway, Listener, ports, request, seconds};

pub(crate) fn request_metrics_are_true() {
    let backend = Backend::standard("one");
    let gateway = gateway(&[&backend]);
    let mut client = gateway.client();
    let plan = [("/", 10), ("/status/204", 3), ("/status/301", 2), ("/status/404", 4), ("/status/500", 5)];
    for (target, count) in plan {
        for _ in 0..count {
            client.get(target).unwrap();
        }
    }
    // A request that never gets as far as a backend counts too.
    let mut bad = gateway.client();
    bad.send("GET / HTTP/1.1\r\nHost: a\r\nBad Name: x\r\n\r\n").unwrap();
    assert_eq!(bad.response("GET").unwrap().status, 400);
    for (class, count) in [("2xx", 13.0), ("3xx", 2.0), ("4xx", 5.0), ("5xx", 5.0)] {
        gateway.wait_metric("http_requests_total", &[("status_class", class)], |v| v == count);
    }
    let metrics = gateway.metrics();
    let sample = metrics.find("http_requests_total", &[("status_class", "2xx")]).next().unwrap();
    assert!(sample.labels.contains_key("listener"), "{sample:?}");
    let timed = metrics.sum("http_request_duration_seconds_count", &[]);
    assert!((24.0..=25.0).contains(&timed), "{timed} requests timed");
    assert!(metrics.sum("http_request_duration_seconds_sum", &[]) > 0.0);
    assert_eq!(metrics.kinds.get("http_requests_total").map(String::as_str), Some("counter"));
    assert_eq!(metrics.kinds.get("http_request_duration_seconds").map(String::as_str), Some("histogram"));
    assert!(metrics.sum("connections_total", &[]) >= 2.0);
    // Two connections of this test are open.
    gateway.wait_metric("accept_inflight", &[], |v| (1.0..=2.0).contains(&v));
    drop((client, bad));
    gateway.wait_metric("accept_inflight", &[], |v| v == 0.0);
}

pub(crate) fn backend_metrics_are_true() {
    let (one, two) = (Backend::standard("one"), Backend::standard("two"));
    let gateway = gateway(&[&one, &two]);
    let mut client = gateway.client();
    for _ in 0..20 {
        client.get("/").unwrap();
    }
    for _ in 0..4 {
        client.get("/status/404").unwrap();
    }
    for backend in [&one, &two] {
        let name = backend.address.to_string();
        let of = |class: &'static str| [("backend", name.clone()), ("status_class", class.to_owned())];
        for (class, count) in [("2xx", 10.0), ("4xx", 2.0)] {
            let labels = of(class);
            let labels: Vec<_> = labels.iter().map(|(k, v)| (*k, v.as_str())).collect();
            gateway.wait_metric("backend_requests_total", &labels, |v| v == count);
        }
        let timed = gateway.metric("backend_request_duration_seconds_count", &[("backend", &name)]);
        assert_eq!(timed, 12.0, "{name}");
    }
    assert!(gateway.metric("pool_acquires_total", &[]) >= 24.0);
    gateway.wait_metric("pool_idle_gauge", &[], |v| (1.0..=4.0).contains(&v));
}

pub(crate) fn labels_do_not_grow_with_clients() {
    let backend = Backend::standard("one");
    let gateway = gateway(&[&backend]);
    gateway.get("/");
    let series = |gateway: &Gateway| gateway.metrics().samples.len();
    let text = |gateway: &Gateway| gateway.admin_get("/metrics").text();
    gateway.wait_metric("http_requests_total", &[], |v| v >= 1.0);
    let before = series(&gateway);
    let mut client = gateway.client();
    for number in 0..90 {
        let (method, path) = (format!("CHOSEN{number}"), format!("/chosen-path-{number}?chosen-query"));
        let host = format!("chosen-host-{number}.example");
        client.request(&method, &path, &[("Host", &host), ("User-Agent", "chosen-agent")], b"").unwrap();
    }
    gateway.wait_metric("http_requests_total", &[], |v| v >= 91.0);
    let after = series(&gateway);
    assert!(after <= before + 40, "{before} series became {after}");
    assert!(!text(&gateway).to_ascii_lowercase().contains("chosen"), "a client's words are a label");
}

#[track_caller]
fn assert_access_lines(lines: &[String], expected: &[(&str, &str, u64)]) {
    assert_eq!(lines.len(), expected.len(), "{lines:#?}");
    for (line, (method, target, status)) in lines.iter().zip(expected) {
        let value: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        let fields = value.as_object().unwrap_or_else(|| panic!("not an object: {line}"));
        let has_text = |text: &str| fields.values().any(|v| v.as_str().is_some_and(|s| s.contains(text)));
        assert!(has_text(method), "no {method} in {line}");
        assert!(has_text(target), "no {target} in {line}");
        assert!(fields.values().any(|v| v.as_u64() == Some(*status)), "no {status} in {line}");
        assert!(has_text("127.0.0.1"), "no client address in {line}");
    }
}

pub(crate) fn access_log_has_a_line_per_request() {
    let backend = Backend::standard("one");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("access.log");
    let gateway = gateway_with(
        &[&backend],
        |config| config.block("observability", "access_log", path.to_str().unwrap()).runtime("workers", 1),
        |listener| listener,
    );
    let mut client = gateway.client();
    client.get("/first?a=\"b\"").unwrap();
    client.request("POST", "/upload", &[], b"12345").unwrap();
    client.get("/status/404").unwrap();
    client.get("/bytes/1000").unwrap();
    // Bytes that would break a careless writer of JSON.
    client.send(b"GET /agent HTTP/1.1\r\nHost: a\r\nUser-Agent: \xff\xfe\"\\\t\xc3\xa9\r\n\r\n").unwrap();
    client.response("GET").unwrap();
    let lines = || -> Vec<String> {
        let text = std::fs::read(&path).unwrap_or_default();
        String::from_utf8_lossy(&text).lines().map(str::to_owned).collect()
    };
    testkit::eventually("five lines", seconds(5), || lines().len() >= 5);
    assert_access_lines(
        &lines(),
        &[
            ("GET", "/first", 200),
            ("POST", "/upload", 200),
            ("GET", "/status/404", 404),
            ("GET", "/bytes/1000", 200),
            ("GET", "/agent", 200),
        ],
    );
}

pub(crate) fn access_log_on_stdout() {
    let backend = Backend::standard("one");
    let gateway = gateway_with(
        &[&backend],
        |config| config.block("observability", "access_log", "stdout").runtime("workers", 1),
        |listener| listener,
    );
    let mut client = gateway.client();
    client.get("/first").unwrap();
    client.get("/status/500").unwrap();
    testkit::eventually("two lines", seconds(5), || gateway.process.stdout.len() >= 2);
    assert_access_lines(
        &gateway.process.stdout.lines(),
        &[("GET", "/first", 200), ("GET", "/status/500", 500)],
    );
    // Off unless it is asked for.
    let quiet = crate::rig::gateway(&[&backend]);
    quiet.get("/secret-path");
    quiet.get("/secret-path");
    assert!(quiet.process.stdout.is_empty(), "{:?}", quiet.process.stdout.lines());
    assert_eq!(quiet.process.stderr.count("secret-path"), 0, "a served request is not worth a log line");
}

pub(crate) fn access_log_in_other_forms() {
    let backend = Backend::standard("one");
    let form = |change: &dyn Fn(Config) -> Config| {
        let gateway = gateway_with(
            &[&backend],
            |config| change(config.block("observability", "access_log", "stdout").runtime("workers", 1)),
            |listener| listener,
        );
        let mut client = gateway.client();
        client.send(b"GET /a?b HTTP/1.1\r\nHost: a\r\nUser-Agent: x\"\\\xff\r\n\r\n").unwrap();
        assert_eq!(client.response("GET").unwrap().status, 200);
        testkit::eventually("a line", seconds(5), || !gateway.process.stdout.is_empty());
        gateway.process.stdout.lines().remove(0)
    };
    let with_format =
        |format: &str| form(&|config| config.block("observability", "access_log_format", format));
    let line = with_format("combined");
    assert!(line.starts_with("127.0.0.1 - - ["), "{line}");
    assert!(line.contains(" +0000] \"GET /a?b HTTP/1.1\" 200 "), "{line}");
    assert!(line.ends_with(r#" "-" "x\x22\x5C\xFF""#), "{line}");
    assert_eq!(with_format("${status} ${method} $x ${reason}"), "200 GET $x -");
    let fields = ["status", "target", "tls"].map(str::to_owned).to_vec();
    let line = form(&|config| config.block("observability", "access_log_fields", fields.clone()));
    assert_eq!(line, r#"{"status":200,"target":"/a?b","tls":null}"#);
}

pub(crate) fn error_answers_are_short_text() {
    let backend = Backend::standard("one");
    let listener = Listener::h1().http("head_timeout_ms", 200).http("max_request_body_bytes", 10);
    let gateway = Gateway::start(Config::new().listener(listener.backend(backend.address)));
    let dead = Gateway::start(Config::new().listener(Listener::h1().backend(ports::reserve())));
    let long = format!("/{}", "a".repeat(9000));
    let wide = "x".repeat(70_000);
    let cases = [
        (400, &gateway, b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        (405, &gateway, b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n".to_vec()),
        (413, &gateway, request("POST", "/", &[], b"more than ten bytes")),
        (414, &gateway, request("GET", &long, &[], b"")),
        (431, &gateway, request("GET", "/", &[("X", &wide)], b"")),
        (502, &dead, request("GET", "/", &[], b"")),
        (504, &gateway, request("GET", "/slow/2000", &[], b"")),
    ];
    for (status, gateway, bytes) in cases {
        let mut client = gateway.client();
        client.set_timeout(seconds(5));
        client.send_anyway(bytes);
        let response = client.response("GET").unwrap_or_else(|e| panic!("{status}: {e}"));
        assert_eq!(response.status, status);
        assert!((1..=512).contains(&response.body.len()), "{status}: {:?}", response.text());
        let kind = response.header("content-type").unwrap_or_default();
        assert!(kind.starts_with("text/plain"), "{status}: {kind:?}");
        let text = response.text();
        assert!(!text.contains("127.0.0.1") && !text.contains("os error"), "{status} tells too much: {text}");
    }
}
