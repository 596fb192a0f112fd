//! Entry points of the fuzz targets: each takes any bytes, and panics where something does not hold that must.

use lb_core::quic::header::{Header, Initial, packets};
use lb_core::quic::routable::Format;

use crate::passthrough::Aes128;
use crate::passthrough::hello::{HelloReader, ServerName};
use crate::passthrough::initial::InitialReader;

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
