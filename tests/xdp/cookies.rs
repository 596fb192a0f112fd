//! SYN cookies of the programs in front of listeners of the gateway itself (L4-02).

use testkit::seconds;

use crate::rig::{Network, PATIENCE, ask, connect, exchange, ip};
use crate::services::pool;

/// A listener that relays to all backends, at an address of the gateway.
fn listener(address: &str) -> String {
    format!("[[listeners]]\naddress = \"{address}:8000\"\nprotocol = \"tcp\"\npool = \"web\"\n")
}

fn set_syn_cookies(network: &Network, value: &'static str) {
    network.gateway.run(move || std::fs::write("/proc/sys/net/ipv4/tcp_syncookies", value).unwrap());
}

/// A network whose gateway has addresses for listeners, and a file with a threshold of five SYNs.
fn network(mode: &'static str) -> (Network, String) {
    let network = Network::new(mode);
    network.gateway.run(|| ip("addr add 10.9.0.3/32 dev lo\naddr add fd00:9::3/128 dev lo nodad\n"));
    let lines = format!(
        "syn_cookies_above_per_sec_per_cpu = 5\n{}{}{}",
        listener("10.9.0.3"),
        listener("[fd00:9::3]"),
        pool("web", 8080, "")
    );
    let config = network.config(&lines);
    (network, config)
}

pub(crate) fn l4_02_a_flood_of_syns_costs_no_client_its_connection(mode: &'static str) {
    let (mut network, config) = network(mode);
    set_syn_cookies(&network, "2");
    network.start(&config);
    for vip in ["10.9.0.3", "fd00:9::3"] {
        let before = network.metric("xdp_packets_total", &[("action", "syn_cookie_sent")], |_| true);
        // Those that are there before it go on.
        let mut kept = network.client.run(move || {
            let address = std::net::SocketAddr::new(vip.parse().unwrap(), 8000);
            let mut stream = connect(address, PATIENCE).unwrap();
            let answer = exchange(&mut stream).unwrap();
            (stream, answer)
        });
        let failed: Vec<String> = network.client.run(move || {
            let asked = (0..200).map(|_| ask(vip, 8000));
            asked.filter_map(|answer| answer.err().map(|error| error.to_string())).collect()
        });
        assert!(failed.is_empty(), "{} of 200: {}", failed.len(), failed[0]);
        assert_eq!(exchange(&mut kept.0).unwrap(), kept.1);
        for action in ["syn_cookie_sent", "syn_cookie_taken"] {
            network.metric("xdp_packets_total", &[("action", action)], |count| count > before + 20.0);
        }
    }
    network.metric("xdp_packets_total", &[("action", "drop_bad_cookie")], |count| count == 0.0);
    // Without a threshold the listener has all of them.
    let without = config.replace("syn_cookies_above_per_sec_per_cpu = 5\n", "");
    assert!(network.reload(&without).contains("pass complete"));
    let before = network.metric("xdp_packets_total", &[("action", "syn_cookie_sent")], |_| true);
    assert!(network.client.run(|| (0..50).all(|_| ask("10.9.0.3", 8000).is_ok())));
    std::thread::sleep(seconds(2));
    network.metric("xdp_packets_total", &[("action", "syn_cookie_sent")], |count| count == before);
}

pub(crate) fn cookies_that_the_kernel_would_not_take_are_refused(mode: &'static str) {
    let (mut network, config) = network(mode);
    for setting in ["0", "1"] {
        set_syn_cookies(&network, setting);
        network.launch(&config);
        let process = network.process.as_mut().unwrap();
        assert_eq!(process.wait_exit(PATIENCE), Some(1));
        let told = process.tail(20);
        assert!(
            told.contains("syn_cookies_above_per_sec_per_cpu") && told.contains("tcp_syncookies = 2"),
            "{told}"
        );
        let (code, check) = network.check(&config);
        assert!(code != 0 && check.contains("tcp_syncookies = 2"), "{check}");
    }
    set_syn_cookies(&network, "2");
    let (code, check) = network.check(&config);
    assert_eq!(code, 0, "{check}");
    // A reload is refused too, and what runs goes on.
    set_syn_cookies(&network, "1");
    let without = config.replace("syn_cookies_above_per_sec_per_cpu = 5\n", "");
    network.start(&without);
    let told = network.reload(&config);
    assert!(told.contains("rejected") && told.contains("tcp_syncookies = 2"), "{told}");
    assert!(network.client.run(|| ask("10.9.0.3", 8000)).is_ok());
}
