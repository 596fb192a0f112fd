//! Listeners whose packets the kernel takes.

use std::collections::BTreeSet;
use std::net::TcpStream;

use crate::rig::{Network, PATIENCE, ask, ask_udp, connect, exchange, ip};
use crate::services::pool;

/// The gateway's own addresses towards clients.
const V4: &str = "10.1.0.1";
const V6: &str = "fd00:1::1";

fn listener(address: &str, protocol: &str, lines: &str) -> String {
    format!("[[listeners]]\naddress = \"{address}\"\nprotocol = \"{protocol}\"\n{lines}\n")
}

fn six() -> String {
    let backends =
        (1..=3).map(|at| format!("[[pools.six.backends]]\naddress = \"[fd00:2:{at}::11]:8080\"\n"));
    format!("[pools.six]\n{}", backends.collect::<String>())
}

/// Flows that the kernel has begun for a listener.
fn flows(network: &Network, listener: &str, wanted: f64) {
    network.metric("xdp_backend_flows_total", &[("service", listener)], |flows| flows == wanted);
}

pub(crate) fn a_listener_is_taken_over(mode: &'static str) {
    let mut network = Network::new(mode);
    let config = network.config(
        &[
            listener("10.1.0.1:80", "tcp", "xdp = true\npool = \"web\""),
            listener("10.1.0.1:80", "udp", "xdp = true\npool = \"web\"\nudp = { replies = 1 }"),
            listener("[fd00:1::1]:80", "tcp", "xdp = true\npool = \"six\""),
            listener("10.1.0.1:90", "tcp", "pool = \"web\""),
            pool("web", 8080, ""),
            six(),
        ]
        .concat(),
    );
    network.start(&config);
    let of = |ask: fn(&str, u16) -> std::io::Result<String>, address: &'static str, port: u16| {
        network.client.run(move || (0..40).map(|_| ask(address, port).unwrap()).collect::<BTreeSet<_>>())
    };
    assert_eq!(of(ask, V4, 80).len(), 3);
    assert_eq!(of(ask_udp, V4, 80).len(), 3);
    assert_eq!(of(ask, V6, 80).len(), 3);
    assert_eq!(of(ask, V4, 90).len(), 3);
    flows(&network, "10.1.0.1:80", 40.0);
    flows(&network, "[fd00:1::1]:80", 40.0);
    // Two of the sockets may have had one port.
    let of_udp = |flows: f64| (37.0..=40.0).contains(&flows);
    let udp = network.metric("xdp_backend_flows_total", &[("service", "10.1.0.1:80/udp")], of_udp);
    // The sockets are there all the same: nothing of what the machine sends to itself comes by an interface.
    let own = network.gateway.run(|| {
        let udp = ask_udp(V4, 80).unwrap();
        [ask(V4, 80).unwrap(), udp, ask(V6, 80).unwrap()]
    });
    assert!(own.iter().all(|answer| answer.starts_with("backend")), "{own:?}");
    network.metric("xdp_backend_flows_total", &[], |flows| flows == 80.0 + udp);
    assert_eq!(network.stop(), 0);
}

/// Begins flows until the kernel takes them: a reload is over before the tables are written. How many it has taken.
fn until_taken(network: &Network) -> f64 {
    let name = [("service", "10.1.0.1:80")];
    let first = testkit::poll(PATIENCE, || {
        network.client.run(|| ask(V4, 80).unwrap());
        let begun = network.metric("xdp_backend_flows_total", &name, |_| true);
        (begun > 0.0).then_some(())
    });
    assert!(first.is_some());
    // The last of them may not have been counted yet.
    let mut last = -1.0;
    testkit::poll(PATIENCE, || {
        let before = std::mem::replace(&mut last, network.metric("xdp_backend_flows_total", &name, |_| true));
        std::thread::sleep(std::time::Duration::from_millis(1100));
        (before == last).then_some(())
    });
    last
}

pub(crate) fn a_listener_is_handed_to_the_kernel_and_back(mode: &'static str) {
    let mut network = Network::new(mode);
    let health = "panic_threshold_percent = 0\n[pools.web.health]\ntype = \"tcp\"\ninterval_ms = 200\ntimeout_ms = 200\nfall = 2\nrise = 2\n";
    let config = |xdp: bool| {
        let lines = [
            listener("10.1.0.1:80", "tcp", &format!("xdp = {xdp}\npool = \"web\"")),
            pool("web", 8080, health),
        ];
        // Something else for the programs to do.
        lines.concat() + &crate::services::service("other", 81, "tcp", "nat", "web")
    };
    let (before, taken) = (network.config(&config(false)), network.config(&config(true)));
    network.start(&before);
    let open = |network: &Network| -> Vec<(TcpStream, String)> {
        network.client.run(|| {
            let one = |_| {
                let mut stream = connect("10.1.0.1:80".parse().unwrap(), PATIENCE).unwrap();
                let answer = exchange(&mut stream).unwrap();
                (stream, answer)
            };
            (0..10).map(one).collect()
        })
    };
    let go_on = |streams: &mut Vec<(TcpStream, String)>| {
        for (stream, first) in streams {
            assert_eq!(&exchange(stream).unwrap(), first, "a connection stays where it is");
        }
    };
    let mut sockets = open(&network);
    assert!(network.reload(&taken).contains("pass complete"));
    let begun = until_taken(&network);
    // What the listener has accepted it keeps.
    go_on(&mut sockets);
    network.metric("xdp_packets_total", &[("action", "pass_to_listener")], |packets| packets > 0.0);
    let mut kernel = open(&network);
    flows(&network, "10.1.0.1:80", begun + 10.0);
    assert!(network.reload(&before).contains("pass complete"));
    network.metric("xdp_backend_flows_total", &[("service", "10.1.0.1:80")], |flows| flows == 0.0);
    let mut more = open(&network);
    go_on(&mut sockets);
    go_on(&mut more);
    // The kernel's connections end, and do not hang.
    for (stream, _) in &mut kernel {
        exchange(stream).unwrap_err();
    }
    // While the kernel has no backend the listener is asked.
    assert!(network.reload(&taken).contains("pass complete"));
    until_taken(&network);
    let passed = network.metric("xdp_packets_total", &[("action", "pass_to_listener")], |_| true);
    network.backends.iter().for_each(|backend| backend.run(|| ip("link set b0 down\n")));
    let asked = testkit::poll(PATIENCE, || {
        network.client.run(|| _ = ask(V4, 80));
        let now = network.metric("xdp_packets_total", &[("action", "pass_to_listener")], |_| true);
        (now > passed).then_some(())
    });
    assert!(asked.is_some());
    network.metric("xdp_packets_total", &[("action", "drop_no_backend")], |dropped| dropped == 0.0);
}
