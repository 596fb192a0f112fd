//! The paths of a gateway that forwards QUIC: a client's address and the backend it talks to.
//!
//! A path is what the backend takes for one remote address. When a client comes from a new address with a connection ID that is known, it
//! gets a path of its own to the same backend, beside the one before; so the backend sees a change of address, and proves the new path
//! before it relies on it (RFC 9000 §9). Whoever forges a packet from a foreign address can make the gateway open such a path, but never
//! move what a client has.
//!
//! A path is *proven* when its client has shown that it receives what is sent there: it has used an ID that a backend has issued, and that
//! nobody could guess. Until then it gets no more than three times the bytes that it has sent (RFC 9000 §8.1), and it is the first to go
//! when there is no room.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::ConnectionId;
use crate::flows::{FlowHash, FlowKey};

/// Where a client is reached.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ClientKey {
    /// The client's address.
    pub from: SocketAddr,
    /// The address that it has sent to, where the socket has several.
    pub to: Option<IpAddr>,
}

/// The place of a path. It is not given to another path while anything may still be looked up by it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PathId {
    at: u32,
    generation: u32,
}

impl PathId {
    /// A number that no other path has at the time.
    pub fn number(self) -> u32 {
        self.at
    }
}

/// What is known of the client of a path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Proof {
    /// It has begun a connection.
    Began,
    /// It goes on with a connection that is not known here.
    GoesOn,
    /// It receives what is sent to it.
    Proven,
}

/// One path. `P` is what its packets are carried by.
#[derive(Debug)]
pub struct Path<P> {
    /// The client.
    pub client: ClientKey,
    /// The backend.
    pub backend: SocketAddr,
    /// The connection ID that was seen last.
    pub id: ConnectionId,
    /// What its packets are carried by.
    pub carrier: P,
    /// When the backend has answered for the first time.
    pub answered: Option<Instant>,
    /// When the path began.
    pub began: Instant,
    proof: Proof,
    seen: Instant,
    /// Bytes from and to a client that is not proven.
    received: u64,
    sent: u64,
    /// Another path of the same client.
    next: Option<u32>,
}

/// All paths of a worker.
#[derive(Debug)]
pub struct Paths<P> {
    slots: Vec<Slot<P>>,
    free: Vec<u32>,
    /// The path of each client that was used last; the others follow it.
    by_client: HashMap<FlowKey, u32, FlowHash>,
    /// When each path is to be looked at: one that carries packets is not moved, but looked at again later.
    due: BinaryHeap<Reverse<(Instant, PathId)>>,
    /// Paths in the order in which they began. Those that were proven since then are passed over.
    unproven: VecDeque<PathId>,
    count: usize,
}

#[derive(Debug)]
struct Slot<P> {
    generation: u32,
    path: Option<Path<P>>,
}

impl<P> Path<P> {
    /// What is known of the client.
    pub fn proof(&self) -> Proof {
        self.proof
    }

    /// When a packet was seen last, from either side.
    pub fn seen(&self) -> Instant {
        self.seen
    }

    /// The client has sent so many bytes.
    #[inline]
    pub fn receive(&mut self, bytes: usize, now: Instant) {
        self.seen = now;
        if self.proof != Proof::Proven {
            self.received = self.received.saturating_add(bytes as u64);
        }
    }

    /// Whether the client may be sent so many bytes; if so, they count as sent.
    #[inline]
    pub fn send(&mut self, bytes: usize, now: Instant) -> bool {
        self.seen = now;
        if self.proof == Proof::Proven {
            return true;
        }
        let sent = self.sent.saturating_add(bytes as u64);
        if sent > self.received.saturating_mul(AMPLIFICATION) {
            return false;
        }
        self.sent = sent;
        true
    }

    /// The client has shown that it receives what is sent to it.
    pub fn prove(&mut self) {
        self.proof = Proof::Proven;
    }
}

/// How many bytes a client that is not proven may get for each that it has sent (RFC 9000 §8.1).
const AMPLIFICATION: u64 = 3;

/// How many backends one client's address may talk to at once.
const MOST_OF_CLIENT: usize = 8;

impl ClientKey {
    /// What a client is looked up by.
    #[inline]
    fn flow(&self) -> FlowKey {
        FlowKey::new(self.from, self.to)
    }
}

impl<P> Paths<P> {
    /// No path at first. `seed` is secret.
    pub fn new(seed: u64) -> Self {
        Self::hashed_by(FlowHash::new(seed))
    }

    fn hashed_by(hash: FlowHash) -> Self {
        let (slots, free, by_client) = (Vec::new(), Vec::new(), HashMap::with_hasher(hash));
        Self { slots, free, by_client, due: BinaryHeap::new(), unproven: VecDeque::new(), count: 0 }
    }

    /// How many paths there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The path of this place, if it is there yet.
    #[inline]
    pub fn get(&mut self, id: PathId) -> Option<&mut Path<P>> {
        let slot = self.slots.get_mut(id.at as usize)?;
        slot.path.as_mut().filter(|_| slot.generation == id.generation)
    }

    /// The path that has this number now.
    #[inline]
    pub fn numbered(&self, number: u32) -> Option<PathId> {
        let slot = self.slots.get(number as usize)?;
        slot.path.is_some().then_some(PathId { at: number, generation: slot.generation })
    }

    /// The path of a client that was used last.
    #[inline]
    pub fn of_client(&self, client: &ClientKey) -> Option<PathId> {
        let at = *self.by_client.get(&client.flow())?;
        Some(PathId { at, generation: self.slots.get(at as usize)?.generation })
    }

    /// The path of a client to this backend. It becomes the one that was used last.
    pub fn to_backend(&mut self, client: &ClientKey, backend: SocketAddr) -> Option<PathId> {
        let first = *self.by_client.get(&client.flow())?;
        let (mut at, mut before) = (first, None);
        loop {
            let slot = self.slots.get(at as usize)?;
            let path = slot.path.as_ref()?;
            if path.backend == backend {
                let found = PathId { at, generation: slot.generation };
                let next = path.next;
                if let Some(before) = before {
                    self.link(before, next);
                    self.link(at, Some(first));
                    self.by_client.insert(client.flow(), at);
                }
                return Some(found);
            }
            (before, at) = (Some(at), path.next?);
        }
    }

    /// How many paths a client may have besides those it has.
    pub fn room_of_client(&self, client: &ClientKey) -> usize {
        let mut room = MOST_OF_CLIENT;
        let mut at = self.by_client.get(&client.flow()).copied();
        while let Some(path) = at.and_then(|at| self.slots.get(at as usize)?.path.as_ref()) {
            room = room.saturating_sub(1);
            at = path.next;
        }
        room
    }

    /// A new path, which is looked at again after `idle`.
    pub fn insert(
        &mut self,
        (client, backend): (ClientKey, SocketAddr),
        proof: Proof,
        carrier: P,
        now: Instant,
        idle: Option<Duration>,
    ) -> PathId {
        let next = self.by_client.get(&client.flow()).copied();
        let path = Path {
            client,
            backend,
            id: ConnectionId::EMPTY,
            carrier,
            answered: None,
            began: now,
            proof,
            seen: now,
            received: 0,
            sent: 0,
            next,
        };
        let at = match self.free.pop() {
            Some(at) => at,
            None => {
                self.slots.push(Slot { generation: 0, path: None });
                u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
            }
        };
        let mut generation = 0;
        if let Some(slot) = self.slots.get_mut(at as usize) {
            slot.path = Some(path);
            generation = slot.generation;
        }
        let id = PathId { at, generation };
        self.by_client.insert(client.flow(), at);
        if let Some(idle) = idle {
            self.due.push(Reverse((now + idle, id)));
        }
        if proof != Proof::Proven {
            self.unproven.push_back(id);
        }
        self.count += 1;
        id
    }

    /// Takes a path out.
    pub fn remove(&mut self, id: PathId) -> Option<Path<P>> {
        let slot = self.slots.get_mut(id.at as usize).filter(|slot| slot.generation == id.generation)?;
        let path = slot.path.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.count = self.count.saturating_sub(1);
        let key = path.client.flow();
        let first = self.by_client.get(&key).copied();
        if first == Some(id.at) {
            match path.next {
                Some(next) => self.by_client.insert(key, next),
                None => self.by_client.remove(&key),
            };
        } else {
            let mut at = first;
            while let Some(here) = at {
                let next = self.slots.get(here as usize).and_then(|slot| slot.path.as_ref()?.next);
                if next == Some(id.at) {
                    self.link(here, path.next);
                    break;
                }
                at = next;
            }
        }
        self.free.push(id.at);
        Some(path)
    }

    /// Takes out a path that has been silent for `idle`, if there is one. The work is in proportion to the paths that have become due, each
    /// of which has carried a packet since it was looked at before.
    pub fn expire(&mut self, now: Instant, idle: Option<Duration>) -> Option<Path<P>> {
        let idle = idle?;
        while let Some(Reverse((due, id))) = self.due.peek().copied()
            && due <= now
        {
            self.due.pop();
            let Some(path) = self.get(id) else { continue };
            let due = path.seen + idle;
            if due <= now {
                return self.remove(id);
            }
            self.due.push(Reverse((due, id)));
        }
        None
    }

    /// When [`Self::expire`] has something to look at.
    pub fn next_due(&self) -> Option<Instant> {
        self.due.peek().map(|Reverse((due, _))| *due)
    }

    /// Takes out the path that has been unproven for longest, if that is `age` at least: to make room for another.
    pub fn displace(&mut self, now: Instant, age: Duration) -> Option<Path<P>> {
        while let Some(id) = self.unproven.front().copied() {
            match self.get(id) {
                Some(path) if path.proof != Proof::Proven => {
                    if path.began + age > now {
                        return None;
                    }
                    self.unproven.pop_front();
                    return self.remove(id);
                }
                _ => self.unproven.pop_front(),
            };
        }
        None
    }

    /// Forgets the paths at the head of the order of unproven ones that are not, so that the order does not outgrow the paths.
    pub fn tidy(&mut self) {
        while let Some(id) = self.unproven.front().copied() {
            if self.get(id).is_some_and(|path| path.proof != Proof::Proven) {
                break;
            }
            self.unproven.pop_front();
        }
        if self.unproven.len() > 2 * self.count + 64 {
            let slots = &self.slots;
            self.unproven.retain(|id| {
                slots.get(id.at as usize).is_some_and(|slot| {
                    slot.generation == id.generation
                        && slot.path.as_ref().is_some_and(|path| path.proof != Proof::Proven)
                })
            });
        }
    }

    /// Takes all paths out.
    pub fn drain(&mut self) -> impl Iterator<Item = Path<P>> + use<P> {
        let empty = Self::hashed_by(*self.by_client.hasher());
        std::mem::replace(self, empty).slots.into_iter().filter_map(|slot| slot.path)
    }

    /// Every path with its place.
    pub fn iter(&self) -> impl Iterator<Item = (PathId, &Path<P>)> {
        self.slots.iter().enumerate().filter_map(|(at, slot)| {
            let id = PathId { at: u32::try_from(at).ok()?, generation: slot.generation };
            Some((id, slot.path.as_ref()?))
        })
    }

    fn link(&mut self, at: u32, next: Option<u32>) {
        if let Some(path) = self.slots.get_mut(at as usize).and_then(|slot| slot.path.as_mut()) {
            path.next = next;
        }
    }
}

#[cfg(test)]
mod tests;
