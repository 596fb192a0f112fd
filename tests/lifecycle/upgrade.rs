//! SIGUSR2: another process takes over the ports, and no client notices.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use testkit::certificates::Authority;
use testkit::load::{Load, Tally};
use testkit::process::{Process, SIGKILL, SIGTERM, SIGUSR2, pass_sockets};
use testkit::successor::Successor;
use testkit::tls::{Bridge, TlsClient};
use testkit::{Backend, Client, Config, Gateway, H2Client, Listener, eventually, ms, seconds};

#[track_caller]
fn assert_nothing_lost(what: &str, tally: &Tally) {
    assert_eq!(tally.failures.lock().unwrap().as_slice(), [] as [String; 0], "{what}");
    assert_eq!(tally.failed.load(Ordering::Relaxed), 0, "{what}");
    assert_eq!(tally.refused.load(Ordering::Relaxed), 0, "{what}: connections were refused");
    assert_eq!(tally.repeated.load(Ordering::Relaxed), 0, "{what}: connections were cut");
    assert!(tally.served.load(Ordering::Relaxed) > 50, "{what}: too little traffic to show anything");
}

/// Runs `once` again and again until told to stop; how often it ran.
fn again(stop: &Arc<AtomicBool>, mut once: impl FnMut() + Send + 'static) -> JoinHandle<usize> {
    let stop = Arc::clone(stop);
    std::thread::spawn(move || {
        let mut count = 0;
        while !stop.load(Ordering::Relaxed) {
            once();
            count += 1;
        }
        count
    })
}

fn base() -> Config {
    Config::new()
        .runtime("per_ip_connection_cap", 10_000)
        .runtime("max_keepalive_requests", 0)
        .runtime("drain_timeout_ms", 8000)
        .runtime("drain_jitter_ms", 500)
}

pub(crate) fn an_upgrade_under_load_loses_nothing() {
    let authority = Authority::new("test authority");
    let files = tempfile::tempdir().unwrap();
    let (certificate, key) = authority.server(&["server.test"]).write(files.path(), "s");
    let backend = Backend::standard("one");
    let plain = Listener::h2c().backend(backend.address);
    let secure = Listener::h1s(&certificate, &key).backend(backend.address);
    let raw = Listener::tcp().backend(backend.address);
    let (at, inside, relay) = (plain.address, secure.address, raw.address);
    let mut gateway = Gateway::start(base().listener(plain).listener(secure).listener(raw));
    let bridge = Bridge::start(TlsClient::new(&authority, None).alpn(&["http/1.1"]), inside, "server.test");
    let stop = Arc::new(AtomicBool::new(false));
    let loads =
        [("h1", at), ("tls", bridge.address)].map(|(name, to)| (name, Load::start(to, 4, "/", ms(1))));
    let fresh = |to: SocketAddr| {
        again(&stop, move || {
            assert_eq!(Client::connect(to).unwrap().get("/").unwrap().text(), "one");
        })
    };
    let (short, through_relay) = (fresh(at), fresh(relay));
    let h2 = again(&stop, move || {
        assert_eq!(H2Client::connect(at).unwrap().get("/").unwrap().text(), "one");
    });
    // What is open before ends in the old process, however long the new one is there.
    let mut kept = Client::connect(relay).unwrap();
    assert_eq!(kept.get("/").unwrap().text(), "one");
    let mut slow_h2 = H2Client::connect(at).unwrap();
    let slow_h2 = std::thread::spawn(move || slow_h2.get("/slow/2500").unwrap().status());
    std::thread::sleep(ms(300));
    let mut successors = Vec::new();
    let from = gateway.process.stderr.len();
    gateway.process.signal(SIGUSR2);
    successors.push(Successor::of(&gateway, from));
    let serves = gateway
        .process
        .stderr
        .wait_from(from, seconds(20), |line| line.contains("upgrade: the new process serves"));
    assert!(serves.is_some(), "the new process does not serve");
    assert_eq!(kept.get("/").unwrap().text(), "one");
    assert_eq!(slow_h2.join().unwrap(), 200);
    kept.finish();
    drop(kept);
    assert_eq!(gateway.process.wait_exit(seconds(20)), Some(0));
    assert!(successors.iter().all(Successor::is_alive));
    std::thread::sleep(ms(300));
    stop.store(true, Ordering::Relaxed);
    for work in [short, through_relay, h2] {
        assert!(work.join().unwrap() > 20);
    }
    for (name, load) in loads {
        assert_nothing_lost(name, &load.stop());
    }
    assert_eq!(bridge.failures(), [] as [String; 0]);
    assert_eq!(gateway.readyz(), Some(200), "the new process has the admin port");
    assert_eq!(gateway.get("/").text(), "one");
    // The new process is as good as the old one: it ends in order when it is told to.
    let [successor] = &successors[..] else { panic!("one successor") };
    successor.signal(SIGTERM);
    eventually("the new process ends", seconds(15), || !successor.is_alive());
}

pub(crate) fn an_upgrade_that_fails_changes_nothing() {
    let backend = Backend::standard("one");
    let listener = Listener::h1().backend(backend.address);
    let gateway = Gateway::start(base().listener(listener.clone()));
    let load = Load::start(gateway.front(), 4, "/", ms(1));
    let failed = |text: &str, then: &dyn Fn(&Successor)| -> String {
        gateway.write_config(text);
        let from = gateway.process.stderr.len();
        gateway.process.signal(SIGUSR2);
        let successor = Successor::of(&gateway, from);
        then(&successor);
        let line =
            gateway.process.stderr.wait_from(from, seconds(15), |line| line.contains("upgrade failed"));
        assert_eq!(gateway.readyz(), Some(200));
        assert_eq!(gateway.get("/").text(), "one");
        assert!(!successor.is_alive());
        line.expect("why it failed")
    };
    let good = gateway.config.render();
    // A start that fails for its configuration.
    let line = failed(&good.replace("protocol = \"h1\"", "protocol = \"h9\""), &|_| {});
    assert!(line.contains("it ended before it served: exit status: 1"), "{line}");
    // One that waits for a name server that says nothing is killed. Upgrades do not pile up meanwhile.
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let waits = format!(
        "{}\n[[listeners]]\naddress = \"{}\"\nprotocol = \"h1\"\n[[listeners.backends]]\naddress = \"nowhere.test:80\"\n\
         [dns]\nservers = [\"{}\"]\ntimeout_ms = 30000\n",
        good,
        testkit::ports::reserve(),
        silent.local_addr().unwrap()
    );
    let line = failed(&waits, &|successor| {
        silent.set_read_timeout(Some(seconds(10))).unwrap();
        silent.recv_from(&mut [0; 512]).expect("the new process asks for the name");
        gateway.process.signal(SIGUSR2);
        assert!(gateway.process.stderr.wait("a new process is starting already", seconds(5)).is_some());
        successor.signal(SIGKILL);
    });
    assert!(line.contains("signal: 9"), "{line}");
    eventually("traffic", seconds(10), || load.served() > 100);
    assert_nothing_lost("h1", &load.stop());
    // The order to end counts for one that is starting as well.
    let from = gateway.process.stderr.len();
    gateway.process.signal(SIGUSR2);
    let successor = Successor::of(&gateway, from);
    let mut gateway = gateway;
    assert_eq!(gateway.stop(seconds(15)), 0);
    assert!(!successor.is_alive());
}

/// What systemd does for a socket unit: it listens, and passes the sockets on from number 3 on.
pub(crate) fn sockets_of_systemd_are_taken_by_address() {
    let backend = Backend::standard("one");
    // Bound so that nothing else can bind the address as well.
    let sockets = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let [at, nobody] = [0, 1].map(|socket: usize| sockets[socket].local_addr().unwrap());
    let config = base()
        .runtime("workers", 2)
        .listener(Listener::h1().at(at).backend(backend.address))
        .listener(Listener::h1().backend(backend.address));
    // It waits in the queue of the socket for a gateway that is not there yet.
    let mut early = Client::connect(at).unwrap();
    early.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("lb.toml");
    std::fs::write(&file, config.render()).unwrap();
    let mut command = Command::new("sh");
    command
        .args(["-c", "LISTEN_PID=$$ LISTEN_FDS=2 exec \"$0\" \"$1\""])
        .arg(testkit::gateway::binary())
        .arg(&file);
    pass_sockets(&mut command, &sockets);
    let mut process = Process::spawn(command);
    drop(sockets);
    assert!(process.stderr.wait("probes flipped to Ready", seconds(10)).is_some(), "{}", process.tail(20));
    assert_eq!(early.response("GET").unwrap().text(), "one");
    for address in [at, config.address(1)] {
        for _ in 0..20 {
            assert_eq!(Client::connect(address).unwrap().get("/").unwrap().text(), "one");
        }
    }
    let line = process.stderr.matching("belongs to no listener");
    assert!(line.len() == 1 && line[0].contains(&nobody.to_string()), "{line:?}");
    assert!(Client::connect(nobody).is_err(), "nothing accepts there");
    drop(early);
    process.signal(SIGTERM);
    assert_eq!(process.wait_exit(seconds(15)), Some(0));
    assert!(Client::connect(at).is_err());
}
