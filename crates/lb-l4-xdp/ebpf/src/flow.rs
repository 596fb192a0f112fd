//! What the table of flows says about a packet.

use lb_l4_xdp_layout::{
    Backend, Event, Flow4, Flow6, FlowHead, FlowKey4, FlowKey6, FlowKind, PacketFlags, PacketNote, Settings,
    Standing, TcpState, WINDOW_SHIFT,
};

use crate::{
    count::count,
    maps::{BACKENDS, FLOWS4, FLOWS6},
    packet::{TCP, TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN},
};

/// The flags of a note from those of a TCP header.
#[inline(always)]
pub fn tcp_flags(flags: u8) -> u32 {
    let mut note = 0;
    if flags & (TCP_SYN | TCP_ACK) == TCP_SYN {
        note |= PacketFlags::SYN;
    }
    if flags & TCP_FIN != 0 {
        note |= PacketFlags::FIN;
    }
    if flags & TCP_RST != 0 {
        note |= PacketFlags::RST;
    }
    note
}

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

/// Writes the packet into its entry. RST is believed only as long as nothing else comes: it may be forged. The flags that follow.
#[inline(always)]
pub fn touch(head: &mut FlowHead, now: u32, flags: u32) -> u32 {
    let mut follow = 0;
    if head.seen != now {
        if (head.seen ^ now) >> WINDOW_SHIFT != 0 {
            follow = PacketFlags::REFRESH;
        }
        head.seen = now;
    }
    if flags & PacketFlags::RST != 0 {
        head.state = TcpState::Reset as u8;
    } else if flags & PacketFlags::FIN != 0 {
        head.state = TcpState::Finished as u8;
    } else if head.state == TcpState::Reset as u8 {
        head.state = TcpState::Open as u8;
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

/// Looks the flow of a note up, and writes backend and rewriting into the note. The kind of the entry, if there is one that may be used.
#[inline(always)]
pub fn find(note: &mut PacketNote, settings: &Settings) -> Option<(u8, u8)> {
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
    Some((head.kind, backend.mode))
}
