//! What a listener that relays QUIC is told.

use std::fmt;
use std::rc::Rc;

use lb_config::HashKey;
use lb_io::WorkerIo;
use lb_l4::TcpSettings;

use super::back::Back;
use crate::dialer::Dialer;
use crate::memory::QuicMemory;
use crate::transport::{QuicSettings, RawTransport};

/// Everything about a listener that a reload can change; a connection keeps what it was accepted under.
#[derive(Debug)]
pub struct RawSettings {
    /// The pool, and how often others of it are tried.
    pub(super) tcp: Rc<TcpSettings>,
    pub(super) quic: QuicSettings,
    pub(super) raw: RawTransport,
    /// Whether the hashing policies go by the ID of a connection.
    pub(super) by_id: bool,
}

impl RawSettings {
    /// Settings for one worker; `None` where the listener speaks HTTP/3.
    pub fn new(tcp: Rc<TcpSettings>, quic: QuicSettings, hash_key: &HashKey) -> Option<Rc<Self>> {
        let raw = quic.raw.clone()?;
        Some(Rc::new(Self { tcp, quic, raw, by_id: *hash_key == HashKey::ConnectionId }))
    }

    pub(super) fn follows_key(&self) -> bool {
        self.tcp.pool().follows_key()
    }
}

/// Makes the connections to backends of all listeners that relay QUIC on one worker.
pub struct RawDialer(pub(super) Rc<Dialer<Back>>);

impl fmt::Debug for RawDialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RawDialer")
    }
}

impl RawDialer {
    /// The dialer of a worker. It has no socket before it is needed.
    pub fn new(io: &Rc<WorkerIo>, memory: &Rc<QuicMemory>) -> Rc<Self> {
        Rc::new(Self(Dialer::new(Rc::clone(io), Rc::clone(memory))))
    }
}
