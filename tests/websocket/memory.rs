//! Peers that never read: back-pressure all the way, and bounded memory.

use crate::rig::{Cell, Rig};
use serde_json::Value;
use testkit::Usage;

const MIB: u64 = 1 << 20;

/// Tunnels that are stuck at the same time.
const TUNNELS: usize = 4;

/// Runs the scenario in all tunnels at once.
fn in_all(rig: &Rig, name: &str, args: &[&str]) -> Vec<Value> {
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..TUNNELS).map(|_| scope.spawn(|| rig.client(name, args))).collect();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    })
}

pub(crate) fn a_client_that_never_reads_costs_no_memory(cell: Cell) {
    let rig = Rig::new(cell, &[]);
    rig.client("echo", &["--count", "1"]);
    let usage = Usage::watch(&rig.gateway);
    // 6 GiB for each, of which no more leaves the backend than sockets and windows hold.
    in_all(&rig, "never_read", &["--path", "/flood/100000", "--seconds", "5", "--plain"]);
    let sent =
        rig.server.events("sent").iter().filter_map(|event| event["messages"].as_u64()).max().unwrap_or(0);
    assert!(sent * 65536 < 64 * MIB, "the backend sent {} MiB", sent * 65536 / MIB);
    usage.assert_grew_less_than(&rig.gateway, 16 * MIB);
}

pub(crate) fn a_backend_that_never_reads_costs_no_memory(cell: Cell) {
    let rig = Rig::new(cell, &[]);
    rig.client("echo", &["--count", "1"]);
    let usage = Usage::watch(&rig.gateway);
    let size = (512 * MIB).to_string();
    for seen in in_all(&rig, "write_only", &["--path", "/deaf", "--size", &size, "--seconds", "3", "--plain"])
    {
        assert_eq!(seen["stalled"], true, "{seen}");
        assert!(seen["sent"].as_u64().unwrap() < 64 * MIB, "{seen}");
    }
    usage.assert_grew_less_than(&rig.gateway, 16 * MIB);
    // Others are served while those tunnels are still stuck; not where they share a connection whose credit is used up, since this server
    // gives a connection no more of it than a stream, and none back.
    if !cell.back_h2 {
        assert_eq!(rig.client("echo", &["--count", "1"])["right"], 1);
    }
}
