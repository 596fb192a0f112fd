//! Whether this machine has what the driver needs: found out by doing it, because versions say little about kernels with patches, and
//! nothing about what is forbidden.

use std::io::{self, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

use super::ring::{Completion, Failed, Kind, Prepared, RECEIVE_AHEAD, Ring, Token, failed};

/// How long an operation of the probe may take.
const WITHIN: Duration = Duration::from_secs(1);

/// Rings for `workers` workers, if a ring of this machine supports every operation that the driver uses.
pub(crate) fn prepare(workers: usize) -> Result<Vec<Prepared>, Failed> {
    let multishot = match probe(true) {
        Ok(()) => true,
        // Before Linux 6.17 no bound can be given; then each receive brings one message.
        Err(failed) if failed.step == RECEIVE => {
            probe(false)?;
            false
        }
        Err(failed) => return Err(failed),
    };
    (0..workers).map(|_| Prepared::new(multishot)).collect()
}

const RECEIVE: &str = "receiving into provided buffers";

/// Accepts, connects, sends, receives, polls and cancels once, on a thread that ends with its ring.
fn probe(multishot: bool) -> Result<(), Failed> {
    let run = move || -> Result<(), Failed> {
        let mut ring = Ring::start(Prepared::new(multishot)?)?;
        let listener = TcpListener::bind(("127.0.0.1", 0)).map_err(failed("a listening socket"))?;
        let token = |kind| Token { kind, key: 0 };
        let mut completions = Completions::default();
        let address = listener.local_addr().map_err(failed("a listening socket"))?;
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM.nonblocking(), None)
            .map_err(failed("a socket"))?;
        ring.accept(listener.as_fd(), token(Kind::Accept));
        let flight = ring.connect(socket.as_fd(), Box::new(address.into()), token(Kind::Connect));
        let (accepted, connected) = completions.pair(&mut ring, Kind::Accept, "accepting and connecting")?;
        check(&connected, "connecting")?;
        drop(flight.land(&connected));
        check(&accepted, "multishot accept")?;
        let Some(peer) = accepted.accepted.filter(|_| accepted.more) else {
            return Err(failed("multishot accept")(io::ErrorKind::Unsupported.into()));
        };
        ring.receive(peer.as_fd(), RECEIVE_AHEAD, token(Kind::Receive));
        let flight = ring.send(socket.as_fd(), vec![b'a'; 4], token(Kind::Send));
        let (received, sent) = completions.pair(&mut ring, Kind::Receive, RECEIVE)?;
        check(&received, RECEIVE)?;
        check(&sent, "sending")?;
        drop(flight.land(&sent));
        let bytes = received.buffer.map(|id| ring.buffers().lease(id, received.result.unwrap_or(0)));
        if bytes.is_none_or(|bytes| bytes.bytes() != b"aaaa") || received.more != multishot {
            return Err(failed(RECEIVE)(io::ErrorKind::InvalidData.into()));
        }
        if multishot {
            ring.cancel(token(Kind::Receive));
            let (ended, cancelled) = completions.pair(&mut ring, Kind::Receive, "cancelling")?;
            check(&cancelled, "cancelling")?;
            if ended.more {
                return Err(failed("cancelling")(io::ErrorKind::InvalidData.into()));
            }
        }
        ring.poll(peer.as_fd(), libc::POLLIN, token(Kind::Readable));
        let mut socket = TcpStream::from(socket);
        socket.write_all(b"b").map_err(failed("a socket"))?;
        check(&completions.next(&mut ring, "polling")?, "polling")
    };
    // The ring belongs to the thread that starts it.
    std::thread::scope(|scope| scope.spawn(run).join())
        .unwrap_or_else(|_| Err(failed("the probe itself")(io::ErrorKind::Other.into())))
}

/// Completions one by one.
#[derive(Default)]
struct Completions(Vec<Completion>);

impl Completions {
    fn next(&mut self, ring: &mut Ring, step: &'static str) -> Result<Completion, Failed> {
        if self.0.is_empty() {
            ring.enter(Some(WITHIN)).map_err(failed(step))?;
            ring.reap(&mut self.0);
        }
        if self.0.is_empty() {
            return Err(failed(step)(io::ErrorKind::TimedOut.into()));
        }
        Ok(self.0.remove(0))
    }

    /// The next two, that of `kind` first: in which order they come is for the kernel to choose.
    fn pair(
        &mut self,
        ring: &mut Ring,
        kind: Kind,
        step: &'static str,
    ) -> Result<(Completion, Completion), Failed> {
        let (one, other) = (self.next(ring, step)?, self.next(ring, step)?);
        match (one.token.kind == kind, other.token.kind == kind) {
            (true, false) => Ok((one, other)),
            (false, true) => Ok((other, one)),
            _ => Err(failed(step)(io::ErrorKind::InvalidData.into())),
        }
    }
}

fn check(completion: &Completion, step: &'static str) -> Result<(), Failed> {
    completion.result.map(|_| ()).map_err(|code| failed(step)(io::Error::from_raw_os_error(code)))
}
