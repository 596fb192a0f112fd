//! Chooses the backend of a new flow by the ring of its service, and remembers it.

use aya_ebpf::programs::XdpContext;
use lb_l4_xdp_layout::{
    Event, Flow4, Flow6, FlowHead, FlowKind, MAX_SOURCE_RATES, Mode, NO_BACKEND, PacketFlags, PacketNote,
    Service, Settings, Standing, flow_hash4, flow_hash6, mix, ring_slot, stage,
};

use crate::{
    count::{CoreRate, count, discard, flow_begun, leave_to, pass, tick, within},
    entry::settings,
    flow::{first_state, key4, key6, stage_of},
    maps::{BACKENDS, FLOWS4, FLOWS6, NOTE, RINGS, SERVICES, SOURCE_RATES},
    packet::{TCP, differs},
    quic::named,
    services::{ALLOW, DENY, rule, service_of},
    syn::{is_local, local},
};

/// Slots that are tried until one has a live backend: between a change of a backend and that of its ring a packet may find an old slot.
const MOST_SLOTS: u32 = 16;

#[inline(always)]
pub fn choose(ctx: &XdpContext) -> u32 {
    let Some(note) = NOTE.get_ptr_mut(0) else { return discard(Event::DropNoProgram) };
    // SAFETY: the note belongs to this core, and to this packet until its verdict.
    let note = unsafe { &mut *note };
    let Some(settings) = settings() else { return pass(Event::PassNoSettings) };
    let is_error = note.flags & PacketFlags::ICMP_ERROR != 0;
    let Some(index) = service_of(note) else {
        return pass(if is_error { Event::PassIcmp } else { Event::PassNotOurs });
    };
    let Some(service) = SERVICES.get(index).filter(|service| service.present != 0) else {
        return pass(Event::PassNotOurs);
    };
    let rule = rule(settings, note);
    if rule == DENY {
        return discard(Event::DropDenied);
    }
    if is_own_source(note) {
        return discard(Event::DropLoop);
    }
    if is_local(service) {
        return local(note, index, service);
    }
    let ports = if service.by_source != 0 { 0 } else { note.ports };
    let hash = hash_of(note, ports, settings.hash_seed);
    let mut tried = hash;
    let mut chosen = named(ctx, note, index, service);
    if chosen.is_some() {
        count(Event::FlowByConnectionId);
    }
    let mut left = MOST_SLOTS;
    while left > 0 && chosen.is_none() {
        left -= 1;
        let slot = RINGS.get_value(index, &ring_slot(tried)).copied().unwrap_or(NO_BACKEND);
        if let Some(backend) = BACKENDS.get(slot).filter(|backend| backend.standing == Standing::Live as u8) {
            chosen = Some((slot, backend));
        }
        tried = (mix(u64::from(tried)) >> 32) as u32;
    }
    let Some((slot, backend)) = chosen else { return give_up(service, Event::DropNoBackend) };
    let is_ipv6 = note.flags & PacketFlags::IPV6 != 0;
    // A packet of one of our tunnels that has come back (L4-05).
    if (backend.is_ipv6 != 0) == is_ipv6 {
        let last = if is_ipv6 { 3 } else { 0 };
        let differs = if is_ipv6 {
            (note.source[0] ^ backend.outer_source[0])
                | (note.source[1] ^ backend.outer_source[1])
                | (note.source[2] ^ backend.outer_source[2])
        } else {
            0
        };
        let differs_last = (note.source[last] ^ backend.outer_source[last]) & !backend.spread_mask;
        if differs | differs_last == 0 {
            return discard(Event::DropLoop);
        }
    }
    note.backend = slot;
    note.service = index;
    note.hash = hash;
    let is_translated = service.mode == Mode::Nat as u8;
    if is_error {
        // About a flow that this gateway has not kept. There is nothing to translate it by.
        if is_translated {
            return give_up(service, Event::DropUnknownFlow);
        }
        if !within(CoreRate::IcmpForwarded, note.now, settings.icmp_per_core) {
            return discard(Event::DropIcmpCap);
        }
        count(Event::IcmpForwarded);
        return leave_to(stage_of(FlowKind::Direct as u8, backend.mode));
    }
    if is_translated {
        let is_start = note.protocol != u32::from(TCP) || note.flags & PacketFlags::SYN != 0;
        if !is_start || note.flags & PacketFlags::LATER_FRAGMENT != 0 {
            return give_up(service, Event::DropUnknownFlow);
        }
    }
    if rule != ALLOW && !source_may(settings, note) {
        return discard(Event::DropSourceCap);
    }
    let is_kept = within(CoreRate::NewFlows, note.now, settings.new_flows_per_core);
    if is_translated {
        if !is_kept {
            return give_up(service, Event::DropCoreCap);
        }
        return leave_to(stage::ALLOCATE);
    }
    if is_kept {
        let head = FlowHead {
            backend: slot,
            generation: backend.generation,
            seen: note.now,
            service: index as u16,
            kind: FlowKind::Direct as u8,
            state: first_state(note.protocol),
        };
        let done = if is_ipv6 {
            FLOWS6.insert(&key6(note), &Flow6 { head, ..EMPTY6 }, 0)
        } else {
            FLOWS4.insert(&key4(note), &Flow4 { head, ..EMPTY4 }, 0)
        };
        if done.is_err() {
            count(Event::TableRefused);
        }
        flow_begun(slot);
    } else {
        count(Event::NewFlowNotKept);
    }
    leave_to(stage_of(FlowKind::Direct as u8, backend.mode))
}

/// What becomes of a packet that leads to no backend: a listener of the same address gets it, and without one it is dropped. A connection that the
/// listener has accepted goes on there, since only the first packet of one begins a flow here.
#[inline(always)]
pub fn give_up(service: &Service, event: Event) -> u32 {
    if service.has_listener != 0 { pass(Event::PassToListener) } else { discard(event) }
}

/// Whether a packet names its own destination as its source.
#[inline(always)]
fn is_own_source(note: &PacketNote) -> bool {
    let (source, destination) = (&note.source, &note.destination);
    if note.flags & PacketFlags::IPV6 == 0 {
        source[0] == destination[0]
    } else {
        !differs(source, destination)
    }
}

/// The hash of a packet's flow with other ports.
#[inline(always)]
pub fn hash_of(note: &PacketNote, ports: u32, seed: u32) -> u32 {
    if note.flags & PacketFlags::IPV6 == 0 {
        let mut key = key4(note);
        key.ports = ports;
        flow_hash4(&key, seed)
    } else {
        let mut key = key6(note);
        key.ports = ports;
        flow_hash6(&key, seed)
    }
}

/// Counts a new flow of a source; false past its cap.
#[inline(always)]
fn source_may(settings: &Settings, note: &PacketNote) -> bool {
    if settings.new_flows_per_source == 0 {
        return true;
    }
    // Whoever has an address over IPv6 has a whole network of them (L4-03).
    let source = if note.flags & PacketFlags::IPV6 == 0 {
        u64::from(note.source[0])
    } else {
        u64::from(note.source[0]) << 32 | u64::from(note.source[1])
    };
    let seed = u64::from(settings.source_seed);
    let bucket = (mix(source ^ (seed << 32 | seed)) >> 48) as u32;
    let Some(rate) = SOURCE_RATES.get_ptr_mut(bucket & (MAX_SOURCE_RATES - 1)) else { return false };
    // SAFETY: a value of a map; cores that count at the same time may lose an event.
    unsafe { tick(rate, note.now, settings.new_flows_per_source) }
}

const EMPTY_HEAD: FlowHead = FlowHead { backend: 0, generation: 0, seen: 0, service: 0, kind: 0, state: 0 };
const EMPTY4: Flow4 = Flow4 {
    head: EMPTY_HEAD,
    rewrite: lb_l4_xdp_layout::Rewrite4 { source: 0, destination: 0, ports: 0 },
    spare: 0,
};
const EMPTY6: Flow6 = Flow6 {
    head: EMPTY_HEAD,
    rewrite: lb_l4_xdp_layout::Rewrite6 { source: [0; 4], destination: [0; 4], ports: 0 },
    spare: 0,
};
