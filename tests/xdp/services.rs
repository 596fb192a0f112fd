//! What services do with packets, and what is said when they cannot be had.

use std::collections::BTreeSet;

use crate::rig::{Network, ask, ask_udp};
use testkit::seconds;

/// A pool of all backends, at a port.
pub(crate) fn pool(name: &str, port: u16, lines: &str) -> String {
    let backends =
        (1..=3).map(|at| format!("[[pools.{name}.backends]]\naddress = \"10.2.{at}.11:{port}\"\n"));
    format!("[pools.{name}]\n{lines}\n{}", backends.collect::<String>())
}

/// A service at `10.9.0.1`.
pub(crate) fn service(name: &str, port: u16, protocol: &str, mode: &str, pool: &str) -> String {
    format!(
        "[[xdp.services]]\nname = \"{name}\"\naddress = \"10.9.0.1\"\nport = {port}\nprotocol = \"{protocol}\"\nmode = \"{mode}\"\npool = \"{pool}\"\n"
    )
}

pub(crate) fn nat_and_link_carry_tcp_and_udp(mode: &'static str) {
    let mut network = Network::new(mode);
    let six: String = (1..=3)
        .map(|at| format!("[[xdp.services.backends]]\naddress = \"[fd00:2:{at}::11]:8080\"\n"))
        .collect();
    let config = network.config(&[
        service("web", 80, "tcp", "nat", "web"),
        service("names", 80, "udp", "nat", "web"),
        service("direct", 8080, "tcp", "dsr-l2", "web"),
        service("direct-names", 8082, "udp", "dsr-l2", "web"),
        format!("[[xdp.services]]\nname = \"six\"\naddress = \"fd00:9::1\"\nport = 80\nprotocol = \"tcp\"\nmode = \"nat\"\n{six}"),
        pool("web", 8080, ""),
    ].concat());
    network.start(&config);
    let seen = |answers: &dyn Fn() -> BTreeSet<String>| answers().len();
    let tcp = |vip: &'static str, port| {
        network.client.run(move || (0..40).map(|_| ask(vip, port).unwrap()).collect())
    };
    let udp = |vip: &'static str, port| {
        network.client.run(move || (0..40).map(|_| ask_udp(vip, port).unwrap()).collect())
    };
    assert_eq!(seen(&|| tcp("10.9.0.1", 80)), 3);
    assert_eq!(seen(&|| udp("10.9.0.1", 80)), 3);
    assert_eq!(seen(&|| tcp("10.9.0.1", 8080)), 3);
    assert_eq!(seen(&|| udp("10.9.0.1", 8082)), 3);
    assert_eq!(seen(&|| tcp("fd00:9::1", 80)), 3);
    // What is for no service is as without XDP.
    assert_eq!(network.client.run(|| ask("10.2.1.11", 8080).unwrap()), "backend1");
    for service in ["web", "names", "direct", "direct-names", "six"] {
        // Two sockets of UDP may have had one port.
        let begun = if service.ends_with("names") { 37.0..=40.0 } else { 40.0..=40.0 };
        network.metric("xdp_backend_flows_total", &[("service", service)], |flows| begun.contains(&flows));
    }
    network.metric(
        "xdp_backend_packets_total",
        &[("service", "names"), ("direction", "to_client")],
        |count| count == 40.0,
    );
    network.metric("xdp_bytes_total", &[("direction", "to_client")], |bytes| bytes > 1000.0);
    network.metric("xdp_packets_total", &[("action", "pass_not_ours")], |count| count > 0.0);
    let mode_name = if mode == "native" { "drv" } else { "skb" };
    network.metric("xdp_attached_mode", &[("mode", mode_name)], |interfaces| interfaces == 4.0);
    assert_eq!(network.stop(), 0);
}

pub(crate) fn denied_sources_are_dropped(mode: &'static str) {
    let mut network = Network::new(mode);
    let services = [service("web", 80, "tcp", "nat", "web"), pool("web", 8080, "")].concat();
    let denied = network.config(&format!("deny = [\"10.1.0.0/24\"]\n{services}"));
    network.start(&denied);
    assert!(network.client.run(|| ask("10.9.0.1", 80).is_err()));
    network.metric("xdp_packets_total", &[("action", "drop_denied")], |count| count > 0.0);
    let allowed = network.config(&format!("deny = [\"10.1.0.0/24\"]\nallow = [\"10.1.0.9\"]\n{services}"));
    assert!(network.reload(&allowed).contains("pass complete"));
    network.until_served_by(80, &["backend1", "backend2", "backend3"]);
    assert!(network.reload(&denied).contains("pass complete"));
    let refused =
        testkit::poll(seconds(10), || network.client.run(|| ask("10.9.0.1", 80).is_err()).then_some(()));
    assert!(refused.is_some());
}

pub(crate) fn what_cannot_be_had_is_named(mode: &'static str) {
    let mut network = Network::new(mode);
    let services = [service("web", 80, "tcp", "nat", "web"), pool("web", 8080, "")].concat();
    let elsewhere = std::env::temp_dir();
    let cases = [
        (network.config_on("eth9", &services), "eth9: no such network interface"),
        (
            network.config(&services).replace(network.pins().to_str().unwrap(), elsewhere.to_str().unwrap()),
            "not on a BPF file system",
        ),
    ];
    for (config, expected) in cases {
        network.launch(&config);
        let process = network.process.as_mut().unwrap();
        assert_eq!(process.wait_exit(seconds(20)), Some(1), "{}", process.tail(20));
        assert!(process.tail(20).contains(expected), "{}", process.tail(20));
    }
}
