//! Configurations that must be refused, each with the place and the reason.

use std::path::Path;
use testkit::gateway::{binary, cli};
use testkit::process::run;
use testkit::seconds;

/// Stands at the end of the line that the message must point to; it is taken out before the file is written.
const HERE: &str = " #!";

/// What a refused file is about, the file, and what the message must contain.
type Case = (&'static str, String, &'static [&'static str]);

/// A file with one h1 listener, in which `line` stands in the block that `after` opens.
fn in_block(after: &str, line: &str) -> String {
    let listener = "[[listeners]]\naddress = \"127.0.0.1:8080\"\nprotocol = \"h1\"\n\
                    [[listeners.backends]]\naddress = \"127.0.0.1:3000\"\n";
    if after == "listeners" {
        return listener.replacen("[[listeners]]\n", &format!("[[listeners]]\n{line}{HERE}\n"), 1);
    }
    if let Some(block) = after.strip_prefix("listeners.") {
        if block == "backends" {
            return format!("{listener}{line}{HERE}\n");
        }
        let inside = format!("[listeners.{block}]\n{line}{HERE}\n[[listeners.backends]]\n");
        return listener.replacen("[[listeners.backends]]\n", &inside, 1);
    }
    format!("[{after}]\n{line}{HERE}\n{listener}")
}

/// A listener of that protocol, with more lines in it, and one backend.
fn listener(protocol: &str, lines: &str) -> String {
    format!(
        "[[listeners]]\naddress = \"127.0.0.1:8080\"\nprotocol = \"{protocol}\"\n{lines}\
         [[listeners.backends]]\naddress = \"127.0.0.1:3000\"\n"
    )
}

fn cases() -> Vec<Case> {
    let http = |line: &str| in_block("listeners.http", line);
    let runtime = |line: &str| in_block("runtime", line);
    let watchdog = |line: &str| in_block("runtime.watchdog", line);
    let with_address = |address: &str| {
        in_block("listeners", &format!("address = {address}")).replacen(
            "address = \"127.0.0.1:8080\"\n",
            "",
            1,
        )
    };
    let with_protocol = |protocol: &str| {
        in_block("listeners", &format!("protocol = {protocol}")).replacen("protocol = \"h1\"\n", "", 1)
    };
    let with_backend = |address: &str| {
        in_block("listeners.backends", &format!("address = {address}")).replacen(
            "address = \"127.0.0.1:3000\"\n",
            "",
            1,
        )
    };
    vec![
        // Keys that do not exist, with the nearest that does.
        ("unknown block", format!("[runtme]{HERE}\n{}", listener("h1", "")), &["runtme", "runtime"]),
        ("unknown top-level key", format!("listener = 1{HERE}\n{}", listener("h1", "")), &["listener", "listeners"]),
        ("unknown runtime key", runtime("drain_timeot_ms = 1000"), &["drain_timeot_ms", "drain_timeout_ms"]),
        ("unknown listener key", in_block("listeners", "adress = 1"), &["adress", "address"]),
        ("unknown http key", http("body_timeout = 1000"), &["body_timeout", "body_timeout_ms"]),
        ("unknown backend key", in_block("listeners.backends", "wieght = 2"), &["wieght", "weight"]),
        ("unknown pool key", in_block("pool", "per_peer_maximum = 2"), &["per_peer_maximum", "per_peer_max"]),
        ("unknown sub-block", listener("h1", &format!("[listeners.htpp]{HERE}\nx = 1\n")), &["htpp", "http"]),
        ("unknown watchdog key", watchdog("sweep_ms = 1"), &["sweep_ms", "sweep_interval_ms"]),
        // Types.
        ("negative number", http("body_timeout_ms = -5"), &["listeners[0].http.body_timeout_ms", "-5"]),
        ("text for a number", http("total_timeout_ms = \"10s\""), &["total_timeout_ms", "10s"]),
        ("fraction", http("head_timeout_ms = 1.5"), &["head_timeout_ms", "1.5"]),
        ("number for text", with_address("8080"), &["listeners[0].address", "8080"]),
        ("number for a truth value", runtime("xdp_enabled = 1"), &["runtime.xdp_enabled"]),
        ("over 32 bits", runtime("per_ip_connection_cap = 4294967296"), &["per_ip_connection_cap", "4294967296"]),
        ("text for a list", in_block("dns", "servers = \"127.0.0.1:53\""), &["dns.servers"]),
        ("table for a list of tables", format!("[listeners]{HERE}\naddress = \"127.0.0.1:1\"\n"), &["listeners"]),
        // Syntax.
        ("no value", runtime("drain_timeout_ms ="), &["lb.toml"]),
        ("a key twice", runtime("workers = 1\nworkers = 2"), &["duplicate"]),
        ("an open string", in_block("listeners", "address = \"127.0.0.1"), &["lb.toml"]),
        // Ranges.
        ("zero timeout", http("header_timeout_ms = 0"), &["listeners[0].http.header_timeout_ms", "0"]),
        ("drain too short", runtime("drain_timeout_ms = 99"), &["runtime.drain_timeout_ms", "99", "100"]),
        ("drain too long", runtime("drain_timeout_ms = 300001"), &["runtime.drain_timeout_ms", "300001", "300000"]),
        ("settle too long", runtime("readiness_settle_ms = 30001"), &["readiness_settle_ms", "30001", "30000"]),
        ("few connections", runtime("max_inflight_connections = 99"), &["max_inflight_connections", "99", "100"]),
        ("many connections", runtime("max_inflight_connections = 2000001"), &["max_inflight_connections", "2000000"]),
        ("connect too short", runtime("connect_timeout_ms = 99"), &["runtime.connect_timeout_ms", "99", "100"]),
        ("connect too long", runtime("connect_timeout_ms = 60001"), &["runtime.connect_timeout_ms", "60000"]),
        ("handshake too short", runtime("handshake_timeout_ms = 99"), &["runtime.handshake_timeout_ms", "100"]),
        ("no connection allowed", runtime("per_ip_connection_cap = 0"), &["per_ip_connection_cap", "0", "1"]),
        ("many requests", runtime("max_keepalive_requests = 10000001"), &["max_keepalive_requests", "10000000"]),
        ("h3 requests", runtime("max_requests_per_h3_connection = 10000001"), &["max_requests_per_h3_connection"]),
        ("header deadline", watchdog("header_deadline_ms = 99"), &["runtime.watchdog.header_deadline_ms", "99", "100"]),
        ("sweep", watchdog("sweep_interval_ms = 60001"), &["runtime.watchdog.sweep_interval_ms", "60000"]),
        ("progress", watchdog("body_progress_min_bps = 10000001"), &["body_progress_min_bps", "10000000"]),
        ("flow cap", runtime("xdp_new_flow_cap_per_sec_per_cpu = 999"), &["xdp_new_flow_cap_per_sec_per_cpu", "1000"]),
        ("listener drain", in_block("listeners", "drain_timeout_ms = 99"), &["listeners[0].drain_timeout_ms", "100"]),
        (
            "websocket idle",
            in_block("listeners.websocket", "idle_timeout_seconds = 0"),
            &["listeners[0].websocket.idle_timeout_seconds", "0"],
        ),
        (
            "websocket message",
            in_block("listeners.websocket", "max_message_size_bytes = 0"),
            &["listeners[0].websocket.max_message_size_bytes"],
        ),
        // Words.
        ("underscore policy", runtime("header_underscore_policy = \"maybe\""), &["maybe", "reject", "drop", "allow"]),
        ("xdp mode", runtime("xdp_mode = \"fast\""), &["fast", "auto", "native", "skb"]),
        ("protocol http", with_protocol("\"http\""), &["listeners[0].protocol", "http", "h1"]),
        ("protocol h2", with_protocol("\"h2\""), &["listeners[0].protocol", "h2", "h1s"]),
        ("protocol h3", with_protocol("\"h3\""), &["listeners[0].protocol", "h3", "quic"]),
        ("protocol in capitals", with_protocol("\"TCP\""), &["listeners[0].protocol", "TCP", "tcp"]),
        ("protocol unheard of", with_protocol("\"gopher\""), &["gopher", "tcp", "h1"]),
        (
            "backend protocol",
            in_block("listeners.backends", "protocol = \"h9\""),
            &["listeners[0].backends[0].protocol", "h9", "h1"],
        ),
        // Addresses.
        ("empty address", with_address("\"\""), &["listeners[0].address"]),
        ("blank address", with_address("\"  \""), &["listeners[0].address"]),
        ("address without port", with_address("\"127.0.0.1\""), &["listeners[0].address", "127.0.0.1"]),
        ("port too large", with_address("\"127.0.0.1:99999\""), &["listeners[0].address", "99999"]),
        ("empty backend", with_backend("\"\""), &["listeners[0].backends[0].address"]),
        ("backend without port", with_backend("\"127.0.0.1\""), &["listeners[0].backends[0].address", "127.0.0.1"]),
        ("backend port", with_backend("\"127.0.0.1:http\""), &["listeners[0].backends[0].address"]),
        ("metrics bind", in_block("observability", "metrics_bind = \"nonsense\""), &["observability.metrics_bind", "nonsense"]),
        ("open admin port", in_block("observability", "metrics_bind = \"0.0.0.0:9090\""), &["0.0.0.0:9090"]),
        ("token hash", in_block("admin", "api_token_hash = \"abc\""), &["admin.api_token_hash", "64"]),
        (
            "token hash that is no hex",
            in_block("admin", &format!("api_token_hash = \"{}\"", "z".repeat(64))),
            &["admin.api_token_hash", "64"],
        ),
        ("dns server", in_block("dns", "servers = [\"nonsense\"]"), &["dns.servers", "nonsense"]),
        // What must be there, and what must not.
        ("nothing", String::new(), &["listeners"]),
        ("only a block", "[runtime]\n".to_owned(), &["listeners"]),
        ("no address", "[[listeners]]\nprotocol = \"h1\"\n".to_owned(), &["address"]),
        ("no protocol", "[[listeners]]\naddress = \"127.0.0.1:1\"\n".to_owned(), &["protocol"]),
        ("backend without address", with_backend("1").replace("address = 1 #!\n", "weight = 1\n"), &["backends[0]", "address"]),
        ("jitter over drain", runtime("drain_jitter_ms = 10001"), &["runtime.drain_jitter_ms", "10001", "10000"]),
        ("xdp without interface", runtime("xdp_enabled = true").replace(HERE, ""), &["xdp_interface"]),
        ("tls on h1", in_block("listeners.tls", "cert_path = \"c\"\nkey_path = \"k\"").replace(HERE, ""), &["tls", "h1"]),
        ("tls without a block", listener("tls", ""), &["tls"]),
        ("h1s without a block", listener("h1s", ""), &["tls"]),
        ("quic without a block", listener("quic", ""), &["quic"]),
        ("websocket on tcp", listener("tcp", "[listeners.websocket]\n"), &["websocket", "tcp"]),
        ("grpc on tcp", listener("tcp", "[listeners.grpc]\n"), &["grpc", "h1s"]),
        ("h2c on tcp", listener("tcp", &format!("h2c = true{HERE}\n")), &["listeners[0].h2c", "h1"]),
        ("h2c in http", http("h2c = true"), &["listeners[0].http.h2c", "[[listeners]]"]),
        ("alt_svc without port", listener("h1", "[listeners.alt_svc]\nmax_age = 1\n"), &["alt_svc", "h3_port"]),
        (
            "tls key on a plain backend",
            in_block("listeners.backends", "tls_verify_peer = false"),
            &["tls_verify_peer", "h3"],
        ),
        (
            "ticket interval",
            listener("tls", "[listeners.tls]\ncert_path = \"c\"\nkey_path = \"k\"\nticket_rotation_interval_seconds = 0\n"),
            &["ticket_rotation_interval_seconds", "0"],
        ),
        (
            "payload size",
            listener(
                "quic",
                "[listeners.quic]\ncert_path = \"c\"\nkey_path = \"k\"\nretry_secret_path = \"r\"\n\
                 max_recv_udp_payload_size = 1199\n",
            ),
            &["max_recv_udp_payload_size", "1199", "1200"],
        ),
        (
            "connection id length",
            "[passthrough]\nbind_addr = \"127.0.0.1:1\"\nbackends = [\"127.0.0.1:2\"]\nretry_secret_path = \"r\"\n\
             min_client_dcid_len = 7\n"
                .to_owned(),
            &["passthrough.min_client_dcid_len", "7", "8"],
        ),
        (
            "passthrough without backends",
            "[passthrough]\nbind_addr = \"127.0.0.1:1\"\nbackends = []\nretry_secret_path = \"r\"\n".to_owned(),
            &["passthrough.backends"],
        ),
        (
            "a route to no pool",
            "[passthrough]\nbind_addr = \"127.0.0.1:1\"\nbackends = [\"127.0.0.1:2\"]\nretry_secret_path = \"r\"\n\
             [[passthrough.routes]]\nsni = [\"a.example\"]\npool = \"nowhere\"\n"
                .to_owned(),
            &["passthrough.routes[0].pool", "there is no pool of that name"],
        ),
        (
            "server IDs that do not fit",
            "[passthrough]\nbind_addr = \"127.0.0.1:1\"\nbackends = [\"127.0.0.1:2\"]\nretry_secret_path = \"r\"\n\
             [[passthrough.quic_lb]]\nnonce_length = 18\nservers = [\"0a0b=127.0.0.1:2\"]\n"
                .to_owned(),
            &["passthrough.quic_lb[0].nonce_length", "at most 17"],
        ),
    ]
}

/// Writes a marked file, and says on which line the mark stood.
fn write_marked(dir: &Path, text: &str) -> (String, Option<usize>) {
    let path = dir.join("lb.toml");
    let line = text.lines().position(|l| l.ends_with(HERE)).map(|index| index + 1);
    std::fs::write(&path, text.replace(HERE, "")).unwrap();
    (path.to_str().unwrap().to_owned(), line)
}

pub(crate) fn each_is_refused_with_its_reason() {
    let dir = tempfile::tempdir().unwrap();
    let cases = cases();
    assert!(cases.len() >= 40);
    let mut wrong = Vec::new();
    for (name, text, fragments) in cases {
        let (path, line) = write_marked(dir.path(), &text);
        let refused = cli(&["check", &path]);
        let said = refused.stderr;
        if refused.code != 1 {
            wrong.push(format!("{name}: exit code {}\n{said}", refused.code));
            continue;
        }
        let place = line.map_or("lb.toml".to_owned(), |line| format!("lb.toml:{line}:"));
        if !said.contains(&place) {
            wrong.push(format!("{name}: {place} is not in\n{said}"));
        }
        let missing: Vec<_> = fragments.iter().filter(|f| !said.contains(**f)).collect();
        if !missing.is_empty() {
            wrong.push(format!("{name}: {missing:?} not in\n{said}"));
        }
        if said.contains("panicked") || said.contains("RUST_BACKTRACE") {
            wrong.push(format!("{name}: a panic\n{said}"));
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n\n"));
}

pub(crate) fn what_is_not_built_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let texts = [("jwt", listener("h1", "") + "[policies.a]\njwt = {}\n")];
    for (name, text) in texts {
        let (path, _) = write_marked(dir.path(), &text);
        for arguments in [vec!["check", path.as_str()], vec![path.as_str()]] {
            let refused = cli(&arguments);
            assert_eq!(refused.code, 1, "{name}: {}", refused.stderr);
            assert!(refused.stderr.contains("not built yet"), "{name}: {}", refused.stderr);
            assert!(refused.stderr.contains(name), "{name} is not named: {}", refused.stderr);
        }
    }
}

pub(crate) fn running_refuses_as_check_does() {
    let dir = tempfile::tempdir().unwrap();
    for (name, text, fragments) in cases().into_iter().step_by(7) {
        let (path, _) = write_marked(dir.path(), &text);
        let refused = run(binary(), [&path], seconds(10));
        assert_eq!(refused.code, 1, "{name}: {}", refused.stderr);
        for fragment in fragments {
            assert!(refused.stderr.contains(fragment), "{name}: no {fragment:?} in {}", refused.stderr);
        }
    }
}

pub(crate) fn files_of_the_earlier_implementation_are_accepted() {
    let whole_runtime = "[runtime]\nxdp_enabled = false\nxdp_mode = \"auto\"\ndrain_timeout_ms = 10000\n\
        readiness_settle_ms = 11000\ndrain_jitter_ms = 2500\nhandshake_timeout_ms = 5000\n\
        max_inflight_connections = 65536\nconnect_timeout_ms = 5000\nper_ip_connection_cap = 1024\n\
        header_underscore_policy = \"reject\"\nmax_keepalive_requests = 100\n\
        max_requests_per_h3_connection = 1000\nxdp_new_flow_cap_per_sec_per_cpu = 125000\n\
        [runtime.tls]\ntls13_only = false\n\
        [runtime.watchdog]\nheader_deadline_ms = 5000\nbody_progress_min_bps = 64\nsweep_interval_ms = 1000\n\
        [observability]\nmetrics_bind = \"127.0.0.1:9090\"\n[admin]\nallow_non_loopback = false\n\
        [security]\nstrict_te = false\n";
    let whole_listener = "[[listeners]]\naddress = \"0.0.0.0:8080\"\nprotocol = \"h1\"\ndrain_timeout_ms = 10000\n\
        drain_jitter_ms = 100\n[listeners.alt_svc]\nh3_port = 443\nmax_age = 3600\n\
        [listeners.http]\nheader_timeout_ms = 10000\nbody_timeout_ms = 30000\ntotal_timeout_ms = 60000\n\
        head_timeout_ms = 60000\n[listeners.h2_security]\nmax_concurrent_streams = 256\n\
        max_header_list_size = 65536\nkeep_alive_interval_ms = 30000\n[listeners.websocket]\nenabled = true\n\
        idle_timeout_seconds = 60\nmax_message_size_bytes = 16777216\nping_rate_limit_per_window = 50\n\
        ping_rate_limit_window_seconds = 10\nread_frame_timeout_seconds = 30\nh2_extended_connect = false\n\
        h3_extended_connect = false\n[[listeners.backends]]\naddress = \"127.0.0.1:3000\"\nprotocol = \"tcp\"\n\
        weight = 1\n[[listeners.backends]]\naddress = \"[::1]:3001\"\nprotocol = \"h1\"\nweight = 0\n";
    let two = "[[listeners.backends]]\naddress = \"127.0.0.1:3000\"\nprotocol = \"tcp\"\nweight = 1\n\
        [[listeners.backends]]\naddress = \"127.0.0.1:3001\"\nprotocol = \"tcp\"\nweight = 1\n";
    let texts = [
        ("default.toml", format!("[[listeners]]\naddress = \"0.0.0.0:8080\"\nprotocol = \"tcp\"\n{two}")),
        (
            "examples/h1.toml",
            "[[listeners]]\naddress = \"0.0.0.0:8080\"\nprotocol = \"h1\"\n[[listeners.backends]]\n\
             address = \"127.0.0.1:3000\"\nprotocol = \"h1\"\n"
                .to_owned(),
        ),
        (
            "container smoke test",
            "[runtime]\ndrain_timeout_ms = 5000\nreadiness_settle_ms = 100\n[observability]\n\
             metrics_bind = \"127.0.0.1:9090\"\n[[listeners]]\naddress = \"0.0.0.0:8080\"\nprotocol = \"h1\"\n\
             [[listeners.backends]]\naddress = \"backend:8080\"\nprotocol = \"h1\"\n"
                .to_owned(),
        ),
        ("the whole schema", format!("{whole_runtime}{whole_listener}")),
    ];
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in texts {
        let (path, _) = write_marked(dir.path(), &text);
        let checked = cli(&["check", &path]);
        if name == "the whole schema" {
            // Some of it waits for a later version, which says so; nothing in it is an error.
            let errors: Vec<_> = checked.stderr.lines().filter(|l| l.contains("lb.toml:")).collect();
            let real: Vec<_> = errors.iter().filter(|l| !l.contains("not built yet")).collect();
            assert!(
                real.is_empty() && (checked.code == 0) == errors.is_empty(),
                "{name}: {}",
                checked.stderr
            );
        } else {
            assert_eq!(checked.code, 0, "{name}: {}", checked.stderr);
        }
    }
}
