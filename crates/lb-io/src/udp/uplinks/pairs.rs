//! Which pairs of a socket and a backend are taken, rest or are free. Sockets are known by position.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::Instant;

use super::UplinkRest;

/// The pairs of all sockets of one version of IP.
#[derive(Debug, Default)]
pub(super) struct Pairs {
    sockets: Vec<Flows>,
    backends: HashMap<SocketAddr, Backend>,
    /// One behind the last socket that was taken since [`Self::rest`] was called last.
    high: usize,
}

/// The flows on one socket.
#[derive(Debug, Default)]
struct Flows {
    /// By the address of the backend, in order: there are few, and a search touches no other memory.
    by_backend: Vec<(SocketAddr, u32)>,
    /// Pairs that rest.
    resting: u32,
}

/// The sockets of one backend. Those from `fresh` on have no flow to it, and had none.
#[derive(Debug, Default)]
struct Backend {
    fresh: u32,
    /// The lowest is taken first, so that those at the end get free and can be closed.
    free: BinaryHeap<Reverse<u32>>,
    short: VecDeque<(Instant, u32)>,
    long: VecDeque<(Instant, u32)>,
    taken: u32,
}

/// What there is for a flow.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// This socket.
    Pair(u32),
    /// Nothing, until there is another socket.
    NeedsSocket,
}

impl Pairs {
    /// A socket for another flow to this backend, of which there are `count`.
    pub(super) fn take(&mut self, backend: SocketAddr, count: usize, now: Instant) -> Taken {
        self.sockets.resize_with(count, Flows::default);
        let Self { sockets, backends, .. } = self;
        let backend = backends.entry(backend).or_default();
        backend.wake(sockets, now);
        if let Some(Reverse(socket)) = backend.free.pop() {
            return Taken::Pair(socket);
        }
        if at(backend.fresh) < count {
            let socket = backend.fresh;
            backend.fresh = backend.fresh.saturating_add(1);
            return Taken::Pair(socket);
        }
        Taken::NeedsSocket
    }

    /// The socket whose pair with this backend has rested longest, of those whose replies have come.
    pub(super) fn take_early(&mut self, backend: SocketAddr) -> Option<u32> {
        let (_, socket) = self.backends.get_mut(&backend)?.short.pop_front()?;
        if let Some(flows) = self.sockets.get_mut(at(socket)) {
            flows.resting = flows.resting.saturating_sub(1);
        }
        Some(socket)
    }

    /// The pair of a socket that was taken is this flow's.
    pub(super) fn assign(&mut self, socket: u32, backend: SocketAddr, flow: u32) {
        if let Some(known) = self.backends.get_mut(&backend) {
            known.taken = known.taken.saturating_add(1);
        }
        self.high = self.high.max(at(socket).saturating_add(1));
        let Some(flows) = self.sockets.get_mut(at(socket)) else { return };
        match flows.search(&backend) {
            Ok(place) => {
                debug_assert!(false, "a pair is taken twice");
                if let Some(pair) = flows.by_backend.get_mut(place) {
                    pair.1 = flow;
                }
            }
            Err(place) => flows.by_backend.insert(place, (backend, flow)),
        }
    }

    /// The flow of a socket to this backend.
    #[inline]
    pub(super) fn flow(&self, socket: u32, backend: SocketAddr) -> Option<u32> {
        let flows = self.sockets.get(at(socket))?;
        let place = flows.search(&backend).ok()?;
        flows.by_backend.get(place).map(|(_, flow)| *flow)
    }

    /// A pair is not needed any more, and rests until then.
    pub(super) fn give_back(&mut self, socket: u32, backend: SocketAddr, rest: UplinkRest, until: Instant) {
        let Some(flows) = self.sockets.get_mut(at(socket)) else { return };
        let Ok(place) = flows.search(&backend) else { return };
        flows.by_backend.remove(place);
        let Some(backend) = self.backends.get_mut(&backend) else { return };
        backend.taken = backend.taken.saturating_sub(1);
        let queue = match rest {
            UplinkRest::None => return backend.free.push(Reverse(socket)),
            UplinkRest::Short => &mut backend.short,
            UplinkRest::Long => &mut backend.long,
        };
        queue.push_back((until, socket));
        flows.resting = flows.resting.saturating_add(1);
    }

    /// How many of `count` sockets are needed; those behind are forgotten.
    pub(super) fn rest(&mut self, now: Instant, count: usize) -> usize {
        let Self { sockets, backends, high } = self;
        backends.retain(|_, backend| {
            backend.wake(sockets, now);
            backend.taken > 0 || !backend.short.is_empty() || !backend.long.is_empty()
        });
        let used = sockets.iter().rposition(|flows| flows.resting > 0 || !flows.by_backend.is_empty());
        let needed = used.map_or(0, |last| last.saturating_add(1)).max(std::mem::take(high)).min(count);
        if needed < sockets.len() {
            sockets.truncate(needed);
            let needed = u32::try_from(needed).unwrap_or(u32::MAX);
            for backend in backends.values_mut() {
                backend.fresh = backend.fresh.min(needed);
                backend.free.retain(|Reverse(socket)| *socket < needed);
            }
        }
        needed
    }
}

impl Flows {
    #[inline]
    fn search(&self, backend: &SocketAddr) -> Result<usize, usize> {
        self.by_backend.binary_search_by(|(other, _)| other.cmp(backend))
    }
}

impl Backend {
    /// Frees the pairs that have rested.
    fn wake(&mut self, sockets: &mut [Flows], now: Instant) {
        for queue in [&mut self.short, &mut self.long] {
            while let Some((_, socket)) = queue.front().copied().filter(|(until, _)| *until <= now) {
                queue.pop_front();
                self.free.push(Reverse(socket));
                if let Some(flows) = sockets.get_mut(at(socket)) {
                    flows.resting = flows.resting.saturating_sub(1);
                }
            }
        }
    }
}

fn at(socket: u32) -> usize {
    usize::try_from(socket).unwrap_or(usize::MAX)
}
