//! Much data, many clients: bounded memory, nothing lost.

use crate::rig::{gateway, gateway_with};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use testkit::client::chunk;
use testkit::pattern::Verifier;
use testkit::wire::Body;
use testkit::{Backend, Client, Gateway, ms, request, seconds};

const GIB: u64 = 1 << 30;

/// Watches the memory of the gateway until told to stop, and says how far it grew.
struct Memory {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
    peak: Arc<AtomicU64>,
    base: u64,
}

impl Memory {
    fn watch(gateway: &Gateway) -> Memory {
        let base = gateway.process.rss_kib();
        assert!(base > 0, "no memory figure");
        let (stop, peak) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(base)));
        let (halt, top, pid) = (Arc::clone(&stop), Arc::clone(&peak), gateway.process.pid());
        let thread = std::thread::spawn(move || {
            while !halt.load(Ordering::Relaxed) {
                let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
                let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap_or("");
                let now = line.split_whitespace().nth(1).and_then(|v| v.parse().ok()).unwrap_or(0);
                top.fetch_max(now, Ordering::Relaxed);
                std::thread::sleep(ms(20));
            }
        });
        Memory { stop, thread, peak, base }
    }

    #[track_caller]
    fn assert_grew_less_than(self, mib: u64) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
        let grown = (self.peak.load(Ordering::Relaxed) - self.base) / 1024;
        assert!(grown < mib, "memory grew by {grown} MiB over {} MiB", self.base / 1024);
    }
}

pub(crate) fn gibibyte_down() {
    let backend = Backend::standard("one");
    let gateway = gateway(&[&backend]);
    gateway.get("/");
    let memory = Memory::watch(&gateway);
    let mut client = gateway.client();
    client.send(request("GET", &format!("/bytes/{GIB}"), &[], b"")).unwrap();
    let (_, head) = client.head("GET").unwrap();
    let mut seen = Verifier::default();
    Body::new(head.framing).drain(&mut client.wire, |piece| seen.feed(piece)).unwrap();
    seen.assert_complete(GIB);
    memory.assert_grew_less_than(64);
}

pub(crate) fn gibibyte_up() {
    let backend = Backend::standard("one");
    let gateway = gateway(&[&backend]);
    gateway.get("/");
    let memory = Memory::watch(&gateway);
    let mut client = gateway.client();
    client.send(request("POST", "/upload", &[("Content-Length", &GIB.to_string())], b"")).unwrap();
    testkit::standard::stream(GIB, |piece| client.send(piece)).unwrap();
    assert_eq!(client.response("POST").unwrap().text(), format!("{GIB} right"));
    memory.assert_grew_less_than(64);
}

/// Chunks up and chunks down in one exchange, at the speed of the slower side.
pub(crate) fn chunked_both_ways() {
    let backend = Backend::standard("one");
    let gateway = gateway(&[&backend]);
    gateway.get("/");
    let memory = Memory::watch(&gateway);
    let mut client = gateway.client();
    client.send(request("POST", "/stream-echo", &[("Transfer-Encoding", "chunked")], b"")).unwrap();
    let mut writer = client.writer();
    let size = GIB / 4;
    let sending = std::thread::spawn(move || {
        testkit::standard::stream(size, |piece| writer.send(chunk(piece))).unwrap();
        writer.send("0\r\n\r\n").unwrap();
    });
    let (_, head) = client.head("POST").unwrap();
    let mut seen = Verifier::default();
    Body::new(head.framing).drain(&mut client.wire, |piece| seen.feed(piece)).unwrap();
    sending.join().unwrap();
    seen.assert_complete(size);
    memory.assert_grew_less_than(64);
}

pub(crate) fn slow_reader_costs_no_memory() {
    let sent = Arc::new(AtomicU64::new(0));
    let progress = Arc::clone(&sent);
    let size: u64 = 256 << 20;
    let backend = Backend::start(move |conn| {
        let small = conn.request()?.target() != "/large";
        if small {
            return conn.respond(200, &[("Connection", "close")], b"small");
        }
        conn.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n"))?;
        testkit::standard::stream(size, |piece| {
            conn.send(piece)?;
            progress.fetch_add(piece.len() as u64, Ordering::SeqCst);
            Ok(())
        })
    });
    let gateway = gateway(&[&backend]);
    gateway.get("/");
    let memory = Memory::watch(&gateway);
    let mut client = gateway.client();
    client.send(request("GET", "/large", &[], b"")).unwrap();
    let (_, head) = client.head("GET").unwrap();
    // Nobody reads: the backend must come to a stop.
    let before = testkit::standstill("nothing more is taken", || sent.load(Ordering::SeqCst));
    assert!(before < 64 << 20, "{before} bytes were taken from the backend");
    assert_eq!(gateway.get("/").text(), "small", "others are served meanwhile");
    let mut seen = Verifier::default();
    let mut pieces = 0;
    Body::new(head.framing)
        .drain(&mut client.wire, |piece| {
            seen.feed(piece);
            pieces += 1;
            if pieces % 200 == 0 {
                std::thread::sleep(ms(5));
            }
        })
        .unwrap();
    seen.assert_complete(size);
    memory.assert_grew_less_than(32);
}

pub(crate) fn slow_backend_costs_no_memory() {
    let go_on = Arc::new(AtomicBool::new(false));
    let wait = Arc::clone(&go_on);
    let size: u64 = 128 << 20;
    let backend = Backend::start(move |conn| {
        conn.head()?;
        while !wait.load(Ordering::SeqCst) {
            conn.pause(ms(10));
        }
        let request = conn.body()?;
        let verdict = format!("{} {:?}", request.body_len(), request.pattern.wrong_at());
        conn.respond(200, &[], verdict.as_bytes())
    });
    let gateway = gateway(&[&backend]);
    let memory = Memory::watch(&gateway);
    let mut client = gateway.client();
    client.send(request("POST", "/", &[("Content-Length", &size.to_string())], b"")).unwrap();
    let mut writer = client.writer();
    let sent = Arc::new(AtomicU64::new(0));
    let progress = Arc::clone(&sent);
    let sending = std::thread::spawn(move || {
        testkit::standard::stream(size, |piece| {
            progress.fetch_add(piece.len() as u64, Ordering::SeqCst);
            writer.send(piece)
        })
        .unwrap();
    });
    let before = testkit::standstill("nothing more is taken", || sent.load(Ordering::SeqCst));
    assert!(before < 64 << 20, "{before} bytes were taken from the client");
    go_on.store(true, Ordering::SeqCst);
    assert_eq!(client.response("POST").unwrap().text(), format!("{size} None"));
    sending.join().unwrap();
    memory.assert_grew_less_than(32);
}

/// Ten thousand connections at once: each is served when it comes and again when all are there, and costs little while it rests.
pub(crate) fn ten_thousand_connections() {
    const COUNT: usize = 10_000;
    const AT_ONCE: usize = 100;
    let backend = Backend::standard("one");
    let gateway = gateway_with(
        &[&backend],
        |config| config.runtime("per_ip_connection_cap", 20_000),
        |listener| listener.http("keepalive_timeout_ms", 300_000),
    );
    let ask = |clients: &mut [TcpStream]| {
        for client in &mut *clients {
            client.write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
        }
        for client in clients {
            let mut answer = Vec::new();
            while !answer.ends_with(b"\r\n\r\none") {
                let mut part = [0; 1024];
                let n = client.read(&mut part).unwrap();
                assert!(n > 0, "closed after {}", String::from_utf8_lossy(&answer));
                answer.extend_from_slice(&part[..n]);
            }
        }
    };
    let connect = |number: usize| -> Vec<TcpStream> {
        let mut clients: Vec<_> = (0..number).map(|_| TcpStream::connect(gateway.front()).unwrap()).collect();
        for client in &clients {
            client.set_read_timeout(Some(seconds(30))).unwrap();
        }
        ask(&mut clients);
        clients
    };
    // What the first hundred need once is not counted.
    let mut all = connect(AT_ONCE);
    let memory = Memory::watch(&gateway);
    while all.len() < COUNT {
        all.extend(connect(AT_ONCE));
    }
    all.chunks_mut(AT_ONCE).for_each(ask);
    memory.assert_grew_less_than(COUNT as u64 * 3 / 1024 + 4);
    drop(all);
    testkit::eventually("all are gone", seconds(30), || gateway.metric("connections_inflight", &[]) == 0.0);
}

pub(crate) fn thousand_keep_alive_clients() {
    const CLIENTS: usize = 1000;
    const ROUNDS: usize = 5;
    let backend = Backend::standard("one");
    let gateway = gateway_with(
        &[&backend],
        |config| config.runtime("per_ip_connection_cap", 5000),
        |listener| listener,
    );
    let address = gateway.front();
    let threads: Vec<_> = (0..8)
        .map(|_| {
            std::thread::spawn(move || {
                let mut clients: Vec<Client> =
                    (0..CLIENTS / 8).map(|_| Client::connect(address).unwrap()).collect();
                let mut failures = Vec::new();
                for round in 0..ROUNDS {
                    // All of them have a request under way before any answer is read.
                    for (number, client) in clients.iter_mut().enumerate() {
                        let target = format!("/echo/{number}/{round}");
                        if let Err(e) = client.send(request("POST", &target, &[], b"a small body")) {
                            failures.push(format!("sending {target}: {e}"));
                        }
                    }
                    for (number, client) in clients.iter_mut().enumerate() {
                        let line = format!("POST /echo/{number}/{round} HTTP/1.1\r\n");
                        match client.response("POST") {
                            Ok(r) if r.status == 200 && r.text().starts_with(&line) && !r.closes() => {}
                            Ok(r) => failures.push(format!("{line}{} {}", r.status, r.text())),
                            Err(e) => failures.push(format!("{line}{e}")),
                        }
                    }
                }
                failures
            })
        })
        .collect();
    let failures: Vec<String> = threads.into_iter().flat_map(|t| t.join().unwrap()).collect();
    assert!(
        failures.is_empty(),
        "{} failed, such as {:?}",
        failures.len(),
        &failures[..failures.len().min(5)]
    );
    assert_eq!(backend.request_count(), CLIENTS * ROUNDS);
    backend.assert_clean();
    gateway
        .wait_metric("http_requests_total", &[("status_class", "2xx")], |v| v == (CLIENTS * ROUNDS) as f64);
}

pub(crate) fn descriptors_come_back() {
    let backend = Backend::standard("one");
    let gateway = gateway_with(
        &[&backend],
        |config| config.block("pool", "idle_timeout_ms", 300).runtime("per_ip_connection_cap", 5000),
        |listener| listener,
    );
    gateway.get("/");
    testkit::eventually("a quiet start", seconds(5), || backend.open_connections() == 0);
    std::thread::sleep(ms(200));
    let before = gateway.process.open_fds();
    for round in 0..300 {
        let mut client = gateway.client();
        match round % 4 {
            0 => drop(client.get("/bytes/100000")),
            1 => drop(client.send(request("GET", "/bytes/5000000", &[], b""))),
            2 => drop(client.send("POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhalf")),
            _ => drop(client.send("GET / HT")),
        }
        if round % 3 == 0 {
            client.reset();
        }
    }
    let held = || gateway.process.open_fds();
    testkit::eventually("descriptors are given back", seconds(20), || held() <= before + 4);
    testkit::eventually("the upstream side as well", seconds(10), || backend.open_connections() == 0);
}
