//! Where a client's datagram goes.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use lb_core::quic::ConnectionId;
use lb_core::quic::header::{Header, HeaderError, LongHeader, PacketType};
use lb_core::quic::paths::{ClientKey, PathId, Proof};
use lb_observe::metrics::PassthroughDrop;

use super::{Forwarder, IdOwner, UNGUESSABLE, Verdict};
use crate::passthrough::load::MemberLoad;
use crate::passthrough::shared::Refusal;
use crate::passthrough::waiting::Marked;

/// The bytes of the smallest packet with a short header that may be one (RFC 9000 §10.3).
const SMALLEST_PACKET: usize = 21;

/// How long an ID need not be looked up where it is known for ever.
const LOOKED_UP: Duration = Duration::from_secs(3600);

impl Forwarder {
    /// Decides about a datagram of a client.
    pub(crate) fn route(&mut self, client: ClientKey, datagram: Marked<'_>, now: Instant) -> Verdict {
        match Header::parse(datagram.bytes) {
            Ok(Header::Short(rest)) => self.short(client, rest, now),
            Ok(Header::Long(header)) => self.long(client, &header, datagram, now),
            Err(HeaderError::Truncated | HeaderError::LongId) => {
                self.metrics().header_parse_errors.inc();
                Verdict::Drop(PassthroughDrop::Malformed)
            }
        }
    }

    /// A packet of a connection that is established, or that the sender has made up.
    fn short(&mut self, client: ClientKey, rest: &[u8], now: Instant) -> Verdict {
        let latest = self.paths.of_client(&client);
        // Nearly always it is the ID that the client used last.
        if let Some(id) = latest
            && let Some(path) = self.paths.get(id)
            && path.proof() == Proof::Proven
            && path.carrier.looked_up_until.is_some_and(|until| now < until)
            && rest.starts_with(path.id.as_bytes())
        {
            return Verdict::Forward(id);
        }
        if let Some((id, owner)) = self.ids.find_prefix(rest, now) {
            return self.known(client, id, owner, now);
        }
        if let Some((length, backend)) = self.settings.server(rest)
            && let Some(id) = rest.get(..length).and_then(ConnectionId::new)
        {
            return self.known(client, id, IdOwner { backend, path: None }, now);
        }
        // An ID that its backend has issued under encryption, from a client that is known.
        if let Some(id) = latest {
            self.goes_on_answered(id);
            return Verdict::Forward(id);
        }
        if let Some((id, backend)) = self.shared.find_prefix(rest) {
            return self.known(client, id, IdOwner { backend, path: None }, now);
        }
        if rest.len() + 1 < SMALLEST_PACKET {
            return Verdict::Drop(PassthroughDrop::Malformed);
        }
        self.goes_on(client, now)
    }

    fn long(
        &mut self,
        client: ClientKey,
        header: &LongHeader<'_>,
        datagram: Marked<'_>,
        now: Instant,
    ) -> Verdict {
        let kind = header.kind().map(|(_, kind)| kind);
        if header.is_negotiation() || kind == Some(PacketType::Retry) {
            // Only servers send these.
            return Verdict::Drop(PassthroughDrop::Malformed);
        }
        let latest = self.paths.of_client(&client);
        if let Some(id) = latest
            && let Some(path) = self.paths.get(id)
            && path.proof() == Proof::Proven
            && path.carrier.looked_up_until.is_some_and(|until| now < until)
            && path.id.as_bytes() == header.dcid
        {
            return Verdict::Forward(id);
        }
        if let Some((id, owner)) = self.ids.find(header.dcid, now) {
            if kind == Some(PacketType::Initial) && header.dcid.len() >= UNGUESSABLE {
                return self.initial_again(client, (id, owner), header, datagram.bytes, now);
            }
            return self.known(client, id, owner, now);
        }
        let begins = matches!(kind, None | Some(PacketType::Initial | PacketType::ZeroRtt));
        if !begins
            && let Some((length, backend)) = self.settings.server(header.dcid)
            && length == header.dcid.len()
            && let Some(id) = ConnectionId::new(header.dcid)
        {
            return self.known(client, id, IdOwner { backend, path: None }, now);
        }
        if let Some((id, backend)) = self.shared.find(header.dcid) {
            return self.known(client, id, IdOwner { backend, path: None }, now);
        }
        if begins {
            return self.begin(client, header, datagram, now);
        }
        match latest {
            Some(id) => {
                self.goes_on_answered(id);
                Verdict::Forward(id)
            }
            None => self.goes_on(client, now),
        }
    }

    /// A packet whose ID leads to a backend.
    pub(super) fn known(
        &mut self,
        client: ClientKey,
        id: ConnectionId,
        owner: IdOwner,
        now: Instant,
    ) -> Verdict {
        let IdOwner { backend, path: issued_on } = owner;
        // The ID is looked up now and then, which keeps it known.
        let idle = self.settings.config.flow_idle_timeout.unwrap_or(LOOKED_UP);
        if let Some(at) = self.paths.to_backend(&client, backend) {
            let Some(path) = self.paths.get(at) else { return Verdict::Drop(PassthroughDrop::NoSocket) };
            path.id = id;
            path.carrier.looked_up_until = Some(now + idle / 2).filter(|_| !id.is_empty());
            // The client has the ID from a packet of the backend that was sent to this address. Shorter IDs could be guessed, so that
            // they prove as much as any packet that comes after an answer.
            let is_proof = match issued_on {
                Some(issued_on) => issued_on == at && (id.len() >= UNGUESSABLE || path.answered.is_some()),
                None => false,
            };
            if is_proof || path.proof() == Proof::GoesOn && path.answered.is_some() {
                path.prove();
            }
            return Verdict::Forward(at);
        }
        if self.settings.config.strict_source_binding {
            self.refused(Refusal::SourceBinding, client, now);
            return Verdict::Drop(PassthroughDrop::SourceBinding);
        }
        if !self.may_begin(client, now) {
            return Verdict::Drop(PassthroughDrop::SourceRate);
        }
        match self.open_to(client, backend, Proof::GoesOn, now) {
            Ok(at) => {
                self.metrics().migrations.inc();
                if let Some(path) = self.paths.get(at) {
                    path.id = id;
                }
                // Another worker may have had it so far.
                self.issued_elsewhere(id, backend, now);
                Verdict::Forward(at)
            }
            Err(why) => Verdict::Drop(why),
        }
    }

    /// A packet of a connection that is not known here, from a client that is not known either: it was there before this process, or at
    /// another instance, which has picked by the same key.
    fn goes_on(&mut self, client: ClientKey, now: Instant) -> Verdict {
        if self.settings.config.strict_source_binding {
            self.refused(Refusal::SourceBinding, client, now);
            return Verdict::Drop(PassthroughDrop::SourceBinding);
        }
        if !self.may_begin(client, now) {
            return Verdict::Drop(PassthroughDrop::SourceRate);
        }
        let settings = std::rc::Rc::clone(&self.settings);
        let Some(pool) = settings.pool(None) else { return Verdict::Drop(PassthroughDrop::NoBackend) };
        let picked = pool.pick(&client, None, now).and_then(|at| Some((at, pool.address(at)?)));
        let Some((at, backend)) = picked else {
            self.refused(Refusal::NoBackend, client, now);
            return Verdict::Drop(PassthroughDrop::NoBackend);
        };
        let load = MemberLoad::take(pool, at, self.worker, now);
        match self.open(client, backend, Proof::GoesOn, Some(load), now) {
            Ok(id) => Verdict::Forward(id),
            Err(why) => Verdict::Drop(why),
        }
    }

    /// Takes a client's packet that comes after an answer for a sign that it has the answer, where nothing better is to be had: the connection
    /// is not known here, or the backend issues no IDs that would tell.
    fn goes_on_answered(&mut self, id: PathId) {
        if let Some(path) = self.paths.get(id)
            && (path.proof() == Proof::GoesOn || !path.carrier.has_issued)
            && path.answered.is_some()
        {
            path.prove();
        }
    }

    /// Counts what a source begins; says whether it may.
    pub(super) fn may_begin(&mut self, client: ClientKey, now: Instant) -> bool {
        let per_second = self.settings.config.new_connections_per_source;
        let rate = lb_core::quic::rates::Rate { per_second, burst: per_second.saturating_mul(2) };
        let may = self.shared.rates.take(client.from.ip(), rate, now);
        if !may {
            self.refused(Refusal::SourceRate, client, now);
        }
        may
    }

    /// A path to a backend that is known, whether a pool has it yet or not.
    pub(super) fn open_to(
        &mut self,
        client: ClientKey,
        backend: SocketAddr,
        proof: Proof,
        now: Instant,
    ) -> Result<PathId, PassthroughDrop> {
        let member = self.settings.member(backend);
        let load = member.map(|(pool, at)| MemberLoad::take(pool, at, self.worker, now));
        self.open(client, backend, proof, load, now)
    }

    fn issued_elsewhere(&mut self, id: ConnectionId, backend: SocketAddr, now: Instant) {
        if self.shared.find(id.as_bytes()).is_some() && self.ids.find(id.as_bytes(), now).is_none() {
            self.issued(id, backend, None, now);
        }
    }
}
