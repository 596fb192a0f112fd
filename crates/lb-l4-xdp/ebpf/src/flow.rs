//! What the table of flows says about a packet.

use lb_l4_xdp_layout::{
    Backend, Event, Flow4, Flow6, FlowHead, FlowKey4, FlowKey6, FlowKind, Mode, PacketFlags, PacketNote,
    Settings, Standing, TcpState, WINDOW_SHIFT, stage,
};

use crate::{
    count::{count, leave_to},
    maps::{BACKENDS, FLOWS4, FLOWS6},
    packet::{TCP, UDP},
};

/// The backend of an entry; none if the entry was idle too long, its backend is gone, or a new connection has its addresses and ports.
#[inline(always)]
pub fn backend_of(head: &FlowHead, settings: &Settings, now: u32, flags: u32) -> Option<&'static Backend> {
    let most = settings.idle[usize::from(head.state & 3)];
    // Another core may have written a later tick.
    if now.wrapping_sub(head.seen) as i32 > most as i32 {
        return None;
    }
    if flags & PacketFlags::SYN != 0 && head.state >= TcpState::Finished as u8 {
        return None;
    }
    let backend = BACKENDS.get(head.backend)?;
    if backend.generation != head.generation || backend.standing == Standing::Absent as u8 {
        return None;
    }
    Some(backend)
}

/// How old an entry may say that it is before a packet writes it anew, in ticks, as a shift: about a quarter of a second. With many flows each write is
/// a line of memory that goes back from the core's cache.
const SEEN_SHIFT: u32 = 8;

/// Writes the packet into its entry. RST is believed only as long as nothing else comes: it may be forged. The flags that follow.
#[inline(always)]
pub fn touch(head: &mut FlowHead, now: u32, flags: u32) -> u32 {
    let mut follow = 0;
    if (head.seen ^ now) >> SEEN_SHIFT != 0 {
        if (head.seen ^ now) >> WINDOW_SHIFT != 0 {
            follow = PacketFlags::REFRESH;
        }
        head.seen = now;
    }
    if flags & (PacketFlags::RST | PacketFlags::FIN) != 0 {
        let is_reset = flags & PacketFlags::RST != 0;
        head.state = if is_reset { TcpState::Reset } else { TcpState::Finished } as u8;
        head.seen = now;
    } else if head.state == TcpState::Reset as u8 {
        head.state = TcpState::Open as u8;
        head.seen = now;
    }
    follow
}

/// The state in which an entry of a protocol begins.
#[inline(always)]
pub fn first_state(protocol: u32) -> u8 {
    if protocol == u32::from(TCP) { TcpState::Open as u8 } else { TcpState::None as u8 }
}

#[inline(always)]
pub fn key4(note: &PacketNote) -> FlowKey4 {
    FlowKey4 {
        source: note.source[0],
        destination: note.destination[0],
        ports: note.ports,
        protocol: note.protocol,
    }
}

#[inline(always)]
pub fn key6(note: &PacketNote) -> FlowKey6 {
    FlowKey6 {
        source: note.source,
        destination: note.destination,
        ports: note.ports,
        protocol: note.protocol,
    }
}

/// The program that forwards a flow.
#[inline(always)]
pub fn stage_of(kind: u8, mode: u8) -> u32 {
    if kind != FlowKind::Direct as u8 {
        stage::TRANSLATE
    } else if mode == Mode::Link as u8 {
        stage::LINK
    } else {
        stage::TUNNEL
    }
}

/// The program that a packet of a known flow is left to. Where connection IDs lead to backends, that of the client is looked at first.
#[inline(always)]
pub fn leave_known(note: &mut PacketNote, kind: u8, backend: &Backend) -> u32 {
    let next = stage_of(kind, backend.mode);
    if backend.by_id != 0 && kind != FlowKind::Reverse as u8 && note.protocol == u32::from(UDP) {
        note.next = next;
        return leave_to(stage::CONNECTION_ID);
    }
    leave_to(next)
}

/// Looks the flow of a note up, and writes backend and rewriting into the note. The kind of the entry, if there is one that may be used, and its backend.
#[inline(always)]
pub fn find(note: &mut PacketNote, settings: &Settings) -> Option<(u8, &'static Backend)> {
    // An ICMP error tells nothing of how far its flow is.
    let is_of_flow = note.flags & PacketFlags::ICMP_ERROR == 0;
    let head = if note.flags & PacketFlags::IPV6 == 0 {
        let flow: *mut Flow4 = FLOWS4.get_ptr_mut(&key4(note))?;
        // SAFETY: the entry is valid while the program runs; words may be of another flow if it is evicted meanwhile.
        let flow = unsafe { &mut *flow };
        note.new_source[0] = flow.rewrite.source;
        note.new_destination[0] = flow.rewrite.destination;
        note.new_ports = flow.rewrite.ports;
        &mut flow.head
    } else {
        let flow: *mut Flow6 = FLOWS6.get_ptr_mut(&key6(note))?;
        // SAFETY: as above.
        let flow = unsafe { &mut *flow };
        note.new_source = flow.rewrite.source;
        note.new_destination = flow.rewrite.destination;
        note.new_ports = flow.rewrite.ports;
        &mut flow.head
    };
    let Some(backend) = backend_of(head, settings, note.now, note.flags) else {
        count(Event::FlowStale);
        return None;
    };
    if is_of_flow {
        note.flags |= touch(head, note.now, note.flags);
    }
    note.backend = head.backend;
    note.service = u32::from(head.service);
    if head.kind == FlowKind::Reverse as u8 {
        note.flags |= PacketFlags::REPLY;
    }
    Some((head.kind, backend))
}
