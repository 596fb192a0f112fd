//! Valid settings that this build refuses.

use super::parse;

fn refused(text: &str) -> Vec<String> {
    parse(text).not_built_yet().iter().map(ToString::to_string).collect()
}

const H1: &str = "[[listeners]]\naddress = \"0.0.0.0:80\"\nprotocol = \"h1\"\n";
const BACKEND: &str = "[[listeners.backends]]\naddress = \"10.0.0.1:80\"\n";

#[test]
fn quic_listeners() {
    let quic = "[listeners.quic]\ncert_path = \"c\"\nkey_path = \"k\"\nretry_secret_path = \"s\"\n";
    let text = format!("[[listeners]]\naddress = \"0.0.0.0:443\"\nprotocol = \"quic\"\n{quic}{BACKEND}");
    let expected = "lb.toml:3: listeners[0].protocol = \"quic\": not built yet: QUIC listeners";
    assert_eq!(refused(&text), [expected]);
}

#[test]
fn xdp_keys_even_with_their_defaults_but_not_xdp_switched_off() {
    let runtime = |line: &str| refused(&format!("[runtime]\n{line}\n{H1}{BACKEND}"));
    assert_eq!(runtime("xdp_enabled = false"), [""; 0]);
    assert_eq!(
        runtime("xdp_mode = \"auto\""),
        ["lb.toml:2: runtime.xdp_mode = \"auto\": not built yet: XDP"]
    );
    assert_eq!(runtime("xdp_interface = \"eth0\"").len(), 1);
    assert_eq!(runtime("xdp_enabled = true\nxdp_interface = \"eth0\"").len(), 2);
    assert_eq!(runtime("xdp_new_flow_cap_per_sec_per_cpu = 125000").len(), 1);
}

#[test]
fn blocks_without_anything_behind_them() {
    assert_eq!(
        refused(&format!("{H1}[listeners.h2_security]\n[listeners.http]\nh2c = true\n{BACKEND}")),
        [
            "lb.toml:4: listeners[0].h2_security: not built yet: HTTP/2",
            "lb.toml:6: listeners[0].http.h2c = true: not built yet: HTTP/2",
        ]
    );
    let passthrough =
        "[passthrough]\nbind_addr = \"0.0.0.0:1\"\nbackends = [\"10.0.0.1:1\"]\nretry_secret_path = \"s\"\n";
    assert_eq!(refused(passthrough), ["lb.toml:1: passthrough: not built yet: QUIC passthrough"]);
}

#[test]
fn websocket_keys_that_need_a_look_into_frames() {
    let websocket = |line: &str| refused(&format!("{H1}[listeners.websocket]\n{line}\n{BACKEND}"));
    assert_eq!(websocket("enabled = true\nidle_timeout_seconds = 5\nh2_extended_connect = false"), [""; 0]);
    for line in [
        "max_message_size_bytes = 1",
        "ping_rate_limit_per_window = 1",
        "ping_rate_limit_window_seconds = 1",
        "read_frame_timeout_seconds = 1",
        "h2_extended_connect = true",
        "h3_extended_connect = true",
    ] {
        assert_eq!(websocket(line).len(), 1, "{line}");
    }
}

#[test]
fn backends_beyond_http_1_only_where_http_is_read() {
    let backend = |listener: &str, lines: &str| {
        refused(&format!(
            "[[listeners]]\naddress = \"0.0.0.0:80\"\nprotocol = \"{listener}\"\n{BACKEND}{lines}\n"
        ))
    };
    assert_eq!(
        backend("h1", "protocol = \"h2\""),
        ["lb.toml:6: listeners[0].backends[0].protocol = \"h2\": not built yet: HTTP/2 to backends"]
    );
    assert_eq!(backend("h1", "protocol = \"h3\"\ntls_ca_path = \"ca\"").len(), 1);
    assert_eq!(
        backend("h1", "tls = true\ntls_ca_path = \"ca\""),
        ["lb.toml:6: listeners[0].backends[0].tls = true: not built yet: TLS to HTTP backends"]
    );
    assert_eq!(backend("tcp", "tls = true\ntls_ca_path = \"ca\""), [""; 0]);
    assert_eq!(backend("tcp", "protocol = \"h2\""), [""; 0]);
    assert_eq!(backend("h1", "protocol = \"h1\""), [""; 0]);
}

#[test]
fn keys_for_listeners_that_are_refused_pass_by_themselves() {
    let text = format!("[runtime]\nmax_requests_per_h3_connection = 5\n{H1}{BACKEND}");
    assert_eq!(refused(&text), [""; 0]);
}
