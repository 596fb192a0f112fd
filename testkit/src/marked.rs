//! A UDP socket that sends datagrams with ECN marks (RFC 3168), and tells the marks of those that arrive.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::IoSliceMut;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use quinn::udp::{EcnCodepoint, RecvMeta, Transmit, UdpSockRef, UdpSocketState};

use crate::poll;

/// A datagram that has arrived: who has sent it, its mark, and its bytes.
pub type Marked = (SocketAddr, u8, Vec<u8>);

/// A UDP socket.
pub struct MarkedSocket {
    socket: UdpSocket,
    state: UdpSocketState,
    arrived: RefCell<VecDeque<Marked>>,
}

impl MarkedSocket {
    /// A socket at this address.
    #[track_caller]
    pub fn bind(address: SocketAddr) -> Self {
        let socket = UdpSocket::bind(address).unwrap();
        let state = UdpSocketState::new(UdpSockRef::from(&socket)).unwrap();
        Self { socket, state, arrived: RefCell::default() }
    }

    /// Where it is bound.
    pub fn address(&self) -> SocketAddr {
        self.socket.local_addr().unwrap()
    }

    /// Sends a datagram with this mark, of 0 to 3.
    #[track_caller]
    pub fn send(&self, to: SocketAddr, mark: u8, bytes: &[u8]) {
        let ecn = EcnCodepoint::from_bits(mark);
        let transmit = Transmit { destination: to, ecn, contents: bytes, segment_size: None, src_ip: None };
        self.state.try_send(UdpSockRef::from(&self.socket), &transmit).unwrap();
    }

    /// The next datagram, if one arrives within this time.
    pub fn receive(&self, limit: Duration) -> Option<Marked> {
        poll(limit, || {
            if self.arrived.borrow().is_empty() {
                self.take();
            }
            self.arrived.borrow_mut().pop_front()
        })
    }

    /// Takes what has arrived.
    fn take(&self) {
        let mut room = vec![0; 65_536];
        let mut meta = [RecvMeta::default()];
        let mut slices = [IoSliceMut::new(&mut room)];
        let Ok(1) = self.state.recv(UdpSockRef::from(&self.socket), &mut slices, &mut meta) else { return };
        let RecvMeta { addr, len, stride, ecn, .. } = meta[0];
        let mark = ecn.map_or(0, |ecn| ecn as u8);
        let each = room[..len].chunks(stride.max(1)).map(|bytes| (addr, mark, bytes.to_vec()));
        self.arrived.borrow_mut().extend(each);
    }
}
