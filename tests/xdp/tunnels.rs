//! Backends behind tunnels, who answer past the gateway.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write as _;
use std::net::UdpSocket;
use std::os::fd::{AsRawFd as _, FromRawFd as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::rig::{Network, PATIENCE, ask, ask_udp, connect, exchange, ip};

/// Where packets of GUE arrive.
const GUE_PORT: u16 = 6080;

/// The kinds of tunnels: what is outside, and what inside.
const KINDS: [&str; 6] = ["4-4", "4-6", "6-4", "6-6", "gue-4", "gue-6"];

/// Packets that a backend has unwrapped, by kind.
type Unwrapped = Arc<[AtomicUsize; KINDS.len()]>;

/// Unwraps in the namespace of the calling thread: what arrives in a tunnel comes out of an interface of its own, as if the client had sent it there. The kernel here
/// has no devices of tunnels.
fn unwrap_tunnels(unwrapped: &Unwrapped) {
    let tunnel = Arc::new(tunnel_device());
    for filter in ["all", "tun0"] {
        // Answers leave by another interface.
        std::fs::write(format!("/proc/sys/net/ipv4/conf/{filter}/rp_filter"), "0").unwrap();
    }
    ip("link set tun0 up\n");
    let cases = [
        (libc::AF_INET, 4, "4-4"),
        (libc::AF_INET, 41, "4-6"),
        (libc::AF_INET6, 4, "6-4"),
        (libc::AF_INET6, 41, "6-6"),
    ];
    for (family, protocol, kind) in cases {
        // SAFETY: the descriptor that the call gives is owned by nobody else.
        let socket = unsafe {
            let socket = libc::socket(family, libc::SOCK_RAW, protocol);
            assert!(socket >= 0, "{}", std::io::Error::last_os_error());
            UdpSocket::from_raw_fd(socket)
        };
        let (tunnel, unwrapped) = (Arc::clone(&tunnel), Arc::clone(unwrapped));
        std::thread::spawn(move || {
            let mut packet = [0; 2048];
            while let Ok(length) = socket.recv(&mut packet) {
                // Over IPv4 the outer header is there too.
                let outer = if kind.starts_with('4') { usize::from(packet[0] & 15) * 4 } else { 0 };
                count(&unwrapped, kind);
                let _ = (&*tunnel).write(&packet[outer..length]);
            }
        });
    }
    let socket = UdpSocket::bind(("::", GUE_PORT)).unwrap();
    // Tunnels have no checksum over IPv6 (RFC 6935): UDP_NO_CHECK6_RX of linux/udp.h.
    let on: libc::c_int = 1;
    // SAFETY: the value lives longer than the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_UDP,
            102,
            (&raw const on).cast(),
            size_of_val(&on) as u32,
        )
    };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    let unwrapped = Arc::clone(unwrapped);
    std::thread::spawn(move || {
        let mut packet = [0; 2048];
        while let Ok((length, outer)) = socket.recv_from(&mut packet) {
            let is_ipv4 = matches!(outer.ip().to_canonical(), std::net::IpAddr::V4(_));
            count(&unwrapped, if is_ipv4 { "gue-4" } else { "gue-6" });
            let _ = (&*tunnel).write(&packet[..length]);
        }
    });
}

fn count(unwrapped: &Unwrapped, kind: &str) {
    let at = KINDS.iter().position(|one| *one == kind).unwrap();
    unwrapped[at].fetch_add(1, Ordering::Relaxed);
}

/// A device whose packets are written by this process.
fn tunnel_device() -> File {
    let device = File::options().read(true).write(true).open("/dev/net/tun").unwrap();
    // SAFETY: zeros are a value of the structure.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"tun0") {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: the request lives longer than the call.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNSETIFF as _, &raw mut request) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    device
}

/// Services of either family and protocol whose backends are reached by a tunnel over IPv4 or IPv6.
fn services(mode: &str, is_outer6: bool) -> String {
    let mut lines = String::new();
    for (address, name) in [("10.9.0.1", "four"), ("fd00:9::1", "six")] {
        for (protocol, port) in [("tcp", 8080), ("udp", 8082)] {
            lines += &format!(
                "[[xdp.services]]\nname = \"{name}-{protocol}\"\naddress = \"{address}\"\nport = {port}\nprotocol = \"{protocol}\"\nmode = \"{mode}\"\npool = \"far\"\n"
            );
        }
    }
    lines += "[pools.far]\n";
    for at in 1..=3 {
        let address = if is_outer6 { format!("[fd00:2:{at}::11]") } else { format!("10.2.{at}.11") };
        lines += &format!("[[pools.far.backends]]\naddress = \"{address}:{GUE_PORT}\"\n");
    }
    lines
}

pub(crate) fn tunnels_carry_tcp_and_udp(mode: &'static str) {
    let mut network = Network::new(mode);
    let unwrapped = Unwrapped::default();
    for backend in &network.backends {
        let unwrapped = Arc::clone(&unwrapped);
        backend.run(move || unwrap_tunnels(&unwrapped));
    }
    let seen =
        |kind: &str| unwrapped[KINDS.iter().position(|one| *one == kind).unwrap()].load(Ordering::Relaxed);
    for (forward, is_outer6, kinds) in [
        ("dsr-ipip", false, ["4-4", "4-6"]),
        ("dsr-ipip", true, ["6-4", "6-6"]),
        ("dsr-gue", false, ["gue-4", "gue-4"]),
        ("dsr-gue", true, ["gue-6", "gue-6"]),
    ] {
        let config = network.config(&services(forward, is_outer6));
        if network.process.is_none() {
            network.start(&config);
        } else {
            assert!(network.reload(&config).contains("pass complete"));
        }
        for (vip, kind) in [("10.9.0.1", kinds[0]), ("fd00:9::1", kinds[1])] {
            let others = || -> usize { KINDS.iter().filter(|one| **one != kind).map(|one| seen(one)).sum() };
            // A reload is over before the tables are written, one service after the other.
            let settled = testkit::poll(PATIENCE, || {
                let (begun, before) = (seen(kind), others());
                network.client.run(move || (ask(vip, 8080), ask_udp(vip, 8082)).1.is_ok()).then_some(())?;
                (seen(kind) >= begun + 4 && others() == before).then_some(())
            });
            assert!(settled.is_some(), "{forward} {kind}: {unwrapped:?}");
            let (begun, before) = (seen(kind), others());
            let (tcp, udp): (BTreeSet<_>, BTreeSet<_>) = network.client.run(move || {
                let tcp = (0..40).map(|_| ask(vip, 8080).unwrap());
                (tcp.collect(), (0..40).map(|_| ask_udp(vip, 8082).unwrap()).collect())
            });
            assert_eq!((tcp.len(), udp.len()), (3, 3), "{forward} {kind}");
            let mut stream = network
                .client
                .run(move || connect(std::net::SocketAddr::new(vip.parse().unwrap(), 8080), PATIENCE))
                .unwrap();
            let answer = exchange(&mut stream).unwrap();
            for _ in 0..20 {
                assert_eq!(exchange(&mut stream).unwrap(), answer, "{forward} {kind}");
            }
            // SYN, ACK and the question of each TCP connection, and each datagram.
            assert!(seen(kind) - begun >= 160, "{forward} {kind}: {unwrapped:?}");
            assert_eq!(others(), before, "{forward} {kind}: {unwrapped:?}");
        }
    }
    let said = network.process.as_ref().unwrap().tail(200);
    assert!(said.contains("eth0 is a virtual interface"), "{said}");
    assert!(said.contains("40 octets of a tunnel"), "{said}");
    assert_eq!(network.stop(), 0);
}
