//! The admin port, byte for byte.

use testkit::process::run;
use testkit::tools::Tool;
use testkit::{Backend, Client, Config, Gateway, Listener, seconds};

fn gateway(config: impl FnOnce(Config) -> Config) -> (Backend, Gateway) {
    let backend = Backend::standard("one");
    let gateway = Gateway::start(config(Config::new()).listener(Listener::h1().backend(backend.address)));
    (backend, gateway)
}

const JSON: &str = "application/json; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";

#[track_caller]
fn assert_answer(gateway: &Gateway, target: &str, status: u16, kind: &str, body: &str) {
    let response = gateway.admin_get(target);
    assert_eq!(response.status, status, "{target}");
    assert_eq!(response.header("content-type").as_deref(), Some(kind), "{target}");
    assert_eq!(response.text(), body, "{target}");
}

pub(crate) fn probes_and_metrics_exactly() {
    let (_backend, gateway) = gateway(|config| config);
    for probe in ["/livez", "/healthz", "/readyz", "/startupz"] {
        assert_answer(&gateway, probe, 200, JSON, "{\"status\":\"ok\"}\n");
    }
    let metrics = gateway.admin_get("/metrics");
    assert_eq!(metrics.status, 200);
    let kind = metrics.header("content-type").unwrap();
    assert_eq!(kind, "text/plain; version=0.0.4; charset=utf-8");
    assert!(metrics.text().ends_with('\n'));
    // One connection serves several probes.
    let mut client = gateway.admin_client();
    for _ in 0..3 {
        assert_eq!(client.get("/readyz").unwrap().status, 200);
    }
}

/// In a network of its own, where the default port is free for sure.
pub(crate) fn default_port_is_used_when_free_and_off_means_off() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, head: &str| {
        let path = dir.path().join(name);
        let text = format!(
            "{head}[[listeners]]\naddress = \"127.0.0.1:8080\"\nprotocol = \"h1\"\n\
             [[listeners.backends]]\naddress = \"127.0.0.1:1\"\n"
        );
        let head = "[runtime]\nworkers = 1\nreadiness_settle_ms = 0\ndrain_timeout_ms = 100\n";
        std::fs::write(&path, format!("{head}{text}")).unwrap();
        path
    };
    let silent = file("silent.toml", "");
    let off = file("off.toml", "[observability]\nmetrics_bind = \"off\"\n");
    let binary = testkit::gateway::binary();
    let script = r#"
        ip link set lo up
        probe() { until curl -q -s -f -o /dev/null "$2"; do sleep 0.05; done; echo "$1 200"; }
        "$0" "$1" 2>"$3/first.log" & first=$!
        probe default http://127.0.0.1:9090/readyz
        "$0" --allow-second "$1" 2>"$3/second.log" & second=$!
        until grep -q 'probes flipped' "$3/second.log" 2>/dev/null; do sleep 0.05; done
        grep -o 'no admin port: 127.0.0.1:9090' "$3/second.log"
        kill $first $second; wait $first $second
        "$0" "$2" 2>"$3/third.log" & third=$!
        until curl -q -s -o /dev/null http://127.0.0.1:8080/; do sleep 0.05; done
        curl -q -s http://127.0.0.1:9090/readyz || echo off
        kill $third; wait $third
    "#;
    let arguments = ["--net", "sh", "-c", script].map(std::ffi::OsStr::new);
    let rest = [binary.as_os_str(), silent.as_os_str(), off.as_os_str(), dir.path().as_os_str()];
    let done = run(Tool::Unshare.path().unwrap(), arguments.into_iter().chain(rest), seconds(50));
    let lines: Vec<_> = done.stdout.lines().collect();
    assert_eq!(lines, ["default 200", "no admin port: 127.0.0.1:9090", "off"], "{done:?}");
}

pub(crate) fn metric_families_are_declared() {
    let (_backend, gateway) = gateway(|config| config);
    gateway.get("/");
    gateway.wait_metric("http_requests_total", &[], |v| v >= 1.0);
    let metrics = gateway.metrics();
    let families = [
        ("connections_total", "counter"),
        ("bytes_client_to_backend", "counter"),
        ("bytes_backend_to_client", "counter"),
        ("http_requests_total", "counter"),
        ("http_request_duration_seconds", "histogram"),
        ("accept_inflight", "gauge"),
        ("accept_shed_total", "counter"),
        ("backend_requests_total", "counter"),
        ("backend_request_duration_seconds", "histogram"),
        ("backend_connect_timeout_total", "counter"),
        ("pool_acquires_total", "counter"),
        ("pool_idle_gauge", "gauge"),
        ("dns_cache_entries", "gauge"),
        ("config_reload_succeeded_total", "counter"),
        ("config_reload_failed_total", "counter"),
        ("config_reload_applied_version", "gauge"),
        ("shutdown_aborted_connections_total", "counter"),
    ];
    for (name, kind) in families {
        assert_eq!(metrics.kinds.get(name).map(String::as_str), Some(kind), "{name}");
    }
    assert_eq!(metrics.sum("config_reload_applied_version", &[]), 1.0);
    let edges: Vec<_> = metrics
        .samples
        .iter()
        .filter(|s| s.name == "http_request_duration_seconds_bucket")
        .filter_map(|s| s.labels.get("le").cloned())
        .collect();
    for edge in ["0.0001", "0.001", "0.1", "1", "10", "+Inf"] {
        assert!(edges.iter().any(|e| e == edge), "no bucket {edge} in {edges:?}");
    }
}

pub(crate) fn other_paths_and_methods() {
    let (_backend, gateway) = gateway(|config| config);
    for path in ["/", "/admin", "/metrics/", "/livez/x", "/favicon.ico"] {
        assert_answer(&gateway, path, 404, TEXT, "not found\n");
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        for path in ["/metrics", "/livez", "/nothing"] {
            let mut client = gateway.admin_client();
            let response = client.request(method, path, &[], b"").unwrap();
            assert_eq!(
                (response.status, response.text().as_str()),
                (405, "method not allowed\n"),
                "{method} {path}"
            );
        }
    }
    let mut client = gateway.admin_client();
    assert_eq!(client.request("HEAD", "/livez", &[], b"").unwrap().status, 405);
}

pub(crate) fn token_guards_all_but_the_probes() {
    // SHA-256 of `secret-token`; capitals are hexadecimal digits too.
    let hash = "930BBDC51b6aed5c2a5678fd6e28dee7a05e8a4b643cfc0b4427c3efb86c0d94";
    let (_backend, gateway) = gateway(|config| config.block("admin", "api_token_hash", hash));
    for probe in ["/livez", "/healthz", "/readyz", "/startupz"] {
        assert_eq!(gateway.admin_get(probe).status, 200, "{probe}");
    }
    for path in ["/metrics", "/nothing"] {
        assert_answer(&gateway, path, 403, TEXT, "forbidden\n");
    }
    let with = |value: &str| {
        let mut client = gateway.admin_client();
        client.request("GET", "/metrics", &[("Authorization", value)], b"").unwrap().status
    };
    for right in ["Bearer secret-token", "bearer secret-token", "Bearer  secret-token "] {
        assert_eq!(with(right), 200, "{right}");
    }
    for wrong in ["Bearer wrong", "Bearer ", "secret-token", "Basic secret-token", "Bearer secret-token2", ""]
    {
        assert_eq!(with(wrong), 403, "{wrong}");
    }
    assert_eq!(with(&format!("Bearer {hash}")), 403, "the hash is not the token");
    let mut client = gateway.admin_client();
    assert_eq!(client.request("POST", "/metrics", &[], b"").unwrap().status, 405, "the method comes first");
}

pub(crate) fn data_port_has_no_admin_paths() {
    let (backend, gateway) = gateway(|config| config);
    for path in ["/metrics", "/readyz", "/livez"] {
        assert_eq!(gateway.get(path).text(), "one", "{path} belongs to the backend");
    }
    assert_eq!(backend.request_count(), 3);
}

pub(crate) fn other_hosts_are_refused() {
    // A page in a browser can make its own name point here; what it asks for is not answered.
    let (_backend, gateway) = gateway(|config| config);
    for (host, status) in
        [("evil.example:9090", 403), ("localhost:9090", 200), ("127.0.0.1", 200), ("[::1]:1", 200)]
    {
        let response = gateway.admin_client().request("GET", "/metrics", &[("Host", host)], b"").unwrap();
        assert_eq!(response.status, status, "{host}");
    }
}

pub(crate) fn crowds_and_nonsense_disturb_nobody() {
    let (_backend, gateway) = gateway(|config| config);
    let mut rude = Client::connect(gateway.admin()).unwrap();
    rude.send_anyway(vec![0xff; 100_000]);
    drop(rude);
    let _silent: Vec<_> = (0..20).map(|_| Client::connect(gateway.admin()).unwrap()).collect();
    let mut client = gateway.admin_client();
    client.set_timeout(seconds(5));
    assert_eq!(client.get("/readyz").unwrap().status, 200);
}
