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

/// A name without an answer keeps nobody waiting while another backend is there; it is asked again, and gets its share.
pub(crate) fn one_name_without_an_answer_blocks_neither_start_nor_reload() {
    let port = ports::port();
    let late = Backend::standard_at(format!("127.0.0.2:{port}").parse().unwrap(), "late");
    let there = Backend::standard("there");
    let dns = Dns::start();
    let config = |names: &[&str]| {
        let listener = Listener::h1().backend(there.address);
        let listener =
            names.iter().fold(listener, |listener, name| listener.backend(format!("{name}:{port}")));
        Config::new()
            .block("dns", "servers", vec![dns.address.to_string()])
            .block("dns", "negative_ttl_seconds", 1)
            .listener(listener)
    };
    let first = config(&["late.test"]);
    let text = first.render();
    let mut gateway = Gateway::start(first);
    assert_eq!(gateway.get("/").text(), "there");
    let warning = "the backend gets no traffic until it does";
    assert_eq!(gateway.process.stderr.wait_count(warning, 1), 1);
    let both = text.clone() + &format!("[[listeners.backends]]\naddress = \"other.test:{port}\"\n");
    assert!(matches!(gateway.reload_text(&both), testkit::gateway::Reload::Complete(_)));
    assert_eq!(gateway.process.stderr.wait_count(warning, 2), 2, "each is told of once");
    dns.set("late.test", &["127.0.0.2"], 60);
    testkit::eventually("it gets its share", seconds(10), || gateway.get("/").text() == "late");
    // Alone it is an error, at a start as in a reload.
    let alone = Config::new()
        .block("dns", "servers", vec![dns.address.to_string()])
        .listener(Listener::h1().backend("gone.test:80"));
    let mut refused = Gateway::launch(alone);
    assert_eq!(refused.process.wait_exit(seconds(10)), Some(1));
    assert!(refused.process.stderr.count("gone.test") > 0);
    drop(late);
}

/// A name server that says nothing keeps a start and a reload waiting for a moment, whatever one look-up may take.
pub(crate) fn a_name_server_that_is_silent_holds_up_neither_start_nor_reload() {
    let there = Backend::standard("there");
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let config = |name: &str| {
        Config::new()
            .block("dns", "servers", vec![silent.local_addr().unwrap().to_string()])
            .block("dns", "timeout_ms", 60_000)
            .listener(Listener::h1().backend(there.address).backend(format!("{name}.test:80")))
    };
    let begun = std::time::Instant::now();
    let mut gateway = Gateway::start(config("one"));
    assert!(matches!(gateway.reload(config("two")), testkit::gateway::Reload::Complete(_)));
    assert!(begun.elapsed() < seconds(30), "each waits for the whole of a look-up");
    assert_eq!(gateway.get("/").text(), "there");
    // The order to end does not wait for the name either.
    assert_eq!(gateway.stop(seconds(10)), 0);
}

pub(crate) fn backends_of_weight_0_alone_are_answered_503_until_one_rises() {
    let backend = Backend::standard("one");
    let config = Config::new().listener(Listener::h1().weighted(backend.address, 0));
    let text = config.render();
    let mut gateway = Gateway::start(config);
    assert_eq!(gateway.get("/").status, 503);
    assert_eq!(gateway.process.stderr.wait_count("the weight of every backend is 0", 1), 1);
    gateway.reload_text(&text.replace("weight = 0", "weight = 1"));
    assert_eq!(gateway.get("/").text(), "one");
}
