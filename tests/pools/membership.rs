//! Backends that files and name servers name, as these change, vanish and lie.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use testkit::dns::Dns;
use testkit::load::Load;
use testkit::{Backend, Config, Gateway, Listener, ms, ports, seconds};

use crate::admin::members;
use crate::rig::{ask, listener_to};

/// Addresses in use, in their order.
fn addresses(gateway: &Gateway) -> Vec<String> {
    members(gateway).iter().map(|member| member["address"].as_str().unwrap().to_owned()).collect()
}

#[track_caller]
fn wait_for(gateway: &Gateway, expected: &[&Backend]) {
    let expected: Vec<String> = expected.iter().map(|backend| backend.address.to_string()).collect();
    testkit::eventually(&format!("members are {expected:?}"), seconds(20), || addresses(gateway) == expected);
}

/// A file outside the gateway's directory, replaced in one step.
struct Source {
    path: PathBuf,
    _dir: tempfile::TempDir,
}

impl Source {
    fn new(name: &str, backends: &[&Backend]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let source = Self { path: dir.path().join(name), _dir: dir };
        source.list(backends);
        source
    }

    fn write(&self, text: &str) {
        let new = self.path.with_extension("new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, &self.path).unwrap();
    }

    fn list(&self, backends: &[&Backend]) {
        let json = self.path.extension().is_some_and(|extension| extension == "json");
        let one = |backend: &&Backend| match json {
            true => format!("{{\"address\": \"{}\", \"protocol\": \"h1\"}}", backend.address),
            false => format!("[[backends]]\naddress = \"{}\"\nprotocol = \"h1\"\n", backend.address),
        };
        let list: Vec<String> = backends.iter().map(one).collect();
        match json {
            true => self.write(&format!("[{}]", list.join(", "))),
            false if list.is_empty() => self.write("backends = []\n"),
            false => self.write(&list.concat()),
        }
    }
}

fn make_pipe(path: &Path) {
    assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
}

fn following(source: &Source, fixed: &[&Backend]) -> Gateway {
    let fixed: Vec<_> = fixed.iter().map(|backend| (backend.address, "")).collect();
    let config = Config::new()
        .runtime("workers", 2)
        .runtime("max_keepalive_requests", 0)
        .block("pools.p.discovery", "file", source.path.display().to_string())
        .block("pools.p.discovery", "refresh_ms", 100);
    Gateway::start(config.listener(listener_to(Listener::h1(), &fixed)))
}

pub(crate) fn a_file_is_followed() {
    let (fixed, one, two) = (Backend::standard("fixed"), Backend::standard("one"), Backend::standard("two"));
    for name in ["backends.toml", "backends.json"] {
        let source = Source::new(name, &[&one]);
        let gateway = following(&source, &[&fixed]);
        assert_eq!(
            addresses(&gateway),
            [fixed.address.to_string(), one.address.to_string()],
            "from the start"
        );
        assert_eq!(members(&gateway)[1]["origin"].as_str(), Some("discovery"));
        let load = Load::start(gateway.front(), 6, "/", ms(1));
        for _ in 0..3 {
            source.list(&[&two]);
            wait_for(&gateway, &[&fixed, &two]);
            source.list(&[&one, &two]);
            wait_for(&gateway, &[&fixed, &one, &two]);
            source.list(&[]);
            wait_for(&gateway, &[&fixed]);
        }
        let tally = load.stop();
        assert_eq!(*tally.failures.lock().unwrap(), Vec::<String>::new());
        assert_eq!(tally.refused.load(Ordering::Relaxed), 0);
        assert!(tally.served_by("one") > 0 && tally.served_by("two") > 0);
        assert_eq!(gateway.metric("discovery_failures_total", &[("pool", "p")]), 0.0);
    }
}

pub(crate) fn a_file_that_is_wrong_changes_nothing() {
    let (one, two) = (Backend::standard("one"), Backend::standard("two"));
    let source = Source::new("backends.json", &[&one]);
    let gateway = following(&source, &[]);
    let failures = || gateway.metric("discovery_failures_total", &[("pool", "p")]);
    let listed = |more: &str| format!("[{{\"address\": \"{}\", {more}}}]", two.address);
    let pipe = source.path.with_extension("pipe");
    make_pipe(&pipe);
    for text in [
        "",
        "[",
        "{}",
        "[{\"address\": \"nowhere\"}]",
        &listed("\"wieght\": 1"),
        &listed("\"weight\": -1"),
        &listed("\"tls\": true, \"tls_ca_path\": \"/nowhere.pem\""),
        &listed(&format!("\"tls\": true, \"tls_ca_path\": {pipe:?}")),
        &format!("[{}]", "{},".repeat(400_000)),
    ] {
        let before = failures();
        source.write(text);
        testkit::eventually("it is noticed", seconds(10), || failures() > before);
        assert_eq!(ask(&gateway, &[]), "one", "{text:.60}");
        assert_eq!(addresses(&gateway), [one.address.to_string()], "{text:.60}");
    }
    let before = failures();
    std::fs::remove_file(&source.path).unwrap();
    testkit::eventually("it is missed", seconds(10), || failures() > before);
    make_pipe(&source.path);
    let before = failures();
    testkit::eventually("nobody waits for a pipe", seconds(10), || failures() > before + 1.0);
    assert_eq!(ask(&gateway, &[]), "one");
    source.list(&[&two]);
    wait_for(&gateway, &[&two]);
    assert_eq!(ask(&gateway, &[]), "two");
    let told = gateway.process.stderr.wait_count("source of backends cannot be used", 1);
    assert!((1..=12).contains(&told), "once for each fault: {told}");
}

struct Rig {
    dns: Dns,
    port: u16,
    first: Backend,
    second: Backend,
    gateway: Gateway,
}

const NAME: &str = "_http._tcp.app.test";

/// Two backends on the same port of two addresses, each with a name, and a gateway that is told of them by SRV records.
fn srv_rig(config: impl FnOnce(Config) -> Config) -> Rig {
    let port = ports::port();
    let first = Backend::standard_at(format!("127.0.0.2:{port}").parse().unwrap(), "first");
    let second = Backend::standard_at(format!("127.0.0.3:{port}").parse().unwrap(), "second");
    let dns = Dns::start();
    dns.set("one.app.test", &["127.0.0.2"], 1);
    dns.set("two.app.test", &["127.0.0.3"], 1);
    dns.set_services(NAME, &[(0, 1, port, "one.app.test")], 1);
    let base = Config::new()
        .runtime("workers", 1)
        .block("dns", "servers", vec![dns.address.to_string()])
        .block("dns", "min_ttl_seconds", 0)
        .block("dns", "max_ttl_seconds", 1)
        .block("dns", "negative_ttl_seconds", 0)
        .block("dns", "timeout_ms", 300)
        .block("pools.p.discovery", "srv", NAME)
        .block("pools.p.discovery", "protocol", "h1")
        .block("pools.p.discovery", "allow_loopback", true)
        .block("pools.p.discovery", "refresh_ms", 100);
    let gateway = Gateway::start(config(base).listener(Listener::h1().key("pool", "p")));
    Rig { dns, port, first, second, gateway }
}

pub(crate) fn srv_records_are_followed() {
    let rig = srv_rig(|config| config);
    assert_eq!(ask(&rig.gateway, &[]), "first", "from the start");
    let load = Load::start(rig.gateway.front(), 4, "/", ms(2));
    rig.dns.set_services(NAME, &[(0, 3, rig.port, "one.app.test"), (0, 1, rig.port, "two.app.test")], 1);
    wait_for(&rig.gateway, &[&rig.first, &rig.second]);
    let weights: Vec<_> =
        members(&rig.gateway).iter().map(|member| member["weight"].as_u64().unwrap()).collect();
    assert_eq!(weights, [3, 1]);
    // A level that has to wait.
    rig.dns.set_services(NAME, &[(20, 1, rig.port, "one.app.test"), (10, 1, rig.port, "two.app.test")], 1);
    let levels = || -> Vec<(String, u64)> {
        let row = |member: &serde_json::Value| {
            (member["backend"].as_str().unwrap().to_owned(), member["priority"].as_u64().unwrap())
        };
        members(&rig.gateway).iter().map(row).collect()
    };
    let expected = [(format!("two.app.test:{}", rig.port), 0), (format!("one.app.test:{}", rig.port), 1)];
    testkit::eventually("levels are known", seconds(10), || levels() == expected);
    assert!((0..8).all(|_| ask(&rig.gateway, &[]) == "second"));
    rig.dns.set_services(NAME, &[(0, 0, rig.port, "one.app.test")], 1);
    wait_for(&rig.gateway, &[&rig.first]);
    let tally = load.stop();
    assert_eq!(*tally.failures.lock().unwrap(), Vec::<String>::new());
    assert_eq!(tally.refused.load(Ordering::Relaxed), 0);
}

pub(crate) fn an_answer_that_does_not_fit_a_datagram_is_asked_for_over_tcp() {
    let rig = srv_rig(|config| config);
    assert_eq!(rig.dns.tcp_queries(), 0);
    rig.dns.truncate(NAME);
    // The datagram holds the first of them alone.
    rig.dns.set_services(NAME, &[(0, 1, rig.port, "one.app.test"), (0, 1, rig.port, "two.app.test")], 1);
    wait_for(&rig.gateway, &[&rig.first, &rig.second]);
    assert!(rig.dns.tcp_queries() > 0);
    let all: BTreeSet<String> = (0..4).map(|_| ask(&rig.gateway, &[])).collect();
    assert_eq!(all.len(), 2);
    assert_eq!(rig.gateway.metric("discovery_failures_total", &[("pool", "p")]), 0.0);
}

pub(crate) fn c_03_last_good_records_outlive_the_name() {
    let rig = srv_rig(|config| config);
    let failures = || rig.gateway.metric("discovery_failures_total", &[("pool", "p")]);
    assert_eq!(ask(&rig.gateway, &[]), "first");
    type Lie = Box<dyn Fn(&Dns)>;
    let lies: [(&str, Lie); 8] = [
        ("it is gone", Box::new(|dns| dns.remove(NAME))),
        ("the server fails", Box::new(|dns| dns.fail(NAME))),
        ("the server is silent", Box::new(|dns| dns.silence(NAME))),
        ("it is its own alias", Box::new(|dns| dns.alias(NAME, NAME))),
        ("nonsense", Box::new(|dns| dns.babble(NAME, &[0xff; 600]))),
        ("names that point at themselves", Box::new(|dns| dns.babble(NAME, &[0xc0, 0x25].repeat(300)))),
        ("no records", Box::new(|dns| dns.set_services(NAME, &[], 1))),
        (
            "an address where a name belongs",
            Box::new(|dns| dns.set_services(NAME, &[(0, 1, 80, "127.0.0.1")], 0)),
        ),
    ];
    for (what, lie) in lies {
        lie(&rig.dns);
        let before = failures();
        testkit::eventually(what, seconds(20), || failures() > before + 1.0);
        assert_eq!(ask(&rig.gateway, &[]), "first", "{what}");
    }
    rig.dns.set_services(NAME, &[(0, 1, rig.port, "two.app.test")], 1);
    wait_for(&rig.gateway, &[&rig.second]);
    assert_eq!(ask(&rig.gateway, &[]), "second", "it is believed again");
}

pub(crate) fn c_03_names_lead_neither_here_nor_to_the_keeper() {
    let rig = srv_rig(|config| config.block("pools.p.discovery", "allow_loopback", false));
    // It starts all the same, with nobody to ask.
    assert_eq!(rig.gateway.get("/").status, 503);
    assert_eq!(rig.first.connections(), 0);
    assert!(rig.gateway.metric("dns_failures_total", &[]) > 0.0);
    assert!(members(&rig.gateway).is_empty());
    // The port of an SRV record is the forger's choice: this one is the admin port's.
    let admin = rig.gateway.admin().port();
    for address in ["127.0.0.1", "::1", "169.254.169.254", "fe80::1", "0.0.0.0", "::ffff:127.0.0.1"] {
        rig.dns.set("one.app.test", &[address], 0);
        rig.dns.set_services(NAME, &[(0, 1, admin, "one.app.test")], 0);
        let before = rig.gateway.metric("dns_failures_total", &[]);
        let more = || rig.gateway.metric("dns_failures_total", &[]) > before + 1.0;
        testkit::eventually("it is asked", seconds(10), more);
        assert_eq!(rig.gateway.get("/metrics").status, 503, "{address}");
        assert!(members(&rig.gateway).is_empty(), "{address}");
    }
    // Many hosts: no more than a pool can bear, and no loss of service.
    let hosts: Vec<String> = (0..40).map(|at| format!("h{at}.x")).collect();
    let records: Vec<_> = hosts.iter().map(|host| (0, 1, 80, host.as_str())).collect();
    rig.dns.set_services(NAME, &records, 0);
    std::thread::sleep(ms(500));
    assert_eq!(rig.gateway.get("/").status, 503);
}

pub(crate) fn counts_survive_a_change_of_the_set() {
    let (one, two) = (Backend::standard("one"), Backend::standard("two"));
    let source = Source::new("backends.toml", &[&one]);
    let gateway = following(&source, &[]);
    (0..10).for_each(|_| drop(ask(&gateway, &[])));
    source.list(&[&two, &one]);
    wait_for(&gateway, &[&two, &one]);
    let shown = members(&gateway);
    assert_eq!(shown[1]["requests_total"].as_u64(), Some(10), "{shown:?}");
    let label = [("backend", one.address.to_string())];
    let label: Vec<(&str, &str)> = label.iter().map(|(name, value)| (*name, value.as_str())).collect();
    assert_eq!(gateway.metric("backend_requests_total", &label), 10.0);
}

pub(crate) fn sources_come_and_go_with_reloads() {
    let (one, two) = (Backend::standard("one"), Backend::standard("two"));
    let source = Source::new("backends.toml", &[&two]);
    let fixed = [(one.address, "")];
    let listener = listener_to(Listener::h1(), &fixed);
    let plain = Config::new().runtime("workers", 1).block("pools.p", "policy", "round_robin");
    let following = plain
        .clone()
        .block("pools.p.discovery", "file", source.path.display().to_string())
        .block("pools.p.discovery", "refresh_ms", 100)
        .listener(listener.clone());
    let mut gateway = Gateway::start(plain.listener(listener));
    let without = gateway.config.clone();
    gateway.reload(following);
    wait_for(&gateway, &[&one, &two]);
    gateway.reload(without);
    wait_for(&gateway, &[&one]);
    source.list(&[&one, &two]);
    std::thread::sleep(ms(400));
    assert_eq!(addresses(&gateway), [one.address.to_string()]);
    assert!(gateway.metrics().lines_of("discovery_failures_total").is_empty());
}
