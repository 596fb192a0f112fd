//! A path between a QUIC client and a server: it loses, doubles and reorders datagrams by a seed, moves to another port, and counts.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::ms;

/// What becomes of datagrams, each in so many of a hundred.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// They are lost.
    pub lost: u64,
    /// They come twice.
    pub doubled: u64,
    /// They come up to 8 ms later, behind others.
    pub late: u64,
    /// All that have more bytes are lost; 0 = none.
    pub longest: usize,
}

#[derive(Default)]
struct Shared {
    server_side: Mutex<Option<Arc<UdpSocket>>>,
    next: Mutex<Option<Arc<UdpSocket>>>,
    client: Mutex<Option<SocketAddr>>,
    up: AtomicU64,
    down: AtomicU64,
    largest: AtomicU64,
    first: Mutex<Option<Vec<u8>>>,
    sent: Mutex<Vec<Vec<u8>>>,
    is_mute: AtomicBool,
    is_cut: AtomicBool,
    is_whole: AtomicBool,
    ends: AtomicBool,
}

/// Datagrams of a client that are kept.
const KEPT: usize = 16;

/// A path for one client.
pub struct Relay {
    /// Where the client sends to.
    pub address: SocketAddr,
    server: SocketAddr,
    shared: Arc<Shared>,
    front: Arc<UdpSocket>,
    threads: Vec<JoinHandle<()>>,
    seed: u64,
    faults: Faults,
}

impl Relay {
    /// A path that changes nothing.
    pub fn to(server: SocketAddr) -> Relay {
        Relay::with(server, Faults::default(), 0)
    }

    /// A path with faults.
    pub fn with(server: SocketAddr, faults: Faults, seed: u64) -> Relay {
        let front = Arc::new(UdpSocket::bind("127.0.0.1:0").unwrap());
        let shared = Arc::new(Shared::default());
        let address = front.local_addr().unwrap();
        let mut relay =
            Relay { address, server, shared: Arc::clone(&shared), front, threads: Vec::new(), seed, faults };
        relay.move_away();
        let up = move |from, bytes: &[u8], is_first: bool| {
            if is_first {
                *shared.client.lock().unwrap() = Some(from);
                shared.up.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                let mut sent = shared.sent.lock().unwrap();
                if sent.len() < KEPT {
                    sent.push(bytes.to_vec());
                }
            }
            let mut socket = shared.server_side.lock().unwrap();
            if let Some(next) = shared.next.lock().unwrap().take() {
                *socket = Some(next);
            }
            if let Some(socket) = socket.as_ref() {
                socket.send(bytes).ok();
            }
        };
        relay.carry(Arc::clone(&relay.front), up);
        relay
    }

    /// [`Self::move_to`] another port of the usual host, as after a NAT has forgotten the flow.
    pub fn move_away(&mut self) -> SocketAddr {
        self.move_to("127.0.0.1".parse().unwrap())
    }

    /// Sends to the server from another port of this host, from the client's next datagram on. What the server sends to the port before is
    /// lost then.
    pub fn move_to(&mut self, host: IpAddr) -> SocketAddr {
        let socket = Arc::new(UdpSocket::bind((host, 0)).unwrap());
        socket.connect(self.server).unwrap();
        let address = socket.local_addr().unwrap();
        *self.shared.next.lock().unwrap() = Some(Arc::clone(&socket));
        let (shared, front, own) = (Arc::clone(&self.shared), Arc::clone(&self.front), Arc::clone(&socket));
        let down = move |_, bytes: &[u8], is_first: bool| {
            if shared.server_side.lock().unwrap().as_ref().is_none_or(|current| !Arc::ptr_eq(current, &own)) {
                return;
            }
            if is_first {
                shared.first.lock().unwrap().get_or_insert_with(|| bytes.to_vec());
                shared.down.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                shared.largest.fetch_max(bytes.len() as u64, Ordering::Relaxed);
            }
            if shared.is_mute.load(Ordering::Relaxed) {
                return;
            }
            if let Some(client) = *shared.client.lock().unwrap() {
                front.send_to(bytes, client).ok();
            }
        };
        self.carry(socket, down);
        address
    }

    /// Bytes from the client, and from the server.
    pub fn bytes(&self) -> (u64, u64) {
        (self.shared.up.load(Ordering::Relaxed), self.shared.down.load(Ordering::Relaxed))
    }

    /// Bytes of the largest datagram from the server that was carried.
    pub fn largest_from_server(&self) -> u64 {
        self.shared.largest.load(Ordering::Relaxed)
    }

    /// The first datagram that the server has sent.
    pub fn first_from_server(&self) -> Option<Vec<u8>> {
        self.shared.first.lock().unwrap().clone()
    }

    /// The first datagrams that the client has sent.
    pub fn first_from_client(&self) -> Vec<Vec<u8>> {
        self.shared.sent.lock().unwrap().clone()
    }

    /// Whether what the server sends is lost from now on.
    pub fn mute(&self, is_mute: bool) {
        self.shared.is_mute.store(is_mute, Ordering::Relaxed);
    }

    /// Carries nothing from now on.
    pub fn cut(&self) {
        self.shared.is_cut.store(true, Ordering::Relaxed);
    }

    /// Has no faults from now on.
    pub fn heal(&self) {
        self.shared.is_whole.store(true, Ordering::Relaxed);
    }

    /// Carries datagrams that come to `from`, in a thread. `to` is told where each came from, and whether it has not been carried yet.
    fn carry(&mut self, from: Arc<UdpSocket>, to: impl Fn(SocketAddr, &[u8], bool) + Send + 'static) {
        let (shared, faults) = (Arc::clone(&self.shared), self.faults);
        let mut seed = self.seed ^ (self.threads.len() as u64) << 32;
        self.threads.push(std::thread::spawn(move || {
            let mut bytes = vec![0; 65_536];
            let mut late: Vec<(Instant, SocketAddr, Vec<u8>)> = Vec::new();
            while !shared.ends.load(Ordering::Relaxed) {
                let now = Instant::now();
                late.retain(|(at, sender, bytes)| {
                    let waits = *at > now;
                    if !waits {
                        to(*sender, bytes, false);
                    }
                    waits
                });
                let pause = late.iter().map(|(at, ..)| at.saturating_duration_since(now)).min();
                let pause = pause.unwrap_or(ms(50)).max(Duration::from_micros(100));
                from.set_read_timeout(Some(pause)).unwrap();
                let Ok((length, sender)) = from.recv_from(&mut bytes) else { continue };
                if shared.is_cut.load(Ordering::Relaxed) {
                    continue;
                }
                let datagram = &bytes[..length];
                let faults = if shared.is_whole.load(Ordering::Relaxed) { Faults::default() } else { faults };
                let mut happens = |percent: u64| next(&mut seed) % 100 < percent;
                if happens(faults.lost) || (faults.longest > 0 && length > faults.longest) {
                    continue;
                }
                if happens(faults.doubled) {
                    to(sender, datagram, true);
                }
                if happens(faults.late) {
                    let wait = ms(next(&mut seed) % 8 + 1);
                    late.push((Instant::now() + wait, sender, datagram.to_vec()));
                } else {
                    to(sender, datagram, true);
                }
            }
        }));
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.ends.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().ok();
        }
    }
}

/// The next number of a seed (SplitMix64).
fn next(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *seed;
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}
