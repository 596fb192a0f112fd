//! The end of sockets: their operations come back first, and their output still goes out.

use std::time::{Duration, Instant};

use super::inbox::Inbox;
use super::ring::{Kind, Token};
use super::slot::{Slot, Socket};
use super::state::State;

/// For how long a closed stream's output may still wait for its peer to make room.
const LINGER: Duration = Duration::from_secs(60);

/// Closed streams whose output may wait at a time; beyond that the oldest are cut off.
const MAX_LINGERING: usize = 1024;

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

    /// Forgets those whose output is gone, and cuts off the oldest if too many are left. Rarely looks at more than a length.
    fn bound_lingering(&mut self) {
        if self.lingering.len() <= MAX_LINGERING.saturating_mul(2) {
            return;
        }
        let slots = &self.slots;
        self.lingering.retain(|(key, since)| {
            matches!(slots.get(*key), Some(Slot::Socket(socket)) if socket.closing == Some(*since))
        });
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
            Some(Slot::Listening(listening)) => {
                [listening.is_accepting.then_some(Kind::Accept), None, None, None, None]
            }
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

    /// Takes back whatever is under way; nothing is sent any more.
    pub(crate) fn abandon(&mut self) {
        let keys: Vec<usize> = self.slots.iter().map(|(key, _)| key).collect();
        let now = Instant::now();
        for key in keys {
            if let Some(Slot::Socket(socket)) = self.slots.get_mut(key) {
                socket.resets = true;
            }
            self.release(key, now);
        }
    }
}

/// Makes closing reset the connection.
pub(super) fn reset_on_close(socket: &mut Socket) {
    socket.resets = true;
    // Fails only on a socket that is gone already.
    let _ = socket2::SockRef::from(&socket.descriptor).set_linger(Some(Duration::ZERO));
}
