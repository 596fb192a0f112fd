//! Datagrams through the gateway, as clients and backends see them.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use testkit::process::SIGTERM;
use testkit::successor::Successor;
use testkit::{Config, Gateway, Listener, Usage, eventually, ms, ports, seconds};

/// A datagram, and where it came from.
type Heard = (SocketAddr, Vec<u8>);

/// A server that answers each datagram with its name, `:` and the datagram, as many times as it is told to.
struct Server {
    address: SocketAddr,
    socket: Arc<UdpSocket>,
    heard: Arc<Mutex<Vec<Heard>>>,
    answers: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// A process that a parallel test has forked holds all sockets until it runs its program, closed ones as well.
fn bind(address: SocketAddr) -> UdpSocket {
    let deadline = Instant::now() + seconds(5);
    loop {
        let bound = UdpSocket::bind(address);
        let is_held = bound.as_ref().is_err_and(|error| error.kind() == ErrorKind::AddrInUse);
        if !is_held || Instant::now() > deadline {
            return bound.unwrap();
        }
        thread::sleep(ms(5));
    }
}

impl Server {
    fn new(name: &'static str) -> Self {
        Self::at(name, ports::reserve())
    }

    fn at(name: &'static str, address: SocketAddr) -> Self {
        let socket = Arc::new(bind(address));
        socket.set_read_timeout(Some(ms(20))).unwrap();
        let heard: Arc<Mutex<Vec<Heard>>> = Arc::default();
        let (answers, stop) = (Arc::new(AtomicUsize::new(1)), Arc::new(AtomicBool::new(false)));
        let thread = {
            let (socket, heard, answers, stop) =
                (Arc::clone(&socket), Arc::clone(&heard), Arc::clone(&answers), Arc::clone(&stop));
            std::thread::spawn(move || {
                let mut buffer = vec![0; 65_536];
                while !stop.load(Ordering::Relaxed) {
                    let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
                    heard.lock().unwrap().push((from, buffer[..length].to_vec()));
                    let mut answer = name.as_bytes().to_vec();
                    // Whole where there is no room for the name.
                    if length < 60_000 {
                        answer.push(b':');
                    } else {
                        answer.clear();
                    }
                    answer.extend_from_slice(&buffer[..length]);
                    for _ in 0..answers.load(Ordering::Relaxed) {
                        socket.send_to(&answer, from).unwrap();
                    }
                }
            })
        };
        Self { address, socket, heard, answers, stop, thread: Some(thread) }
    }

    fn heard(&self) -> Vec<Heard> {
        self.heard.lock().unwrap().clone()
    }

    fn stop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A client with a port of its own.
struct Asker(UdpSocket);

impl Asker {
    fn to(address: SocketAddr) -> Self {
        let any = if address.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" };
        let socket = UdpSocket::bind(any).unwrap();
        socket.connect(address).unwrap();
        Self(socket)
    }

    fn send(&self, bytes: &[u8]) {
        self.0.send(bytes).unwrap();
    }

    fn receive(&self, limit: std::time::Duration) -> Option<Vec<u8>> {
        self.0.set_read_timeout(Some(limit)).unwrap();
        let mut buffer = vec![0; 65_536];
        let length = self.0.recv(&mut buffer).ok()?;
        buffer.truncate(length);
        Some(buffer)
    }

    #[track_caller]
    fn ask(&self, bytes: &[u8]) -> Vec<u8> {
        self.send(bytes);
        self.receive(seconds(5)).expect("an answer")
    }

    #[track_caller]
    fn asked(&self, text: &str) -> String {
        String::from_utf8(self.ask(text.as_bytes())).unwrap()
    }

    /// Nothing comes back.
    #[track_caller]
    fn is_silent(&self) {
        let answer = self.receive(ms(150));
        assert_eq!(answer, None);
    }
}

fn listener(servers: &[&Server]) -> Listener {
    servers.iter().fold(Listener::udp(), |block, server| block.backend(server.address))
}

fn start(listener: Listener) -> Gateway {
    Gateway::start(Config::new().listener(listener))
}

fn name(gateway: &Gateway) -> String {
    format!("{}/udp", gateway.front())
}

fn flows(gateway: &Gateway) -> f64 {
    gateway.metric("connections_inflight", &[("listener", &name(gateway))])
}

#[track_caller]
fn dropped(gateway: &Gateway, reason: &str, least: f64) {
    let labels = [("listener", &*name(gateway)), ("reason", reason)];
    gateway.wait_metric("udp_datagrams_dropped_total", &labels, |count| count >= least);
}

pub(crate) fn flows_keep_their_backend_and_get_its_replies() {
    let (one, two) = (Server::new("one"), Server::new("two"));
    let gateway = start(listener(&[&one, &two]));
    let clients: Vec<_> = (0..60).map(|_| Asker::to(gateway.front())).collect();
    let mut by_backend: BTreeMap<String, usize> = BTreeMap::new();
    let first: Vec<String> = clients
        .iter()
        .enumerate()
        .map(|(number, client)| {
            let answer = client.asked(&format!("a{number}"));
            let (backend, rest) = answer.split_once(':').unwrap();
            assert_eq!(rest, format!("a{number}"));
            *by_backend.entry(backend.to_owned()).or_default() += 1;
            backend.to_owned()
        })
        .collect();
    // Workers begin their rounds at different members.
    assert!(
        by_backend.len() == 2 && by_backend.values().all(|count| (25..=35).contains(count)),
        "{by_backend:?}"
    );
    for _ in 0..3 {
        for (client, backend) in clients.iter().zip(&first) {
            assert_eq!(client.asked("again"), format!("{backend}:again"));
        }
    }
    assert_eq!(flows(&gateway), 60.0);
    let listener = name(&gateway);
    assert_eq!(gateway.metric("udp_flows_total", &[("listener", &listener)]), 60.0);
    for path in ["to_backend", "to_client"] {
        assert_eq!(gateway.metric("udp_datagrams_total", &[("listener", &listener), ("path", path)]), 240.0);
    }
    // Sixty flows to two backends share sockets.
    let sockets = gateway.metric("udp_backend_sockets", &[("listener", &listener)]);
    assert!((30.0..=40.0).contains(&sockets), "{sockets}");
}

pub(crate) fn datagrams_of_all_sizes_pass_whole() {
    let one = Server::new("one");
    let gateway = start(listener(&[&one]));
    let client = Asker::to(gateway.front());
    for size in [0, 1, 1200, 1472, 1473, 9000, 59_999, 65_507] {
        let sent: Vec<u8> = (0..size).map(|at| u8::try_from(at % 251).unwrap()).collect();
        let answer = client.ask(&sent);
        let whole = if size < 60_000 { [b"one:", &sent[..]].concat() } else { sent };
        assert!(answer == whole, "{size}: {} bytes came back", answer.len());
    }
}

pub(crate) fn bursts_pass_in_order() {
    let one = Server::new("one");
    let gateway = start(listener(&[&one]));
    let clients: Vec<_> = (0..4).map(|_| Asker::to(gateway.front())).collect();
    // No more at once than the buffers of clients and server hold.
    for burst in 0..5u32 {
        let numbers = burst * 20..burst * 20 + 20;
        for client in &clients {
            for number in numbers.clone() {
                let width = if number % 10 == 9 { 9 } else { 100 };
                client.send(format!("{number:0width$}").as_bytes());
            }
        }
        for client in &clients {
            for number in numbers.clone() {
                let answer = String::from_utf8(client.receive(seconds(5)).expect("an answer")).unwrap();
                assert_eq!(answer.strip_prefix("one:").unwrap().parse(), Ok(number));
            }
        }
    }
}

pub(crate) fn answers_come_from_the_address_that_was_asked() {
    let one = Server::new("one");
    let port = ports::port();
    let gateway = start(listener(&[&one]).at(SocketAddr::from(([0, 0, 0, 0], port))));
    for last in [1, 2, 77] {
        // Connected, so that an answer from another address is not received.
        let client = Asker::to(SocketAddr::from(([127, 0, 0, last], port)));
        assert_eq!(client.asked("x"), "one:x");
    }
    drop(gateway);
    let six = Server::at("six", SocketAddr::new("::1".parse::<IpAddr>().unwrap(), ports::port()));
    let at = SocketAddr::new("::1".parse::<IpAddr>().unwrap(), ports::port());
    let gateway = start(listener(&[&six]).at(at));
    assert_eq!(Asker::to(at).asked("x"), "six:x");
    drop(gateway);
    // From one version of IP to the other.
    let _gateway = start(listener(&[&one]).at(at));
    assert_eq!(Asker::to(at).asked("x"), "one:x");
}

pub(crate) fn silent_flows_end_and_busy_ones_do_not() {
    let one = Server::new("one");
    let gateway = start(listener(&[&one]).block("udp", "idle_timeout_ms", 400));
    let (busy, silent) = (Asker::to(gateway.front()), Asker::to(gateway.front()));
    silent.asked("x");
    let port = |text: &[u8]| one.heard().iter().rev().find(|(_, bytes)| bytes == text).unwrap().0.port();
    for _ in 0..10 {
        busy.asked("busy");
        std::thread::sleep(ms(100));
    }
    let ports: HashSet<_> =
        one.heard().iter().filter(|(_, bytes)| bytes == b"busy").map(|(from, _)| *from).collect();
    assert_eq!((ports.len(), flows(&gateway)), (1, 1.0));
    let ended = [("listener", &*name(&gateway)), ("reason", "idle")];
    gateway.wait_metric("udp_flows_ended_total", &ended, |count| count == 2.0);
    assert_eq!(flows(&gateway), 0.0);
    // Another flow, on another pair: late answers of the first must not reach it.
    let before = port(b"x");
    silent.asked("y");
    assert_ne!(before, port(b"y"));
}

pub(crate) fn a_full_listener_takes_no_flow_and_loses_none() {
    let one = Server::new("one");
    let gateway = start(listener(&[&one]).block("udp", "max_flows", 3));
    let clients: Vec<_> = (0..3).map(|_| Asker::to(gateway.front())).collect();
    for client in &clients {
        client.asked("x");
    }
    let late = Asker::to(gateway.front());
    late.send(b"x");
    late.is_silent();
    dropped(&gateway, "max_flows", 1.0);
    assert!(gateway.process.stderr.wait("refused a flow of datagrams — cap reached", seconds(5)).is_some());
    for client in &clients {
        assert_eq!(client.asked("again"), "one:again");
    }
}

pub(crate) fn a_source_has_its_cap_and_a_client_that_of_connections() {
    let one = Server::new("one");
    let (config, front) = (Config::new(), ports::reserve());
    let with = |most: u32| {
        let block = listener(&[&one]).at(front).block("udp", "max_flows_per_source", most);
        config.clone().listener(block)
    };
    let mut gateway = Gateway::start(with(2));
    let clients: Vec<_> = (0..3).map(|_| Asker::to(gateway.front())).collect();
    clients[0].asked("x");
    clients[1].asked("x");
    clients[2].send(b"x");
    clients[2].is_silent();
    dropped(&gateway, "per_source", 1.0);
    // Another address has room.
    let other = UdpSocket::bind("127.0.0.2:0").unwrap();
    other.connect(gateway.front()).unwrap();
    assert_eq!(Asker(other).asked("x"), "one:x");
    // Live: the next one is let in.
    gateway.reload(with(3));
    assert_eq!(clients[2].asked("y"), "one:y");
    drop(gateway);
    let gateway =
        Gateway::start(Config::new().runtime("per_ip_connection_cap", 1).listener(listener(&[&one])));
    Asker::to(gateway.front()).asked("x");
    let refused = Asker::to(gateway.front());
    refused.send(b"x");
    refused.is_silent();
    dropped(&gateway, "admission", 1.0);
}

pub(crate) fn flows_end_with_their_replies() {
    let one = Server::new("one");
    let gateway = start(listener(&[&one]).block("udp", "replies", 1));
    let answered = [("listener", &*name(&gateway)), ("reason", "answered")];
    let client = Asker::to(gateway.front());
    for round in 1..=20 {
        client.asked("x");
        gateway.wait_metric("udp_flows_ended_total", &answered, |count| count == f64::from(round));
    }
    assert_eq!(flows(&gateway), 0.0);
    // Two questions are under way: the first answer does not end the flow.
    one.answers.store(0, Ordering::Relaxed);
    client.send(b"p");
    client.send(b"q");
    eventually("both are heard", seconds(5), || one.heard().len() == 22);
    let from = one.heard()[21].0;
    assert_eq!(one.heard()[20].0, from);
    for text in [b"1", b"2"] {
        one.socket.send_to(text, from).unwrap();
        assert_eq!(client.receive(seconds(5)).as_deref(), Some(&text[..]));
    }
    one.socket.send_to(b"3", from).unwrap();
    client.is_silent();
    dropped(&gateway, "unasked", 1.0);
}

pub(crate) fn without_replies_each_datagram_is_dealt_by_itself() {
    let (one, two) = (Server::new("one"), Server::new("two"));
    let gateway = start(listener(&[&one, &two]).block("udp", "replies", 0));
    let client = Asker::to(gateway.front());
    for _ in 0..20 {
        client.send(b"line");
    }
    eventually("each backend has its share", seconds(5), || {
        one.heard().len() == 10 && two.heard().len() == 10
    });
    client.is_silent();
    assert_eq!(flows(&gateway), 0.0);
    let sockets = gateway.metric("udp_backend_sockets", &[("listener", &name(&gateway))]);
    assert!(sockets <= 2.0, "{sockets}");
}

pub(crate) fn the_first_datagram_tells_the_client() {
    let one = Server::new("one");
    let gateway = start(listener(&[&one]).block("udp", "proxy_protocol", true));
    let client = Asker::to(gateway.front());
    // Too large with the header: the next one has it.
    client.send(&[7; 65_500]);
    dropped(&gateway, "too_large", 1.0);
    client.ask(b"hello");
    client.ask(b"again");
    let heard = one.heard();
    let port = client.0.local_addr().unwrap().port().to_be_bytes();
    let mut expected = b"\r\n\r\n\0\r\nQUIT\n\x21\x12\0\x0c\x7f\0\0\x01\x7f\0\0\x01".to_vec();
    expected.extend_from_slice(&port);
    expected.extend_from_slice(&gateway.front().port().to_be_bytes());
    expected.extend_from_slice(b"hello");
    assert_eq!(
        heard.iter().map(|(_, bytes)| bytes.clone()).collect::<Vec<_>>(),
        [expected, b"again".to_vec()]
    );
}

pub(crate) fn l4_09_no_more_goes_back_than_the_factor_allows() {
    let one = Server::new("one");
    one.answers.store(50, Ordering::Relaxed);
    let gateway = start(listener(&[&one]).block("udp", "max_amplification", 10));
    let client = Asker::to(gateway.front());
    client.send(&[1; 100]);
    let mut bytes = 0;
    while let Some(answer) = client.receive(ms(300)) {
        bytes += answer.len();
    }
    assert!((900..=1000).contains(&bytes), "{bytes}");
    dropped(&gateway, "amplification", 41.0);
    // Only the client of a flow gets anything: whoever else sends to its socket at the gateway does not reach it.
    let at = SocketAddr::new(gateway.front().ip(), one.heard()[0].0.port());
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    stranger.send_to(b"forged", at).unwrap();
    client.is_silent();
    dropped(&gateway, "unasked", 1.0);
}

pub(crate) fn l4_03_made_up_senders_cost_bounded_memory_and_no_flow_that_lives() {
    let one = Server::new("one");
    one.answers.store(0, Ordering::Relaxed);
    let gateway = Gateway::start(
        Config::new().runtime("per_ip_connection_cap", 1_000_000).listener(listener(&[&one]).block(
            "udp",
            "max_flows",
            500,
        )),
    );
    let victim = Asker::to(gateway.front());
    victim.send(b"first");
    eventually("the flow lives", seconds(5), || flows(&gateway) == 1.0);
    let usage = Usage::watch(&gateway);
    for round in 0..40u16 {
        for number in 0..100u16 {
            let id = round * 100 + number;
            let address = [127, 1, u8::try_from(id / 250).unwrap(), u8::try_from(id % 250 + 1).unwrap()];
            let sender = UdpSocket::bind(SocketAddr::from((address, 0))).unwrap();
            sender.send_to(b"flood", gateway.front()).unwrap();
        }
    }
    dropped(&gateway, "max_flows", 3000.0);
    assert_eq!(flows(&gateway), 500.0);
    usage.assert_grew_less_than(&gateway, 16 << 20);
    one.answers.store(1, Ordering::Relaxed);
    assert_eq!(victim.asked("still"), "one:still");
}

pub(crate) fn dead_backends_are_left_alone() {
    let one = Server::new("one");
    let dead = ports::reserve();
    let gateway = start(listener(&[&one]).backend(dead));
    // Whoever is sent to the dead one is told by ICMP, and its next datagram goes to the other.
    let clients: Vec<_> = (0..8).map(|_| Asker::to(gateway.front())).collect();
    for client in &clients {
        client.send(b"x");
        if client.receive(ms(200)).is_none() {
            assert_eq!(client.asked("y"), "one:y");
        }
    }
    let label = dead.to_string();
    let failures = gateway.metric("backend_connect_failures_total", &[("backend", &label)]);
    assert!((1.0..=2.0).contains(&failures), "{failures}");
    let moved = gateway.metric("udp_flows_moved_total", &[("listener", &name(&gateway))]);
    assert!((1.0..=2.0).contains(&moved), "{moved}");
}

pub(crate) fn probes_take_a_backend_out_and_back() {
    let (one, mut two) = (Server::new("one"), Server::new("two"));
    let health = |block: Listener| {
        block
            .block("health", "type", "udp")
            .block("health", "send", "PING\\x00")
            .block("health", "expect", "two:PING")
            .block("health", "interval_ms", 100)
            .block("health", "timeout_ms", 90)
            .block("health", "rise", 1)
            .block("health", "fall", 1)
    };
    // The first backend answers with something else, and so is never used.
    let gateway = start(health(listener(&[&one, &two])));
    let is_up = |address: SocketAddr, up: f64| {
        gateway.wait_metric("backend_healthy", &[("backend", &address.to_string())], |value| value == up);
    };
    let asked = one.address.to_string();
    gateway.wait_metric("backend_health_probes_total", &[("backend", &asked), ("result", "timeout")], |n| {
        n >= 1.0
    });
    is_up(one.address, 0.0);
    is_up(two.address, 1.0);
    assert!(two.heard().iter().any(|(_, bytes)| bytes == b"PING\0"));
    let clients: Vec<_> = (0..6).map(|_| Asker::to(gateway.front())).collect();
    for client in &clients {
        assert_eq!(client.asked("x"), "two:x");
    }
    let address = two.address;
    two.stop();
    is_up(address, 0.0);
    // None is well: all are used as if they were, the flows stay where they are.
    drop(two);
    let _two = Server::at("two", address);
    is_up(address, 1.0);
    for client in &clients {
        assert_eq!(client.asked("y"), "two:y");
    }
}

pub(crate) fn a_reload_moves_the_flows_of_a_backend_that_left_and_no_others() {
    let (one, two, three) = (Server::new("one"), Server::new("two"), Server::new("three"));
    let config = Config::new();
    let front = ports::reserve();
    let with = |servers: &[&Server]| config.clone().listener(listener(servers).at(front));
    let mut gateway = Gateway::start(with(&[&one, &two]));
    let clients: Vec<_> = (0..10).map(|_| Asker::to(front)).collect();
    let before: Vec<_> = clients.iter().map(|client| client.asked("x")).collect();
    let own_ports =
        |server: &Server| -> BTreeSet<u16> { server.heard().iter().map(|(from, _)| from.port()).collect() };
    let of_one = own_ports(&one);
    gateway.reload(with(&[&one, &three]));
    for (client, before) in clients.iter().zip(&before) {
        let after = client.asked("x");
        match &**before {
            "one:x" => assert_eq!(after, "one:x"),
            _ => assert!(after == "three:x" || after == "one:x", "{after}"),
        }
    }
    assert_eq!(flows(&gateway), 10.0);
    assert!(of_one.is_subset(&own_ports(&one)));
    // A flow stays on its socket.
    let kept = before.iter().filter(|before| &***before == "one:x").count();
    assert!(own_ports(&one).len() <= of_one.len() + (10 - kept));
    // The timeout of flows that live is another one now.
    gateway.reload(config.clone().listener(listener(&[&one]).at(front).block("udp", "idle_timeout_ms", 200)));
    eventually("the flows end", seconds(5), || flows(&gateway) == 0.0);
}

pub(crate) fn a_drain_keeps_flows_and_begins_none() {
    let one = Server::new("one");
    let mut gateway =
        Gateway::start(Config::new().runtime("drain_timeout_ms", 1500).listener(listener(&[&one])));
    let client = Asker::to(gateway.front());
    client.asked("x");
    gateway.process.signal(SIGTERM);
    assert!(gateway.process.stderr.wait("listener cancelled by drain coordinator", seconds(5)).is_some());
    assert_eq!(client.asked("y"), "one:y");
    let late = Asker::to(gateway.front());
    late.send(b"x");
    late.is_silent();
    assert_eq!(client.asked("z"), "one:z");
    // The flow is aborted when the time is over.
    assert_eq!(gateway.process.wait_exit(seconds(10)), Some(3));
    // Without flows nothing is waited for.
    let mut gateway =
        Gateway::start(Config::new().runtime("drain_timeout_ms", 60_000).listener(listener(&[&one])));
    assert_eq!(gateway.stop(seconds(10)), 0);
}

pub(crate) fn a_listener_that_comes_back_serves_at_once() {
    let (one, other) = (Server::new("one"), Server::new("other"));
    let front = ports::reserve();
    let config = Config::new().runtime("drain_timeout_ms", 60_000);
    let both = config.clone().listener(Listener::udp().backend(other.address));
    let with = both.clone().listener(listener(&[&one]).at(front));
    let mut gateway = Gateway::start(with.clone());
    let client = Asker::to(front);
    client.asked("x");
    gateway.reload(both);
    // The flow lives, new ones do not begin.
    assert_eq!(client.asked("y"), "one:y");
    let new = Asker::to(front);
    new.send(b"x");
    new.is_silent();
    gateway.reload(with);
    // Sockets of the listener that drains would get a part of these.
    let clients: Vec<_> = (0..20).map(|_| Asker::to(front)).collect();
    for client in clients.iter().chain([&new]) {
        assert_eq!(client.asked("z"), "one:z");
    }
}

pub(crate) fn an_upgrade_hands_the_sockets_over_and_passes_replies_on() {
    let one = Server::new("one");
    let gateway = Gateway::start(Config::new().runtime("drain_timeout_ms", 4000).listener(listener(&[&one])));
    let (old, new) = (Asker::to(gateway.front()), Asker::to(gateway.front()));
    old.asked("x");
    let from = one.heard()[0].0;
    let successor = Successor::takes_over(&gateway);
    assert!(gateway.process.stderr.wait("listener cancelled by drain coordinator", seconds(5)).is_some());
    // The old process still passes on what comes for its flow.
    one.socket.send_to(b"late", from).unwrap();
    assert_eq!(old.receive(seconds(5)).as_deref(), Some(&b"late"[..]));
    // The new one has the sockets, and no datagram goes to the old one.
    for _ in 0..20 {
        assert_eq!(new.asked("y"), "one:y");
        assert_eq!(old.asked("z"), "one:z");
    }
    let senders: HashMap<u16, usize> = one.heard().iter().fold(HashMap::new(), |mut all, (from, _)| {
        *all.entry(from.port()).or_default() += 1;
        all
    });
    assert_eq!(senders.get(&from.port()), Some(&1));
    drop(successor);
}
