//! Takes the header of the PROXY protocol from the beginning of a connection, before TLS.
//!
//! What has come behind the header is given back to the stream, so that a client that sends it with its first bytes costs no further read.

use std::net::SocketAddr;
use std::task::{Context, Poll};

use lb_core::proxy_protocol::{HeaderFault, HeaderVersion, MOST_V2_BYTES, Reading, Tlvs, read};
use lb_io::{ByteStream, WorkerIo};
use lb_observe::metrics::ProxyHeaderResult;

/// What is read at once: a header, and what a client sends with it.
const READ: usize = MOST_V2_BYTES * 2;

/// What a peer has said at the beginning of its connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Greeting {
    /// A header: the client, and what it has connected to.
    Client {
        /// The client's address.
        from: SocketAddr,
        /// Where the client has connected to.
        to: SocketAddr,
        /// The form of the header.
        version: HeaderVersion,
    },
    /// A header that names no client: the peer speaks for itself.
    Itself,
    /// No header.
    Absent,
}

impl Greeting {
    /// How metrics count it.
    pub fn result(&self) -> ProxyHeaderResult {
        match self {
            Self::Client { version: HeaderVersion::V1, .. } => ProxyHeaderResult::V1,
            Self::Client { version: HeaderVersion::V2, .. } => ProxyHeaderResult::V2,
            Self::Itself => ProxyHeaderResult::Local,
            Self::Absent => ProxyHeaderResult::Absent,
        }
    }
}

/// Reads a header. It holds no more than the header, as far as that has come.
#[derive(Debug, Default)]
pub struct GreetingReader(Vec<u8>);

impl GreetingReader {
    /// Goes on until the header is whole, or it is known that there is none; all other bytes stay in the stream.
    ///
    /// # Errors
    /// Why the connection is to be closed, as metrics count it.
    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut ByteStream,
        io: &WorkerIo,
    ) -> Poll<Result<Greeting, ProxyHeaderResult>> {
        loop {
            let mut scratch = io.scratch.borrow_mut();
            let arrived = match stream.poll_take(cx, &mut scratch, READ) {
                Poll::Ready(Ok([]) | Err(_)) => return Poll::Ready(Err(ProxyHeaderResult::Closed)),
                Poll::Ready(Ok(arrived)) => arrived,
                Poll::Pending => return Poll::Pending,
            };
            // Whole at once, as a rule.
            let bytes = if self.0.is_empty() {
                arrived
            } else {
                self.0.extend_from_slice(arrived);
                &self.0
            };
            let (greeting, length) = match read(bytes) {
                Ok(Reading::More) => {
                    if self.0.is_empty() {
                        self.0.extend_from_slice(arrived);
                    }
                    continue;
                }
                Ok(Reading::Absent) => (Greeting::Absent, 0),
                Ok(Reading::Header(header, length)) => {
                    tell(&header.tlvs);
                    let greeting = match header.addresses {
                        Some((from, to)) => Greeting::Client { from, to, version: header.version },
                        None => Greeting::Itself,
                    };
                    (greeting, length)
                }
                Err(fault) => return Poll::Ready(Err(result_of(fault))),
            };
            let rest = bytes.get(length..).unwrap_or_default().to_vec();
            self.0 = Vec::new();
            stream.give_back(rest);
            return Poll::Ready(Ok(greeting));
        }
    }
}

fn result_of(fault: HeaderFault) -> ProxyHeaderResult {
    match fault {
        HeaderFault::Malformed => ProxyHeaderResult::Malformed,
        HeaderFault::TooLarge => ProxyHeaderResult::TooLarge,
        HeaderFault::Checksum => ProxyHeaderResult::Checksum,
    }
}

/// Writes to the log what a header says besides the addresses.
fn tell(tlvs: &Tlvs<'_>) {
    if tlvs.is_empty() {
        return;
    }
    let text = |bytes: Option<&[u8]>| bytes.map(|bytes| bytes.escape_ascii().to_string());
    let ssl = tlvs.ssl.unwrap_or_default();
    tracing::debug!(
        authority = text(tlvs.authority),
        alpn = text(tlvs.alpn),
        unique_id = text(tlvs.unique_id),
        tls_version = text(ssl.version),
        certificate = text(ssl.common_name),
        "header of the PROXY protocol"
    );
}
