//! What the process may do, and what its interfaces can.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use crate::rig::{Network, ask};
use crate::services::{pool, service};
use testkit::seconds;

/// linux/capability.h
const CAP_NET_ADMIN: libc::c_int = 12;
const CAP_PERFMON: libc::c_int = 38;
const CAP_BPF: libc::c_int = 39;

/// Leaves the process these capabilities alone.
fn with_only(command: &mut Command, kept: &'static [libc::c_int]) {
    // SAFETY: prctl is a bare system call, which is allowed between fork and exec.
    unsafe {
        command.pre_exec(move || {
            for capability in (0..64).filter(|one| !kept.contains(one)) {
                // Those that the kernel does not know are refused.
                libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0);
            }
            Ok(())
        });
    }
}

/// No CAP_SYS_ADMIN, and nothing else that root has (L4-10).
pub(crate) fn l4_10_three_capabilities_are_enough(mode: &'static str) {
    let mut network = Network::new(mode);
    let lines = [service("web", 80, "tcp", "nat", "web"), pool("web", 8080, "")].concat();
    let config = network.config(&format!("at_shutdown = \"detach\"\n{lines}"));
    network.start_with(&config, |command| with_only(command, &[CAP_NET_ADMIN, CAP_PERFMON, CAP_BPF]));
    network.until_served_by(80, &["backend1", "backend2", "backend3"]);
    network.metric("xdp_conntrack_entries_current", &[("family", "v4")], |entries| entries > 0.0);
    assert_eq!(network.stop(), 0);
    // The kernel takes the programs off a moment after their last name is gone.
    let is_off =
        testkit::poll(seconds(20), || network.client.run(|| ask("10.9.0.1", 80).is_err()).then_some(()));
    assert!(is_off.is_some());
}

pub(crate) fn l4_10_two_capabilities_are_not(mode: &'static str) {
    let mut network = Network::new(mode);
    let config = network.config(&[service("web", 80, "tcp", "nat", "web"), pool("web", 8080, "")].concat());
    network.launch_with(&config, |command| with_only(command, &[CAP_NET_ADMIN, CAP_BPF]));
    let process = network.process.as_mut().unwrap();
    assert_eq!(process.wait_exit(seconds(20)), Some(1), "{}", process.tail(20));
    assert!(process.tail(20).contains("CAP_PERFMON"), "{}", process.tail(20));
}

/// The loopback interface has no driver that runs programs.
pub(crate) fn a_driver_that_cannot_is_told(mode: &'static str) {
    let mut network = Network::new(mode);
    let lines = [service("web", 80, "tcp", "nat", "web"), pool("web", 8080, "")].concat();
    let of = |wanted: &str| {
        network
            .config_on("lo", &lines)
            .replace(&format!("xdp_mode = \"{mode}\""), &format!("xdp_mode = \"{wanted}\""))
    };
    let (native, auto) = (of("native"), of("auto"));
    network.launch(&native);
    let process = network.process.as_mut().unwrap();
    assert_eq!(process.wait_exit(seconds(20)), Some(1), "{}", process.tail(20));
    assert!(process.tail(20).contains("XDP cannot be attached to lo"), "{}", process.tail(20));
    network.start(&auto);
    network.metric("xdp_attach_probe_failed_total", &[], |failed| failed == 1.0);
    network.metric("xdp_attached_mode", &[("mode", "skb")], |interfaces| interfaces == 1.0);
    let said = network.process.as_ref().unwrap().tail(100);
    assert!(said.contains("the driver does not run XDP programs"), "{said}");
    // An interface that is configured no more is given back at the next start.
    assert_eq!(network.stop(), 0);
    let elsewhere = network.config(&lines);
    network.start(&elsewhere);
    network.metric("xdp_detach_total", &[("result", "ok")], |interfaces| interfaces == 1.0);
    network.metric("xdp_detach_total", &[("result", "failed")], |interfaces| interfaces == 0.0);
}
