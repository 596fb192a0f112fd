//! How a connection begins.

use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use lb_core::quic::ConnectionId;
use lb_core::quic::header::{LongHeader, MIN_INITIAL_DATAGRAM, PacketType, packets};
use lb_core::quic::ids::IdKind;
use lb_core::quic::paths::{ClientKey, PathId, Proof};
use lb_io::Phase;
use lb_observe::metrics::PassthroughDrop;

use super::{Forwarder, IdOwner, Verdict};
use crate::passthrough::load::MemberLoad;
use crate::passthrough::retry;
use crate::passthrough::settings::PassthroughPool;
use crate::passthrough::shared::Refusal;
use crate::passthrough::waiting::{Heard, Marked};

/// How long a backend may take to answer the first packet before a repetition of it goes to another one.
const PATIENCE: Duration = Duration::from_secs(1);

/// The bytes of the connection ID in a Retry of ours.
const RETRY_ID: usize = 16;

impl Forwarder {
    /// A packet with an ID that a client has chosen, and that is not known.
    pub(super) fn begin(
        &mut self,
        client: ClientKey,
        header: &LongHeader<'_>,
        datagram: Marked<'_>,
        now: Instant,
    ) -> Verdict {
        if self.phase() != Phase::Serving {
            return Verdict::Drop(PassthroughDrop::Draining);
        }
        if header.dcid.len() < self.settings.config.min_client_dcid_len {
            return Verdict::Drop(PassthroughDrop::ShortId);
        }
        let id = ConnectionId::new(header.dcid);
        let waits = id.is_some_and(|id| self.waiting.has(client, id));
        let is_early = header.kind().is_some_and(|(_, kind)| kind == PacketType::ZeroRtt);
        if !waits {
            if datagram.bytes.len() < MIN_INITIAL_DATAGRAM && !is_early {
                return Verdict::Drop(PassthroughDrop::SmallInitial);
            }
            if !self.may_begin(client, now) {
                return Verdict::Drop(PassthroughDrop::SourceRate);
            }
        }
        let settings = Rc::clone(&self.settings);
        if is_early && settings.routes_by_name() {
            // The name comes with the Initial, which the network has overtaken.
            return Verdict::Drop(PassthroughDrop::EarlyData);
        }
        let (name, earlier) = match (id, &mut self.reader) {
            (Some(id), Some(reader)) if settings.routes_by_name() && header.kind().is_some() => {
                let backlog = settings.config.per_flow_backlog;
                match self.waiting.take(reader, (client, id), datagram, backlog, now) {
                    Heard::Named(name, earlier) => (name, earlier),
                    Heard::Waits => return Verdict::Waits,
                    Heard::Full => return Verdict::Drop(PassthroughDrop::Waiting),
                    Heard::Foreign => return Verdict::Drop(PassthroughDrop::Malformed),
                }
            }
            _ => (None, Vec::new()),
        };
        let Some(pool) = settings.pool(name.as_deref()) else {
            return Verdict::Drop(PassthroughDrop::NoBackend);
        };
        match self.place(client, (pool, None), header, datagram.bytes, now) {
            Ok(Verdict::Forward(path)) if !earlier.is_empty() => Verdict::After(path, earlier),
            Ok(verdict) => verdict,
            Err(why) => Verdict::Drop(why),
        }
    }

    /// Leads a connection that begins to a member of `pool` other than the one at `tried`.
    fn place(
        &mut self,
        client: ClientKey,
        (pool, tried): (&Rc<PassthroughPool>, Option<usize>),
        header: &LongHeader<'_>,
        datagram: &[u8],
        now: Instant,
    ) -> Result<Verdict, PassthroughDrop> {
        let picked = pool.pick(&client, tried, now).and_then(|at| Some((at, pool.address(at)?)));
        let Some((at, backend)) = picked else {
            self.refused(Refusal::NoBackend, client, now);
            return Err(PassthroughDrop::NoBackend);
        };
        let mut is_proven = false;
        if self.settings.mints_for(backend)
            && let Some((_, kind)) = header.kind()
        {
            if kind == PacketType::ZeroRtt {
                return Err(PassthroughDrop::EarlyData);
            }
            if !self.has_token(client, header, datagram) {
                return self.mint(client, header).ok_or(PassthroughDrop::Malformed);
            }
            is_proven = true;
        }
        let path = match self.paths.to_backend(&client, backend) {
            Some(path) => path,
            None => {
                let load = MemberLoad::take(pool, at, self.worker, now);
                self.open(client, backend, Proof::Began, Some(load), now)?
            }
        };
        self.metrics().connections.inc();
        let id = ConnectionId::new(header.dcid).unwrap_or(ConnectionId::EMPTY);
        self.ids.learn(id, IdKind::Chosen, IdOwner { backend, path: None }, now);
        if let Some(path) = self.paths.get(path) {
            path.id = id;
            if is_proven {
                path.prove();
            }
        }
        Ok(Verdict::Forward(path))
    }

    /// A first packet that comes again, or one that follows it. Where the backend has not answered in time it goes to another one.
    pub(super) fn initial_again(
        &mut self,
        client: ClientKey,
        (id, owner): (ConnectionId, IdOwner),
        header: &LongHeader<'_>,
        datagram: &[u8],
        now: Instant,
    ) -> Verdict {
        let Some(at) = self.paths.to_backend(&client, owner.backend) else {
            if owner.path.is_none() && self.phase() != Phase::Serving {
                return Verdict::Drop(PassthroughDrop::Draining);
            }
            return self.known(client, id, owner, now);
        };
        let Some((pool, tried)) = self.unanswered(at, now) else { return self.known(client, id, owner, now) };
        match self.place(client, (&pool, Some(tried)), header, datagram, now) {
            Ok(verdict) => {
                // Late answers of the first backend must not reach the client, which is talking to another one.
                if let Some(path) = self.paths.remove(at) {
                    self.close(path, now);
                }
                verdict
            }
            // There is no other backend: the first may be slow.
            Err(_) => self.known(client, id, owner, now),
        }
    }

    /// The member that a path leads to, if it has had its time to answer and has not.
    fn unanswered(&mut self, at: PathId, now: Instant) -> Option<(Rc<PassthroughPool>, usize)> {
        let path = self.paths.get(at)?;
        let is_late = path.began + PATIENCE <= now;
        if path.answered.is_some() || path.proof() == Proof::GoesOn || !(is_late || path.carrier.is_refused) {
            return None;
        }
        let (pool, member) = path.carrier.load.as_ref()?.member();
        Some((Rc::clone(pool), member))
    }

    /// Whether the first Initial of a datagram has a token of ours for this client.
    fn has_token(&self, client: ClientKey, header: &LongHeader<'_>, datagram: &[u8]) -> bool {
        let Some(initial) = packets(datagram).find_map(|(header, _)| header.initial()) else { return false };
        if initial.token.is_empty() {
            return false;
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let secret = &self.settings.secrets.retry;
        let is_good = secret.open(now, client.from, header.dcid, initial.token).is_some();
        if !is_good {
            self.metrics().retry_rejected.inc();
        }
        is_good
    }

    /// A Retry for the client.
    fn mint(&self, client: ClientKey, header: &LongHeader<'_>) -> Option<Verdict> {
        let (version, _) = header.kind()?;
        let mut random = [0; RETRY_ID + 1];
        aws_lc_rs::rand::fill(&mut random).ok()?;
        let (retry_id, unused) = random.split_at_checked(RETRY_ID)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let token = self.settings.secrets.retry.token(now, client.from, retry_id, header.dcid)?;
        let ids = (header.scid, header.dcid, retry_id);
        let packet = retry::packet(version, ids, &token, unused.first().copied().unwrap_or_default())?;
        self.metrics().retry_minted.inc();
        Some(Verdict::Answer(packet))
    }
}
