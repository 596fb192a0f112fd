//! Drives rustls' unbuffered connections: bytes in and out of slices, no sockets.

use rustls::Error;
use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus};

/// Either side of a connection.
pub(super) trait Machine {
    /// What rustls keeps for this side.
    type Data;

    /// One step through the records of `input`.
    fn step<'c, 'i>(&'c mut self, input: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;
}

impl Machine for UnbufferedServerConnection {
    type Data = ServerConnectionData;

    fn step<'c, 'i>(&'c mut self, input: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(input)
    }
}

impl Machine for UnbufferedClientConnection {
    type Data = ClientConnectionData;

    fn step<'c, 'i>(&'c mut self, input: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(input)
    }
}

/// What a run through received bytes came to.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Bytes at the front that are done with. The rest, as it stands now, belongs in front of what comes next.
    pub(super) consumed: usize,
    /// Records that brought data.
    pub(super) with_data: u32,
    /// The peer has sent close_notify: nothing follows.
    pub(super) closed: bool,
}

/// Takes in all records that are complete. Data go to `sink`, what is to be sent to the end of `out`.
///
/// # Errors
/// An error of rustls; the alert for the peer is in `out`.
pub(super) fn take_in<M: Machine>(
    machine: &mut M,
    input: &mut [u8],
    out: &mut Vec<u8>,
    sink: &mut dyn FnMut(&[u8]),
) -> Result<Progress, Error> {
    let mut progress = Progress::default();
    loop {
        let rest = input.get_mut(progress.consumed..).unwrap_or_default();
        let UnbufferedStatus { mut discard, state } = machine.step(rest);
        let goes_on = match state {
            Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                while let Some(record) = traffic.next_record() {
                    let record = record?;
                    discard = discard.saturating_add(record.discard);
                    progress.with_data = progress.with_data.saturating_add(1);
                    sink(record.payload);
                }
                true
            }
            Ok(ConnectionState::EncodeTlsData(mut data)) => {
                append(&mut data, out)?;
                true
            }
            Ok(ConnectionState::TransmitTlsData(sent)) => {
                sent.done();
                true
            }
            Ok(ConnectionState::PeerClosed) => {
                progress.closed = true;
                true
            }
            Ok(ConnectionState::ReadEarlyData(_)) => {
                return Err(Error::General("early data were not offered".into()));
            }
            Ok(_) => false,
            Err(error) => {
                let at = progress.consumed.saturating_add(discard);
                last_words(machine, input.get_mut(at..).unwrap_or_default(), out);
                return Err(error);
            }
        };
        progress.consumed = progress.consumed.saturating_add(discard);
        if !goes_on {
            return Ok(progress);
        }
    }
}

/// Seals `plain` into `to`, and returns how many bytes that took. `held` is what [`take_in`] left over.
///
/// # Errors
/// When the connection may not send data, or `to` is too small.
pub(super) fn seal<M: Machine>(
    machine: &mut M,
    held: &mut [u8],
    plain: &[u8],
    to: &mut [u8],
) -> Result<usize, Error> {
    into_slice(machine, held, to, |traffic, to| traffic.encrypt(plain, to))
}

/// Seals close_notify into `to`.
///
/// # Errors
/// As those of [`seal`].
pub(super) fn close_notify<M: Machine>(
    machine: &mut M,
    held: &mut [u8],
    to: &mut [u8],
) -> Result<usize, Error> {
    into_slice(machine, held, to, |traffic, to| traffic.queue_close_notify(to))
}

fn into_slice<M: Machine>(
    machine: &mut M,
    held: &mut [u8],
    to: &mut [u8],
    act: impl FnOnce(&mut rustls::unbuffered::WriteTraffic<'_, M::Data>, &mut [u8]) -> Result<usize, EncryptError>,
) -> Result<usize, Error> {
    let mut written = 0usize;
    loop {
        let rest = to.get_mut(written..).unwrap_or_default();
        // Nothing is complete in `held`, so nothing is discarded from it either.
        match machine.step(held).state? {
            ConnectionState::WriteTraffic(mut traffic) => {
                let n = act(&mut traffic, rest).map_err(|_| Error::EncryptError)?;
                return Ok(written.saturating_add(n));
            }
            // An answer to a key update goes before the data that are sealed with the new key.
            ConnectionState::EncodeTlsData(mut data) => {
                let n = data.encode(rest).map_err(|_| Error::EncryptError)?;
                written = written.saturating_add(n);
            }
            ConnectionState::TransmitTlsData(sent) => sent.done(),
            _ => return Err(Error::HandshakeNotComplete),
        }
    }
}

/// The alert that rustls wants to send after an error. `rest` is what it has not discarded: it may look at it again.
fn last_words<M: Machine>(machine: &mut M, rest: &mut [u8], out: &mut Vec<u8>) {
    while let Ok(ConnectionState::EncodeTlsData(mut data)) = machine.step(rest).state {
        if append(&mut data, out).is_err() {
            return;
        }
    }
}

fn append<D>(data: &mut EncodeTlsData<'_, D>, out: &mut Vec<u8>) -> Result<(), Error> {
    let at = out.len();
    if let Err(EncodeError::InsufficientSize(size)) = data.encode(&mut []) {
        out.resize(at.saturating_add(size.required_size), 0);
        let written = data.encode(out.get_mut(at..).unwrap_or_default());
        return written.map(|_| ()).map_err(|_| Error::General("a record changed its size".into()));
    }
    Ok(())
}
