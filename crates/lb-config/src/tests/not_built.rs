//! Valid settings that this build refuses.

use super::parse;

fn refused(text: &str) -> Vec<String> {
    parse(text).not_built_yet().iter().map(ToString::to_string).collect()
}

const H1: &str = "[[listeners]]\naddress = \"0.0.0.0:80\"\nprotocol = \"h1\"\n";
const BACKEND: &str = "[[listeners.backends]]\naddress = \"10.0.0.1:80\"\n";

#[test]
fn quic_that_is_http_3_and_quic_that_is_not() {
    let listener = "[[listeners]]\naddress = \"0.0.0.0:443\"\nprotocol = \"quic\"\n[listeners.quic]\ncert_path = \"c\"\n\
                    key_path = \"k\"\nretry_secret_path = \"s\"\n";
    assert_eq!(refused(&format!("{listener}{BACKEND}")), [""; 0]);
    let raw = "[listeners.quic.raw_proxy]\nbackend_addr = \"10.0.0.1:443\"\nsni = \"b.example\"\n";
    assert_eq!(refused(&format!("{listener}{raw}")), [""; 0]);
}

#[test]
fn what_needs_xdp_does_nothing_without_it() {
    let idle = "xdp_interface = \"eth0\"\nxdp_mode = \"auto\"\nxdp_new_flow_cap_per_sec_per_cpu = 125000";
    for off in ["", "xdp_enabled = false\n"] {
        let config = parse(&format!("[runtime]\n{off}{idle}\n[xdp]\ndeny = [\"10.0.0.0/8\"]\n{H1}{BACKEND}"));
        assert_eq!(config.not_built_yet(), []);
        assert_eq!(config.warnings.len(), 4, "{:?}", config.warnings);
        assert!(config.warnings.iter().all(
            |warning| warning.contains("does nothing while") && warning.ends_with("xdp_enabled is false")
        ));
    }
}

#[test]
fn backends_of_every_protocol_are_built() {
    let backend = |listener: &str, lines: &str| {
        refused(&format!(
            "[[listeners]]\naddress = \"0.0.0.0:80\"\nprotocol = \"{listener}\"\n{BACKEND}{lines}\n"
        ))
    };
    let h3 = "protocol = \"h3\"\ntls_ca_path = \"ca\"";
    assert_eq!(backend("tcp", h3), [""; 0]);
    for lines in
        [h3, "protocol = \"h1\"", "protocol = \"h2\"", "protocol = \"h2\"\ntls = true\ntls_ca_path = \"ca\""]
    {
        assert_eq!(backend("h1", lines), [""; 0], "{lines}");
    }
}

#[test]
fn keys_for_listeners_that_are_refused_pass_by_themselves() {
    let text = format!("[runtime]\nmax_requests_per_h3_connection = 5\n{H1}{BACKEND}");
    assert_eq!(refused(&text), [""; 0]);
}

/// What is said of `lines` in `[pools.web]`, which one h1 listener uses.
fn refused_of_pool(lines: &str) -> Vec<String> {
    let pool = "[[pools.web.backends]]\naddress = \"10.0.0.1:80\"\n";
    refused(&format!("{H1}pool = \"web\"\n[pools.web]\n{lines}\n{pool}"))
}

#[test]
fn a_pool_with_plain_backends_is_built() {
    assert_eq!(refused_of_pool(""), [""; 0]);
    assert_eq!(refused_of_pool("policy = \"round_robin\""), [""; 0]);
    let backends =
        "[[pools.web.backends]]\naddress = \"10.0.0.1:80\"\nweight = 3\npriority = 0\nprotocol = \"h2\"\n";
    assert_eq!(refused(&format!("{H1}pool = \"web\"\n{backends}")), [""; 0]);
}

#[test]
fn all_that_a_pool_can_say_is_built() {
    for line in [
        "hash_key = \"connection_id\"",
        "health = { type = \"quic\" }",
        "health = { type = \"tcp\" }",
        "limits = {}",
        "retry = { hedge_percentile = 95 }",
        "discovery = { file = \"a\" }",
    ] {
        assert_eq!(refused_of_pool(line), [""; 0], "{line}");
    }
}

#[test]
fn filters_that_are_to_come() {
    let policy = |line: &str| refused(&format!("{H1}{BACKEND}[policies.a]\n{line}\n"));
    for line in [
        "basic_auth = {}",
        "jwt = {}",
        "rate_limit = { requests = 1, store = \"a\" }",
        "cache = {}",
        "compress = {}",
    ] {
        assert_eq!(policy(line).len(), 1, "{line}");
    }
    assert_eq!(refused(&format!("{H1}{BACKEND}[caches.a]\n[stores.b]\nurl = \"redis://a\"\n")).len(), 2);
}
