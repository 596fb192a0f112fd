//! QUIC by connection ID: where servers put their number into the IDs that they issue, a connection stays at its server whatever the address of its client becomes
//! (draft-ietf-quic-load-balancers-21; RFC 9000 section 9).
//!
//! An ID that names no server, such as the one that a client makes up for its first packets, leads nowhere, and the packet goes where its
//! addresses and ports lead.

use aya_ebpf::programs::XdpContext;
use lb_l4_xdp_layout::{
    Backend, Event, PacketFlags, PacketNote, ServerKey, Service, Standing, read::connection_id, stage,
};

use crate::{
    count::{discard, leave_to},
    maps::{BACKENDS, NOTE, SERVERS, SERVICES},
    packet::{Packet, UDP},
};

/// The backend that the connection ID of a packet names, if it has one that may be used.
#[inline(always)]
pub fn named(
    ctx: &XdpContext,
    note: &PacketNote,
    index: u32,
    service: &Service,
) -> Option<(u32, &'static Backend)> {
    const NOT_READ: u32 = PacketFlags::LATER_FRAGMENT | PacketFlags::ICMP_ERROR;
    if service.id_length == 0 || note.protocol != u32::from(UDP) || note.flags & NOT_READ != 0 {
        return None;
    }
    let id = connection_id(&Packet(ctx), note.l4, service.id_length, service.id_rotation)?;
    let mask = &service.id_mask;
    let id = [id[0] & mask[0], id[1] & mask[1], id[2] & mask[2], id[3] & mask[3]];
    // SAFETY: a value of a map, of which entries are written whole.
    let at = unsafe { *SERVERS.get_ptr(&ServerKey { service: index, id })? };
    let backend = BACKENDS.get(at)?;
    if backend.standing == Standing::Absent as u8 || u32::from(backend.service) != index {
        return None;
    }
    Some((at, backend))
}

/// A packet of a known flow, which another connection may have taken over.
#[inline(always)]
pub fn compare(ctx: &XdpContext) -> u32 {
    let Some(note) = NOTE.get_ptr_mut(0) else { return discard(Event::DropNoProgram) };
    // SAFETY: the note belongs to this core, and to this packet until its verdict.
    let note = unsafe { &*note };
    let Some(service) = SERVICES.get(note.service) else { return discard(Event::DropNoBackend) };
    match named(ctx, note, note.service, service) {
        Some((at, _)) if at != note.backend => leave_to(stage::CHOOSE),
        _ => leave_to(note.next),
    }
}
