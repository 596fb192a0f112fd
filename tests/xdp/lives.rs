//! Processes that end and start while packets are forwarded.

use crate::rig::{Network, PATIENCE, ask, connect, exchange};
use crate::services::{pool, service};

pub(crate) fn flows_go_on_over_a_restart(mode: &'static str) {
    let mut network = Network::new(mode);
    let config = network.config(&[service("web", 80, "tcp", "nat", "web"), pool("web", 8080, "")].concat());
    network.start(&config);
    let mut streams: Vec<_> = network.client.run(|| {
        let one = |_| {
            let mut stream = connect("10.9.0.1:80".parse().unwrap(), PATIENCE).unwrap();
            let answer = exchange(&mut stream).unwrap();
            (stream, answer)
        };
        (0..20).map(one).collect()
    });
    for _ in 0..2 {
        assert_eq!(network.stop(), 0);
        for (stream, first) in &mut streams {
            assert_eq!(&exchange(stream).unwrap(), first, "nobody is there, and the flow goes on");
        }
        // And so do new ones.
        assert!(network.client.run(|| ask("10.9.0.1", 80)).unwrap().starts_with("backend"));
        network.start(&config);
        network.metric("xdp_attached_mode", &[("mode", "kept")], |interfaces| interfaces == 4.0);
        for (stream, first) in &mut streams {
            assert_eq!(&exchange(stream).unwrap(), first, "the next process knows the flow");
        }
    }
    // Another number of flows would be another table.
    assert_eq!(network.stop(), 0);
    network.launch(&config.replace("max_flows_v4 = 16384", "max_flows_v4 = 32768"));
    let process = network.process.as_mut().unwrap();
    assert_eq!(process.wait_exit(PATIENCE), Some(1));
    assert!(process.tail(20).contains("FLOWS4"), "{}", process.tail(20));
    assert_eq!(exchange(&mut streams[0].0).unwrap(), streams[0].1);
}

pub(crate) fn at_its_end_it_can_detach(mode: &'static str) {
    let mut network = Network::new(mode);
    let lines = [service("web", 80, "tcp", "nat", "web"), pool("web", 8080, "")].concat();
    let config = network.config(&format!("at_shutdown = \"detach\"\n{lines}"));
    network.start(&config);
    network.client.run(|| ask("10.9.0.1", 80)).unwrap();
    assert_eq!(network.stop(), 0);
    // The kernel takes the programs off a moment after their last name is gone.
    let is_off =
        testkit::poll(PATIENCE, || network.client.run(|| ask("10.9.0.1", 80).is_err()).then_some(()));
    assert!(is_off.is_some());
    let left = std::fs::read_dir(network.pins()).unwrap().count();
    assert_eq!(left, 0);
    let status = testkit::gateway::cli(&["xdp", "status", "--pins", network.pins().to_str().unwrap()]);
    assert_eq!(status.code, 1, "{}", status.stdout);
    assert!(status.stderr.contains("nothing is pinned here"), "{}", status.stderr);
}
