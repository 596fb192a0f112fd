//! One stream of a relay: what has become of each of its directions.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use crate::lent::OfThread;

/// A direction of a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// From the client to the backend.
    Up,
    /// From the backend to the client.
    Down,
}

impl Way {
    pub(super) const BOTH: [Self; 2] = [Self::Up, Self::Down];

    pub(super) fn other(self) -> Self {
        match self {
            Self::Up => Self::Down,
            Self::Down => Self::Up,
        }
    }
}

/// Bytes that were lent to quiche, which gives them back when they are acknowledged. As long as it has them, both tokens have another owner.
struct Lent {
    bytes: Vec<u8>,
    _of_half: Arc<()>,
    _of_way: Arc<()>,
    _of_thread: OfThread,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Tells whether all that was lent under it is acknowledged.
#[derive(Debug, Default)]
pub(super) struct Lending(Arc<()>);

impl Lending {
    pub(super) fn is_acknowledged(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }

    /// Lends bytes of a stream.
    pub(super) fn lend(&self, bytes: &[u8], of_way: &Self) -> Bytes {
        let (_of_half, _of_way) = (Arc::clone(&self.0), Arc::clone(&of_way.0));
        let _of_thread = OfThread::new(bytes.len());
        Bytes::from_owner(Lent { bytes: bytes.to_vec(), _of_half, _of_way, _of_thread })
    }
}

/// One direction of a stream.
#[derive(Debug, Default)]
pub(super) struct Half {
    /// Nothing more is passed on: its end, a reset or a stop was.
    pub(super) is_over: bool,
    /// The sender has ended, and the receiver was not told yet.
    pub(super) has_ended: bool,
    /// The receiver wants no more, and the sender does not know the stream yet: the code that it is to be told.
    pub(super) stop: Option<u64>,
    /// Nothing is read before.
    pub(super) rests_until: Option<Instant>,
    /// What the receiver has not acknowledged.
    pub(super) lending: Lending,
}

/// A stream between a client and a backend. It has the same identifier on both sides, which protocols refer to.
#[derive(Debug)]
pub(super) struct Stream {
    /// The side that has not begun it knows of it.
    pub(super) is_open: bool,
    pub(super) up: Half,
    pub(super) down: Half,
}

impl Stream {
    /// A stream that one side has begun. What is sent on a unidirectional one goes one way (RFC 9000 §2.1).
    pub(super) fn new(id: u64) -> Self {
        let goes = |way| is_bidirectional(id) || begun_by_sender_of(way, id);
        let half = |way| Half { is_over: !goes(way), ..Half::default() };
        Self { is_open: false, up: half(Way::Up), down: half(Way::Down) }
    }

    pub(super) fn half(&mut self, way: Way) -> &mut Half {
        match way {
            Way::Up => &mut self.up,
            Way::Down => &mut self.down,
        }
    }

    pub(super) fn is_done(&self) -> bool {
        self.is_open && self.up.is_over && self.down.is_over
    }
}

pub(super) fn is_bidirectional(id: u64) -> bool {
    id & 2 == 0
}

/// Whether the stream was begun by the side that sends in this direction.
pub(super) fn begun_by_sender_of(way: Way, id: u64) -> bool {
    (id & 1 == 0) == (way == Way::Up)
}
