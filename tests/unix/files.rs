//! The files of listening sockets.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;

use testkit::gateway::cli;
use testkit::process::SIGKILL;
use testkit::unix::Port;
use testkit::{Backend, Client, Gateway, Listener, eventually, ms, ports, seconds};

use crate::rig::{ask, base, directory, files, path};

fn mode(path: &str) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

pub(crate) fn a_stale_file_is_replaced_and_nothing_else() {
    let directory = directory();
    let socket = path(&directory, "h");
    let backend = Backend::standard("one");
    let config = || base().listener(Listener::h1().at_unix(&socket).backend(backend.address));
    let refused = |what: &str| {
        let mut gateway = Gateway::launch(config());
        assert_eq!(gateway.process.wait_exit(seconds(20)), Some(1), "{}", gateway.process.tail(20));
        let told = gateway.process.tail(20);
        assert!(told.contains("lb.toml:") && told.contains("address"), "{told}");
        assert!(told.contains(&format!("cannot bind unix:{socket}")) && told.contains(what), "{told}");
    };
    // A process that was killed leaves its file behind.
    let mut gateway = Gateway::start(config());
    gateway.process.signal(SIGKILL);
    eventually("it is gone", seconds(5), || gateway.process.exit().is_some());
    assert_eq!(files(directory.path()), ["h"]);
    let gateway = Gateway::start(config());
    assert_eq!(ask(&socket, "/"), "one");
    // A second process of another configuration does not take it away.
    refused("another process has this socket");
    assert_eq!(ask(&socket, "/"), "one");
    assert_eq!(files(directory.path()), ["h"]);
    drop(gateway);
    std::fs::remove_file(&socket).unwrap();
    // A server whose queue is full is there as well.
    let server = UnixListener::bind(&socket).unwrap();
    rustix::net::listen(&server, 0).unwrap();
    let _waits = testkit::unix::connect(&socket).unwrap();
    refused("another process has this socket");
    drop(server);
    std::fs::remove_file(&socket).unwrap();
    std::fs::write(&socket, "precious").unwrap();
    refused("a file that is no socket stands there");
    assert_eq!(std::fs::read_to_string(&socket).unwrap(), "precious");
    std::fs::remove_file(&socket).unwrap();
    std::os::unix::fs::symlink("/dev/null", &socket).unwrap();
    refused("a file that is no socket stands there");
    std::fs::remove_file(&socket).unwrap();
    std::fs::remove_dir(directory.path()).unwrap();
    refused("its directory is not there");
    std::fs::create_dir(directory.path()).unwrap();
}

pub(crate) fn the_file_has_its_mode_and_goes_with_the_process() {
    let directory = directory();
    let [one, two] = ["one", "two"].map(|name| path(&directory, name));
    let backend = Backend::standard("one");
    let config = base()
        .listener(Listener::h1().at_unix(&one).backend(backend.address))
        .listener(Listener::tcp().at_unix(&two).key("socket_mode", "0606").backend(backend.address));
    let mut gateway = Gateway::start(config);
    assert_eq!((mode(&one), mode(&two)), (0o660, 0o606));
    assert_eq!(files(directory.path()), ["one", "two"]);
    // What runs is finished, and what comes later finds nothing.
    let mut slow = Client::connect(Port::to(&one).address).unwrap();
    slow.send("GET /slow/1000 HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    std::thread::sleep(ms(200));
    gateway.process.signal(testkit::process::SIGTERM);
    eventually("the files are gone", seconds(1), || files(directory.path()).is_empty());
    assert_eq!(slow.response("GET").unwrap().text(), "one");
    assert_eq!(gateway.process.wait_exit(seconds(10)), Some(0));
}

pub(crate) fn a_file_that_is_another_by_now_is_left_alone() {
    let directory = directory();
    let socket = path(&directory, "h");
    let backend = Backend::standard("one");
    let mut gateway =
        Gateway::start(base().listener(Listener::h1().at_unix(&socket).backend(backend.address)));
    std::fs::remove_file(&socket).unwrap();
    let server = UnixListener::bind(&socket).unwrap();
    let inode = std::fs::metadata(&socket).unwrap().ino();
    assert_eq!(gateway.stop(seconds(10)), 0);
    assert_eq!(std::fs::metadata(&socket).unwrap().ino(), inode);
    drop(server);
}

/// bind(2) takes 107 bytes, and a temporary name beside such a path would be longer.
pub(crate) fn long_paths_are_bound() {
    let directory = directory();
    let room = 107 - directory.path().as_os_str().len() - 1;
    let socket = path(&directory, &"x".repeat(room));
    assert_eq!(socket.len(), 107);
    let backend = Backend::standard("one");
    let listener = Listener::h1().at_unix(&socket).backend(backend.address);
    let front = Listener::h1().backend(format!("unix:{socket}"));
    let mut gateway = Gateway::start(base().listener(front).listener(listener));
    assert_eq!(gateway.get("/").text(), "one");
    assert_eq!((files(directory.path()).len(), mode(&socket)), (1, 0o660));
    assert_eq!(gateway.stop(seconds(10)), 0);
    assert_eq!(files(directory.path()), [] as [String; 0]);
}

pub(crate) fn check_looks_at_the_directory() {
    let directory = directory();
    let file = path(&directory, "lb.toml");
    let backend = ports::reserve();
    let check = |socket: &str| {
        let listener = Listener::h1().at_unix(socket).backend(backend);
        std::fs::write(&file, base().listener(listener).render()).unwrap();
        let said = cli(&["check", &file]);
        assert_eq!(said.code, 0, "{}", said.stderr);
        said.stdout
    };
    let said = check(&path(&directory, "missing/h"));
    assert!(
        said.contains("lb.toml:")
            && said.contains(": listeners[0].address = \"unix:")
            && said.contains("missing is not there"),
        "{said}"
    );
    let said = check(&path(&directory, "lb.toml/h"));
    assert!(
        said.contains("lb.toml:")
            && said.contains(": listeners[0].address = \"unix:")
            && said.contains("lb.toml"),
        "{said}"
    );
    for good in [path(&directory, "h"), "@eg-check".to_owned()] {
        let said = check(&good);
        assert!(!said.contains("warning"), "{said}");
    }
    assert_eq!(files(directory.path()), ["lb.toml"], "nothing is bound");
}
