//! What `check` finds beside the file itself: who reads it, where the log goes, what names lead to.

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use testkit::certificates::{Authority, Leaf, write};
use testkit::dns::Dns;
use testkit::gateway::cli;
use testkit::process::Finished;
use testkit::{Config, Listener};

fn check(dir: &Path, config: &Config, arguments: &[&str]) -> Finished {
    let file = dir.join("lb.toml");
    std::fs::write(&file, config.render()).unwrap();
    let file = file.display().to_string();
    let arguments: Vec<&str> =
        ["check"].into_iter().chain(arguments.iter().copied()).chain([&*file]).collect();
    cli(&arguments)
}

/// certbot's keys belong to root; the service does not run as root.
pub(crate) fn it_says_who_can_read_the_key() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    Authority::new("authority").server(&["server.test"]).write(dir.path(), "s");
    let config = Config::new().listener(Listener::tls(dir.path(), "s").backend("127.0.0.1:9"));
    let refused = check(dir.path(), &config, &["--user", "nobody"]);
    assert_eq!(refused.code, 1, "{}", refused.stdout);
    let told = "user nobody (--user) cannot read";
    assert!(refused.stderr.contains(told) && refused.stderr.contains("s.key"), "{}", refused.stderr);
    assert!(refused.stderr.contains("0:0 with mode 0600"), "{}", refused.stderr);
    assert!(
        refused.stderr.contains("lb.toml:") && refused.stderr.contains("tls.key_path = "),
        "{}",
        refused.stderr
    );
    let unknown = check(dir.path(), &config, &["--user", "no-such-user"]);
    assert!(unknown.code == 1 && unknown.stderr.contains("no such user"), "{}", unknown.stderr);
    let key = dir.path().join("s.key");
    chown(&key, Some(65_534), None).unwrap();
    let fine = check(dir.path(), &config, &["--user", "nobody"]);
    assert_eq!(fine.code, 0, "{}", fine.stderr);
    assert!(fine.stdout.contains("user nobody (--user) can read every file"), "{}", fine.stdout);
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    let closed = check(dir.path(), &config, &["--user", "nobody"]);
    assert!(closed.code == 1 && closed.stderr.contains("cannot enter"), "{}", closed.stderr);
}

/// Secrets of Kubernetes are readable by their group, and cannot be otherwise.
pub(crate) fn keys_of_a_group_are_taken_when_allowed() {
    let dir = tempfile::tempdir().unwrap();
    let leaf = Authority::new("authority").server(&["server.test"]);
    leaf.write(dir.path(), "s");
    let config = || Config::new().listener(Listener::tls(dir.path(), "s").backend("127.0.0.1:9"));
    let allowed = config().block("security", "group_readable_keys", true);
    for (mode, is_strict, is_allowed) in [(0o640, false, true), (0o440, false, true), (0o644, false, false)] {
        write(&dir.path().join("s.key"), &leaf.key, mode);
        assert_eq!(check(dir.path(), &config(), &[]).code == 0, is_strict, "{mode:o}");
        assert_eq!(check(dir.path(), &allowed, &[]).code == 0, is_allowed, "{mode:o}");
    }
    write(&dir.path().join("s.key"), &leaf.key, 0o640);
    let refused = check(dir.path(), &config(), &[]);
    assert!(refused.stderr.contains("group_readable_keys"), "{}", refused.stderr);
}

pub(crate) fn an_access_log_that_cannot_be_written_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let config = |path: &Path| {
        let listener = Listener::h1().backend("127.0.0.1:9");
        Config::new().block("observability", "access_log", path.display().to_string()).listener(listener)
    };
    let log = dir.path().join("access.log");
    assert_eq!(check(dir.path(), &config(&log), &[]).code, 0);
    assert!(!log.exists(), "checking makes no file");
    for wrong in [dir.path().join("none/access.log"), dir.path().to_owned(), "/proc/version".into()] {
        let refused = check(dir.path(), &config(&wrong), &["--user", "nobody"]);
        assert_eq!(refused.code, 1, "{}", wrong.display());
        assert!(refused.stderr.contains("observability.access_log"), "{}", refused.stderr);
    }
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let refused = check(dir.path(), &config(&log), &["--user", "nobody"]);
    assert!(refused.code == 1 && refused.stderr.contains("cannot write"), "{}", refused.stderr);
}

pub(crate) fn authorities_that_verify_nobody_and_loops_are_warned_of() {
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("ca.pem");
    let listener = || Listener::h1().backend_tls("127.0.0.1:9", "app.test", &ca);
    write(&ca, Leaf::self_signed(&["app.test"], false, true).cert, 0o644);
    let warned = check(dir.path(), &Config::new().listener(listener()), &[]);
    assert_eq!(warned.code, 0, "{}", warned.stderr);
    let told = "cannot verify a backend as `app.test`";
    assert!(warned.stdout.contains(told) && warned.stdout.contains("expired"), "{}", warned.stdout);
    assert!(
        warned.stdout.contains("lb.toml:") && warned.stdout.contains("tls_ca_path = "),
        "{}",
        warned.stdout
    );
    write(&ca, Leaf::self_signed(&["app.test"], false, false).cert, 0o644);
    let fine = check(dir.path(), &Config::new().listener(listener()), &[]);
    assert!(fine.code == 0 && !fine.stdout.contains("cannot verify"), "{}", fine.stdout);
    let itself = Listener::h1();
    let itself = itself.clone().backend(itself.address);
    let warned = check(dir.path(), &Config::new().listener(itself), &[]);
    assert!(warned.stdout.contains("leads back to this listener"), "{}", warned.stdout);
}

pub(crate) fn names_are_asked_for_on_demand() {
    let dir = tempfile::tempdir().unwrap();
    let dns = Dns::start();
    dns.set("here.test", &["10.0.0.1"], 60);
    let config = |first: &str, second: &str| {
        let listener = Listener::h1().backend(format!("{first}:80")).backend(format!("{second}:80"));
        Config::new().block("dns", "servers", vec![dns.address.to_string()]).listener(listener)
    };
    let both = config("here.test", "gone.test");
    let plain = check(dir.path(), &both, &[]);
    assert!(plain.code == 0 && !plain.stdout.contains("gone.test"), "{}", plain.stdout);
    assert_eq!(dns.queries(), 0, "nobody is asked unless told to");
    let asked = check(dir.path(), &both, &["--resolve"]);
    assert!(asked.code == 0 && asked.stdout.contains("gone.test"), "{} {}", asked.stdout, asked.stderr);
    let nobody = check(dir.path(), &config("gone.test", "lost.test"), &["--resolve"]);
    assert!(nobody.code == 1 && nobody.stderr.contains("gone.test"), "{} {}", nobody.stdout, nobody.stderr);
}
