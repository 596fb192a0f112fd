//! Row C-13 of the attack table: frames that lie.

use crate::rig::{Cell, Rig};
use testkit::{Backend, Client, Config, Gateway, Listener, Usage, request, seconds};

const MIB: u64 = 1 << 20;

pub(crate) const FIELDS: &[(&str, &str)] = &[
    ("Connection", "Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

pub(crate) const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                                 Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// A connection that has become a tunnel.
#[track_caller]
pub(crate) fn switched(gateway: &Gateway) -> Client {
    let mut client = gateway.client();
    client.set_timeout(seconds(10));
    client.send(request("GET", "/", FIELDS, b"")).unwrap();
    assert_eq!(client.head("GET").unwrap().1.status, 101);
    client
}

/// The code of the close frame that comes next, and that nothing follows it; `None` when the connection ends without one.
#[track_caller]
pub(crate) fn close_code(client: &mut Client) -> Option<u16> {
    let rest = client.wire.to_end().unwrap_or_default();
    if rest.is_empty() {
        return None;
    }
    assert_eq!(rest[0], 0x88, "{rest:02x?}");
    assert_eq!(usize::from(rest[1]), rest.len() - 2, "{rest:02x?}");
    Some(u16::from_be_bytes([rest[2], rest[3]]))
}

/// Sends `first` once the tunnel stands, then back whatever comes.
fn mirror(first: Vec<u8>) -> Backend {
    Backend::start(move |conn| {
        conn.head()?;
        conn.send([SWITCH.as_bytes(), &first].concat())?;
        while !conn.wire.pending().is_empty() || conn.wire.fill()? > 0 {
            let bytes = conn.wire.pending().to_vec();
            conn.wire.consume(bytes.len());
            conn.send(bytes)?;
        }
        Ok(())
    })
}

fn gateway(backend: &Backend) -> Gateway {
    Gateway::start(Config::new().listener(Listener::h1().websocket().backend(backend.address)))
}

pub(crate) fn c_13_a_length_of_2_63_ends_the_tunnel(cell: Cell) {
    let rig = Rig::new(cell, &[]);
    let seen = rig.client("bad_length", &["--seconds", "20"]);
    assert_eq!(seen["close"][0], 1002, "{seen}");
    rig.backend_closed(1002);
    assert_eq!(rig.client("echo", &["--count", "1"])["right"], 1);
}

pub(crate) fn c_13_broken_frames_end_the_tunnel() {
    let from_client: [(&str, &[u8]); 5] = [
        ("no mask", b"\x81\x02hi"),
        ("a fragmented ping", b"\x09\x80\0\0\0\0"),
        ("a ping of 126 bytes", b"\x89\xfe\x00\x7e\0\0\0\0"),
        ("2^63 bytes", b"\x82\xff\x80\0\0\0\0\0\0\0\0\0\0\0"),
        ("2^64 - 1 bytes", b"\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff\0\0\0\0"),
    ];
    let backend = Backend::start(|conn| {
        conn.head()?;
        conn.send(SWITCH)?;
        conn.hold(seconds(20));
        Ok(())
    });
    let gateway = gateway(&backend);
    let usage = Usage::watch(&gateway);
    for (case, bytes) in from_client {
        backend.forget();
        let mut client = switched(&gateway);
        // A whole frame before it, which passes; much after it, which does not.
        client.send_anyway([b"\x82\x85\0\0\0\0sound", bytes, &[b'#'; 100_000]].concat());
        assert_eq!(close_code(&mut client), Some(1002), "{case}");
        testkit::eventually("the sound frame arrives", seconds(5), || backend.saw(b"\x82\x85\0\0\0\0sound"));
        assert!(
            !backend.saw(&bytes[..2.max(bytes.len() - 4)]) && !backend.saw(b"###"),
            "{case} was passed on"
        );
    }
    let from_backend: [(&str, &[u8]); 4] = [
        ("a mask", b"\x81\x82\0\0\0\0hi"),
        ("a fragmented close", b"\x08\x00"),
        ("a pong of 200 bytes", b"\x8a\x7e\x00\xc8"),
        ("2^63 bytes", b"\x82\x7f\x80\0\0\0\0\0\0\0"),
    ];
    for (case, bytes) in from_backend {
        let backend = mirror(bytes.to_vec());
        let second = self::gateway(&backend);
        let mut client = switched(&second);
        assert_eq!(close_code(&mut client), Some(1002), "{case}");
        testkit::eventually("the backend is told", seconds(5), || {
            backend.received().iter().any(|bytes| bytes.windows(2).any(|two| two == [0x88, 0x80 | 16]))
        });
    }
    // A length that is allowed to be claimed costs nothing before its bytes come.
    let claims: Vec<Client> = (0..50)
        .map(|_| {
            let mut client = switched(&gateway);
            client.send(b"\x82\xff\0\0\0\0\0\xff\xff\xff\0\0\0\0#").unwrap();
            client
        })
        .collect();
    std::thread::sleep(seconds(1));
    usage.assert_grew_less_than(&gateway, 8 * MIB);
    drop(claims);
}

pub(crate) fn c_13_what_only_an_end_can_judge_passes() {
    // Text that is no UTF-8, a reserved bit, reserved opcodes, and a continuation of nothing.
    let judged_by_ends = |mask: &[u8]| -> Vec<u8> {
        let bit = if mask.is_empty() { 0 } else { 0x80 };
        let frames =
            [(0x81, &b"\xff\xfe"[..]), (0xc1, b"\xaaV*\x01\x00"), (0x83, b"?"), (0x8b, b""), (0x80, b"c")];
        let frame =
            |(first, payload): (u8, &[u8])| [&[first, bit | payload.len() as u8], mask, payload].concat();
        frames.into_iter().flat_map(frame).collect()
    };
    let (from_backend, from_client) = (judged_by_ends(b""), judged_by_ends(&[0; 4]));
    let sent = from_backend.clone();
    let backend = Backend::start(move |conn| {
        conn.head()?;
        conn.send([SWITCH.as_bytes(), &sent].concat())?;
        conn.hold(seconds(10));
        Ok(())
    });
    let gateway = gateway(&backend);
    let mut client = switched(&gateway);
    assert_eq!(client.wire.exactly(from_backend.len()).unwrap(), from_backend);
    client.send(&from_client).unwrap();
    testkit::eventually("the frames arrive", seconds(5), || backend.saw(&from_client));
    client.quiet(testkit::ms(200)).unwrap();
}

pub(crate) fn c_13_bytes_after_a_close_pass() {
    let backend = Backend::start(|conn| {
        conn.head()?;
        conn.send([SWITCH.as_bytes(), b"\x88\x02\x03\xe8\x81\x02hi"].concat())?;
        conn.finish();
        conn.hold(seconds(10));
        Ok(())
    });
    let gateway = gateway(&backend);
    let mut client = switched(&gateway);
    // Both ends close at once; neither is told anything by the gateway, and each half ends by itself.
    client.send(b"\x88\x82\0\0\0\0\x03\xe9").unwrap();
    assert_eq!(client.wire.to_end().unwrap(), b"\x88\x02\x03\xe8\x81\x02hi");
    client.send_anyway(b"\x8a\x80\0\0\0\0");
    client.finish();
    let all = b"\x88\x82\0\0\0\0\x03\xe9\x8a\x80\0\0\0\0";
    testkit::eventually("all bytes arrive", seconds(5), || backend.saw(all));
}
