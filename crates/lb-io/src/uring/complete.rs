//! What completions do to the tasks that wait for them.

use super::ring::{Completion, Kind};
use super::slot::{End, Slot};
use super::state::State;

/// Connections that are accepted before a task waits for them.
const MAX_ACCEPTED: usize = 256;

impl State {
    /// Takes in what has become of one operation.
    pub(super) fn complete(&mut self, completion: Completion) {
        let key = completion.token.key;
        match completion.token.kind {
            Kind::Accept => self.accepted(key, completion),
            Kind::Connect => self.connected(key, &completion),
            Kind::Receive => self.received(key, &completion),
            Kind::Send => self.landed(key, &completion),
            Kind::Readable | Kind::Writable | Kind::Hangup => self.ready(key, &completion),
            Kind::Cancel => {
                if let Some(slot) = self.slots.get_mut(key) {
                    slot.cancelled();
                }
            }
        }
        self.free(key);
    }

    fn received(&mut self, key: usize, completion: &Completion) {
        let n = completion.result.unwrap_or(0);
        let lease = completion.buffer.map(|id| self.ring.buffers().lease(id, n));
        let Some(Slot::Socket(socket)) = self.slots.get_mut(key) else { return };
        socket.pending.receive = completion.more;
        let is_cut = socket.closing.is_some() || socket.end.is_some();
        match completion.result {
            Ok(0) => socket.end = socket.end.or(Some(End::Closed)),
            Ok(_) => {
                if let Some(lease) = lease.filter(|_| !is_cut) {
                    socket.inbox.push(lease);
                }
                socket.may_have_more = !completion.more && completion.not_empty;
            }
            // Taken back, so that another stream can use it.
            Err(libc::ECANCELED | libc::EINTR | libc::EAGAIN) => socket.may_have_more = true,
            Err(libc::ENOBUFS) => {
                self.starved.push(key);
                return;
            }
            Err(code) => socket.end = socket.end.or(Some(End::Error(code))),
        }
        self.wakers.extend(socket.reader.take());
    }

    fn landed(&mut self, key: usize, completion: &Completion) {
        let Some(Slot::Socket(socket)) = self.slots.get_mut(key) else { return };
        let Some(mut bytes) = socket.flight.take().and_then(|flight| flight.land(completion)) else { return };
        match completion.result {
            Ok(n) if n >= bytes.len() => bytes.clear(),
            // Taken back after part of it had gone: the rest is not wanted any more.
            Ok(_) if socket.is_cut_off() => bytes.clear(),
            Ok(n) if n > 0 => {
                drop(bytes.drain(..n));
                bytes.append(&mut socket.queued);
                std::mem::swap(&mut bytes, &mut socket.queued);
            }
            result => {
                // Had any of it been sent, the kernel would have reported how much.
                socket.unsent = bytes.len();
                socket.fail(result.err().unwrap_or(libc::EPIPE));
            }
        }
        let buffer = (socket.broken.is_none()).then_some(bytes);
        self.sent(key, buffer);
    }

    fn ready(&mut self, key: usize, completion: &Completion) {
        let socket = match self.slots.get_mut(key) {
            Some(Slot::Socket(socket)) => socket,
            Some(Slot::Listening(listening)) => {
                listening.is_polling = false;
                if listening.waker.is_some() {
                    // Fails, as it should, when there is still no descriptor for it.
                    listening.is_short = false;
                    listening.ask(&mut self.ring, key);
                }
                return;
            }
            _ => return,
        };
        match completion.token.kind {
            Kind::Writable => {
                socket.pending.writable = false;
                self.wakers.extend(socket.writer.take());
            }
            Kind::Hangup => {
                socket.pending.hangup = false;
                // The next read returns the rest; until then only the hangup is noted.
                if completion.result.is_ok() {
                    socket.has_hung_up = true;
                }
                self.wakers.extend(socket.reader.take());
            }
            _ => {
                socket.pending.readable = false;
                socket.may_have_more = true;
                self.wakers.extend(socket.reader.take());
            }
        }
    }

    fn accepted(&mut self, key: usize, completion: Completion) {
        let Some(Slot::Listening(listening)) = self.slots.get_mut(key) else { return };
        listening.is_accepting = completion.more;
        match (completion.accepted, completion.result) {
            (Some(descriptor), _) => listening.accepted.push_back(Ok(descriptor)),
            (None, Err(libc::ECANCELED)) => {}
            (None, result) => {
                let code = result.err().unwrap_or(libc::EIO);
                listening.is_short = matches!(code, libc::EMFILE | libc::ENFILE);
                listening.accepted.push_back(Err(code));
            }
        }
        self.wakers.extend(listening.waker.take());
        if listening.is_accepting && listening.cancels == 0 && listening.accepted.len() >= MAX_ACCEPTED {
            self.cancel(completion.token);
        }
    }

    fn connected(&mut self, key: usize, completion: &Completion) {
        let Some(Slot::Connecting(connecting)) = self.slots.get_mut(key) else { return };
        drop(connecting.flight.take().and_then(|flight| flight.land(completion)));
        connecting.result = Some(completion.result.map(|_| ()));
        self.wakers.extend(connecting.waker.take());
    }
}
