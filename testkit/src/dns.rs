//! A name server on UDP that a test can change while it runs.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const TYPE_A: u16 = 1;
const TYPE_AAAA: u16 = 28;

/// What the server says about a name.
#[derive(Debug, Clone)]
enum Answer {
    Addresses(Vec<IpAddr>, u32),
    ServerFailure,
    Silence,
}

#[derive(Debug, Default)]
struct Zone {
    names: Mutex<HashMap<String, Answer>>,
    queries: AtomicUsize,
    stop: AtomicBool,
}

/// The server, stopped when dropped.
#[derive(Debug)]
pub struct Dns {
    /// Where it listens.
    pub address: SocketAddr,
    zone: Arc<Zone>,
}

impl Dns {
    /// Starts with no names: everything is NXDOMAIN.
    pub fn start() -> Dns {
        let address = crate::ports::reserve();
        let socket = UdpSocket::bind(address).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let zone = Arc::new(Zone::default());
        let shared = Arc::clone(&zone);
        std::thread::spawn(move || {
            let mut packet = [0; 1500];
            while !shared.stop.load(Ordering::Relaxed) {
                let Ok((len, from)) = socket.recv_from(&mut packet) else { continue };
                shared.queries.fetch_add(1, Ordering::SeqCst);
                if let Some(reply) = reply(&packet[..len], &shared.names.lock().unwrap()) {
                    socket.send_to(&reply, from).ok();
                }
            }
        });
        Dns { address, zone }
    }

    fn set_answer(&self, name: &str, answer: Answer) {
        self.zone.names.lock().unwrap().insert(name.to_ascii_lowercase(), answer);
    }

    /// Gives a name its addresses.
    pub fn set(&self, name: &str, addresses: &[&str], ttl_seconds: u32) {
        let addresses = addresses.iter().map(|a| a.parse().unwrap()).collect();
        self.set_answer(name, Answer::Addresses(addresses, ttl_seconds));
    }

    /// Takes a name away: NXDOMAIN.
    pub fn remove(&self, name: &str) {
        self.zone.names.lock().unwrap().remove(name);
    }

    /// Answers SERVFAIL for a name.
    pub fn fail(&self, name: &str) {
        self.set_answer(name, Answer::ServerFailure);
    }

    /// Answers nothing at all for a name.
    pub fn silence(&self, name: &str) {
        self.set_answer(name, Answer::Silence);
    }

    /// How many queries came.
    pub fn queries(&self) -> usize {
        self.zone.queries.load(Ordering::SeqCst)
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.zone.stop.store(true, Ordering::Relaxed);
    }
}

fn reply(query: &[u8], names: &HashMap<String, Answer>) -> Option<Vec<u8>> {
    let header = query.get(..12)?;
    let mut at = 12;
    let mut labels = Vec::new();
    loop {
        let len = *query.get(at)? as usize;
        at += 1;
        if len == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(query.get(at..at + len)?).to_ascii_lowercase());
        at += len;
    }
    let kind = u16::from_be_bytes(query.get(at..at + 2)?.try_into().ok()?);
    let question = query.get(12..at + 4)?;

    let (code, records): (u8, Vec<(IpAddr, u32)>) = match names.get(&labels.join(".")) {
        None => (3, Vec::new()),
        Some(Answer::ServerFailure) => (2, Vec::new()),
        Some(Answer::Silence) => return None,
        Some(Answer::Addresses(addresses, ttl)) => {
            let of_kind = addresses.iter().filter(|a| match a {
                IpAddr::V4(_) => kind == TYPE_A,
                IpAddr::V6(_) => kind == TYPE_AAAA,
            });
            (0, of_kind.map(|a| (*a, *ttl)).collect())
        }
    };
    let mut out = header[..2].to_vec();
    // A response, authoritative, recursion desired as asked, recursion available.
    out.extend([0x84 | (header[2] & 0x01), 0x80 | code]);
    out.extend([0, 1, 0, records.len() as u8, 0, 0, 0, 0]);
    out.extend_from_slice(question);
    for (address, ttl) in records {
        let data = match address {
            IpAddr::V4(v4) => v4.octets().to_vec(),
            IpAddr::V6(v6) => v6.octets().to_vec(),
        };
        out.extend([0xc0, 12]);
        out.extend(kind.to_be_bytes());
        out.extend([0, 1]);
        out.extend(ttl.to_be_bytes());
        out.extend((data.len() as u16).to_be_bytes());
        out.extend(data);
    }
    Some(out)
}
