//! What a packet costs in the programs, in nanoseconds on one core, beside Katran where its object and its harness are.
//!
//! `cargo bench -p lb-l4-xdp`, as root. The kernel runs the programs (`BPF_PROG_TEST_RUN`) through one that makes the packet again what it was
//! (`wrap.bin`); what that costs alone is taken off, and what it costs to cut off again what a program has put before the packet. `KATRAN="kat5 balancer.bpf.o"` also runs a harness that times Katran in the same way, and
//! prints what it says: its own wrapper has to be taken off there.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a benchmark fails by panicking")]
#![allow(clippy::indexing_slicing, reason = "a benchmark fails by panicking")]
#![allow(clippy::print_stdout, reason = "the figures")]
#![allow(dead_code, reason = "the rig is that of the tests, which use more of it")]

#[path = "../tests/hosts/mod.rs"]
mod hosts;
#[path = "../tests/programs/packets.rs"]
mod packets;
#[path = "../tests/programs/rig.rs"]
mod rig;

use std::process::Command;

use aya::maps::{Array, ProgramArray};
use aya::programs::{ProgramFd, TestRun as _, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader, Pod};
use lb_l4_xdp::layout::Mode;
use packets::{ACK, Packet, SYN};
use rig::Rig;

const RUNS: u32 = 1_000_000;
const ROUNDS: usize = 7;

/// As `wrap.rs` has it.
#[repr(C)]
#[derive(Clone, Copy)]
struct Template {
    length: u32,
    flows: u32,
    next: u32,
    is_ipv6: u32,
    words: [u64; 8],
}

// SAFETY: integers and an array of them, without padding.
#[expect(unsafe_code, reason = "a promise about memory")]
unsafe impl Pod for Template {}

struct Bench {
    wrap: Ebpf,
    eth0: u32,
}

impl Bench {
    /// The least and the median of all rounds, gross.
    fn time(&mut self, program: &ProgramFd, frame: &[u8], flows: u32) -> (u64, u64) {
        let mut template = Template {
            length: frame.len() as u32,
            flows,
            next: 0,
            is_ipv6: u32::from(frame[14] >> 4 == 6),
            words: [0; 8],
        };
        for (word, octets) in template.words.iter_mut().zip(frame.chunks_exact(8)) {
            *word = u64::from_ne_bytes(octets.try_into().unwrap());
        }
        let mut table: Array<_, Template> = self.wrap.map_mut("TEMPLATE").unwrap().try_into().unwrap();
        table.set(0, template, 0).unwrap();
        let mut under_test: ProgramArray<_> = self.wrap.map_mut("UNDER_TEST").unwrap().try_into().unwrap();
        under_test.set(0, program, 0).unwrap();
        let eth0 = self.eth0;
        let wrap: &mut Xdp = self.wrap.program_mut("wrap").unwrap().try_into().unwrap();
        measure(wrap, frame, eth0)
    }

    fn program(&mut self, name: &str) -> &mut Xdp {
        self.wrap.program_mut(name).unwrap().try_into().unwrap()
    }
}

fn measure(program: &mut Xdp, frame: &[u8], eth0: u32) -> (u64, u64) {
    let mut context = [0u8; 24];
    context[4..8].copy_from_slice(&(frame.len() as u32).to_ne_bytes());
    context[12..16].copy_from_slice(&eth0.to_ne_bytes());
    let mut rounds: Vec<u64> = (0..ROUNDS)
        .map(|_| {
            let options = TestRunOptions {
                data_in: Some(frame),
                ctx_in: Some(&context),
                repeat: RUNS,
                ..TestRunOptions::default()
            };
            let result = program.test_run(options).unwrap_or_else(|error| panic!("{error:?}"));
            assert_ne!(result.return_value, rig::ABORTED);
            result.duration.as_nanos() as u64
        })
        .collect();
    rounds.sort_unstable();
    (rounds[0], rounds[ROUNDS / 2])
}

fn main() {
    if !hosts::is_able() || std::env::args().any(|argument| argument == "--test" || argument == "--list") {
        println!("needs root and the object");
        return;
    }
    let mut rig = Rig::with_flows(1 << 20);
    let mut wrap = EbpfLoader::new().load(aya::include_bytes_aligned!("wrap.bin")).unwrap();
    for name in ["wrap", "nothing", "longer", "floor"] {
        let program: &mut Xdp = wrap.program_mut(name).unwrap().try_into().unwrap();
        program.load().unwrap();
    }
    let mut bench = Bench { wrap, eth0: rig.eth0 };
    // Backends on the interface of arrival, so that packets leave by XDP_TX, as Katran's do.
    rig.service("10.9.0.1", 80, Mode::Ipip, &["10.1.0.21"]);
    rig.service("fd00:9::1", 80, Mode::Ipip, &["fd00:1::9"]);
    rig.service("10.9.0.2", 80, Mode::Nat, &["10.1.0.21"]);
    rig.service("10.9.0.3", 80, Mode::Gue, &["10.1.0.21"]);
    rig.service("10.9.0.4", 80, Mode::Link, &["10.1.0.21"]);
    let tcp = |vip, flags| Packet::tcp(("10.1.0.9", 31_337), (vip, 80), flags).with_data(10).frame();
    let udp = |vip| Packet::udp(("10.1.0.9", 31_337), (vip, 80), &[0; 22]).frame();
    let six = Packet::tcp(("fd00:1::9", 31_337), ("fd00:9::1", 80), ACK).with_data(4).frame();

    let eth0 = bench.eth0;
    let floor = measure(bench.program("floor"), &tcp("10.9.0.1", ACK), eth0);
    println!("XDP_PASS, gross                          least {:5}  median {:5}", floor.0, floor.1);
    let [nothing, longer] =
        ["nothing", "longer"].map(|name| bench.program(name).fd().unwrap().try_clone().unwrap());
    let entry = rig.plane.entry().unwrap().fd().unwrap().try_clone().unwrap();
    let plain = tcp("10.9.0.1", ACK);
    // By whether there are many flows, and by whether packets become longer.
    let mut bases = [[(0, 0); 2]; 2];
    for (base, flows) in bases.iter_mut().zip([1, 100_000]) {
        let [alone, cut] = [&nothing, &longer].map(|program| bench.time(program, &plain, flows));
        let half = |alone: u64, cut: u64| alone + cut.saturating_sub(alone) / 2;
        *base = [alone, (half(alone.0, cut.0), half(alone.1, cut.1))];
    }
    for (base, name) in bases.iter().zip(["one flow", "many flows"]) {
        for (base, what) in base.iter().zip(["alone", "and what it cuts off"]) {
            let name = format!("wrapper {what}, {name}, gross");
            println!("{name:40} least {:5}  median {:5}", base.0, base.1);
        }
    }
    let mut row = |rig: &mut Rig, name: &str, frame: &[u8], flows: u32| {
        let _ = rig;
        // Flows that are new at first are known in later rounds.
        let (least, median) = bench.time(&entry, frame, flows);
        let is_wrapped = name.starts_with("ipip") || name.starts_with("gue");
        let base = bases[usize::from(flows > 1)][usize::from(is_wrapped)];
        println!(
            "{name:40} least {:5}  median {:5}",
            least.saturating_sub(base.0),
            median.saturating_sub(base.1)
        );
    };
    for (name, vip) in [("ipip", "10.9.0.1"), ("nat", "10.9.0.2"), ("gue", "10.9.0.3"), ("l2", "10.9.0.4")] {
        row(&mut rig, &format!("{name}, TCP, flow begins"), &tcp(vip, SYN), 1);
        row(&mut rig, &format!("{name}, TCP, known flow"), &tcp(vip, ACK), 1);
        row(&mut rig, &format!("{name}, UDP, known flow"), &udp(vip), 1);
    }
    row(&mut rig, "ipip, IPv6, TCP, known flow", &six, 1);
    row(&mut rig, "ipip, TCP, 10,000 known flows", &tcp("10.9.0.1", ACK), 10_000);
    row(&mut rig, "ipip, TCP, 100,000 known flows", &tcp("10.9.0.1", ACK), 100_000);
    row(&mut rig, "not for a service", &tcp("10.9.0.77", ACK), 1);
    row(&mut rig, "ipip, flood of new flows, all kept", &tcp("10.9.0.1", SYN), u32::MAX);
    rig.set(|settings| settings.new_flows_per_core = 1);
    row(&mut rig, "ipip, new flows by the ring alone", &tcp("10.9.0.1", ACK), u32::MAX);
    row(&mut rig, "ipip, new SYNs by the ring alone", &tcp("10.9.0.1", SYN), u32::MAX);
    for ((name, size), (_, verified)) in
        rig.plane.sizes().unwrap().into_iter().zip(rig.plane.verified().unwrap())
    {
        println!("{name:40} instructions {size:5}  looked at by the verifier {verified:6}");
    }
    if let Ok(command) = std::env::var("KATRAN") {
        let mut words = command.split_whitespace();
        let status = Command::new(words.next().unwrap())
            .args(words)
            .args([&RUNS.to_string(), &ROUNDS.to_string()])
            .status();
        assert!(status.unwrap().success());
    }
}
