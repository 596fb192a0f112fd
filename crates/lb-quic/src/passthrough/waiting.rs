//! Datagrams that wait until the server name of their connection has arrived.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use lb_core::quic::ConnectionId;
use lb_core::quic::header::{PacketType, packets};
use lb_core::quic::paths::ClientKey;

use super::hello::{HelloReader, ServerName};
use super::initial::{InitialKeys, InitialReader};

/// Connections that may wait on one worker.
const MOST: usize = 1024;

/// How long a connection may wait.
const PATIENCE: Duration = Duration::from_secs(3);

/// Bytes that may wait for one connection: several times as much as the longest ClientHello.
const MOST_BYTES: usize = 64 * 1024;

/// A datagram, and the two bits of explicit congestion notification that it has come with (RFC 3168). Its endpoints compare what they have
/// sent with what has arrived (RFC 9000 §13.4.2), so that it keeps them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Marked<'a> {
    pub(crate) ecn: u8,
    pub(crate) bytes: &'a [u8],
}

/// A copy of one, which waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    ecn: u8,
    bytes: Box<[u8]>,
}

impl Kept {
    pub(crate) fn as_marked(&self) -> Marked<'_> {
        Marked { ecn: self.ecn, bytes: &self.bytes }
    }
}

/// The connections that wait, by client and by the destination connection ID that each has begun with.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    begun: HashMap<(ClientKey, ConnectionId), Begun>,
    order: VecDeque<(Instant, (ClientKey, ConnectionId))>,
    /// Datagrams of connections that were given up since that was asked for last.
    lost: u64,
}

/// A connection whose server name is not there yet.
#[derive(Debug)]
struct Begun {
    keys: InitialKeys,
    hello: HelloReader,
    datagrams: Vec<Kept>,
    bytes: usize,
}

/// What a datagram that may begin a connection came to.
#[derive(Debug)]
pub(crate) enum Heard {
    /// The server name is known, or it is known that there is none. The datagrams of the connection that waited go first.
    Named(Option<String>, Vec<Kept>),
    /// The datagram waits.
    Waits,
    /// There is no room for it.
    Full,
    /// No packet in it was sealed as the first packets of its connection are.
    Foreign,
}

impl Waiting {
    /// Takes a datagram of a connection that has begun with `id`, of which `backlog` datagrams may wait.
    pub(crate) fn take(
        &mut self,
        reader: &mut InitialReader,
        (client, id): (ClientKey, ConnectionId),
        datagram: Marked<'_>,
        backlog: usize,
        now: Instant,
    ) -> Heard {
        let key = (client, id);
        let version =
            packets(datagram.bytes).find_map(|(header, _)| header.kind()).map(|(version, _)| version);
        let is_new = !self.begun.contains_key(&key);
        if is_new {
            let Some(version) = version else { return Heard::Named(None, Vec::new()) };
            let mut begun = Begun {
                keys: reader.keys(version, id.as_bytes()),
                hello: HelloReader::default(),
                datagrams: Vec::new(),
                bytes: 0,
            };
            let (name, is_heard) = begun.hear(reader, datagram.bytes);
            if !is_heard {
                return Heard::Foreign;
            }
            if name != ServerName::Incomplete {
                // The usual case: one datagram, and nothing is kept.
                return Heard::Named(named(name), Vec::new());
            }
            begun.keep(datagram);
            self.begun.insert(key, begun);
            self.order.push_back((now + PATIENCE, key));
            // The oldest give way: what is still missing of a connection arrives at once, unless it is lost, or was never to come.
            while self.begun.len() > MOST
                && let Some((_, oldest)) = self.order.pop_front()
            {
                self.lose(&oldest);
            }
            return Heard::Waits;
        }
        let Some(begun) = self.begun.get_mut(&key) else { return Heard::Full };
        match begun.hear(reader, datagram.bytes).0 {
            ServerName::Incomplete => {
                if begun.datagrams.len() >= backlog.max(1) || begun.bytes + datagram.bytes.len() > MOST_BYTES
                {
                    return Heard::Full;
                }
                begun.keep(datagram);
                Heard::Waits
            }
            name => {
                let datagrams = self.begun.remove(&key).map(|begun| begun.datagrams).unwrap_or_default();
                Heard::Named(named(name), datagrams)
            }
        }
    }

    /// Whether a connection of this client waits that has begun with this ID.
    pub(crate) fn has(&self, client: ClientKey, id: ConnectionId) -> bool {
        self.begun.contains_key(&(client, id))
    }

    /// Forgets the connections that have waited for too long; returns how many datagrams were lost since the last call.
    pub(crate) fn expire(&mut self, now: Instant) -> u64 {
        while let Some((due, key)) = self.order.front().copied()
            && due <= now
        {
            self.order.pop_front();
            self.lose(&key);
        }
        std::mem::take(&mut self.lost)
    }

    fn lose(&mut self, key: &(ClientKey, ConnectionId)) {
        if let Some(begun) = self.begun.remove(key) {
            self.lost += u64::try_from(begun.datagrams.len()).unwrap_or(u64::MAX);
        }
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.begun.is_empty()
    }
}

impl Begun {
    /// Takes what a datagram has of the ClientHello; says whether it had a packet of the connection.
    fn hear(&mut self, reader: &mut InitialReader, datagram: &[u8]) -> (ServerName, bool) {
        let mut is_heard = false;
        for (header, packet) in packets(datagram) {
            let is_initial = header.kind().is_some_and(|(_, kind)| kind == PacketType::Initial);
            if !is_initial {
                continue;
            }
            // What is not sealed with the keys is no packet of the connection, and its server passes it over too.
            let Some(frames) = reader.open(&self.keys, &header, packet) else { continue };
            is_heard = true;
            if self.hello.take(frames).is_err() {
                return (ServerName::Unnamed, true);
            }
        }
        (self.hello.server_name(), is_heard)
    }

    fn keep(&mut self, Marked { ecn, bytes }: Marked<'_>) {
        self.bytes += bytes.len();
        self.datagrams.push(Kept { ecn, bytes: bytes.into() });
    }
}

fn named(name: ServerName) -> Option<String> {
    match name {
        ServerName::Named(name) => Some(name),
        ServerName::Incomplete | ServerName::Unnamed => None,
    }
}

#[cfg(test)]
mod tests {
    use lb_core::quic::header::QuicVersion;

    use super::*;
    use crate::passthrough::initial::tests::{FRAME, hex, seal};

    /// Both halves of a ClientHello, as the first two datagrams of a connection have them.
    fn halves(id: &[u8]) -> [Vec<u8>; 2] {
        let frame = hex(FRAME);
        let (first, second) = frame.split_at(64);
        let first = [&[6, 0, 60][..], &first[4..]].concat();
        let second = [&[6, 60, 0x40, u8::try_from(second.len()).unwrap()][..], second].concat();
        [first, second].map(|frames| seal(QuicVersion::V1, id, 0, &frames))
    }

    fn marked(ecn: u8, bytes: &[u8]) -> Marked<'_> {
        Marked { ecn, bytes }
    }

    #[test]
    fn the_oldest_connections_give_way_and_the_others_get_their_names() {
        let (mut waiting, mut reader) = (Waiting::default(), InitialReader::new().unwrap());
        let now = Instant::now();
        let client = ClientKey { from: ([192, 0, 2, 1], 1).into(), to: None };
        let id = |number: usize| ConnectionId::new(&(number as u64).to_be_bytes()).unwrap();
        let over = 10;
        for number in 0..MOST + over {
            let [first, _] = halves(id(number).as_bytes());
            let heard = waiting.take(&mut reader, (client, id(number)), marked(2, &first), 32, now);
            assert!(matches!(heard, Heard::Waits), "{heard:?}");
        }
        assert!(!waiting.has(client, id(over - 1)) && waiting.has(client, id(over)));
        assert_eq!(waiting.expire(now), 10, "what has given way is counted");
        let [first, second] = halves(id(over).as_bytes());
        match waiting.take(&mut reader, (client, id(over)), marked(0, &second), 32, now) {
            Heard::Named(Some(name), earlier) => {
                let first = Kept { ecn: 2, bytes: first.into() };
                assert_eq!((name.as_str(), &*earlier), ("example.com", &[first][..]));
            }
            heard => panic!("{heard:?}"),
        }
        assert_eq!(waiting.expire(now + PATIENCE), MOST as u64 - 1);
        assert!(waiting.is_empty());
    }
}
