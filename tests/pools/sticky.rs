//! Clients that come back to the backend that served them, by a cookie.

use std::os::unix::fs::PermissionsExt;

use testkit::certificates::{Authority, write};
use testkit::process::SIGUSR1;
use testkit::{Backend, Config, Gateway, Listener, Response, seconds};

use crate::rig::{gateway, listener_to};

/// Asks with a cookie, if there is one.
pub(crate) fn visit(gateway: &testkit::Gateway, cookie: Option<&str>) -> Response {
    let headers: Vec<(&str, &str)> = cookie.iter().map(|cookie| ("Cookie", *cookie)).collect();
    let response = gateway.client().request("GET", "/", &headers, b"").unwrap();
    assert_eq!(response.status, 200);
    response
}

/// What a browser sends back.
pub(crate) fn pair(response: &Response) -> Option<String> {
    Some(response.header("set-cookie")?.split(';').next()?.to_owned())
}

pub(crate) fn sticky(config: Config) -> Config {
    config.block("pools.p.sticky", "cookie", "seat")
}

pub(crate) fn cookie_brings_a_client_back() {
    let backends = [Backend::standard("a"), Backend::standard("b"), Backend::standard("c")];
    let mut gateway = gateway("round_robin", &[&backends[0], &backends[1], &backends[2]], |config| {
        sticky(config).block("pools.p.sticky", "ttl_seconds", 3600)
    });
    let first = visit(&gateway, None);
    let line = first.header("set-cookie").unwrap();
    for part in ["seat=", "; Path=/", "; Max-Age=3600", "; SameSite=Lax", "; Secure", "; HttpOnly"] {
        assert!(line.contains(part), "{line}");
    }
    let cookie = format!("theme=dark; {}", pair(&first).unwrap());
    for _ in 0..30 {
        let again = visit(&gateway, Some(&cookie));
        assert_eq!(again.text(), first.text());
        assert_eq!(again.header("set-cookie"), None, "it has one");
    }
    // Keys live as long as the process.
    let text = std::fs::read_to_string(gateway.dir().join("lb.toml")).unwrap_or_default();
    if !text.is_empty() {
        gateway.reload_text(&format!("{text}\n# changed\n"));
    }
    assert_eq!(visit(&gateway, Some(&cookie)).text(), first.text());
    // Its backend dies: another takes over, and says so.
    let home = backends.iter().find(|backend| first.text() == name(backend)).unwrap();
    home.stop();
    let moved = visit(&gateway, Some(&cookie));
    assert_ne!(moved.text(), first.text());
    let cookie = pair(&moved).expect("a new cookie");
    for _ in 0..10 {
        assert_eq!(visit(&gateway, Some(&cookie)).text(), moved.text());
    }
}

/// The name that a standard backend gives.
fn name(backend: &Backend) -> String {
    testkit::Client::connect(backend.address).unwrap().get("/").unwrap().text()
}

pub(crate) fn cookie_of_nobody_is_replaced() {
    let backends = [Backend::standard("a"), Backend::standard("b")];
    let gateway = gateway("round_robin", &[&backends[0], &backends[1]], sticky);
    for forged in ["seat=", "seat=00000000000000000000000000000000", "seat=127.0.0.1:80", "seats=x", "seat"] {
        assert!(pair(&visit(&gateway, Some(forged))).is_some(), "{forged}");
    }
}

pub(crate) fn instances_with_one_key_agree() {
    let backends = [Backend::standard("a"), Backend::standard("b"), Backend::standard("c")];
    let all = [&backends[0], &backends[1], &backends[2]];
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("seat.key");
    std::fs::write(&path, [9u8; 32]).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    let keyed =
        |config: Config| sticky(config).block("pools.p.sticky", "key_path", path.display().to_string());
    let (one, two) = (gateway("random", &all, keyed), gateway("random", &all, keyed));
    let stranger = gateway("random", &all, sticky);
    let first = visit(&one, None);
    let cookie = pair(&first).unwrap();
    for _ in 0..10 {
        let again = visit(&two, Some(&cookie));
        assert_eq!((again.text(), again.header("set-cookie")), (first.text(), None));
    }
    assert!(pair(&visit(&stranger, Some(&cookie))).is_some(), "it has another key");
}

pub(crate) fn each_file_is_renewed_on_its_own() {
    let (a, b, c) = (Backend::standard("a"), Backend::standard("b"), Backend::standard("c"));
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name);
    let (key, other, ca) = (file("seat.key"), file("other.key"), file("ca.pem"));
    write(&key, [9; 32], 0o600);
    write(&other, [9; 32], 0o600);
    write(&ca, Authority::new("site").pem(), 0o644);
    // Nobody asks the backend inside TLS; what matters is that its file is read.
    let inside = format!("weight = 0\nprotocol = \"h1\"\ntls = true\ntls_ca_path = {ca:?}");
    let of_p = listener_to(Listener::h1(), &[(a.address, ""), (b.address, ""), (c.address, &inside)]);
    let of_q = Listener::h1().key("pool", "q").text(&format!(
        "[pools.q.sticky]\ncookie = \"seat\"\nkey_path = {other:?}\n\
         [[pools.q.backends]]\naddress = \"{}\"\nprotocol = \"h1\"\n",
        a.address
    ));
    let config = Config::new().block("pools.p", "policy", "random").runtime("workers", 1);
    let keyed = sticky(config).block("pools.p.sticky", "key_path", key.display().to_string());
    let gateway = Gateway::start(keyed.listener(of_p).listener(of_q));
    let cookie = pair(&visit(&gateway, None)).unwrap();
    let stays = |cookie: &str| pair(&visit(&gateway, Some(cookie))).is_none();
    assert!(stays(&cookie));
    let renew = |passes: usize| {
        gateway.process.signal(SIGUSR1);
        testkit::eventually("the pass is over", seconds(10), || {
            gateway.process.stderr.count("SIGUSR1 cert reload pass complete") == passes
        });
    };
    // What stands beside the new key cannot be used: files of TLS, and the key of another pool.
    write(&key, [7; 32], 0o600);
    write(&other, [7; 31], 0o600);
    write(&ca, "no authority", 0o644);
    renew(1);
    testkit::eventually("the new key is in force", seconds(10), || !stays(&cookie));
    let failed = |what: &str| gateway.process.stderr.count(what);
    assert_eq!(failed("key reload failed"), 1);
    assert_eq!(failed("TLS cert reload failed"), 1);
    let cookie = pair(&visit(&gateway, None)).unwrap();
    // And the other way round.
    write(&key, [5; 31], 0o600);
    renew(2);
    assert!(stays(&cookie), "the key that was good stays");
    assert_eq!(failed("key reload failed"), 3);
}
