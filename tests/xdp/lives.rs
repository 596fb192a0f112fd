//! Processes that end and start while packets are forwarded.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use testkit::process::SIGTERM;
use testkit::successor::Successor;

use crate::changes::{connections, datagrams, question};
use crate::rig::{Network, PATIENCE, ask, connect, exchange};
use crate::services::{pool, service};
use crate::views::json;

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

/// SIGUSR2 with packets under way: none of a flow that is known is lost, or goes to another backend.
pub(crate) fn an_upgrade_under_traffic_loses_nothing(mode: &'static str) {
    let mut network = Network::new(mode);
    let config = network.config(
        &[
            service("web", 80, "tcp", "nat", "web"),
            service("names", 80, "udp", "nat", "web"),
            pool("web", 8080, ""),
        ]
        .concat(),
    );
    network.start(&config);
    let (mut streams, sockets) = (connections(&network, 20), datagrams(&network, 20));
    let is_over = Arc::new(AtomicBool::new(false));
    let stop = Arc::clone(&is_over);
    let traffic = std::thread::spawn(move || {
        let (mut rounds, mut lost) = (0u32, 0u32);
        while !stop.load(Ordering::Relaxed) {
            for (stream, first) in &mut streams {
                assert_eq!(&exchange(stream).unwrap(), first, "each connection stays at its backend");
            }
            for (socket, first) in &sockets {
                match question(socket) {
                    Ok(answer) => assert_eq!(&answer, first, "each flow stays at its backend"),
                    Err(_) => lost += 1,
                }
            }
            rounds += 1;
        }
        (rounds, lost)
    });
    for _ in 0..3 {
        let process = network.process.as_mut().unwrap();
        let successor = Successor::takes_over_from(process);
        // The process that it takes over from ends by itself.
        assert_eq!(process.wait_exit(PATIENCE), Some(0), "{}", process.tail(30));
        // New flows are served by what the new process says, and it has all interfaces.
        assert!(network.client.run(|| ask("10.9.0.1", 80)).unwrap().starts_with("backend"));
        network.metric("xdp_attached_mode", &[("mode", "kept")], |interfaces| interfaces == 4.0);
        successor.signal(SIGTERM);
        let is_gone = testkit::poll(PATIENCE, || (!successor.is_alive()).then_some(()));
        assert!(is_gone.is_some());
        network.start(&config);
    }
    is_over.store(true, Ordering::Relaxed);
    let (rounds, lost) = traffic.join().unwrap();
    assert!(rounds > 20, "{rounds} rounds");
    // A busy machine has TCP send again what is only late. What was dropped is counted over all processes.
    let status = json(&network, "status", &[]);
    let events = status["events"].as_object().unwrap();
    let dropped: Vec<_> =
        events.iter().filter(|(name, count)| name.starts_with("drop") && count.as_u64() != Some(0)).collect();
    assert_eq!((lost, dropped.len()), (0, 0), "in {rounds} rounds: {dropped:?}");
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
