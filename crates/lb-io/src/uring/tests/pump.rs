//! Relays bytes between two streams in every way that streams offer.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, IoSlice};

use crate::pipe::Pipe;
use crate::{ByteStream, Scratch};

/// How the next bytes are moved.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    /// Taken where they lie, at most so many, and sent.
    Take(usize),
    /// Read into a buffer of that size, and sent in several slices.
    Recv(usize),
    /// Through a pipe, at most so many.
    Splice(usize),
}

/// Relays both ways until both ends have closed. After an error neither end may take what it got for all there is.
pub(super) async fn relay(
    client: ByteStream,
    backend: ByteStream,
    up: &[Step],
    down: &[Step],
) -> io::Result<()> {
    let (client, backend) = (RefCell::new(client), RefCell::new(backend));
    let result = tokio::try_join!(pump(&client, &backend, up), pump(&backend, &client, down));
    if result.is_err() {
        client.borrow_mut().reset_on_close();
        backend.borrow_mut().reset_on_close();
    }
    result.map(|_| ())
}

/// Moves what `from` sends to `to`, step by step and from the first step again, then tells `to` the end.
async fn pump(from: &RefCell<ByteStream>, to: &RefCell<ByteStream>, steps: &[Step]) -> io::Result<()> {
    let mut pipe = Pipe::new()?;
    for step in steps.iter().cycle() {
        let is_over = match *step {
            Step::Take(most) => {
                let mut scratch = Scratch::new();
                let bytes =
                    poll_fn(|cx| from.borrow_mut().poll_take(cx, &mut scratch, most).map_ok(<[u8]>::to_vec));
                let bytes = bytes.await?;
                let mut rest = &bytes[..];
                while !rest.is_empty() {
                    let n = poll_fn(|cx| to.borrow_mut().poll_send(cx, rest)).await?;
                    rest = &rest[n..];
                }
                bytes.is_empty()
            }
            Step::Recv(size) => {
                let mut buffer = vec![0; size];
                let n =
                    poll_fn(|cx| from.borrow_mut().poll_recv(cx, &mut buffer).map_ok(<[u8]>::len)).await?;
                let mut rest = &buffer[..n];
                while !rest.is_empty() {
                    // More slices than one call takes.
                    let slices: Vec<_> = rest.chunks(rest.len().div_ceil(9)).map(IoSlice::new).collect();
                    let n = poll_fn(|cx| to.borrow_mut().poll_send_vectored(cx, &slices)).await?;
                    rest = &rest[n..];
                }
                n == 0
            }
            Step::Splice(limit) => {
                let n = poll_fn(|cx| from.borrow_mut().poll_splice_in(cx, &mut pipe, limit)).await?;
                while pipe.held() > 0 {
                    poll_fn(|cx| to.borrow_mut().poll_splice_out(cx, &mut pipe)).await?;
                }
                n == 0
            }
        };
        if is_over {
            break;
        }
    }
    to.borrow_mut().shutdown_write()
}
