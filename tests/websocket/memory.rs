//! Peers that never read: back-pressure all the way, and bounded memory.

use crate::rig::{Cell, Rig};
use testkit::Usage;

const MIB: u64 = 1 << 20;

pub(crate) fn a_client_that_never_reads_costs_no_memory(cell: Cell) {
    let rig = Rig::new(cell, &[]);
    rig.client("echo", &["--count", "1"]);
    let usage = Usage::watch(&rig.gateway);
    // 6 GiB, of which no more leaves the backend than sockets and windows hold.
    rig.client("never_read", &["--path", "/flood/100000", "--seconds", "3", "--plain"]);
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
    let seen = rig.client("write_only", &["--path", "/deaf", "--size", &size, "--seconds", "2", "--plain"]);
    assert_eq!(seen["stalled"], true, "{seen}");
    assert!(seen["sent"].as_u64().unwrap() < 64 * MIB, "{seen}");
    usage.assert_grew_less_than(&rig.gateway, 16 * MIB);
    // Others are served while that tunnel is still stuck.
    assert_eq!(rig.client("echo", &["--count", "1"])["right"], 1);
}
