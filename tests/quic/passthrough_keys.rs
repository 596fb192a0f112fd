//! Keys of `[passthrough]` by their names: what each of them changes.

use std::net::{SocketAddr, UdpSocket};
use std::os::unix::fs::MetadataExt;

use testkit::config::Toml;
use testkit::quic::QuicClient;
use testkit::{Gateway, Pool, ms, seconds};

use crate::passthrough_rig::{
    Raw, begin, config, initial, long, receive, receive_all, receiver, short, socket,
};

fn dropped(gateway: &Gateway, why: &str, count: f64) {
    gateway.wait_metric("quic_passthrough_dropped_total", &[("reason", why)], |n| n == count);
}

pub(crate) fn min_client_dcid_len() {
    let backend = socket();
    let (config, address) = config(&[backend.local_addr().unwrap()]);
    let gateway = Gateway::start(config.block("passthrough", "min_client_dcid_len", 12));
    let client = socket();
    client.send_to(&initial(b"eleven byte"), address).unwrap();
    dropped(&gateway, "short_id", 1.0);
    client.send_to(&initial(b"twelve bytes"), address).unwrap();
    assert_eq!(receive(&backend).expect("the longer one").0, initial(b"twelve bytes"));
}

pub(crate) fn max_dcid_len_routed() {
    let rig = Spread::with("max_dcid_len_routed", 8);
    for (chosen, issued, is_followed) in
        [(b"chosen 1", &b"8 bytes."[..], true), (b"chosen 2", b"nine byte", false)]
    {
        let client = socket();
        let at = rig.begin(&client, chosen, issued);
        // From its own address it is found in any case, from others only by the ID.
        client.send_to(&short(issued, 60), rig.address).unwrap();
        assert_eq!(receive(&rig.backends[at]).expect("of a known address").0, short(issued, 60));
        assert_eq!(rig.is_followed(issued, at), is_followed, "{} bytes", issued.len());
    }
}

pub(crate) fn flow_idle_timeout_ms() {
    for (timeout, is_kept) in [(400, false), (0, true)] {
        let rig = Spread::with("flow_idle_timeout_ms", timeout);
        let at = rig.begin(&socket(), b"original", b"issued-id");
        std::thread::sleep(ms(2500));
        let flows = rig.gateway.metric("quic_passthrough_flows", &[]);
        assert_eq!(flows, f64::from(u8::from(is_kept)), "after {timeout} ms");
        assert_eq!(rig.is_followed(b"issued-id", at), is_kept, "after {timeout} ms");
    }
}

/// A gateway in front of several sockets, among which connections are spread whose IDs are not known.
struct Spread {
    gateway: Gateway,
    address: SocketAddr,
    backends: [UdpSocket; 4],
}

impl Spread {
    fn with(key: &str, value: impl Toml) -> Spread {
        let backends = [socket(), socket(), socket(), socket()];
        let (config, address) = config(&backends.each_ref().map(|backend| backend.local_addr().unwrap()));
        Spread { gateway: Gateway::start(config.block("passthrough", key, value)), address, backends }
    }

    /// Has the backend issue an ID that gets the first packet; which one that is.
    fn begin(&self, client: &UdpSocket, chosen: &[u8], issued: &[u8]) -> usize {
        client.send_to(&initial(chosen), self.address).unwrap();
        let at = receiver(&self.backends);
        begin(client, self.address, &self.backends[at], chosen, issued);
        at
    }

    /// Whether packets with this ID go to that backend, from wherever they come.
    fn is_followed(&self, id: &[u8], at: usize) -> bool {
        (0..16).all(|_| {
            socket().send_to(&short(id, 70), self.address).unwrap();
            receiver(&self.backends) == at
        })
    }
}

/// A server name whose beginning comes last, and the datagrams that wait for it.
pub(crate) fn per_flow_backlog() {
    let protocols: Vec<String> = (0..20).map(|number| format!("{number:0>200}")).collect();
    let protocols: Vec<&str> = protocols.iter().map(String::as_str).collect();
    let mut hello = QuicClient::default().alpn(&protocols).hello();
    let count = hello.len();
    assert!(count >= 4, "{count} datagrams");
    hello.rotate_left(1);
    // With room for one the other two or more in the middle are lost, and maybe the name with them.
    for (backlog, passed) in [(32, count..=count), (1, 0..=2)] {
        let backend = socket();
        let (config, address) = config(&[]);
        let routes = "[{ sni = [\"test.example\"], pool = \"quic\" }]";
        let config = config
            .block("passthrough", "routes", Raw(routes.to_owned()))
            .block("passthrough", "pool", "quic")
            .block("passthrough", "per_flow_backlog", backlog)
            .pool(Pool::named("quic").backend(backend.local_addr().unwrap()));
        let gateway = Gateway::start(config);
        let client = socket();
        hello.iter().for_each(|datagram| {
            client.send_to(datagram, address).unwrap();
        });
        let seen = receive_all(&backend, ms(300)).len();
        assert!(passed.contains(&seen), "a backlog of {backlog}: {seen} of {count}");
        let lost = [("reason", "waiting")];
        gateway.wait_metric("quic_passthrough_dropped_total", &lost, |n| (n >= 2.0) == (backlog == 1));
    }
}

pub(crate) fn audit_throttle_window_secs() {
    for (window, lines) in [(1, 2), (60, 1)] {
        let (gateway, address, _backend) = {
            let backend = socket();
            let (config, address) = config(&[backend.local_addr().unwrap()]);
            let config = config.block("passthrough", "audit_throttle_window_secs", window).block(
                "passthrough",
                "new_connections_per_source",
                1,
            );
            (Gateway::start(config), address, backend)
        };
        let client = socket();
        let mut count = 0_u8;
        let mut storm = || {
            for _ in 0..20 {
                count += 1;
                client.send_to(&initial(&[count; 8]), address).unwrap();
            }
            std::thread::sleep(ms(100));
        };
        storm();
        std::thread::sleep(ms(1200));
        storm();
        let is_told = |line: &&String| line.contains("a source begins too many connections");
        let said = || gateway.process.stderr.lines().iter().filter(is_told).count();
        testkit::eventually("the refusals are told", seconds(5), || said() == lines);
        std::thread::sleep(ms(200));
        assert_eq!(said(), lines, "a window of {window} s");
    }
}

pub(crate) fn mint_retry() {
    // (what the key says, whether the backend shares the secret, whether the client is asked to prove itself)
    for (word, shared, is_minted) in
        [("true", false, true), ("false", true, false), ("\"auto\"", false, false), ("\"auto\"", true, true)]
    {
        let backend = socket();
        let to = backend.local_addr().unwrap();
        let (config, address) = config(&[to]);
        let config = config.block("passthrough", "mint_retry", Raw(word.to_owned()));
        let config = match shared {
            true => config.block("passthrough", "retry_secret_shared_with", vec![to.to_string()]),
            false => config,
        };
        let gateway = Gateway::start(config);
        let client = socket();
        client.send_to(&initial(b"original"), address).unwrap();
        let case = format!("mint_retry = {word}, shared: {shared}");
        if is_minted {
            assert_eq!(receive(&client).expect(&case).0[0] & 0xf0, 0xf0, "{case}: a Retry");
        } else {
            assert_eq!(receive(&backend).expect(&case).0, initial(b"original"), "{case}");
        }
        assert_eq!(
            gateway.metric("quic_passthrough_retry_minted_total", &[]),
            f64::from(u8::from(is_minted)),
            "{case}"
        );
        // Where no handshake can complete, that is said.
        let warned = gateway.process.stderr.lines().iter().any(|line| line.contains("mint_retry"));
        assert_eq!(warned, is_minted != shared, "{case}: {:?}", gateway.messages());
    }
}

pub(crate) fn retry_secret_path() {
    let backend = socket();
    let to = backend.local_addr().unwrap();
    let (config, address) = config(&[to]);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("made/with/it/secret");
    let config = config.block("passthrough", "retry_secret_path", path.display().to_string()).block(
        "passthrough",
        "retry_secret_shared_with",
        vec![to.to_string()],
    );
    let client = socket();
    let gateway = Gateway::start(config.clone());
    let made = std::fs::metadata(&path).unwrap();
    assert_eq!((made.len(), made.mode() & 0o777), (32, 0o600));
    client.send_to(&initial(b"original"), address).unwrap();
    let (retry, _) = receive(&client).expect("a Retry");
    let (id, token) = (retry[13..29].to_vec(), retry[29..retry.len() - 16].to_vec());
    drop(gateway);
    // A token holds as long as the file, across restarts.
    let again = || {
        let mut packet =
            [&[0xc0, 0, 0, 0, 1, 16][..], &id, b"\x06client", &[0x40, token.len() as u8], &token].concat();
        let rest = 1200 - packet.len() - 2;
        packet.extend((0x4000 | rest as u16).to_be_bytes());
        packet.resize(1200, 0x11);
        packet
    };
    let gateway = Gateway::start(config.clone());
    client.send_to(&again(), address).unwrap();
    assert_eq!(receive(&backend).expect("the token holds").0, again());
    drop(gateway);
    std::fs::write(&path, [7; 32]).unwrap();
    let _gateway = Gateway::start(config);
    client.send_to(&again(), address).unwrap();
    assert_eq!(receive(&client).expect("another Retry").0[0] & 0xf0, 0xf0);
}

pub(crate) fn pools_of_either_kind() {
    // `backends`: all of them are used.
    let backends = [socket(), socket(), socket()];
    let (config, address) = config(&backends.each_ref().map(|backend| backend.local_addr().unwrap()));
    let _gateway = Gateway::start(config);
    for number in 0..60_u8 {
        socket().send_to(&initial(&[number; 8]), address).unwrap();
    }
    for backend in &backends {
        let seen = receive_all(backend, ms(300));
        assert!(seen.len() >= 5, "{} of 60", seen.len());
        assert!(seen.iter().all(|packet| packet[..5] == long(1, 0, &[0; 8], b"client", 1200)[..5]));
    }
}
