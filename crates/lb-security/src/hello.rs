//! Looks into the ClientHello of a client whose TLS ends at a backend: which server it asks for, and which protocols it offers.
//!
//! All bytes go back into the stream, and to the backend as they came. What is no hello, or none that can be read, asks for no server; the
//! backend judges it. A hello of more than [`MOST_HELLO_BYTES`] is not waited for (attack R-28).

use std::io;
use std::task::{Context, Poll};

use lb_io::{ByteStream, WorkerIo};
use rustls::server::Acceptor;

/// The most that is read of a hello, its records' headers included.
pub const MOST_HELLO_BYTES: usize = 16 * 1024;

/// What a client asks for before TLS.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ClientWish {
    /// The server that it asks for.
    pub server_name: Option<Box<str>>,
    /// The protocols that it offers.
    pub alpn: Vec<Box<[u8]>>,
}

/// Reads a hello. It holds no more than the hello, as far as that has come.
#[derive(Default)]
pub struct WishReader {
    bytes: Vec<u8>,
    acceptor: Acceptor,
}

impl WishReader {
    /// Goes on until the hello is whole, or it is known that there is none.
    ///
    /// # Errors
    /// Where the socket ends or fails before, or the hello is too long.
    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut ByteStream,
        io: &WorkerIo,
    ) -> Poll<io::Result<ClientWish>> {
        loop {
            let left = MOST_HELLO_BYTES.saturating_sub(self.bytes.len());
            if left == 0 {
                return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
            }
            let mut scratch = io.scratch.borrow_mut();
            let arrived = match stream.poll_take(cx, &mut scratch, left) {
                Poll::Ready(Ok([])) => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                Poll::Ready(arrived) => arrived?,
                Poll::Pending => return Poll::Pending,
            };
            self.bytes.extend_from_slice(arrived);
            if let Some(wish) = self.take_in(arrived) {
                stream.give_back(std::mem::take(&mut self.bytes));
                return Poll::Ready(Ok(wish));
            }
        }
    }

    /// What the client asks for, once that is known.
    pub(crate) fn take_in(&mut self, mut new: &[u8]) -> Option<ClientWish> {
        while !new.is_empty() {
            // Reads from a slice: only its own buffer can be in the way.
            if self.acceptor.read_tls(&mut new).is_err() {
                return Some(ClientWish::default());
            }
            match self.acceptor.accept() {
                Ok(Some(accepted)) => {
                    let hello = accepted.client_hello();
                    let alpn = hello.alpn().into_iter().flatten().map(Box::from).collect();
                    return Some(ClientWish { server_name: hello.server_name().map(Box::from), alpn });
                }
                Ok(None) => {}
                Err(_) => return Some(ClientWish::default()),
            }
        }
        None
    }
}

impl std::fmt::Debug for WishReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WishReader").field("bytes", &self.bytes.len()).finish_non_exhaustive()
    }
}
