//! The end of sockets: their operations come back first, and their output still goes out.

use std::time::{Duration, Instant};

use slab::Slab;

use super::inbox::Inbox;
use super::ring::{Kind, Token};
use super::send::send_now;
use super::slot::{Slot, Socket};
use super::state::State;

/// For how long a closed stream's output may still wait for its peer to make room.
pub(super) const LINGER: Duration = Duration::from_secs(60);

/// Closed streams whose output may wait at a time. Only when there are twice as many the oldest are cut off, so that this is seldom looked at.
pub(super) const MAX_LINGERING: usize = if cfg!(test) { 64 } else { 1024 };

impl State {
    /// The owner of `key` is gone: takes its operations back, lets its output go out, and closes it when that is over.
    pub(crate) fn release(&mut self, key: usize, now: Instant) {
        match self.slots.get_mut(key) {
            Some(Slot::Socket(socket)) => {
                socket.closing = Some(now);
                socket.reader = None;
                socket.writer = None;
                socket.inbox = Inbox::default();
                if socket.resets {
                    // What was taken to be sent before does not wait for the turn, which would come after the reset.
                    if socket.flight.is_none() && !socket.queued.is_empty() {
                        let _ = send_now(socket, &[]);
                    }
                    socket.queued = Vec::new();
                } else if socket.is_sending() {
                    self.lingering.push_back((key, now));
                }
            }
            Some(Slot::Listening(listening)) => {
                listening.is_closing = true;
                listening.waker = None;
                listening.accepted.clear();
            }
            Some(Slot::Connecting(connecting)) => {
                connecting.is_closing = true;
                connecting.waker = None;
            }
            None => {}
        }
        self.cancel_all(key);
        self.free(key);
        self.bound_lingering();
    }

    /// Cuts off closed streams whose peers have made no room for too long.
    pub(super) fn expire(&mut self, now: Instant) {
        while self.lingering.front().is_some_and(|(_, since)| now.duration_since(*since) >= LINGER) {
            self.cut_off_oldest();
        }
    }

    /// When the oldest closed stream that still has output is to be cut off.
    pub(super) fn expiry(&mut self) -> Option<Instant> {
        while let Some((key, since)) = self.lingering.front() {
            if is_lingering(&self.slots, *key, *since) {
                return Some(*since + LINGER);
            }
            self.lingering.pop_front();
        }
        None
    }

    /// Forgets the streams whose output is sent, and cuts off the oldest if too many are left. Rarely looks at more than a length.
    fn bound_lingering(&mut self) {
        if self.lingering.len() <= MAX_LINGERING.saturating_mul(2) {
            return;
        }
        let slots = &self.slots;
        self.lingering.retain(|(key, since)| is_lingering(slots, *key, *since));
        while self.lingering.len() > MAX_LINGERING {
            self.cut_off_oldest();
        }
    }

    fn cut_off_oldest(&mut self) {
        let Some((key, since)) = self.lingering.pop_front() else { return };
        // The key may stand for another socket by now.
        let Some(Slot::Socket(socket)) = self.slots.get_mut(key) else { return };
        if socket.closing == Some(since) && socket.is_sending() {
            reset_on_close(socket);
            socket.queued = Vec::new();
            self.cancel_all(key);
            self.free(key);
        }
    }

    /// Takes every operation of a released `key` back; of a socket's output only what it does not want sent.
    fn cancel_all(&mut self, key: usize) {
        let kinds = match self.slots.get(key) {
            Some(Slot::Socket(socket)) => {
                let pending = socket.pending;
                [
                    pending.receive.then_some(Kind::Receive),
                    pending.readable.then_some(Kind::Readable),
                    pending.writable.then_some(Kind::Writable),
                    pending.hangup.then_some(Kind::Hangup),
                    (socket.flight.is_some() && socket.resets).then_some(Kind::Send),
                ]
            }
            Some(Slot::Listening(listening)) => [
                listening.is_accepting.then_some(Kind::Accept),
                listening.is_polling.then_some(Kind::Readable),
                None,
                None,
                None,
            ],
            Some(Slot::Connecting(connecting)) => {
                [connecting.flight.is_some().then_some(Kind::Connect), None, None, None, None]
            }
            None => [None; 5],
        };
        for kind in kinds.into_iter().flatten() {
            self.cancel(Token { kind, key });
        }
    }

    /// Takes back the accept of listening socket `key`.
    pub(crate) fn stop_accepting(&mut self, key: usize) {
        if let Some((listening, _)) = self.listening(key)
            && listening.is_accepting
            && listening.cancels == 0
        {
            self.cancel(Token { kind: Kind::Accept, key });
        }
    }

    /// Takes one operation back.
    pub(super) fn cancel(&mut self, token: Token) {
        if let Some(slot) = self.slots.get_mut(token.key) {
            slot.cancels();
            self.ring.cancel(token);
        }
    }

    /// Closes what `key` stands for, if its owner is gone and the kernel has done with it.
    #[inline]
    pub(super) fn free(&mut self, key: usize) {
        if self.slots.get(key).is_some_and(Slot::is_done) {
            self.slots.remove(key);
        }
    }

    /// Whether output of closed streams is still on its way.
    pub(crate) fn is_flushing(&self) -> bool {
        self.slots.iter().any(|(_, slot)| matches!(slot, Slot::Socket(socket) if socket.is_sending()))
    }

    /// Takes back whatever is under way; nothing more is sent. A peer that waits for output gets a reset, and not a message that looks
    /// whole.
    pub(crate) fn abandon(&mut self) {
        let keys: Vec<usize> = self.slots.iter().map(|(key, _)| key).collect();
        let now = Instant::now();
        for key in keys {
            if let Some(Slot::Socket(socket)) = self.slots.get_mut(key)
                && socket.is_sending()
            {
                reset_on_close(socket);
            }
            self.release(key, now);
        }
    }
}

/// Whether `key` still stands for the stream that was closed at `since`; it may stand for another by now.
fn is_lingering(slots: &Slab<Slot>, key: usize, since: Instant) -> bool {
    matches!(slots.get(key), Some(Slot::Socket(socket)) if socket.closing == Some(since))
}

/// Makes closing reset the connection.
pub(super) fn reset_on_close(socket: &mut Socket) {
    socket.resets = true;
    // Fails only on a socket that is gone already.
    let _ = socket2::SockRef::from(&socket.descriptor).set_linger(Some(Duration::ZERO));
}

#[cfg(test)]
mod tests {
    use std::io::{IoSlice, Read};
    use std::net::{TcpListener, TcpStream};
    use std::task::{Context, Waker};

    use super::super::ring::{Prepared, Ring};
    use super::*;

    /// A socket, and its peer.
    fn connected() -> (State, usize, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        // With a small window the kernel never takes the whole of what is left.
        socket2::SockRef::from(&listener).set_recv_buffer_size(4096).unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        stream.set_nonblocking(true).unwrap();
        socket2::SockRef::from(&stream).set_send_buffer_size(8 * 1024).unwrap();
        let (peer, _) = listener.accept().unwrap();
        peer.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut state = State::new(Ring::start(Prepared::new(false).unwrap()).unwrap());
        let key = state.adopt(stream.into());
        (state, key, peer)
    }

    /// A socket that is sending more than its peer takes, and that peer.
    fn stalled() -> (State, usize, TcpStream) {
        let (mut state, key, peer) = connected();
        while send(&mut state, key) {
            turn(&mut state);
        }
        (state, key, peer)
    }

    /// Whether some of a large message was taken to be sent.
    fn send(state: &mut State, key: usize) -> bool {
        let bytes = vec![b'x'; 50_000];
        let sent = state.poll_send(key, &Context::from_waker(Waker::noop()), &[IoSlice::new(&bytes)]);
        sent.map(Result::unwrap).is_ready()
    }

    fn turn(state: &mut State) {
        let mut wakers = Vec::new();
        state.turn(Some(Duration::from_millis(1)), &mut wakers).unwrap();
    }

    /// Has the kernel send a part, but not all, of what is under way, and more be queued behind it.
    fn give_way(state: &mut State, key: usize, peer: &mut TcpStream) {
        peer.set_nonblocking(true).unwrap();
        let (mut some, mut taken) = (vec![0; 4096], 0);
        while taken < 100_000 {
            taken += peer.read(&mut some).unwrap_or(0);
            turn(state);
            send(state, key);
        }
        peer.set_nonblocking(false).unwrap();
        (0..20).for_each(|_| turn(state));
    }

    /// Whether the connection ends with a reset, after whatever still comes.
    fn is_reset(mut peer: TcpStream) -> bool {
        std::io::copy(&mut peer, &mut std::io::sink())
            .is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionReset)
    }

    #[test]
    #[cfg_attr(not(has_io_uring), ignore = "this machine has no io_uring")]
    fn a_reset_does_not_overtake_what_was_sent_before() {
        let (mut state, key, mut peer) = connected();
        let sent = state.poll_send(key, &Context::from_waker(Waker::noop()), &[IoSlice::new(b"last words")]);
        assert!(sent.is_ready());
        let Some((socket, _)) = state.socket(key) else { panic!("no socket") };
        reset_on_close(socket);
        state.release(key, Instant::now());
        turn(&mut state);
        assert!(state.slots.is_empty());
        let mut words = [0; 10];
        peer.read_exact(&mut words).unwrap();
        assert!(&words == b"last words" && is_reset(peer));
    }

    #[test]
    #[cfg_attr(not(has_io_uring), ignore = "this machine has no io_uring")]
    fn a_reset_ends_output_that_has_gone_in_part() {
        let (mut state, key, mut peer) = stalled();
        give_way(&mut state, key, &mut peer);
        state.shutdown_write(key).unwrap();
        let Some((socket, _)) = state.socket(key) else { panic!("no socket") };
        assert!(socket.flight.is_some());
        reset_on_close(socket);
        state.release(key, Instant::now());
        (0..20).for_each(|_| turn(&mut state));
        assert!(state.slots.is_empty(), "{:?}", state.slots);
        assert!(is_reset(peer));
    }

    #[test]
    #[cfg_attr(not(has_io_uring), ignore = "this machine has no io_uring")]
    fn output_of_a_closed_stream_that_takes_too_long_ends_with_a_reset() {
        let (mut state, key, mut peer) = stalled();
        give_way(&mut state, key, &mut peer);
        let now = Instant::now();
        state.release(key, now);
        state.expire(now + LINGER - Duration::from_secs(1));
        (0..20).for_each(|_| turn(&mut state));
        assert!(!state.slots.is_empty());
        assert_eq!(state.expiry(), Some(now + LINGER));
        state.expire(now + LINGER);
        (0..20).for_each(|_| turn(&mut state));
        assert!(state.slots.is_empty(), "{:?}", state.slots);
        assert_eq!(state.expiry(), None);
        assert!(is_reset(peer));
    }

    #[test]
    #[cfg_attr(not(has_io_uring), ignore = "this machine has no io_uring")]
    fn output_that_is_left_when_the_worker_ends_is_not_followed_by_an_end() {
        let (mut state, key, mut peer) = stalled();
        give_way(&mut state, key, &mut peer);
        state.release(key, Instant::now());
        state.abandon();
        (0..20).for_each(|_| turn(&mut state));
        assert!(state.slots.is_empty(), "{:?}", state.slots);
        assert!(is_reset(peer));
    }
}
