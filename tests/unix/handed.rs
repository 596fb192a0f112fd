//! Unix sockets that another process has bound: systemd, or the process that is taken over from.

use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use testkit::load::Load;
use testkit::process::{Process, SIGTERM, SIGUSR2, pass_sockets};
use testkit::successor::Successor;
use testkit::unix::Port;
use testkit::{Backend, Client, Gateway, Listener, eventually, ms, seconds};

use crate::rig::{ask, assert_nothing_lost, base, directory, files, path};

pub(crate) fn an_upgrade_under_load_loses_nothing() {
    let directory = directory();
    let [web, raw, gone] = ["web", "raw", "gone"].map(|name| path(&directory, name));
    let backend = Backend::standard("one");
    let config = base()
        .runtime("drain_timeout_ms", 8000)
        .listener(Listener::h1().at_unix(&web).backend(backend.address))
        .listener(Listener::tcp().at_unix(&raw).backend(backend.address));
    let more = config.clone().listener(Listener::h1().at_unix(&gone).backend(backend.address));
    let mut gateway = Gateway::start(more);
    let identity = |path: &str| std::fs::metadata(path).map(|file| file.ino()).ok();
    let inodes = [&web, &raw].map(|path| identity(path));
    let load = Load::start(Port::to(&web).address, 4, "/", ms(1));
    let stop = Arc::new(AtomicBool::new(false));
    let fresh: Vec<_> = [&web, &raw]
        .map(|path| {
            let (stop, port) = (Arc::clone(&stop), Port::to(path));
            std::thread::spawn(move || {
                let mut count = 0;
                while !stop.load(Ordering::Relaxed) {
                    assert_eq!(Client::connect(port.address).unwrap().get("/").unwrap().text(), "one");
                    count += 1;
                }
                count
            })
        })
        .into();
    let mut kept = Client::connect(Port::to(&raw).address).unwrap();
    assert_eq!(kept.get("/").unwrap().text(), "one");
    std::thread::sleep(ms(200));
    // The new process has no listener at the third path any more, whose file it removes at its end.
    gateway.write_config(&config.render());
    let successor = Successor::takes_over(&gateway);
    assert_eq!(kept.get("/").unwrap().text(), "one", "it goes on in the old process");
    drop(kept);
    assert_eq!(gateway.process.wait_exit(seconds(20)), Some(0));
    assert_eq!([&web, &raw].map(|path| identity(path)), inodes, "the files are those of before");
    std::thread::sleep(ms(300));
    stop.store(true, Ordering::Relaxed);
    for work in fresh {
        assert!(work.join().unwrap() > 20);
    }
    assert_nothing_lost(&load.stop());
    assert_eq!(ask(&web, "/"), "one");
    assert!(testkit::unix::connect(&gone).is_err());
    successor.signal(SIGTERM);
    eventually("the new process ends", seconds(15), || !successor.is_alive());
    assert_eq!(files(directory.path()), [] as [String; 0]);
}

pub(crate) fn an_upgrade_that_fails_leaves_the_file() {
    let directory = directory();
    let web = path(&directory, "web");
    let backend = Backend::standard("one");
    let mut gateway = Gateway::start(base().listener(Listener::h1().at_unix(&web).backend(backend.address)));
    let good = gateway.config.render();
    // The new process has the socket when it finds that another listener cannot be bound.
    std::fs::write(path(&directory, "file"), "").unwrap();
    let second = Listener::h1().at_unix(&path(&directory, "file")).backend(backend.address);
    gateway.write_config(&gateway.config.clone().listener(second).render());
    let from = gateway.process.stderr.len();
    gateway.process.signal(SIGUSR2);
    let failed = |line: &str| line.contains("upgrade failed");
    assert!(gateway.process.stderr.wait_from(from, seconds(15), failed).is_some());
    assert_eq!(ask(&web, "/"), "one");
    assert_eq!(files(directory.path()), ["file", "web"]);
    gateway.write_config(&good);
    assert_eq!(gateway.stop(seconds(10)), 0);
    assert_eq!(files(directory.path()), ["file"]);
}

/// systemd has made the file, and removes it.
pub(crate) fn sockets_of_systemd_are_taken_by_path() {
    let directory = directory();
    let [web, nobody] = ["web", "nobody"].map(|name| path(&directory, name));
    let sockets = [&web, &nobody].map(|path| UnixListener::bind(path).unwrap());
    let backend = Backend::standard("one");
    let config = base().listener(Listener::h1().at_unix(&web).backend(backend.address));
    // It waits in the queue of the socket for a gateway that is not there yet.
    let mut early = Client::connect(Port::to(&web).address).unwrap();
    early.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let file = path(&directory, "lb.toml");
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
    for _ in 0..10 {
        assert_eq!(ask(&web, "/"), "one");
    }
    let line = process.stderr.matching("belongs to no listener");
    assert!(line.len() == 1 && line[0].contains(&format!("unix:{nobody}")), "{line:?}");
    assert!(testkit::unix::connect(&nobody).is_err(), "nothing accepts there");
    drop(early);
    process.signal(SIGTERM);
    assert_eq!(process.wait_exit(seconds(15)), Some(0));
    assert_eq!(files(directory.path()), ["lb.toml", "nobody", "web"]);
}
