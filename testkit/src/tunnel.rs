//! WebSocket tunnels through gateways, from clients and to backends of each version.

use std::net::SocketAddr;

use crate::h3::setting;
use crate::websocket::{accept_key, frame, read, to_client};
use crate::{Backend, Client, Config, Gateway, H2Client, H3Client, Listener, Version, pattern, request};

const MASK: Option<[u8; 4]> = Some([7, 1, 2, 3]);

/// Sends every frame back until a close frame has come.
pub fn echo() -> Backend {
    Backend::start(|conn| {
        let head = conn.head()?;
        let key = head.headers.get("sec-websocket-key").unwrap_or_default();
        conn.send(format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: {}\r\nX-Path: {}\r\n\r\n",
            accept_key(&key),
            head.target
        ))?;
        while let Some((first, payload)) = read(&mut conn.wire)? {
            conn.send(frame(first, &payload, None))?;
            if first & 0xf == 8 {
                break;
            }
        }
        Ok(())
    })
}

/// A listener that lets WebSocket through from clients of this version.
pub fn listener(version: Version) -> Listener {
    match version {
        Version::H1 => Listener::h1().websocket(),
        Version::H2 => Listener::h2c().websocket(),
        Version::H3 => Listener::quic().websocket().block("websocket", "h3_extended_connect", true),
    }
}

/// A gateway that lets WebSocket through from clients, to `origin` over `back`: by way of another gateway unless that is HTTP/1.1. Both are
/// there until they are dropped.
pub fn gateways(listener: Listener, back: Version, origin: &Backend) -> (Gateway, Option<Gateway>) {
    let inner = (back != Version::H1)
        .then(|| Gateway::start(Config::new().listener(self::listener(back).backend(origin.address))));
    let listener = match &inner {
        None => listener.backend(origin.address),
        Some(inner) if back == Version::H2 => listener.h2_backend(inner.front()),
        Some(inner) => listener.h3_backend(inner.front()),
    };
    (Gateway::start(Config::new().listener(listener)), inner)
}

/// Messages both ways through a tunnel of a client, and its end.
pub fn exchange(version: Version, at: SocketAddr, case: &str) {
    let payloads: Vec<Vec<u8>> =
        (0..200).map(|n| pattern::bytes(n * 7)).chain([pattern::bytes(400_000)]).collect();
    let close = [0x0f, 0xa0];
    let sent = payloads.iter().flat_map(|payload| frame(0x82, payload, MASK));
    let sent: Vec<u8> = sent.chain(frame(0x88, &close, MASK)).collect();
    let wanted = payloads.iter().flat_map(to_client).chain(frame(0x88, &close, None));
    let wanted: Vec<u8> = wanted.collect();
    let connect =
        [(":protocol", "websocket"), ("sec-websocket-version", "13"), ("origin", "http://app.example")];
    match version {
        Version::H1 => {
            let mut client = Client::connect(at).unwrap();
            let fields = [
                ("Connection", "Upgrade"),
                ("Upgrade", "websocket"),
                ("Sec-WebSocket-Version", "13"),
                ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ];
            client.send(request("GET", "/chat", &fields, b"")).unwrap();
            let head = client.head("GET").unwrap().1;
            assert_eq!((head.status, head.headers.get("x-path").as_deref()), (101, Some("/chat")), "{case}");
            client.send(&sent[..]).unwrap();
            assert!(client.wire.to_end().unwrap() == wanted, "{case}");
        }
        Version::H2 => {
            let mut client = H2Client::connect(at).unwrap();
            let stream = client.open("CONNECT", "/chat", &connect, false).unwrap();
            let head = client.head(stream).unwrap();
            assert_eq!(head.get(":status").as_deref(), Some("200"), "{case}");
            client.data(stream, &sent, false).unwrap();
            assert!(client.response(stream).unwrap().body == wanted, "{case}");
        }
        Version::H3 => {
            let mut client = H3Client::connect(at).unwrap();
            assert_eq!(client.heard().settings.as_ref().unwrap()[&setting::ENABLE_CONNECT_PROTOCOL], 1);
            let stream = client.open("CONNECT", "/chat", &connect, false).unwrap();
            let head = client.head(stream).unwrap();
            assert_eq!(head.get(":status").as_deref(), Some("200"), "{case}");
            assert_eq!(head.get("x-path").as_deref(), Some("/chat"), "{case}");
            for part in sent.chunks(10_001) {
                client.data(stream, part).unwrap();
            }
            let answer = client.response(stream).unwrap();
            assert!(answer.body == wanted, "{case}: {} of {} bytes", answer.body.len(), wanted.len());
            assert_eq!(client.heard().faults, [""; 0], "{case}");
        }
    }
}
