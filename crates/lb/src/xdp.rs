//! `expressgateway xdp`: what is balanced in the kernel, read from where it is pinned. It needs no process that runs.

mod flows;

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;

use lb_control::ProcessOutcome;
use lb_l4_xdp::layout::{AclRule, Backend, EVENT_NAMES, MAX_BACKENDS, MAX_SERVICES, Mode, Service, Standing};
use lb_l4_xdp::{Census, Pins, Tables, Vip, address};

use crate::cli::{XdpArgs, XdpCommand};
use flows::Flows;

/// Looks at the pins, or takes them away.
pub(crate) fn run(args: &XdpArgs) -> anyhow::Result<ProcessOutcome> {
    let mut out = std::io::stdout().lock();
    match &args.command {
        XdpCommand::Status(place) => {
            let pins = Pins::existing(&place.pins)?;
            let status = Status::read(&pins)?;
            if place.json {
                writeln!(out, "{}", status.json())?;
            } else {
                status.write(&mut out, &place.pins)?;
            }
        }
        XdpCommand::Flows(args) => {
            let flows = Flows::read(&Pins::existing(&args.place.pins)?, args.limit)?;
            if args.place.json {
                writeln!(out, "{}", flows.json())?;
            } else {
                flows.write(&mut out)?;
            }
        }
        XdpCommand::Detach(place) => {
            let interfaces = Pins::existing(&place.pins)?.detach()?;
            if place.json {
                let names: Vec<String> = interfaces.iter().map(|name| quoted(name)).collect();
                writeln!(out, "{{\"detached\":[{}]}}", names.join(","))?;
            } else if interfaces.is_empty() {
                writeln!(out, "nothing was attached")?;
            } else {
                writeln!(out, "detached from {}", interfaces.join(", "))?;
            }
        }
    }
    Ok(ProcessOutcome::Clean)
}

/// What is pinned.
struct Status {
    interfaces: Vec<String>,
    tables: Tables,
    census: Census,
    events: Vec<(&'static str, u64)>,
    backends: Vec<OneBackend>,
}

/// A backend of a service, with what it has been sent.
struct OneBackend {
    vip: Vip,
    address: String,
    standing: &'static str,
    flows: u64,
    /// Flows that go on.
    live: u32,
    packets: [u64; 2],
    bytes: [u64; 2],
}

impl Status {
    fn read(pins: &Pins) -> anyhow::Result<Self> {
        let tables = pins.tables()?;
        let census = pins.census(&tables)?;
        let events = pins.events()?;
        let events = EVENT_NAMES.iter().zip(events).map(|(name, (_, count))| (*name, count)).collect();
        let mut backends = Vec::new();
        for (vip, index) in tables.vips() {
            let of_service: Vec<(u32, &Backend)> = tables.backends_of(index).collect();
            let indices: Vec<u32> = of_service.iter().map(|(at, _)| *at).collect();
            for ((at, backend), counts) in of_service.iter().zip(pins.counters(&indices)?) {
                backends.push(OneBackend {
                    vip: *vip,
                    address: place_of(backend),
                    standing: if backend.standing == Standing::Live as u8 { "live" } else { "draining" },
                    flows: counts.flows,
                    live: census.by_backend.get(at).copied().unwrap_or(0),
                    packets: [counts.packets, counts.reply_packets],
                    bytes: [counts.bytes, counts.reply_bytes],
                });
            }
        }
        Ok(Self { interfaces: pins.interfaces()?, tables, census, events, backends })
    }

    fn write(&self, out: &mut impl Write, pins: &Path) -> std::io::Result<()> {
        writeln!(out, "pinned at {}, attached to {}", pins.display(), list(&self.interfaces))?;
        for table in self.uses() {
            writeln!(out, "{}: {} of {} in use{}", table.name, table.used, table.capacity, table.note())?;
        }
        for (vip, index) in self.tables.vips() {
            let mode = self.tables.service(index).map_or("unknown", mode_of);
            writeln!(out, "\n{} {mode}", shown(vip))?;
            for one in self.backends.iter().filter(|one| one.vip == *vip) {
                writeln!(
                    out,
                    "  {:<28} {:<9} {} flows go on of {}, {} packets ({} bytes) to it, {} ({}) from it",
                    one.address,
                    one.standing,
                    one.live,
                    one.flows,
                    one.packets[0],
                    one.bytes[0],
                    one.packets[1],
                    one.bytes[1]
                )?;
            }
        }
        for ((network, prefix), rule) in self.tables.rules() {
            writeln!(out, "\n{} {network}/{prefix}", rule_name(*rule))?;
        }
        writeln!(out)?;
        for (name, count) in self.events.iter().filter(|(_, count)| *count > 0) {
            writeln!(out, "{count:>12} {name}")?;
        }
        Ok(())
    }

    /// What is limited by the size of a table.
    fn uses(&self) -> Vec<TableUse> {
        let [v4, v6] = &self.census.tables;
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let services = count(self.tables.vips().count());
        let mut uses = vec![
            TableUse { name: "services", used: services, spare: 0, capacity: MAX_SERVICES },
            TableUse { name: "backends", used: count(self.backends.len()), spare: 0, capacity: MAX_BACKENDS },
        ];
        uses.extend([("flows_v4", v4), ("flows_v6", v6)].map(|(name, table)| TableUse {
            name,
            used: table.live,
            spare: table.entries.saturating_sub(table.live),
            capacity: table.capacity,
        }));
        uses
    }

    /// Names and numbers of ours alone: nothing of it needs an escape but the names of interfaces.
    fn json(&self) -> String {
        let interfaces: Vec<String> = self.interfaces.iter().map(|name| quoted(name)).collect();
        let services = self.tables.vips().map(|(vip, index)| {
            let mode = self.tables.service(index).map_or("unknown", mode_of);
            let backends = self.backends.iter().filter(|one| one.vip == *vip).map(|one| {
                let [packets, replies] = one.packets;
                let [bytes, reply_bytes] = one.bytes;
                format!(
                    "{{\"address\":\"{}\",\"standing\":\"{}\",\"flows\":{},\"live_flows\":{},\"packets\":{packets},\"bytes\":{bytes},\
                     \"reply_packets\":{replies},\"reply_bytes\":{reply_bytes}}}",
                    one.address, one.standing, one.flows, one.live
                )
            });
            format!(
                "{{\"address\":\"{}\",\"port\":{},\"protocol\":\"{}\",\"mode\":\"{mode}\",\"backends\":[{}]}}",
                vip.address,
                vip.port,
                protocol(vip),
                backends.collect::<Vec<_>>().join(",")
            )
        });
        let services: Vec<String> = services.collect();
        let rules = self.tables.rules().iter();
        let rules: Vec<String> = rules
            .map(|((network, prefix), rule)| {
                format!("{{\"network\":\"{network}/{prefix}\",\"rule\":\"{}\"}}", rule_name(*rule))
            })
            .collect();
        let events: Vec<String> =
            self.events.iter().map(|(name, count)| format!("\"{name}\":{count}")).collect();
        let tables: Vec<String> = self.uses().iter().map(TableUse::json).collect();
        format!(
            "{{\"interfaces\":[{}],\"tables\":[{}],\"services\":[{}],\"rules\":[{}],\"events\":{{{}}}}}",
            interfaces.join(","),
            tables.join(","),
            services.join(","),
            rules.join(","),
            events.join(",")
        )
    }
}

/// How much of a table is used.
struct TableUse {
    name: &'static str,
    /// What stands for something that is served.
    used: u32,
    /// Entries that are there beyond that, and give way.
    spare: u32,
    capacity: u32,
}

impl TableUse {
    fn note(&self) -> String {
        if self.spare == 0 { String::new() } else { format!(", {} of flows that have ended", self.spare) }
    }

    fn json(&self) -> String {
        let Self { name, used, spare, capacity } = self;
        let entries = used.saturating_add(*spare);
        format!("{{\"table\":\"{name}\",\"live\":{used},\"entries\":{entries},\"capacity\":{capacity}}}")
    }
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.escape_default())
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
}

fn protocol(vip: &Vip) -> &'static str {
    protocol_name(vip.protocol)
}

fn protocol_name(number: u8) -> &'static str {
    if number == 6 { "tcp" } else { "udp" }
}

fn shown(vip: &Vip) -> String {
    let place = match vip.port {
        0 => format!("{}, all ports,", vip.address),
        port => SocketAddr::new(vip.address, port).to_string(),
    };
    format!("{place} {}", protocol(vip))
}

fn place_of(backend: &Backend) -> String {
    let ip = address(backend.address, backend.is_ipv6 != 0);
    match u16::from_be(backend.port) {
        0 => ip.to_string(),
        port => SocketAddr::new(ip, port).to_string(),
    }
}

fn mode_of(service: &Service) -> &'static str {
    const MODES: [(Mode, &str); 4] =
        [(Mode::Ipip, "dsr-ipip"), (Mode::Gue, "dsr-gue"), (Mode::Link, "dsr-l2"), (Mode::Nat, "nat")];
    MODES.iter().find(|(mode, _)| *mode as u8 == service.mode).map_or("unknown", |(_, name)| name)
}

fn rule_name(rule: AclRule) -> &'static str {
    match rule {
        AclRule::Deny => "deny",
        AclRule::Allow => "allow",
    }
}
