//! Right files, and what comes out of them.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use lb_core::address::{Address, UnixPath};

use super::{h1, parse};
use crate::config::{
    AccessLogPlace, BackendProtocol, ClientAuthMode, Config, HostPort, MetricsBind, PoolId, Probe, Protocol,
    Transport, UnderscorePolicy,
};
use crate::error::ConfigError;

const TCP: &str = "
[[listeners]]
address = \"0.0.0.0:80\"
protocol = \"tcp\"
[[listeners.backends]]
address = \"10.0.0.1:80\"
";

fn tcp(before: &str) -> Config {
    parse(&format!("{before}\n{TCP}"))
}

#[test]
fn the_shortest_file_has_the_documented_defaults() {
    let config = tcp("");
    assert_eq!(config.source_name, "lb.toml");
    assert_eq!(config.warnings, [""; 0]);
    let runtime = &config.runtime;
    assert_eq!(runtime.workers, None);
    assert_eq!(runtime.drain_timeout, Duration::from_secs(10));
    assert_eq!(runtime.drain_jitter, Duration::from_millis(2500));
    assert_eq!(runtime.readiness_settle, Duration::from_secs(11));
    assert_eq!(runtime.max_inflight_connections, 65_536);
    assert_eq!((runtime.per_ip_connection_cap, runtime.quic_buffer_bytes), (1024, 1 << 30));
    assert_eq!(runtime.header_underscore_policy, UnderscorePolicy::Reject);
    assert_eq!((runtime.max_keepalive_requests, runtime.max_requests_per_h2_connection), (1000, 1000));
    assert_eq!((runtime.max_handshakes_in_flight, runtime.max_handshakes_per_network), (512, 256));
    assert_eq!(runtime.watchdog.header_deadline, Duration::from_secs(5));
    assert_eq!((config.pool.per_peer_max, config.pool.total_max), (8, 256));
    assert_eq!(config.dns.servers, []);
    assert_eq!(config.observability.metrics_bind, MetricsBind::Default);
    assert_eq!(config.observability.access_log, None);
    let listener = &config.listeners[0];
    assert_eq!(listener.name, "0.0.0.0:80");
    assert_eq!(listener.protocol, Protocol::Tcp);
    assert_eq!(
        (listener.drain_timeout, listener.drain_jitter),
        (runtime.drain_timeout, runtime.drain_jitter)
    );
    assert_eq!(listener.tcp.idle_timeout, None);
    assert!(listener.tcp.splice);
    assert_eq!(listener.tcp.connect_tries, 3);
    assert_eq!(listener.http.header_timeout, Duration::from_secs(10));
    assert_eq!(listener.http.max_request_body_bytes, None);
    assert_eq!(listener.websocket, None);
    let backend = &listener.pool.backends[0];
    assert_eq!((backend.protocol, backend.weight, &backend.tls), (BackendProtocol::Tcp, 1, &None));
}

#[test]
fn the_benchmark_template_starts() {
    let config = parse(
        "[runtime]\nmax_keepalive_requests = 10000000\nmax_requests_per_h3_connection = 10000000\n\
         max_inflight_connections = 100000\nper_ip_connection_cap = 100000\nreadiness_settle_ms = 0\n\
         drain_timeout_ms = 100\n\n[[listeners]]\naddress = \"127.0.0.1:8080\"\nprotocol = \"h1\"\n\
         [listeners.http]\nheader_timeout_ms = 300000\nbody_timeout_ms = 300000\ntotal_timeout_ms = 3000000\n\
         [[listeners.backends]]\naddress = \"127.0.0.1:3000\"\nprotocol = \"h1\"\n",
    );
    assert_eq!(config.not_built_yet(), []);
    assert_eq!(config.warnings, [""; 0]);
    assert_eq!(config.listeners[0].drain_jitter, Duration::from_millis(25));
    assert_eq!(config.runtime.max_requests_per_h2_connection, 10_000_000);
}

#[test]
fn requests_on_http2_connections_follow_those_of_http1_upwards() {
    let cap = |keys: &str| tcp(&format!("[runtime]\n{keys}")).runtime.max_requests_per_h2_connection;
    assert_eq!(cap("max_keepalive_requests = 7"), 1000);
    assert_eq!(cap("max_keepalive_requests = 1001"), 1001);
    assert_eq!(cap("max_keepalive_requests = 0"), 0);
    assert_eq!(cap("max_keepalive_requests = 0\nmax_requests_per_h2_connection = 7"), 7);
    assert_eq!(cap("max_requests_per_h2_connection = 0"), 0);
}

#[test]
fn more_than_eight_listeners_are_fine() {
    let many: String = (0..100).map(|n| TCP.replace(":80\"", &format!(":{}\"", 1000 + n))).collect();
    assert_eq!(parse(&many).listeners.len(), 100);
}

#[test]
fn tcp_and_udp_may_share_an_address() {
    let config = parse(include_str!("../../../../config/examples/combined.toml"));
    let [tcp, udp] = [0, 1].map(|at: usize| &config.listeners[at]);
    assert_eq!(tcp.written, udp.written);
    assert_eq!((&*tcp.name, &*udp.name), (&*tcp.written, &*format!("{}/udp", udp.written)));
    assert_ne!(config.listeners[0].transport(), config.listeners[1].transport());
}

#[test]
fn white_space_around_any_string_is_ignored() {
    let config = parse(
        "[[listeners]]\naddress = \" 0.0.0.0:80 \"\nprotocol = \" tcp\"\n\
         [[listeners.backends]]\naddress = \"10.0.0.1:80 \"\nprotocol = \"tcp \"\n\
         [observability]\nmetrics_bind = \" 127.0.0.1:9090\"\naccess_log = \" stdout \"\n\
         [dns]\nservers = [\" ::1 \"]\n",
    );
    assert_eq!(config.listeners[0].name, "0.0.0.0:80");
    assert_eq!(config.listeners[0].pool.backends[0].name, "10.0.0.1:80");
    assert_eq!(config.observability.access_log, Some(AccessLogPlace::Stdout));
    assert_eq!(config.dns.servers, ["[::1]:53".parse().unwrap()]);
}

#[test]
fn integers_may_be_written_as_toml_allows() {
    let http =
        h1("[listeners.http]\nheader_timeout_ms = 1_000\nmax_request_body_bytes = 0x400\nretries = +2").http;
    assert_eq!(http.header_timeout, Duration::from_secs(1));
    assert_eq!((http.max_request_body_bytes, http.retries), (Some(1024), 2));
}

#[test]
fn the_longest_timeout_can_be_added_to_a_clock() {
    let http = h1("[listeners.http]\ntotal_timeout_ms = 18446744073709551615").http;
    let total = http.total_timeout.unwrap();
    assert!(total > Duration::from_secs(99 * 365 * 86_400));
    assert!(std::time::Instant::now().checked_add(total).is_some());
}

#[test]
fn zero_switches_off_where_the_table_says_so() {
    let listener = h1("[listeners.h2_security]\nkeep_alive_interval_ms = 0");
    assert_eq!(listener.h2_security.keep_alive_interval, None);
    let http = h1("[listeners.http]\ntotal_timeout_ms = 0\nresponse_idle_timeout_ms = 0").http;
    assert_eq!((http.total_timeout, http.response_idle_timeout), (None, None));
    // The default is none; a file that has the bound of the earlier implementation keeps it.
    assert_eq!(h1("").http.total_timeout, None);
    let http = h1("[listeners.http]\ntotal_timeout_ms = 60000").http;
    assert_eq!(http.total_timeout, Some(Duration::from_secs(60)));
    let config = parse(
        "[passthrough]\nbind_addr = \"0.0.0.0:1\"\nbackends = [\"10.0.0.1:1\"]\nretry_secret_path = \"s\"\n\
         flow_idle_timeout_ms = 0",
    );
    assert_eq!(config.listeners[0].passthrough.as_ref().unwrap().flow_idle_timeout, None);
}

#[test]
fn an_inherited_jitter_never_exceeds_the_listeners_drain() {
    let listener = h1("drain_timeout_ms = 1000");
    assert_eq!(listener.drain_timeout, Duration::from_secs(1));
    assert_eq!(listener.drain_jitter, Duration::from_secs(1));
}

#[test]
fn a_weight_of_zero_is_kept_beside_others() {
    let listener = h1("[[listeners.backends]]\naddress = \"10.0.0.9:80\"\nweight = 0");
    assert_eq!(listener.pool.backends.iter().map(|backend| backend.weight).collect::<Vec<_>>(), [0, 1]);
}

#[test]
fn an_h3_backend_verifies_the_host_of_its_address_by_default() {
    let h3 =
        "[[listeners.backends]]\naddress = \"b.example:443\"\nprotocol = \"h3\"\ntls_verify_peer = false";
    let listener = h1(h3);
    let tls = listener.pool.backends[0].tls.as_ref().unwrap();
    assert_eq!((tls.verify_hostname.as_str(), tls.verify_peer), ("b.example", false));
}

#[test]
fn an_open_admin_port_needs_both_keys() {
    let hash = "ab".repeat(32);
    let config = tcp(&format!(
        "[observability]\nmetrics_bind = \"0.0.0.0:9090\"\n[admin]\nallow_non_loopback = true\napi_token_hash = \"{hash}\""
    ));
    assert_eq!(config.admin.api_token_hash, Some([0xab; 32]));
}

#[test]
fn limits_under_which_nothing_is_served_count_as_the_least_that_works() {
    let config = parse(
        "[[listeners]]\naddress = \"0.0.0.0:80\"\nprotocol = \"h1\"\n[listeners.h2_security]\n\
         max_concurrent_streams = 0\nmax_header_list_size = 1\ninitial_stream_window_size = 0\n\
         [[listeners.backends]]\naddress = \"10.0.0.1:80\"\n",
    );
    let limits = &config.listeners[0].h2_security;
    let effect =
        (limits.max_concurrent_streams, limits.max_header_list_size, limits.initial_stream_window_size);
    assert_eq!(effect, (1, 1024, 1024));
    assert_eq!(
        config.warnings,
        [
            "lb.toml:5: listeners[0].h2_security.max_concurrent_streams = 0: counts as 1: no request could be served with less",
            "lb.toml:6: listeners[0].h2_security.max_header_list_size = 1: counts as 1024: no request could be served with less",
            "lb.toml:7: listeners[0].h2_security.initial_stream_window_size = 0: counts as 1024: no request could be served with less",
        ]
    );
}

#[test]
fn a_window_that_the_protocol_does_not_know_counts_as_the_largest() {
    let config = parse(
        "[[listeners]]\naddress = \"0.0.0.0:80\"\nprotocol = \"h1\"\n[listeners.h2_security]\n\
         initial_stream_window_size = 2147483648\ninitial_connection_window_size = 9223372036854775807\n\
         [[listeners.backends]]\naddress = \"10.0.0.1:80\"\n",
    );
    let limits = &config.listeners[0].h2_security;
    let largest = 0x7fff_ffff;
    assert_eq!(
        (limits.initial_stream_window_size, limits.initial_connection_window_size),
        (largest, largest)
    );
    let problem = "counts as 2147483647: HTTP/2 knows no larger window";
    assert!(config.warnings.iter().all(|warning| warning.ends_with(problem)), "{:?}", config.warnings);
    assert_eq!(config.warnings.len(), 2);
}

#[test]
fn backends_of_weight_0_alone_are_a_warning() {
    let backends = |owner: &str| {
        ["10.0.0.1:80", "10.0.0.2:80"]
            .map(|at| format!("[[{owner}]]\naddress = \"{at}\"\nweight = 0\n"))
            .concat()
    };
    let listener = "[[listeners]]\naddress = \"0.0.0.0:80\"\nprotocol = \"h1\"\n";
    let problem = "the weight of every backend is 0: requests are answered 503 until one rises";
    let own = parse(&format!("{listener}{}", backends("listeners.backends")));
    assert_eq!(own.warnings, [format!("lb.toml:4: listeners[0].backends: {problem}")]);
    let shared = parse(&format!("{listener}pool = \"web\"\n{}", backends("pools.web.backends")));
    assert_eq!(shared.warnings, [format!("lb.toml:5: pools.web.backends: {problem}")]);
}

#[test]
fn nothing_is_announced_that_nobody_serves() {
    let listener = "[[listeners]]\naddress = \"0.0.0.0:80\"\nprotocol = \"h1\"\n[listeners.alt_svc]\nh3_port = 443\n\
                    [[listeners.backends]]\naddress = \"10.0.0.1:80\"\n";
    let config = parse(listener);
    assert_eq!(config.listeners[0].alt_svc, None);
    let problem = "lb.toml:4: listeners[0].alt_svc: no listener serves HTTP/3, so nothing is announced";
    assert_eq!(config.warnings, [problem]);
    let quic = "[[listeners]]\naddress = \"0.0.0.0:443\"\nprotocol = \"quic\"\n[listeners.quic]\ncert_path = \"c\"\n\
                key_path = \"k\"\nretry_secret_path = \"s\"\n[[listeners.backends]]\naddress = \"10.0.0.1:80\"\n";
    let config = parse(&format!("{listener}{quic}"));
    assert!(config.listeners[0].alt_svc.is_some() && config.warnings.is_empty(), "{:?}", config.warnings);
}

#[test]
fn listeners_whose_backends_lead_back_to_them_are_warned_of() {
    let warnings = |pairs: &[(&str, &str)]| {
        let listeners = pairs.iter().map(|(listener, backend)| {
            format!(
                "[[listeners]]\naddress = \"{listener}\"\nprotocol = \"tcp\"\n\
                 [[listeners.backends]]\naddress = \"{backend}\"\n"
            )
        });
        parse(&listeners.collect::<String>()).warnings
    };
    for (listener, backend) in [
        ("127.0.0.1:80", "127.0.0.1:80"),
        ("0.0.0.0:80", "127.0.0.1:80"),
        ("0.0.0.0:80", "localhost:80"),
        ("[::]:80", "[::1]:80"),
        ("localhost:80", "127.0.0.1:80"),
        ("app.test:80", "app.test:80"),
    ] {
        let warnings = warnings(&[(listener, backend)]);
        let told = format!("backend {backend} leads back to this listener");
        assert!(warnings.len() == 1 && warnings[0].contains(&told), "{listener} {backend}: {warnings:?}");
    }
    for (listener, backend) in [
        ("127.0.0.1:80", "127.0.0.2:80"),
        ("0.0.0.0:80", "10.0.0.1:80"),
        ("0.0.0.0:80", "127.0.0.1:81"),
        ("0.0.0.0:80", "[::1]:80"),
        ("10.0.0.1:80", "localhost:80"),
    ] {
        assert_eq!(warnings(&[(listener, backend)]), [""; 0], "{listener} {backend}");
    }
    // By way of another; one that only leads into the circle is none.
    let circle = warnings(&[
        ("0.0.0.0:80", "127.0.0.1:81"),
        ("127.0.0.1:81", "127.0.0.1:80"),
        ("0.0.0.0:82", "127.0.0.1:80"),
    ]);
    assert_eq!(circle.len(), 2, "{circle:?}");
    let chain = warnings(&[("0.0.0.0:80", "127.0.0.1:81"), ("127.0.0.1:81", "127.0.0.1:82")]);
    assert_eq!(chain, [""; 0]);
}

#[test]
fn what_is_probably_not_meant_is_a_warning() {
    let config = parse(
        "[[listeners]]\naddress = \"0.0.0.0:80\"\nprotocol = \"tcp\"\n[listeners.http]\n\
         [[listeners.backends]]\naddress = \"10.0.0.1:0\"\nprotocol = \"h1\"\n\
         [[listeners]]\naddress = \"0.0.0.0:81\"\nprotocol = \"h1\"\n",
    );
    assert_eq!(
        config.warnings,
        [
            "lb.toml:4: listeners[0].http: does nothing on \"tcp\" listeners, only on \"h1\", \"h1s\", \"quic\"",
            "lb.toml:6: listeners[0].backends[0].address = \"10.0.0.1:0\": nothing can be reached at port 0",
            "lb.toml:7: listeners[0].backends[0].protocol = \"h1\": does nothing on \"tcp\" listeners, which carry raw bytes",
            "lb.toml:8: listeners[1].backends: the listener has no backends, so it is not started",
        ]
    );
    assert!(!config.listeners[1].starts());
}

#[test]
fn host_port_reads_and_writes_names_and_addresses() {
    for text in
        ["localhost:80", "a-b.c_d.example.:65535", "127.0.0.1:0", "[::1]:443", "[fe80::1%2]:1", "9.example:1"]
    {
        assert_eq!(HostPort::parse(text).unwrap().to_string(), text);
    }
    let loopback = HostPort::parse("[::1]:443").unwrap();
    assert_eq!((loopback.host.as_str(), loopback.ip()), ("::1", Some("::1".parse::<IpAddr>().unwrap())));
    assert_eq!(HostPort::parse("Example.COM:1").unwrap().host, "example.com");
    assert_eq!(HostPort::parse("example.com:1").unwrap().ip(), None);
    let scoped = HostPort::parse("[fe80::1%2]:1").unwrap();
    assert_eq!(HostPort::from(scoped.socket_addr().unwrap()), scoped);
}

#[test]
fn unix_sockets_are_listened_at_and_reached() {
    let config = parse(
        "[[listeners]]\naddress = \"unix:/run/gateway.sock\"\nprotocol = \"h1\"\nsocket_mode = \"600\"\n\
         [[listeners.backends]]\naddress = \"unix:@app\"\nprotocol = \"h2\"\n\
         [[listeners.backends]]\naddress = \"unix:/run/App.sock\"\ntls = true\ntls_verify_hostname = \"app.test\"\n\
         [[listeners]]\naddress = \"unix:@gateway\"\nprotocol = \"tcp\"\n[[listeners.backends]]\naddress = \"127.0.0.1:1\"\n",
    );
    assert_eq!(config.warnings, [] as [String; 0]);
    let [web, raw] = &config.listeners[..] else { panic!("{config:?}") };
    let path = |text: &str| UnixPath::new(text).unwrap();
    assert_eq!(
        (web.address.unix(), raw.address.unix()),
        (Some(&path("/run/gateway.sock")), Some(&path("@gateway")))
    );
    assert_eq!((web.socket_mode, raw.socket_mode), (0o600, 0o660));
    assert_eq!((web.transport(), web.name.as_str()), (Transport::Unix, "unix:/run/gateway.sock"));
    let literals: Vec<_> = web.pool.backends.iter().filter_map(|backend| backend.address.literal()).collect();
    assert_eq!(literals, [path("@app").into(), Address::from(path("/run/App.sock"))]);
    assert_eq!(web.pool.backends[1].tls.as_ref().unwrap().verify_hostname, "app.test");
}

#[test]
fn a_way_back_through_a_unix_socket_is_a_loop() {
    let config = parse(
        "[[listeners]]\naddress = \"unix:@a\"\nprotocol = \"h1\"\n[[listeners.backends]]\naddress = \"127.0.0.1:80\"\n\
         [[listeners]]\naddress = \"0.0.0.0:80\"\nprotocol = \"h1\"\n[[listeners.backends]]\naddress = \"unix:@a\"\n\
         [[listeners]]\naddress = \"unix:@b\"\nprotocol = \"h1\"\n[[listeners.backends]]\naddress = \"unix:@c\"\n",
    );
    let warnings = config.warnings.iter().filter(|line| line.contains("leads back")).count();
    assert_eq!(warnings, 2, "{:?}", config.warnings);
}

#[test]
fn a_certificate_inherits_what_the_listener_asks_of_clients() {
    let config = parse(
        "[[listeners]]\naddress = \"0.0.0.0:443\"\nprotocol = \"tls\"\n[listeners.tls]\ncert_path = \"c\"\n\
         key_path = \"k\"\nclient_auth = \"require\"\nclient_ca_path = \"ca\"\n\
         [[listeners.tls.certificates]]\ncert_path = \"d\"\nkey_path = \"l\"\nserver_names = [\"*.Example.org.\"]\n\
         [[listeners.tls.certificates]]\ncert_path = \"e\"\nkey_path = \"m\"\nclient_auth = \"off\"\n\
         [[listeners.backends]]\naddress = \"10.0.0.1:80\"\ntls = true\n",
    );
    assert_eq!(config.not_built_yet(), []);
    let tls = config.listeners[0].tls.as_ref().unwrap();
    assert_eq!(tls.certificates[0].client_auth, tls.client_auth);
    assert_eq!(tls.certificates[0].server_names, ["*.example.org"]);
    assert_eq!(tls.certificates[1].client_auth.mode, ClientAuthMode::Off);
    let backend = config.listeners[0].pool.backends[0].tls.as_ref().unwrap();
    assert_eq!((backend.ca_path.as_ref(), backend.verify_peer), (None, true));
}

#[test]
fn a_backend_that_is_not_verified_is_a_warning() {
    let backend = "[[listeners.backends]]\naddress = \"b.example:443\"\ntls = true\ntls_verify_peer = false";
    let config = parse(&format!("[[listeners]]\naddress = \"0.0.0.0:80\"\nprotocol = \"h1\"\n{backend}"));
    assert_eq!(config.warnings.len(), 1, "{:?}", config.warnings);
}

#[test]
fn what_is_found_out_later_is_told_with_its_place() {
    let config = parse(
        "[observability]\nmetrics_bind = \"127.0.0.1:9090\"\n\
         [[listeners]]\naddress = \"0.0.0.0:443\"\nprotocol = \"h1s\"\npool = \"web\"\n\
         [listeners.tls]\ncert_path = \"a.pem\"\nkey_path = \"a.pem\"\n\
         [[listeners.tls.certificates]]\ncert_path = \"a.pem\"\nkey_path = \"b.key\"\n\
         [[pools.web.backends]]\naddress = \"app:80\"\ntls = true\ntls_ca_path = \"a.pem\"\n",
    );
    let listener = PoolId::Listener("0.0.0.0:443".into(), Transport::Tcp);
    let said = |owner: Option<&PoolId>, key: &str, value: &str| -> Vec<String> {
        config.faults(owner, &[key], value, "is odd").iter().map(ToString::to_string).collect()
    };
    assert_eq!(
        said(Some(&listener), "cert_path", "a.pem"),
        [
            "lb.toml:8: listeners[0].tls.cert_path = \"a.pem\": is odd",
            "lb.toml:11: listeners[0].tls.certificates[0].cert_path = \"a.pem\": is odd",
        ]
    );
    assert_eq!(
        said(Some(&listener), "key_path", "a.pem"),
        ["lb.toml:9: listeners[0].tls.key_path = \"a.pem\": is odd"]
    );
    assert_eq!(
        said(Some(&listener), "address", "0.0.0.0:443"),
        ["lb.toml:4: listeners[0].address = \"0.0.0.0:443\": is odd"]
    );
    let pool = PoolId::from("web");
    assert_eq!(
        said(Some(&pool), "tls_ca_path", "a.pem"),
        ["lb.toml:16: pools.web.backends[0].tls_ca_path = \"a.pem\": is odd"]
    );
    let everywhere = config.faults_wherever("a.pem", "is odd");
    let lines: BTreeSet<_> = everywhere.iter().filter_map(ConfigError::line).collect();
    assert_eq!((everywhere.len(), lines), (4, [8, 9, 11, 16].into()));
    assert_eq!(config.faults_wherever("c.pem", "is odd")[0].to_string(), "lb.toml: is odd");
    assert_eq!(said(Some(&pool), "address", "app:81"), ["lb.toml: pool web: app:81: is odd"]);
    assert_eq!(
        said(None, "metrics_bind", "127.0.0.1:9090"),
        ["lb.toml:2: observability.metrics_bind = \"127.0.0.1:9090\": is odd"]
    );
}

#[test]
fn a_probe_of_datagrams_is_written_as_text_or_in_hex() {
    let payload = |text: &str| {
        let config = parse(&format!(
            "[[listeners]]\naddress = \"0.0.0.0:53\"\nprotocol = \"udp\"\n[listeners.health]\ntype = \"udp\"\nsend = '{text}'\n\
             [[listeners.backends]]\naddress = \"10.0.0.1:53\"\n"
        ));
        match &config.listeners[0].pool.health.as_ref().unwrap().probe {
            Probe::Udp(probe) => probe.send.clone(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(payload("PING\\r\\n"), b"PING\r\n");
    assert_eq!(payload("\\x00\\xFf\\\\\\t\\0z"), b"\x00\xff\\\t\0z");
    assert_eq!(payload("hex:00 ff 7A"), b"\x00\xffz");
    assert_eq!(payload(""), b"");
}

#[test]
fn datagrams_that_come_back_are_a_loop_of_their_own() {
    let of = |protocol: &str| {
        parse(&format!(
            "[[listeners]]\naddress = \"127.0.0.1:53\"\nprotocol = \"{protocol}\"\n\
             [[listeners.backends]]\naddress = \"127.0.0.1:54\"\n\
             [[listeners]]\naddress = \"127.0.0.1:54\"\nprotocol = \"udp\"\n\
             [[listeners.backends]]\naddress = \"127.0.0.1:53\"\n"
        ))
        .warnings
        .len()
    };
    assert_eq!((of("udp"), of("tcp")), (2, 0));
}
