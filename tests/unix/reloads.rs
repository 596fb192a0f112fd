//! Unix listeners that come, go and change by a reload.

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use testkit::gateway::Reload;
use testkit::load::Load;
use testkit::unix::{Port, Socket};
use testkit::{Backend, Client, Config, Gateway, Listener, eventually, ms, ports, seconds};

use crate::rig::{ask, assert_nothing_lost, base, directory, files, path};

#[track_caller]
fn complete(gateway: &mut Gateway, base: &Config, listeners: &[&Listener]) -> String {
    let config = listeners.iter().fold(base.clone(), |config, one| config.listener((*one).clone()));
    match gateway.reload(config) {
        Reload::Complete(line) => line,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn a_reload_changes_unix_listeners() {
    let directory = directory();
    let [steady_at, other_at] = ["steady", "other"].map(|name| path(&directory, name));
    let [one, two] = ["one", "two"].map(Backend::standard);
    let behind = Socket::at(&path(&directory, "app"), two.address);
    let steady = Listener::h1().at_unix(&steady_at).backend(one.address);
    let other = Listener::h1().at_unix(&other_at).backend(&behind.name).key("drain_jitter_ms", 0);
    let base = base();
    let mut gateway = Gateway::start(base.clone().listener(steady.clone()));
    let load = Load::start(Port::to(&steady_at).address, 4, "/", ms(1));
    let inode = std::fs::metadata(&steady_at).unwrap().ino();
    // Added, with other permissions, and as another protocol: the socket stays the same one.
    complete(&mut gateway, &base, &[&steady, &other]);
    assert_eq!(ask(&other_at, "/"), "two");
    let own = std::fs::metadata(&other_at).unwrap().ino();
    let line = complete(&mut gateway, &base, &[&steady, &other.clone().key("socket_mode", "0600")]);
    assert!(line.contains("\"restart_required\":0"), "{line}");
    let metadata = std::fs::metadata(&other_at).unwrap();
    assert_eq!((metadata.permissions().mode() & 0o777, metadata.ino()), (0o600, own));
    let mut slow = Client::connect(Port::to(&other_at).address).unwrap();
    slow.send("GET /slow/700 HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    std::thread::sleep(ms(100));
    let raw = Listener::tcp().at_unix(&other_at).backend(one.address);
    complete(&mut gateway, &base, &[&raw, &steady]);
    assert_eq!(ask(&other_at, "/"), "one");
    let metadata = std::fs::metadata(&other_at).unwrap();
    assert_eq!((metadata.permissions().mode() & 0o777, metadata.ino()), (0o660, own));
    assert_eq!(slow.response("GET").unwrap().text(), "two");
    // Removed: its file is gone, and what runs ends well. Added again at once, it is another file.
    let mut slow = Client::connect(Port::to(&other_at).address).unwrap();
    slow.send("GET /slow/700 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    std::thread::sleep(ms(100));
    complete(&mut gateway, &base, &[&steady]);
    assert_eq!(files(directory.path()), ["app", "steady"]);
    complete(&mut gateway, &base, &[&other, &steady]);
    assert_eq!(ask(&other_at, "/"), "two");
    assert_eq!(slow.response("GET").unwrap().text(), "one");
    let name = format!("unix:{other_at}");
    complete(&mut gateway, &base, &[&steady]);
    eventually("the series are gone", seconds(5), || {
        gateway.metrics().lines_of("connections_inflight").iter().all(|line| !line.contains(&name))
    });
    assert_eq!(std::fs::metadata(&steady_at).unwrap().ino(), inode);
    assert_nothing_lost(&load.stop());
    assert_eq!(gateway.stop(seconds(10)), 0);
    assert_eq!(files(directory.path()), ["app"]);
}

pub(crate) fn a_bind_that_fails_leaves_no_file() {
    let directory = directory();
    let [good, bad] = ["good", "bad"].map(|name| path(&directory, name));
    let backend = Backend::standard("one");
    let steady = Listener::h1().backend(backend.address);
    let base = base();
    let mut gateway = Gateway::start(base.clone().listener(steady.clone()));
    std::fs::write(&bad, "precious").unwrap();
    let held = ports::reserve();
    let _holder = std::net::TcpListener::bind(held).unwrap();
    let config = |last: Listener| -> Config {
        let good = Listener::h1().at_unix(&good).backend(backend.address);
        base.clone().listener(steady.clone()).listener(good).listener(last)
    };
    for last in [Listener::h1().at_unix(&bad), Listener::h1().at(held)] {
        let text = config(last.backend(backend.address)).render();
        let told = gateway.reload_text(&text);
        assert!(matches!(&told, Reload::Rejected(line) if line.contains("cannot bind")), "{told:?}");
        assert_eq!(files(directory.path()), ["bad"]);
    }
    assert_eq!(gateway.get("/").text(), "one");
}
