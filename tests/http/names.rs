//! Backends by name.

use testkit::dns::Dns;
use testkit::{Backend, Config, Gateway, Listener, ms, ports, seconds};

struct Rig {
    dns: Dns,
    first: Backend,
    second: Backend,
    gateway: Gateway,
}

/// Two backends on the same port of two addresses, and a gateway that knows them by one name.
fn rig(addresses: &[&str]) -> Rig {
    let port = ports::port();
    let first = Backend::standard_at(format!("127.0.0.2:{port}").parse().unwrap(), "first");
    let second = Backend::standard_at(format!("127.0.0.3:{port}").parse().unwrap(), "second");
    let dns = Dns::start();
    dns.set("app.test", addresses, 1);
    let config = Config::new()
        .block("dns", "servers", vec![dns.address.to_string()])
        .block("dns", "min_ttl_seconds", 1)
        .block("dns", "max_ttl_seconds", 2)
        .listener(Listener::h1().backend(format!("app.test:{port}")));
    let gateway = Gateway::start(config);
    Rig { dns, first, second, gateway }
}

pub(crate) fn all_addresses_of_a_name_are_used() {
    let rig = rig(&["127.0.0.2", "127.0.0.3"]);
    let mut client = rig.gateway.client();
    for _ in 0..40 {
        assert_eq!(client.get("/").unwrap().status, 200);
    }
    let shares = (rig.first.request_count(), rig.second.request_count());
    assert_eq!(shares, (20, 20));
    assert_eq!(rig.first.last_request().header("host").as_deref(), Some("test.example"));
}

pub(crate) fn traffic_follows_the_record() {
    let rig = rig(&["127.0.0.2"]);
    let mut client = rig.gateway.client();
    assert_eq!(client.get("/").unwrap().text(), "first");
    rig.dns.set("app.test", &["127.0.0.3"], 1);
    testkit::eventually("traffic moves", seconds(10), || {
        std::thread::sleep(ms(100));
        let response = client.get("/").unwrap();
        if response.closes() {
            client = rig.gateway.client();
        }
        response.text() == "second"
    });
    let before = rig.first.request_count();
    for _ in 0..20 {
        assert_eq!(rig.gateway.get("/").text(), "second");
    }
    assert_eq!(rig.first.request_count(), before, "the old address still gets requests");
    assert_eq!(rig.gateway.process.stderr.count("reload pass complete"), 0);
}

pub(crate) fn last_good_addresses_outlive_the_name() {
    let rig = rig(&["127.0.0.2"]);
    assert_eq!(rig.gateway.get("/").text(), "first");
    for vanish in [Dns::remove as fn(&Dns, &str), Dns::fail, Dns::silence] {
        vanish(&rig.dns, "app.test");
        let queries = rig.dns.queries();
        testkit::eventually("it asks again", seconds(15), || rig.dns.queries() > queries);
        std::thread::sleep(ms(300));
        for _ in 0..5 {
            assert_eq!(rig.gateway.get("/").text(), "first");
        }
    }
    rig.dns.set("app.test", &["127.0.0.3"], 1);
    testkit::eventually("the name is heard again", seconds(30), || {
        std::thread::sleep(ms(100));
        rig.gateway.get("/").text() == "second"
    });
}
