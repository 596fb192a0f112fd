//! Entry points of the fuzz targets: each takes any bytes, and panics where something does not hold that must.

use std::cell::RefCell;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Instant;

use boring::asn1::Asn1Time;
use boring::ec::{EcGroup, EcKey};
use boring::hash::MessageDigest;
use boring::nid::Nid;
use boring::pkey::PKey;
use boring::ssl::{SslContextBuilder, SslMethod};
use boring::x509::X509;
use lb_core::quic::header::{Header, Initial, packets};
use lb_core::quic::routable::Format;
use lb_io::udp::SendBatch;
use lb_observe::metrics::Metrics;

use crate::connection::{Application, Connection, Flushed, Quic, Site, Turns};
use crate::memory::QuicMemory;
use crate::packet::Start;
use crate::passthrough::Aes128;
use crate::passthrough::hello::{HelloReader, ServerName};
use crate::passthrough::initial::InitialReader;
use crate::peer::Ends;

/// Datagrams as the passthrough reads them before it has any keys: headers, packets that share a datagram, and IDs that name a server.
pub fn quic_header(input: &[u8]) {
    let mut seen = 0usize;
    for (header, packet) in packets(input) {
        assert!(!packet.is_empty(), "a packet without bytes");
        assert!(
            matches!(Header::parse(packet), Ok(Header::Long(again)) if again.dcid == header.dcid),
            "a packet is read as it stands"
        );
        seen = seen.saturating_add(packet.len());
        if let Some(Initial { number_at, length, .. }) = header.initial() {
            assert!(number_at.saturating_add(length) <= input.len(), "an Initial beyond its datagram");
        }
    }
    assert!(seen <= input.len(), "packets beyond their datagram");
    if let Some((first, rest)) = input.split_first()
        && let Some(cipher) = Aes128::new(&[7; 16])
        && let Ok(format) = Format::new(first % 7, usize::from(first % 15) + 1, 4)
    {
        let _ = format.server(rest, Some(&cipher));
        let _ = format.server(rest, None::<&Aes128>);
    }
}

/// Frames of Initial packets, as many as there are bytes 0xff between them, and a datagram that is opened.
pub fn quic_hello(input: &[u8]) {
    let mut hello = HelloReader::default();
    let mut before = ServerName::Incomplete;
    for frames in input.split(|byte| *byte == 0xff) {
        if hello.take(frames).is_err() {
            break;
        }
        let now = hello.server_name();
        if let ServerName::Named(name) = &now {
            assert!(name.len() <= 255 && !name.bytes().any(|byte| byte.is_ascii_uppercase()), "{name:?}");
        }
        assert!(
            matches!(before, ServerName::Incomplete) || before == now,
            "a name that was known has changed"
        );
        before = now;
    }
    if let Some(mut reader) = InitialReader::new() {
        for (header, packet) in packets(input) {
            let Some((version, _)) = header.kind() else { continue };
            let keys = reader.keys(version, header.dcid);
            if let Some(frames) = reader.open(&keys, &header, packet) {
                let frames = frames.to_vec();
                let _ = HelloReader::default().take(&frames);
            }
        }
    }
}

/// What rides on the connection of [`quic_datagrams`].
struct Nothing;

impl Application for Nothing {
    fn progress(_: &Rc<RefCell<Connection<Self>>>, _: Instant) {}

    fn deadline(&self) -> Option<Instant> {
        None
    }

    fn is_busy(&self) -> bool {
        false
    }

    fn closed(&mut self, _: &Quic, _: u64) {}
}

/// The least length of a datagram that begins a connection (RFC 9000 §14.1).
const FIRST_DATAGRAM: usize = 1200;

/// The configuration of a server that shows more certificates than a client is sent before it has proven its address.
fn config() -> Result<quiche::Config, Box<dyn std::error::Error>> {
    let mut context = SslContextBuilder::new(SslMethod::tls())?;
    let key = PKey::from_ec_key(EcKey::generate(&*EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?)?)?;
    let mut certificate = X509::builder()?;
    certificate.set_not_before(&*Asn1Time::days_from_now(0)?)?;
    certificate.set_not_after(&*Asn1Time::days_from_now(1)?)?;
    certificate.set_pubkey(&key)?;
    certificate.sign(&key, MessageDigest::sha256())?;
    let certificate = certificate.build();
    context.set_certificate(&certificate)?;
    context.set_private_key(&key)?;
    for _ in 0..24 {
        context.add_extra_chain_cert(certificate.clone())?;
    }
    let mut config = quiche::Config::with_boring_ssl_ctx_builder(quiche::PROTOCOL_VERSION, context)?;
    config.set_application_protos(&[b"h3"])?;
    config.discover_pmtu(true);
    Ok(config)
}

thread_local! {
    static CONFIG: RefCell<Option<quiche::Config>> = RefCell::new(config().ok());
    static MEMORY: Rc<QuicMemory> = QuicMemory::of(1 << 20, 1, Metrics::new(1).worker(0));
}

/// Datagrams, each behind its length in two bytes, from two addresses to a server: as far as anybody gets who has no keys. No more than three times
/// of what has come is sent in return (RFC 9000 §8.1, attack Q-01).
#[expect(clippy::expect_used, reason = "a target panics where something does not hold")]
pub fn quic_datagrams(input: &[u8]) {
    CONFIG.with_borrow_mut(|config| serve_datagrams(input, config.as_mut().expect("a configuration")));
}

fn serve_datagrams(input: &[u8], config: &mut quiche::Config) {
    let local = SocketAddr::from((Ipv4Addr::LOCALHOST, 443));
    let own = quiche::ConnectionId::from_ref(&[9; crate::connection_id::LENGTH]);
    let (turns, mut batch) = (Rc::new(Turns::default()), SendBatch::default());
    let mut connection: Option<Connection<Nothing>> = None;
    let (mut rest, mut received) = (input, 0usize);
    while let Some((length, behind)) = rest.split_first_chunk::<2>() {
        let length = usize::from(u16::from_be_bytes(*length));
        let (datagram, behind) = behind.split_at(length.min(behind.len()));
        rest = behind;
        let mut bytes = datagram.to_vec();
        let peer = SocketAddr::from((
            Ipv4Addr::LOCALHOST,
            1000 + u16::from(bytes.last().is_some_and(|last| last % 4 == 3)),
        ));
        let ends = Ends { peer, local };
        let now = Instant::now();
        if connection.is_none()
            && let Some(Start::Long { version: 1, is_initial: true, to, .. }) =
                Start::read(&bytes, crate::connection_id::LENGTH)
            && to.len() >= 8
            && bytes.len() >= FIRST_DATAGRAM
            && let Ok(quic) = quiche::accept_with_buf_factory(&own, None, local, peer, config)
        {
            let site = Site { from_any: false, may_move: true };
            connection = Some(Connection::new(
                quic,
                Nothing,
                (0, 0),
                &turns,
                ends,
                (site, MEMORY.with(|memory| memory.connection(false))),
            ));
        }
        let Some(connection) = connection.as_mut() else { continue };
        received = received.saturating_add(bytes.len());
        connection.receive(&mut bytes, ends);
        while connection.flush(&mut batch, now) != Flushed::All {
            batch.clear();
        }
        batch.clear();
        connection.tick(now);
        let sent = usize::try_from(connection.quic.stats().sent_bytes).unwrap_or(usize::MAX);
        assert!(sent <= received.saturating_mul(3), "{sent} bytes for {received}");
    }
}
