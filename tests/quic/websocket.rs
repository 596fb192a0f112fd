//! WebSocket over HTTP/3 (RFC 9220): tunnels to backends of every version, and to HTTP/3 backends from clients of every version.

use testkit::h3::{code, setting};
use testkit::tunnel::{echo, exchange, gateways, listener};
use testkit::websocket::{to_client, to_server};
use testkit::{Config, Gateway, H3Client, Listener, Version, eventually, seconds};

pub(crate) fn tunnels_pass_between_all_versions() {
    use Version::{H1, H2, H3};
    let origin = echo();
    for (front, back) in [(H3, H1), (H3, H2), (H3, H3), (H1, H3), (H2, H3)] {
        let (gateway, inner) = gateways(listener(front), back, &origin);
        exchange(front, gateway.front(), &format!("{front:?} to {back:?}"));
        gateway.wait_metric("websocket_tunnels_ended_total", &[], |ended| ended == 1.0);
        drop(inner);
    }
}

pub(crate) fn a_tunnel_that_is_reset_is_missed() {
    let origin = echo();
    let (gateway, _) = gateways(listener(Version::H3), Version::H1, &origin);
    let mut client = H3Client::connect(gateway.front()).unwrap();
    let connect = [(":protocol", "websocket"), ("sec-websocket-version", "13")];
    let stream = client.open("CONNECT", "/", &connect, false).unwrap();
    client.head(stream).unwrap();
    client.data(stream, &to_server("hello")).unwrap();
    client.until(stream, seconds(5), |response| response.body == to_client("hello")).unwrap();
    client.reset(stream, code::REQUEST_CANCELLED).unwrap();
    gateway.wait_metric("websocket_tunnels_ended_total", &[], |ended| ended == 1.0);
    eventually("the backend's connection ends", seconds(5), || {
        gateway.metric("backend_inflight", &[]) == 0.0
    });
}

pub(crate) fn tunnels_need_leave_on_both_sides() {
    let origin = echo();
    let connect = [(":protocol", "websocket"), ("sec-websocket-version", "13")];
    let gateway =
        Gateway::start(Config::new().listener(Listener::quic().websocket().backend(origin.address)));
    let mut client = H3Client::connect(gateway.front()).unwrap();
    assert!(!client.heard().settings.as_ref().unwrap().contains_key(&setting::ENABLE_CONNECT_PROTOCOL));
    let stream = client.open("CONNECT", "/", &connect, false).unwrap();
    let refused = client.over_with(stream).unwrap();
    assert_ne!(refused.status(), 200, "{refused:?}");
    assert_eq!(origin.request_count(), 0);
    // A backend that does not offer it gets no such request.
    let outer = Gateway::start(Config::new().listener(listener(Version::H3).h3_backend(gateway.front())));
    let mut client = H3Client::connect(outer.front()).unwrap();
    let stream = client.open("CONNECT", "/", &connect, false).unwrap();
    assert_eq!(client.over_with(stream).unwrap().status(), 502);
    assert_eq!(outer.metric("upstream_rejected_total", &[("reason", "no_extended_connect")]), 1.0);
}
