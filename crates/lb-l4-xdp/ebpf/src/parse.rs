//! Leaves what the entry does not finish to the program that does: VLAN tags, IP options, extension headers, fragments, ICMP, and packets in several buffers.
//!
//! What cannot be parsed is dropped if a service has its address, and passed otherwise: the kernel may know what to do with it (L4-01).

use aya_ebpf::programs::XdpContext;
use lb_l4_xdp_layout::{
    Backend, Event, FragmentKey4, FragmentKey6, FragmentPorts, PacketFlags, PacketNote,
    read::{Kind, read},
    stage,
};

use crate::{
    clock,
    count::{count, discard, leave_to, pass},
    entry::settings,
    flow::{find, leave_known},
    maps::{FRAGMENTS4, FRAGMENTS6, NOTE},
    packet::Packet,
    services::{DENY, is_vip, rule},
};

/// Fragments of a packet arrive within so many ticks, about 30 seconds, as the kernel has it.
const FRAGMENT_LIFE: i32 = 28_610;

#[inline(always)]
pub fn parse(ctx: &XdpContext) -> u32 {
    let Some(note) = NOTE.get_ptr_mut(0) else { return discard(Event::DropNoProgram) };
    // SAFETY: the note belongs to this core, and to this packet until its verdict.
    let note = unsafe { &mut *note };
    note.flags = 0;
    note.now = clock::now();
    match read(&Packet(ctx), note) {
        Kind::NotIp => pass(Event::PassNotIp),
        Kind::Malformed(event) if is_vip(note) => discard(event),
        Kind::Malformed(_) => pass(Event::PassNotOurs),
        Kind::Other => pass(if is_vip(note) { Event::PassIcmp } else { Event::PassNotOurs }),
        Kind::Error => leave_to(stage::ICMP),
        Kind::LaterFragment => later(note),
        Kind::Flow => first(note),
    }
}

/// A packet of a flow, or the first fragment of one.
#[inline(always)]
fn first(note: &mut PacketNote) -> u32 {
    let found = match settings() {
        Some(settings) => find(note, settings),
        None => return pass(Event::PassNoSettings),
    };
    if found.is_none() && !is_vip(note) {
        return pass(Event::PassNotOurs);
    }
    if note.flags & PacketFlags::FIRST_FRAGMENT != 0 {
        let told = FragmentPorts { ports: note.ports, seen: note.now };
        let _ = if note.flags & PacketFlags::IPV6 == 0 {
            FRAGMENTS4.insert(&fragment4(note), &told, 0)
        } else {
            FRAGMENTS6.insert(&fragment6(note), &told, 0)
        };
    }
    route(note, found)
}

#[inline(always)]
fn fragment4(note: &PacketNote) -> FragmentKey4 {
    FragmentKey4 {
        source: note.source[0],
        destination: note.destination[0],
        identification: note.identification,
        protocol: note.protocol,
    }
}

#[inline(always)]
fn fragment6(note: &PacketNote) -> FragmentKey6 {
    FragmentKey6 {
        source: note.source,
        destination: note.destination,
        identification: note.identification,
        protocol: note.protocol,
    }
}

/// A fragment other than the first.
#[inline(always)]
fn later(note: &mut PacketNote) -> u32 {
    let first = if note.flags & PacketFlags::IPV6 == 0 {
        FRAGMENTS4.get_ptr(&fragment4(note))
    } else {
        FRAGMENTS6.get_ptr(&fragment6(note))
    };
    let Some(first) = first else { return pass(Event::PassFragment) };
    // SAFETY: the entry is valid while the program runs.
    let first: &FragmentPorts = unsafe { &*first };
    if note.now.wrapping_sub(first.seen) as i32 > FRAGMENT_LIFE {
        return pass(Event::PassFragment);
    }
    note.ports = first.ports;
    note.flags |= PacketFlags::LATER_FRAGMENT;
    count(Event::FragmentForwarded);
    let found = match settings() {
        Some(settings) => find(note, settings),
        None => return pass(Event::PassNoSettings),
    };
    route(note, found)
}

/// Leaves a packet for a service to the program of its flow.
#[inline(always)]
fn route(note: &mut PacketNote, found: Option<(u8, &'static Backend)>) -> u32 {
    let Some((kind, backend)) = found else { return leave_to(stage::CHOOSE) };
    if settings().is_some_and(|settings| rule(settings, note) == DENY) {
        return discard(Event::DropDenied);
    }
    leave_known(note, kind, backend)
}
