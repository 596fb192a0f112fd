//! What is wrong outside the configuration file is told with the place in the file, and all of it at once.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use testkit::certificates::Authority;
use testkit::dns::Dns;
use testkit::gateway::{Reload, binary, cli};
use testkit::process::run;
use testkit::{Config, Gateway, Listener, Origin, Version, eventually, seconds};

fn write(directory: &Path, name: &str, text: &str) -> String {
    let path = directory.join(name);
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    path.to_str().unwrap().to_owned()
}

/// The numbers of the lines of `text` that end with a mark `#!`, each with what stands behind it.
fn marks(text: &str) -> Vec<(usize, &str)> {
    let lines = text.lines().enumerate();
    lines.filter_map(|(index, line)| Some((index + 1, line.split_once(" #! ")?.1))).collect()
}

/// Every marked line is named with what stands at its mark, in their order, and nothing else is.
fn assert_told(said: &str, text: &str) {
    let told: Vec<&str> = said.lines().filter(|line| line.contains("lb.toml")).collect();
    let marks = marks(text);
    assert_eq!(told.len(), marks.len(), "{said}");
    for (line, (number, words)) in told.iter().zip(marks) {
        assert!(
            line.contains(&format!("lb.toml:{number}: ")) && line.contains(words),
            "{number} {words}: {line}"
        );
    }
}

pub(crate) fn files_of_tls_are_told_all_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let files = directory.path();
    let authority = Authority::new("places");
    let (cert, _) = authority.server(&["one.test"]).write(files, "good");
    let (_, key) = authority.server(&["two.test"]).write(files, "other");
    let (good_cert, other_key) = (cert.display(), key.display());
    let encrypted = write(
        files,
        "enc",
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB\n-----END ENCRYPTED PRIVATE KEY-----\n",
    );
    let old_style = write(
        files,
        "old",
        "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nMIIB\n-----END RSA PRIVATE KEY-----\n",
    );
    let short = write(files, "short", "only this");
    let missing = files.join("missing").display().to_string();
    let text = format!(
        "[[listeners]]\naddress = \"127.0.0.1:8443\"\nprotocol = \"h1s\"\npool = \"web\"\n[listeners.tls]\n\
         cert_path = \"{missing}\" #! cannot be read: No such file\n\
         key_path = \"{encrypted}\" #! is encrypted\n\
         ticket_key_path = \"{short}\" #! 80\n\
         client_auth = \"require\"\nclient_ca_path = \"{short}\" #! holds no certificate\n\
         [[listeners.tls.certificates]]\ncert_path = \"{good_cert}\"\nkey_path = \"{other_key}\" #! is not the key of the certificate\n\
         client_auth = \"off\"\n\
         [[listeners]]\naddress = \"127.0.0.1:8444\"\nprotocol = \"tls\"\npool = \"web\"\n[listeners.tls]\n\
         cert_path = \"{good_cert}\"\nkey_path = \"{good_cert}\" #! has mode 0644\n\
         [[listeners.tls.certificates]]\ncert_path = \"{good_cert}\"\nkey_path = \"{old_style}\" #! is encrypted\n\
         [[pools.web.backends]]\naddress = \"127.0.0.1:1\"\ntls = true\n\
         tls_ca_path = \"{missing}\" #! cannot be read\n\
         tls_client_cert_path = \"{good_cert}\"\ntls_client_key_path = \"{missing}\" #! cannot be read\n"
    );
    let path = write(files, "lb.toml", &text);
    let checked = cli(&["check", &path]);
    assert_eq!(checked.code, 1);
    assert_told(&checked.stderr, &text);
    let started = run(binary(), [&path], seconds(10));
    assert_eq!(started.code, 1);
    let (_, error) = started.stderr.split_once("\nerror: ").unwrap();
    assert_told(error, &text);
}

pub(crate) fn names_and_files_are_told_together() {
    let directory = tempfile::tempdir().unwrap();
    let dns = Dns::start();
    let missing = directory.path().join("missing").display().to_string();
    let text = format!(
        "[dns]\nservers = [\"{}\"]\n[observability]\nmetrics_bind = \"off\"\n\
         [[listeners]]\naddress = \"127.0.0.1:0\"\nprotocol = \"tcp\"\n\
         [[listeners.backends]]\naddress = \"nowhere.test:80\" #! nowhere.test\n\
         [[listeners.backends]]\naddress = \"neither.test:80\" #! neither.test\n\
         [[listeners]]\naddress = \"127.0.0.1:1\"\nprotocol = \"tls\"\n\
         [listeners.tls]\ncert_path = \"{missing}\" #! cannot be read\nkey_path = \"{missing}.key\" #! cannot be read\n\
         [[listeners.backends]]\naddress = \"127.0.0.1:80\"\n",
        dns.address
    );
    let path = write(directory.path(), "lb.toml", &text);
    let started = run(binary(), [&path], seconds(20));
    assert_eq!(started.code, 1);
    let (_, error) = started.stderr.split_once("\nerror: ").unwrap();
    assert_told(error, &text);
    assert!(!started.stderr.contains("Query {"), "{}", started.stderr);
}

pub(crate) fn addresses_that_cannot_be_bound_are_told_all_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let taken = [TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap()];
    let [one, two] = taken.each_ref().map(|listener| listener.local_addr().unwrap());
    let text = format!(
        "[observability]\nmetrics_bind = \"off\"\n\
         [[listeners]]\naddress = \"{one}\" #! cannot bind\nprotocol = \"tcp\"\n\
         [[listeners.backends]]\naddress = \"127.0.0.1:80\"\n\
         [[listeners]]\naddress = \"127.0.0.1:0\"\nprotocol = \"tcp\"\n\
         [[listeners.backends]]\naddress = \"127.0.0.1:80\"\n\
         [[listeners]]\naddress = \"{two}\" #! in use\nprotocol = \"tcp\"\n\
         [[listeners.backends]]\naddress = \"127.0.0.1:80\"\n"
    );
    let path = write(directory.path(), "lb.toml", &text);
    let started = run(binary(), [&path], seconds(10));
    assert_eq!(started.code, 1);
    let (_, error) = started.stderr.split_once("\nerror: ").unwrap();
    assert_told(error, &text);
}

pub(crate) fn check_finds_a_list_of_backends_that_is_not_there() {
    let directory = tempfile::tempdir().unwrap();
    let list = directory.path().join("backends.json");
    let text = format!(
        "[[listeners]]\naddress = \"127.0.0.1:8080\"\nprotocol = \"h1\"\npool = \"web\"\n[pools.web]\n\
         [pools.web.discovery]\nfile = \"{}\" #! cannot be read\n",
        list.display()
    );
    let path = write(directory.path(), "lb.toml", &text);
    let checked = cli(&["check", &path]);
    assert_eq!(checked.code, 0, "a list may come later: {}", checked.stderr);
    let warnings: String = checked.stdout.lines().filter(|line| line.starts_with("warning: ")).collect();
    assert_told(&warnings, &text);
    std::fs::write(&list, "[{\"adress\": \"127.0.0.1:80\"}]").unwrap();
    let checked = cli(&["check", &path]);
    assert!(checked.code == 0 && checked.stdout.contains("adress"), "{}", checked.stdout);
    std::fs::write(&list, "[{\"address\": \"127.0.0.1:80\"}]").unwrap();
    let checked = cli(&["check", &path]);
    assert!(checked.code == 0 && !checked.stdout.contains("warning"), "{}", checked.stdout);
}

pub(crate) fn the_admin_port_and_the_access_log_are_told_with_their_lines() {
    let directory = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let log = directory.path().join("missing/access.log");
    let listener = "[[listeners]]\naddress = \"127.0.0.1:0\"\nprotocol = \"tcp\"\n\
         [[listeners.backends]]\naddress = \"127.0.0.1:80\"\n[observability]\n";
    for keys in [
        format!("metrics_bind = \"{}\" #! in use\n", taken.local_addr().unwrap()),
        format!(
            "metrics_bind = \"off\"\naccess_log = \"{}\" #! cannot be opened: No such file\n",
            log.display()
        ),
    ] {
        let text = format!("{listener}{keys}");
        let path = write(directory.path(), "lb.toml", &text);
        let started = run(binary(), [&path], seconds(10));
        assert_eq!(started.code, 1);
        let (_, error) = started.stderr.split_once("\nerror: ").unwrap();
        assert_told(error, &text);
    }
}

/// A text with one fault of each kind, and what keeps its places taken.
fn every_kind(directory: &Path, dns: &Dns) -> (String, [TcpListener; 2]) {
    let taken = [TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap()];
    let [admin, listener] = taken.each_ref().map(|taken| taken.local_addr().unwrap());
    let missing = directory.join("missing").display().to_string();
    let text = format!(
        "[dns]\nservers = [\"{}\"]\n[observability]\nmetrics_bind = \"{admin}\" #! in use\n\
         access_log = \"{missing}/access.log\" #! No such file\n\
         [[listeners]]\naddress = \"127.0.0.1:0\"\nprotocol = \"h1\"\n[listeners.sticky]\nkey_path = \"{missing}.cookie\" #! cannot be read\n\
         [[listeners.backends]]\naddress = \"nowhere.test:80\" #! nowhere.test\n\
         [[listeners]]\naddress = \"127.0.0.1:1\"\nprotocol = \"tls\"\n\
         [listeners.tls]\ncert_path = \"{missing}\" #! cannot be read\nkey_path = \"{missing}.key\" #! cannot be read\n\
         [[listeners.backends]]\naddress = \"127.0.0.1:80\"\ntls = true\ntls_ca_path = \"{missing}.ca\" #! cannot be read\n\
         [[listeners]]\naddress = \"{listener}\" #! cannot bind\nprotocol = \"tcp\"\n\
         [[listeners.backends]]\naddress = \"127.0.0.1:80\"\n\
         [[listeners]]\naddress = \"unix:{missing}/app.sock\" #! its directory is not there\nprotocol = \"tcp\"\n\
         [[listeners.backends]]\naddress = \"127.0.0.1:80\"\n",
        dns.address
    );
    (text, taken)
}

pub(crate) fn faults_of_every_kind_are_told_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let dns = Dns::start();
    let (text, _taken) = every_kind(directory.path(), &dns);
    let path = write(directory.path(), "lb.toml", &text);
    let started = run(binary(), [&path], seconds(20));
    assert_eq!(started.code, 1);
    let (_, error) = started.stderr.split_once("\nerror: ").unwrap();
    assert_told(error, &text);
    // What `check` does not do is bind.
    let checked = cli(&["check", "--resolve", &path]);
    assert_eq!(checked.code, 1);
    let unbound: String = text
        .lines()
        .map(|line| match line.split_once(" #! ") {
            Some((line, "in use" | "cannot bind" | "its directory is not there")) => format!("{line}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    assert_told(&checked.stderr, &unbound);
}

pub(crate) fn a_reload_tells_of_faults_of_every_kind_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let dns = Dns::start();
    let origin = Origin::standard(Version::H1, "one");
    let config = Config::new().block("dns", "servers", vec![dns.address.to_string()]);
    let mut gateway = Gateway::start(config.listener(Listener::h1().backend(origin.address())));
    let (text, _taken) = every_kind(directory.path(), &dns);
    // The admin port and the access log wait for a restart.
    let text = text.replace(" #! in use", "").replace(" #! No such file", "");
    assert!(matches!(gateway.reload_text(&text), Reload::Rejected(_)));
    eventually("all of it is told", seconds(5), || {
        let told = |line: &&String| line.contains("config reload rejected");
        gateway.process.stderr.lines().iter().filter(told).count() == marks(&text).len()
    });
    let lines = gateway.process.stderr.lines();
    let told: Vec<&str> =
        lines.iter().map(String::as_str).filter(|line| line.contains("config reload rejected")).collect();
    assert_told(&told.join("\n"), &text);
    assert_eq!(gateway.get("/").status, 200);
}
