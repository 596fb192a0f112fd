//! The TLS handshakes with clients that a worker runs at once, of all its listeners (attack T-08).
//!
//! A handshake takes a place with its first byte, and is the dearest thing that a stranger may ask for. So places are few; and so that
//! nobody has all of them, the clients of one network have a share: not of all places, but of those that others leave. With a share of a
//! half, one network has half of them, a second one a quarter, a third one an eighth; so a few together leave room for the next.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use lb_config::{Config, RuntimeSettings};
use lb_core::address::ClientAddress;
use lb_observe::metrics::ListenerMetrics;

use super::{Cap, Network};

/// The handshakes, and what they are held to.
#[derive(Debug)]
pub struct Handshakes {
    places: RefCell<Places>,
    timeout: Cell<Duration>,
}

impl Handshakes {
    /// Places for handshakes, as many as the configuration says.
    pub fn new(config: &Config) -> Rc<Self> {
        let new = Self { places: RefCell::default(), timeout: Cell::new(Duration::ZERO) };
        new.set_limits(config);
        Rc::new(new)
    }

    /// Changes how many handshakes may begin from now on, and how long they may take.
    pub fn set_limits(&self, config: &Config) {
        let RuntimeSettings {
            max_handshakes_in_flight, max_handshakes_per_network, handshake_timeout, ..
        } = config.runtime;
        let mut places = self.places.borrow_mut();
        places.most = usize::try_from(max_handshakes_in_flight).unwrap_or(usize::MAX);
        places.share = usize::try_from(max_handshakes_per_network).unwrap_or(usize::MAX);
        self.timeout.set(handshake_timeout);
    }

    /// How long one may take.
    pub fn timeout(&self) -> Duration {
        self.timeout.get()
    }

    /// Whether a quarter of all places is taken: time to ask clients for proof of their address, where a protocol can (attack Q-01).
    pub fn is_crowded(&self) -> bool {
        let places = self.places.borrow();
        places.taken.saturating_mul(4) >= places.most
    }

    /// A place for a client, while there is one.
    ///
    /// # Errors
    /// The cap that leaves none.
    pub fn enter(
        self: &Rc<Self>,
        client: ClientAddress,
        (metrics, worker): (&Arc<ListenerMetrics>, usize),
    ) -> Result<Handshake, Cap> {
        let network = Network::of(client);
        self.places.borrow_mut().enter(network)?;
        metrics.worker(worker).tls_handshakes_inflight.inc();
        Ok(Handshake { all: Rc::clone(self), network, metrics: Arc::clone(metrics), worker })
    }
}

/// A place for a handshake. Dropping it gives the place back.
#[derive(Debug)]
pub struct Handshake {
    all: Rc<Handshakes>,
    network: Network,
    metrics: Arc<ListenerMetrics>,
    worker: usize,
}

impl Drop for Handshake {
    fn drop(&mut self) {
        self.all.places.borrow_mut().leave(self.network);
        self.metrics.worker(self.worker).tls_handshakes_inflight.dec();
    }
}

/// The places that are taken. Nothing is remembered of a network that has none.
#[derive(Debug, Default)]
struct Places {
    most: usize,
    share: usize,
    taken: usize,
    of: HashMap<Network, usize>,
}

impl Places {
    fn enter(&mut self, network: Network) -> Result<(), Cap> {
        if self.taken >= self.most {
            return Err(Cap::Handshakes);
        }
        if !network.is_known() {
            self.taken = self.taken.saturating_add(1);
            return Ok(());
        }
        let (most, share, taken) = (self.most, self.share.min(self.most), self.taken);
        let own = self.of.entry(network).or_insert(0);
        let left = most.saturating_sub(taken.saturating_sub(*own));
        let share = left.saturating_mul(share).checked_div(most).unwrap_or(0);
        // A share is at least one: an entry that was made just now stays only with a place.
        if *own >= share.max(1) {
            return Err(Cap::HandshakesOfNetwork);
        }
        *own = own.saturating_add(1);
        self.taken = self.taken.saturating_add(1);
        Ok(())
    }

    fn leave(&mut self, network: Network) {
        self.taken = self.taken.saturating_sub(1);
        if let Some(own) = self.of.get_mut(&network) {
            *own = own.saturating_sub(1);
            if *own == 0 {
                self.of.remove(&network);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    #[test]
    fn t_08_a_network_has_its_share_and_others_have_the_rest() {
        let at = |text: &str| Network::of(SocketAddr::new(text.parse().unwrap(), 1).into());
        let mut places = Places { most: 4, share: 2, ..Places::default() };
        let mut enter = |client| places.enter(at(client));
        assert_eq!(["192.0.2.1", "::ffff:192.0.2.200"].map(&mut enter), [Ok(()); 2]);
        assert_eq!(enter("192.0.2.77"), Err(Cap::HandshakesOfNetwork));
        assert_eq!(enter("2001:db8::1"), Ok(()));
        assert_eq!(enter("2001:db8::ffff:0:0:1"), Err(Cap::HandshakesOfNetwork), "half of what is left");
        assert_eq!(enter("192.0.3.1"), Ok(()));
        assert_eq!(enter("192.0.4.1"), Err(Cap::Handshakes));
        places.leave(at("192.0.2.1"));
        let mut enter = |client| places.enter(at(client));
        assert_eq!(enter("2001:db8::2"), Err(Cap::HandshakesOfNetwork));
        assert_eq!(enter("2001:db8:0:1::1"), Ok(()));
        assert_eq!((places.taken, places.of.len()), (4, 4));
        for client in ["192.0.2.200", "2001:db8::1", "192.0.3.1", "2001:db8:0:1::1"] {
            places.leave(at(client));
        }
        assert_eq!((places.taken, places.of.len()), (0, 0));
    }

    #[test]
    fn t_08_a_few_networks_together_leave_room_for_the_next() {
        let mut places = Places { most: 512, share: 256, ..Places::default() };
        let mut fill = |number: u8| {
            let network = Network::of(([10, 0, number, 1], 1).into());
            (0..1000).filter(|_| places.enter(network).is_ok()).count()
        };
        assert_eq!([fill(1), fill(2), fill(3), fill(4)], [256, 128, 64, 32]);
        assert_eq!((5..=9).map(&mut fill).sum::<usize>(), 31);
        assert_eq!((fill(10), fill(11)), (1, 0));
        // Where one network may have all, nothing is kept for others.
        let mut places = Places { most: 5, share: 5, ..Places::default() };
        let one = Network::of(([10, 0, 0, 1], 1).into());
        assert_eq!((0..9).filter(|_| places.enter(one).is_ok()).count(), 5);
        // Clients of a Unix socket are in no network, and have no share but all there is.
        let nowhere = Network::of(ClientAddress::Unix);
        let mut places = Places { most: 5, share: 1, ..Places::default() };
        assert_eq!((0..9).filter(|_| places.enter(nowhere).is_ok()).count(), 5);
        (0..5).for_each(|_| places.leave(nowhere));
        assert_eq!((places.taken, places.of.len()), (0, 0));
    }
}
