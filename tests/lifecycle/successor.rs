//! SIGUSR2: what passes to the process that takes over, and where none may.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;

use testkit::dns::Dns;
use testkit::gateway::{Reload, binary, cli};
use testkit::process::{SIGTERM, SIGUSR2};
use testkit::successor::Successor;
use testkit::websocket::{read, to_client, to_server};
use testkit::{
    Backend, Client, Config, Gateway, H2Backend, H2Client, Listener, eventually, ms, request, seconds,
};

use crate::supervised::Supervisor;

const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                      Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

const WEBSOCKET: &[(&str, &str)] = &[
    ("Connection", "Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

fn base() -> Config {
    Config::new().runtime("drain_timeout_ms", 8000).runtime("drain_jitter_ms", 200)
}

/// The sockets that listen at an address of IPv4, by their numbers in the kernel.
fn listening(address: SocketAddr) -> BTreeSet<String> {
    let port = format!(":{:04X}", address.port());
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let rows = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    rows.filter(|row| row[1].ends_with(&port) && row[3] == "0A").map(|row| row[9].to_owned()).collect()
}

/// The sockets are the same ones, however many workers there are: closing one would reset what waits at it.
pub(crate) fn every_socket_passes_on() {
    let backend = Backend::standard("one");
    let listener = Listener::h1().backend(backend.address);
    let at = listener.address;
    let config = |workers: u32| base().runtime("workers", workers).listener(listener.clone());
    let mut gateway = Gateway::start(config(3));
    let sockets = listening(at);
    assert_eq!(sockets.len(), 3);
    gateway.write_config(&config(2).render());
    let second = Successor::takes_over(&gateway);
    assert_eq!(gateway.process.wait_exit(seconds(20)), Some(0));
    assert_eq!(listening(at), sockets);
    for _ in 0..30 {
        assert_eq!(Client::connect(at).unwrap().get("/").unwrap().text(), "one");
    }
    second.signal(SIGTERM);
    eventually("the new process ends", seconds(15), || !second.is_alive());
    assert!(listening(at).is_empty());
}

/// A WebSocket and a stream in both directions, as gRPC has them, go on in the old process.
pub(crate) fn long_streams_finish_where_they_began() {
    let websocket = Backend::start(|conn| {
        conn.head()?;
        conn.send(SWITCH)?;
        while let Some((first, payload)) = read(&mut conn.wire)? {
            if first == 0x88 {
                return Ok(());
            }
            conn.send(to_client(payload))?;
        }
        Ok(())
    });
    let stream = H2Backend::start(|call| {
        call.head(200, &[("content-type", "application/grpc")], false)?;
        while let Some(piece) = call.piece()? {
            call.data(&piece, false)?;
        }
        call.trailers(&[("grpc-status", "0")])
    });
    let config = base()
        .runtime("drain_timeout_ms", 20_000)
        .listener(Listener::h1().websocket().backend(websocket.address))
        .listener(Listener::h2c().block("grpc", "", true).h2_backend(stream.address));
    let mut gateway = Gateway::start(config);
    let mut tunnel = gateway.client();
    tunnel.set_timeout(seconds(10));
    tunnel.send(request("GET", "/", WEBSOCKET, b"")).unwrap();
    assert_eq!(tunnel.head("GET").unwrap().1.status, 101);
    let mut h2 = H2Client::connect(gateway.config.address(1)).unwrap();
    let fields = [("content-type", "application/grpc"), ("te", "trailers")];
    let call = h2.open("POST", "/echo.Echo/Both", &fields, false).unwrap();
    let exchange = |round: usize, tunnel: &mut Client, h2: &mut H2Client| {
        let text = format!("message {round}");
        tunnel.send(to_server(&text)).unwrap();
        assert_eq!(read(&mut tunnel.wire).unwrap(), Some((0x82, text.clone().into_bytes())));
        h2.data(call, text.as_bytes(), false).unwrap();
        h2.until("the message comes back", seconds(10), |client| {
            client.streams.get(&call).is_none_or(|stream| stream.body.ends_with(text.as_bytes()))
        })
        .unwrap();
    };
    exchange(0, &mut tunnel, &mut h2);
    let successor = Successor::takes_over(&gateway);
    // Longer than idle connections are given.
    for round in 1..8 {
        exchange(round, &mut tunnel, &mut h2);
        std::thread::sleep(ms(200));
    }
    assert!(gateway.process.exit().is_none());
    h2.data(call, b"", true).unwrap();
    let response = h2.response(call).unwrap();
    assert!(response.reset.is_none() && response.body.ends_with(b"message 7"), "{response:?}");
    tunnel.send(testkit::websocket::frame(0x88, b"\x03\xe8", Some([1, 2, 3, 4]))).unwrap();
    tunnel.finish();
    drop((tunnel, h2));
    assert_eq!(gateway.process.wait_exit(seconds(20)), Some(0), "{}", gateway.process.tail(20));
    assert!(successor.is_alive());
}

/// The new process has read its files before they changed: the order to read them again is passed on.
pub(crate) fn orders_during_an_upgrade_reach_the_new_process() {
    let backend = Backend::standard("one");
    let names = Dns::start();
    names.set("late.test", &["127.0.0.1"], 3600);
    let config = || {
        base()
            .block("dns", "servers", vec![names.address.to_string()])
            .block("dns", "timeout_ms", 8000)
            .listener(Listener::h1().backend(backend.address))
            .listener(Listener::h1().backend(format!("late.test:{}", backend.address.port())))
    };
    let first = config();
    let added = Listener::h1().backend(backend.address);
    let at = added.address;
    let second = first.clone().listener(added);
    let mut gateway = Gateway::start(first);
    names.silence("late.test");
    let (asked, from) = (names.queries(), gateway.process.stderr.len());
    gateway.process.signal(SIGUSR2);
    let _successor = Successor::of(&gateway, from);
    // It has read the file, and waits for the name.
    eventually("the new process asks", seconds(10), || names.queries() > asked);
    assert!(matches!(gateway.reload(second), Reload::Complete(_)));
    assert_eq!(Client::connect(at).unwrap().get("/").unwrap().text(), "one");
    names.set("late.test", &["127.0.0.1"], 3600);
    assert_eq!(gateway.process.wait_exit(seconds(30)), Some(0), "{}", gateway.process.tail(20));
    eventually("the new process has read the file again", seconds(10), || {
        Client::connect(at).and_then(|mut client| client.get("/")).is_ok_and(|answer| answer.text() == "one")
    });
}

/// systemd is told which process is the main one, and the claim on the file passes on as well.
pub(crate) fn the_new_process_is_the_main_one() {
    let backend = Backend::standard("one");
    let supervisor = Supervisor::new();
    let listener = Listener::h1().backend(backend.address);
    let config = base().runtime("readiness_settle_ms", 1500).listener(listener);
    let mut gateway = Gateway::launch_with(config, &[("NOTIFY_SOCKET", &supervisor.path)]);
    assert!(supervisor.next().contains("READY=1"));
    let successor = Successor::takes_over(&gateway);
    assert!(supervisor.next().contains("STATUS=serving 1 listener(s)"), "the new process is ready");
    assert_eq!(supervisor.next(), format!("MAINPID={}\nREADY=1", successor.pid()));
    assert_eq!(gateway.process.wait_exit(seconds(20)), Some(0));
    let path = gateway.dir().join("lb.toml").display().to_string();
    let told = format!("process {} of the same user runs this file already", successor.pid());
    eventually("the claim passes on", seconds(5), || cli(&[&path]).stderr.contains(&told));
    // While it drains the file is free again: what stops this one is the admin port.
    successor.signal(SIGTERM);
    assert!(supervisor.next().starts_with("STOPPING=1"));
    let next = cli(&[&path]);
    assert!(next.code == 1 && next.stderr.contains("metrics_bind"), "{}", next.stderr);
    eventually("the new process ends", seconds(15), || !successor.is_alive());
}

/// Without a word to it, systemd takes the end of the old process for that of the service, and ends the new one.
pub(crate) fn a_service_that_systemd_hears_nothing_of_does_not_hand_over() {
    let backend = Backend::standard("one");
    let config = base().listener(Listener::h1().backend(backend.address));
    let gateway = Gateway::launch_as(config, |command| {
        let file = command.get_args().next().unwrap().to_owned();
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", "SYSTEMD_EXEC_PID=$$ exec \"$0\" \"$1\""]).arg(binary()).arg(file);
        *command = shell;
    });
    eventually("it serves", seconds(10), || gateway.readyz() == Some(200));
    gateway.process.signal(SIGUSR2);
    let line = gateway.process.stderr.wait("upgrade failed", seconds(10)).expect("the reason");
    assert!(line.contains("Type=notify"), "{line}");
    assert_eq!(gateway.get("/").text(), "one");
}

/// A symbolic link that leads to another version by then is followed anew.
pub(crate) fn the_binary_is_found_where_it_was_called() {
    let backend = Backend::standard("one");
    let files = tempfile::tempdir().unwrap();
    let link = files.path().join("expressgateway");
    symlink(binary(), &link).unwrap();
    let config = base().listener(Listener::h1().backend(backend.address));
    let mut gateway = Gateway::launch_as(config, |command| {
        command.arg0(&link);
    });
    eventually("it serves", seconds(10), || gateway.readyz() == Some(200));
    let broken = files.path().join("broken");
    std::fs::write(&broken, "#!/bin/sh\nexit 7\n").unwrap();
    std::fs::set_permissions(&broken, std::fs::Permissions::from_mode(0o755)).unwrap();
    point(&link, &broken);
    gateway.process.signal(SIGUSR2);
    let line = gateway.process.stderr.wait("it ended before it served", seconds(10)).expect("the reason");
    assert!(line.contains("exit status: 7"), "{line}");
    point(&link, &binary());
    let successor = Successor::takes_over(&gateway);
    assert_eq!(gateway.process.wait_exit(seconds(20)), Some(0));
    assert!(successor.is_alive());
    assert_eq!(gateway.get("/").text(), "one");
}

fn point(link: &Path, target: &Path) {
    let new = link.with_extension("new");
    symlink(target, &new).unwrap();
    std::fs::rename(&new, link).unwrap();
}
