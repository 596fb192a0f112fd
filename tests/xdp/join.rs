//! Both planes: packets are balanced in the kernel over gateways that balance requests.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use testkit::process::{Process, SIGTERM};

use crate::rig::{Host, Network, PATIENCE, connect};
use crate::services::service;
use testkit::seconds;

/// An HTTP server in the namespace of the calling thread, with a body of two octets.
pub(crate) fn origin(body: &'static str) {
    let listener = TcpListener::bind("127.0.0.1:9000").unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { return };
            std::thread::spawn(move || {
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let mut stream = stream;
                let mut line = String::new();
                while reader.read_line(&mut line).is_ok_and(|length| length > 0) {
                    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{body}");
                    if line == "\r\n" && stream.write_all(answer.as_bytes()).is_err() {
                        return;
                    }
                    line.clear();
                }
            });
        }
    });
}

/// A gateway that balances requests, in the namespace of a backend.
fn gateway(host: &Host, at: usize, directory: &std::path::Path) -> Process {
    let file = directory.join(format!("gateway{at}.toml"));
    std::fs::write(
        &file,
        format!(
            "[runtime]\nworkers = 1\nreadiness_settle_ms = 500\ndrain_timeout_ms = 10000\n\
             [[listeners]]\naddress = \"10.2.{at}.11:8000\"\nprotocol = \"h1\"\n\
             [[listeners.backends]]\naddress = \"127.0.0.1:9000\"\n"
        ),
    )
    .unwrap();
    let mut command = Command::new(testkit::gateway::binary());
    command.arg(&file).current_dir(directory).env_remove("RUST_LOG");
    host.enter(&mut command);
    let process = Process::spawn(command);
    let is_up = testkit::poll(seconds(20), || {
        host.run(move || TcpStream::connect(format!("10.2.{at}.11:8000")).is_ok()).then_some(())
    });
    assert!(is_up.is_some(), "{}", process.tail(30));
    process
}

/// A request over a connection; whether the connection goes on. The response names the gateway that has given it in no field, so nothing but its success is looked at.
fn request(stream: &mut TcpStream) -> std::io::Result<bool> {
    stream.write_all(b"GET / HTTP/1.1\r\nhost: shop.example\r\n\r\n")?;
    let (mut head, mut octet) = (Vec::new(), [0; 1]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut octet)?;
        head.push(octet[0]);
    }
    let mut body = [0; 2];
    stream.read_exact(&mut body)?;
    let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
    if !head.starts_with("http/1.1 200") || &body != b"ok" {
        return Err(std::io::Error::other(head));
    }
    Ok(!head.contains("connection: close"))
}

/// A client that makes requests until it is told to end: over one connection as long as the gateway wants it, or over a new one each time. How many have gone well.
fn client(
    network: &Network,
    keeps: bool,
    ends: &Arc<AtomicBool>,
    done: &Arc<AtomicUsize>,
) -> std::sync::mpsc::Receiver<String> {
    let (said, heard) = std::sync::mpsc::channel();
    let (ends, done) = (Arc::clone(ends), Arc::clone(done));
    network.client.run(move || {
        // In the namespace of its host, as every thread that a thread begins.
        std::thread::spawn(move || {
            let mut kept: Option<TcpStream> = None;
            while !ends.load(Ordering::Relaxed) {
                let outcome = (|| {
                    let mut stream = match kept.take() {
                        Some(stream) => stream,
                        None => connect("10.9.0.1:80".parse().unwrap(), PATIENCE)?,
                    };
                    if request(&mut stream)? && keeps {
                        kept = Some(stream);
                    }
                    Ok::<_, std::io::Error>(())
                })();
                match outcome {
                    Ok(()) => _ = done.fetch_add(1, Ordering::Relaxed),
                    Err(error) => _ = said.send(error.to_string()),
                }
                std::thread::sleep(std::time::Duration::from_millis(2));
            }
        });
    });
    heard
}

pub(crate) fn a_gateway_behind_it_drains_and_no_request_fails(mode: &'static str) {
    let mut network = Network::new(mode);
    let directory = tempfile::tempdir().unwrap();
    let mut gateways: Vec<Process> = (0..2)
        .map(|at| {
            network.backends[at].run(|| origin("ok"));
            gateway(&network.backends[at], at + 1, directory.path())
        })
        .collect();
    let pool = "[pools.web]\n[pools.web.health]\ntype = \"http\"\npath = \"/\"\ninterval_ms = 1000\ntimeout_ms = 1000\nfall = 3\nrise = 1\n\
                [[pools.web.backends]]\naddress = \"10.2.1.11:8000\"\n[[pools.web.backends]]\naddress = \"10.2.2.11:8000\"\n";
    let config = network.config(&[service("web", 80, "tcp", "nat", "web"), pool.to_owned()].concat());
    network.start(&config);
    let (ends, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let failures: Vec<_> = (0..8).map(|at| client(&network, at % 2 == 0, &ends, &done)).collect();
    let flows = |backend: &str| {
        network.metric("xdp_backend_flows_total", &[("service", "web"), ("backend", backend)], |_| true)
    };
    let more = |count: usize| {
        let before = done.load(Ordering::Relaxed);
        let went_on =
            testkit::poll(PATIENCE, || (done.load(Ordering::Relaxed) >= before + count).then_some(()));
        assert!(went_on.is_some(), "requests do not go on");
    };
    let served = testkit::poll(PATIENCE, || {
        (flows("10.2.1.11:8000") > 10.0 && flows("10.2.2.11:8000") > 10.0).then_some(())
    });
    assert!(served.is_some());
    // New flows go to the other one, and then it is told to end.
    let (status, body) = network.request("POST", "/backends/web/10.2.1.11:8000/drain").unwrap();
    assert_eq!(status, 200, "{body}");
    let left = testkit::poll(PATIENCE, || {
        let before = flows("10.2.1.11:8000");
        more(200);
        std::thread::sleep(std::time::Duration::from_millis(1100));
        (flows("10.2.1.11:8000") == before).then_some(())
    });
    assert!(left.is_some());
    let mut first = gateways.remove(0);
    first.signal(SIGTERM);
    assert_eq!(first.wait_exit(seconds(30)), Some(0), "{}", first.tail(30));
    more(200);
    // It comes back.
    let _again = gateway(&network.backends[0], 1, directory.path());
    let (status, body) = network.request("POST", "/backends/web/10.2.1.11:8000/undrain").unwrap();
    assert_eq!(status, 200, "{body}");
    let before = flows("10.2.1.11:8000");
    assert!(testkit::poll(PATIENCE, || (flows("10.2.1.11:8000") > before).then_some(())).is_some());
    ends.store(true, Ordering::Relaxed);
    let failed: BTreeSet<String> = failures.iter().flat_map(|one| one.iter()).collect();
    assert!(failed.is_empty(), "{failed:?}");
}
