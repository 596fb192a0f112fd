//! A name server on UDP and TCP that a test can change while it runs.

use std::collections::{HashMap, HashSet};
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const TYPE_A: u16 = 1;
const TYPE_CNAME: u16 = 5;
const TYPE_AAAA: u16 = 28;
const TYPE_SRV: u16 = 33;

/// The records of a name.
#[derive(Debug, Clone)]
enum Answer {
    Addresses(Vec<IpAddr>, u32),
    Services(Vec<Service>, u32),
    /// The name is another name.
    Alias(String),
    /// These bytes where records should be, and as many records announced as fit a count.
    Garbage(Vec<u8>),
    ServerFailure,
    Silence,
}

/// An SRV record: priority, weight, port and target.
pub type Service = (u16, u16, u16, String);

#[derive(Debug, Default)]
struct Zone {
    names: Mutex<HashMap<String, Answer>>,
    /// What does not fit a datagram.
    long: Mutex<HashSet<String>>,
    queries: AtomicUsize,
    tcp_queries: AtomicUsize,
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
                if let Some(reply) = shared.reply(&packet[..len], Transport::Udp) {
                    socket.send_to(&reply, from).ok();
                }
            }
        });
        let listener = TcpListener::bind(address).unwrap();
        let shared = Arc::clone(&zone);
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if shared.stop.load(Ordering::Relaxed) {
                    break;
                }
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || serve_tcp(stream, &shared));
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

    /// Gives a name its SRV records.
    pub fn set_services(&self, name: &str, services: &[(u16, u16, u16, &str)], ttl_seconds: u32) {
        let services = services.iter().map(|(a, b, port, to)| (*a, *b, *port, (*to).to_owned())).collect();
        self.set_answer(name, Answer::Services(services, ttl_seconds));
    }

    /// Makes a name an alias, of itself if need be.
    pub fn alias(&self, name: &str, target: &str) {
        self.set_answer(name, Answer::Alias(target.to_owned()));
    }

    /// Answers nonsense for a name.
    pub fn babble(&self, name: &str, bytes: &[u8]) {
        self.set_answer(name, Answer::Garbage(bytes.to_vec()));
    }

    /// From now on a datagram holds no more than the first record of a name, and says so: the rest is to be asked for over TCP.
    pub fn truncate(&self, name: &str) {
        self.zone.long.lock().unwrap().insert(name.to_ascii_lowercase());
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

    /// How many queries came over UDP.
    pub fn queries(&self) -> usize {
        self.zone.queries.load(Ordering::SeqCst)
    }

    /// How many queries came over TCP.
    pub fn tcp_queries(&self) -> usize {
        self.zone.tcp_queries.load(Ordering::SeqCst)
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.zone.stop.store(true, Ordering::Relaxed);
        // Ends the accept that waits.
        TcpStream::connect(self.address).ok();
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Transport {
    Udp,
    Tcp,
}

impl Zone {
    fn reply(&self, query: &[u8], transport: Transport) -> Option<Vec<u8>> {
        reply(query, transport, &self.names.lock().unwrap(), &self.long.lock().unwrap())
    }
}

/// Answers the queries of one connection, each behind its length (RFC 1035 §4.2.2).
fn serve_tcp(mut stream: TcpStream, zone: &Zone) {
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut length = [0; 2];
    while stream.read_exact(&mut length).is_ok() {
        let mut query = vec![0; u16::from_be_bytes(length) as usize];
        if stream.read_exact(&mut query).is_err() {
            return;
        }
        zone.tcp_queries.fetch_add(1, Ordering::SeqCst);
        let Some(reply) = zone.reply(&query, Transport::Tcp) else { continue };
        let framed = [&(reply.len() as u16).to_be_bytes()[..], &reply].concat();
        if stream.write_all(&framed).is_err() {
            return;
        }
    }
}

fn reply(
    query: &[u8],
    transport: Transport,
    names: &HashMap<String, Answer>,
    long: &HashSet<String>,
) -> Option<Vec<u8>> {
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

    let mut nonsense = None;
    let name = labels.join(".");
    let (code, mut records): (u8, Vec<(u16, Vec<u8>, u32)>) = match names.get(&name) {
        None => (3, Vec::new()),
        Some(Answer::ServerFailure) => (2, Vec::new()),
        Some(Answer::Silence) => return None,
        Some(Answer::Garbage(bytes)) => {
            nonsense = Some(bytes);
            (0, Vec::new())
        }
        Some(Answer::Alias(target)) => (0, vec![(TYPE_CNAME, encode(target), 1)]),
        Some(Answer::Services(services, ttl)) => {
            let of_kind = services.iter().filter(|_| kind == TYPE_SRV);
            (0, of_kind.map(|service| (TYPE_SRV, service_data(service), *ttl)).collect())
        }
        Some(Answer::Addresses(addresses, ttl)) => {
            let of_kind = addresses.iter().filter_map(|address| match address {
                IpAddr::V4(v4) if kind == TYPE_A => Some(v4.octets().to_vec()),
                IpAddr::V6(v6) if kind == TYPE_AAAA => Some(v6.octets().to_vec()),
                _ => None,
            });
            (0, of_kind.map(|data| (kind, data, *ttl)).collect())
        }
    };
    let truncated = transport == Transport::Udp && long.contains(&name);
    if truncated {
        records.truncate(1);
    }
    let count = if nonsense.is_some() { u16::MAX } else { records.len() as u16 };
    let mut out = header[..2].to_vec();
    // A response, authoritative, truncated or not, recursion desired as asked, recursion available.
    out.extend([0x84 | u8::from(truncated) << 1 | (header[2] & 0x01), 0x80 | code]);
    out.extend([0, 1]);
    out.extend(count.to_be_bytes());
    out.extend([0, 0, 0, 0]);
    out.extend_from_slice(question);
    for (kind, data, ttl) in records {
        out.extend([0xc0, 12]);
        out.extend(kind.to_be_bytes());
        out.extend([0, 1]);
        out.extend(ttl.to_be_bytes());
        out.extend((data.len() as u16).to_be_bytes());
        out.extend(data);
    }
    out.extend(nonsense.into_iter().flatten());
    Some(out)
}

fn service_data((priority, weight, port, target): &Service) -> Vec<u8> {
    let numbers = [priority, weight, port].into_iter().flat_map(|number| number.to_be_bytes());
    numbers.chain(encode(target)).collect()
}

/// A name as its labels; the last dot may be left out, and the root is `.`.
fn encode(name: &str) -> Vec<u8> {
    let labels = name.trim_end_matches('.').split('.').filter(|label| !label.is_empty());
    let mut out: Vec<u8> =
        labels.flat_map(|label| std::iter::once(label.len() as u8).chain(label.bytes())).collect();
    out.push(0);
    out
}
