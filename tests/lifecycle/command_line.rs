//! The command line.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::Command;
use testkit::gateway::{binary, cli};
use testkit::process::{Process, SIGINT, run_command};
use testkit::{Backend, Client, Config, Fault, Gateway, Listener, Response, seconds};

fn get(address: SocketAddr, target: &str) -> Result<Response, Fault> {
    Client::connect(address)?.for_host("localhost").get(target)
}

pub(crate) fn version_and_help() {
    let version = cli(&["--version"]);
    assert_eq!(version.code, 0);
    assert!(version.stdout.starts_with("expressgateway 0."), "{}", version.stdout);
    let help = cli(&["--help"]);
    assert_eq!(help.code, 0);
    for word in ["check", "demo", "CONFIG", "--version"] {
        assert!(help.stdout.contains(word), "no {word} in {}", help.stdout);
    }
    let unknown = cli(&["--no-such-flag"]);
    assert_ne!(unknown.code, 0);
    assert!(unknown.stderr.contains("--no-such-flag"), "{}", unknown.stderr);
}

pub(crate) fn check_says_yes_or_no() {
    let dir = tempfile::tempdir().unwrap();
    let good = dir.path().join("good.toml");
    let bad = dir.path().join("bad.toml");
    let text = Config::new().listener(Listener::h1().backend("127.0.0.1:1")).render();
    std::fs::write(&good, &text).unwrap();
    std::fs::write(&bad, text.replace("protocol", "protokol")).unwrap();
    let yes = cli(&["check", good.to_str().unwrap()]);
    assert_eq!(yes.code, 0, "{} {}", yes.stdout, yes.stderr);
    let no = cli(&["check", bad.to_str().unwrap()]);
    assert_eq!(no.code, 1);
    assert!(no.stderr.contains("bad.toml:") && no.stderr.contains("protokol"), "{}", no.stderr);
    assert_ne!(cli(&["check"]).code, 0, "a file is required");
    // Nothing would be served.
    let none = Config::new().listener(Listener::h1().without_backends()).render();
    std::fs::write(&bad, none).unwrap();
    let no = cli(&["check", bad.to_str().unwrap()]);
    assert_eq!(no.code, 1, "{}", no.stdout);
    assert!(no.stderr.contains("no listeners started"), "{}", no.stderr);
}

pub(crate) fn flags_as_other_servers_have_them() {
    let backend = Backend::standard("one");
    let dir = tempfile::tempdir().unwrap();
    let listener = Listener::h1().backend(backend.address);
    let front = listener.address;
    let text = Config::new().listener(listener).render();
    let (good, bad) = (dir.path().join("good.toml"), dir.path().join("bad.toml"));
    std::fs::write(&good, &text).unwrap();
    std::fs::write(&bad, text.replace("protocol", "protokol")).unwrap();
    let (good, bad) = (good.to_str().unwrap(), bad.to_str().unwrap());
    for arguments in [
        ["-t", "-c", good].as_slice(),
        &["-t", good],
        &["-tc", good],
        &["--test", "--config", good],
        &["--config", good, "-t"],
        &["check", "-c", good],
        &["check", "--config", good],
    ] {
        let said = cli(arguments);
        assert!(said.code == 0 && said.stdout.contains("good.toml: ok"), "{arguments:?}: {}", said.stderr);
    }
    let no = cli(&["-t", "-c", bad]);
    assert!(no.code == 1 && no.stderr.contains("bad.toml:"), "{}", no.stderr);
    assert_eq!(cli(&["-c", good, bad]).code, 2, "two files");
    assert_eq!(cli(&["-t", "-c"]).code, 2, "no file");
    assert!(get(front, "/").is_err(), "nothing was started");
    let mut command = Command::new(binary());
    command.args(["--config", good]);
    let _gateway = Process::spawn(command);
    testkit::eventually("it serves", seconds(10), || get(front, "/").is_ok_and(|r| r.status == 200));
}

pub(crate) fn check_binds_nothing() {
    let backend = Backend::standard("one");
    let gateway = Gateway::start(Config::new().listener(Listener::h1().backend(backend.address)));
    let path = gateway.dir().join("lb.toml");
    for _ in 0..3 {
        let checked = cli(&["check", path.to_str().unwrap()]);
        assert_eq!(checked.code, 0, "{}", checked.stderr);
    }
    assert_eq!(backend.connections(), 0, "checking talks to no backend");
    assert_eq!(gateway.get("/").status, 200);
}

pub(crate) fn unreadable_files() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing.toml");
    for arguments in [vec![missing.to_str().unwrap()], vec!["check", missing.to_str().unwrap()]] {
        let refused = cli(&arguments);
        assert_eq!(refused.code, 1, "{arguments:?}");
        assert!(refused.stderr.contains("missing.toml"), "{}", refused.stderr);
    }
    let directory = cli(&["check", dir.path().to_str().unwrap()]);
    assert_eq!(directory.code, 1);
    let binary_file = dir.path().join("binary.toml");
    std::fs::write(&binary_file, [0xff, 0xfe, 0, 1]).unwrap();
    assert_eq!(cli(&["check", binary_file.to_str().unwrap()]).code, 1);
}

/// A pipe tells nobody its size: what is too long is not read to its end, and not cut.
pub(crate) fn c_01_configurations_from_pipes_are_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("lb.toml");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let text = Config::new().listener(Listener::h1().backend("127.0.0.1:9")).render();
    for (comment, code) in [(1 << 10, 0), (5 << 20, 1)] {
        let (pipe, text) = (pipe.clone(), text.clone() + &"#".repeat(comment));
        let shown = pipe.display().to_string();
        // Whoever stops reading early breaks the pipe.
        let writer = std::thread::spawn(move || std::fs::write(pipe, text).ok());
        let checked = cli(&["check", &shown]);
        writer.join().unwrap();
        assert_eq!(checked.code, code, "{}", checked.stderr);
        assert_eq!(checked.stderr.contains("has more than 4194304 bytes"), code == 1, "{}", checked.stderr);
    }
}

/// Nobody reads the pipe that is to take the access log: that is an error, and the start does not wait for somebody who does.
pub(crate) fn an_access_log_that_nobody_reads_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("access.log");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let backend = Backend::standard("one");
    let config = || {
        let listener = Listener::h1().backend(backend.address);
        Config::new().block("observability", "access_log", pipe.to_str().unwrap()).listener(listener)
    };
    let mut refused = Gateway::launch(config());
    assert_eq!(refused.process.wait_exit(seconds(10)), Some(1));
    assert!(refused.process.stderr.count("cannot be opened") > 0);
    let read = pipe.clone();
    let reader = std::thread::spawn(move || {
        let mut line = String::new();
        BufReader::new(std::fs::File::open(read).unwrap()).read_line(&mut line).unwrap();
        line
    });
    let mut gateway = Gateway::launch(config());
    testkit::eventually("ready, once there is a reader", seconds(10), || {
        if gateway.process.exit().is_some() {
            gateway = Gateway::launch(gateway.config.clone());
        }
        gateway.readyz() == Some(200)
    });
    assert_eq!(gateway.get("/logged").status, 200);
    assert!(reader.join().unwrap().contains("/logged"));
}

pub(crate) fn default_path() {
    let dir = tempfile::tempdir().unwrap();
    let backend = Backend::standard("one");
    let listener = Listener::h1().backend(backend.address);
    let front = listener.address;
    std::fs::create_dir(dir.path().join("config")).unwrap();
    std::fs::write(dir.path().join("config/default.toml"), Config::new().listener(listener).render())
        .unwrap();
    let mut command = Command::new(binary());
    command.current_dir(dir.path());
    let _gateway = Process::spawn(command);
    testkit::eventually("it serves", seconds(10), || get(front, "/").is_ok_and(|r| r.status == 200));

    let empty = tempfile::tempdir().unwrap();
    let mut command = Command::new(binary());
    command.current_dir(empty.path());
    let refused = run_command(command, seconds(10));
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("config/default.toml"), "{}", refused.stderr);
}

/// The `http://HOST:PORT` addresses in a text.
fn addresses(text: &str) -> Vec<SocketAddr> {
    let candidates = text.split("http://").skip(1);
    let mut found: Vec<_> = candidates
        .filter_map(|rest| {
            let end = rest
                .find(|c: char| !(c.is_ascii_alphanumeric() || ".:[]-".contains(c)))
                .unwrap_or(rest.len());
            rest[..end].replace("localhost", "127.0.0.1").parse().ok()
        })
        .collect();
    found.dedup();
    found
}

pub(crate) fn demo_serves_until_interrupted() {
    let mut command = Command::new(binary());
    // The ordinary ports may be somebody else's on this machine.
    command.args(["demo", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    let mut demo = Process::spawn(command);
    let shown = testkit::poll(seconds(15), || {
        let text = [demo.stdout.lines(), demo.stderr.lines()].concat().join("\n");
        let found = addresses(&text);
        let serving = found.iter().any(|a| get(*a, "/").is_ok_and(|r| r.status == 200));
        (serving || demo.exit().is_some()).then_some(found)
    });
    let shown = shown.unwrap_or_else(|| panic!("no address that serves: {}", demo.tail(40)));
    assert!(demo.exit().is_none(), "it ended by itself: {}", demo.tail(40));
    // Several small backends behind one gateway: the answers differ.
    let mut answers = std::collections::BTreeSet::new();
    for address in &shown {
        for _ in 0..6 {
            if let Ok(response) = get(*address, "/")
                && response.status == 200
            {
                answers.insert(response.text());
            }
        }
    }
    assert!(answers.len() >= 3, "{answers:?} at {shown:?}");
    let ready = shown.iter().any(|a| get(*a, "/readyz").is_ok_and(|r| r.text().contains("\"ok\"")));
    assert!(ready, "the admin port is not among {shown:?}");
    demo.signal(SIGINT);
    assert_eq!(demo.wait_exit(seconds(20)), Some(0), "{}", demo.tail(20));
}

pub(crate) fn values_come_from_the_environment() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("lb.toml");
    std::fs::write(
        &file,
        "[[listeners]]\naddress = \"127.0.0.1:${FRONT:-0}\"\nprotocol = \"h1\"\n\
         [[listeners.backends]]\naddress = \"${EG_TEST_BACKEND}\"\n",
    )
    .unwrap();
    let check = |backend: Option<&str>| {
        let mut command = Command::new(binary());
        command.arg("check").arg(&file).env_remove("EG_TEST_BACKEND");
        command.envs(backend.map(|backend| ("EG_TEST_BACKEND", backend)));
        run_command(command, seconds(20))
    };
    assert_eq!(check(Some("127.0.0.1:1")).code, 0);
    let without = check(None);
    assert_eq!(without.code, 1);
    for word in ["lb.toml:5", "address", "EG_TEST_BACKEND", "no variable"] {
        assert!(without.stderr.contains(word), "no {word} in {}", without.stderr);
    }
    assert!(check(Some("nowhere")).stderr.contains("it comes to `nowhere`"));
}
