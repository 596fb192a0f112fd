//! Further tries of a request, over real connections: that the rules of a pool are obeyed, and how many tries there may be. The rules
//! themselves are tested in virtual time, in `crates/lb-http/tests/exchange/tries.rs`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use testkit::harness::Case;
use testkit::load::Load;
use testkit::{Backend, Config, Gateway, Listener, ms, ports, seconds};

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = testkit::cases![
        a_status_is_tried_again_elsewhere,
        a_slow_try_is_given_up,
        discarded_responses_keep_their_connections,
        tcp_connects_are_tried_as_the_pool_says,
    ];
    cases.extend([
        Case::new("c_05_a_storm_costs_a_fifth_more", c_05_a_storm_costs_a_fifth_more).alone(),
        Case::new("c_05_three_tiers_do_not_multiply", c_05_three_tiers_do_not_multiply).alone(),
        Case::new("a_killed_backend_costs_no_get", a_killed_backend_costs_no_get).alone(),
        Case::new("a_rolling_restart_costs_no_request", a_rolling_restart_costs_no_request).alone(),
    ]);
    cases
}

/// A listener whose pool `p` has these backends.
pub(crate) fn pool(listener: Listener, protocol: &str, backends: &[SocketAddr]) -> Listener {
    let block = |address: &SocketAddr| {
        format!("[[pools.p.backends]]\naddress = \"{address}\"\nprotocol = \"{protocol}\"\n")
    };
    listener.key("pool", "p").text(&backends.iter().map(block).collect::<String>())
}

/// Rules with `attempts` further tries on these conditions, and a budget that does not matter.
pub(crate) fn rules(attempts: u32, on: &[&str]) -> Config {
    let on: Vec<String> = on.iter().map(|&word| word.to_owned()).collect();
    let config = Config::new().block("pools.p.retry", "attempts", attempts).block("pools.p.retry", "on", on);
    config.block("pools.p.retry", "budget_percent", 100).block("pools.p.retry", "budget_min", 100)
}

fn gateway(config: Config, backends: &[&Backend]) -> Gateway {
    let addresses: Vec<SocketAddr> = backends.iter().map(|backend| backend.address).collect();
    Gateway::start(config.listener(pool(Listener::h1(), "h1", &addresses)))
}

/// A backend that answers each request with this status and a body.
fn failing(status: u16) -> Backend {
    Backend::each(move |_, conn| conn.respond(status, &[], b"no"))
}

pub(crate) fn count(backends: &[&Backend]) -> usize {
    backends.iter().map(|backend| backend.request_count()).sum()
}

fn a_status_is_tried_again_elsewhere() {
    let (bad, good) = (failing(503), Backend::standard("good"));
    let gateway = gateway(rules(1, &["503"]), &[&bad, &good]);
    let mut client = gateway.client();
    for number in 0..40 {
        let response = client.get("/").unwrap();
        assert_eq!((response.status, response.text().as_str()), (200, "good"), "request {number}");
    }
    assert_eq!(good.request_count(), 40);
    let tried = bad.request_count();
    assert!((20..=40).contains(&tried), "{tried} came here first");
    assert_eq!(gateway.metric("pool_retries_total", &[("pool", "p"), ("reason", "status")]), tried as f64);
    assert_eq!(gateway.metric("http_retries_total", &[("reason", "status")]), tried as f64);
}

fn a_slow_try_is_given_up() {
    let slow = Backend::each(|_, conn| {
        conn.pause(seconds(20));
        conn.respond(200, &[], b"slow")
    });
    let good = Backend::standard("good");
    let config = rules(1, &["timeout"]).block("pools.p.retry", "per_try_timeout_ms", 150);
    let gateway = gateway(config, &[&slow, &good]);
    let mut client = gateway.client();
    for _ in 0..4 {
        assert_eq!(client.get("/").unwrap().text(), "good");
    }
    let tried = slow.request_count();
    assert!(tried >= 2);
    assert_eq!(gateway.metric("pool_retries_total", &[("pool", "p"), ("reason", "timeout")]), tried as f64);
}

fn discarded_responses_keep_their_connections() {
    let (bad, good) = (failing(503), Backend::standard("good"));
    let gateway = gateway(rules(1, &["503"]), &[&bad, &good]);
    let mut client = gateway.client();
    for _ in 0..40 {
        assert_eq!(client.get("/").unwrap().status, 200);
    }
    assert!(bad.connections() <= 2, "{} connections for {} requests", bad.connections(), bad.request_count());
    // One whose body goes on for ever is let go.
    let endless = Backend::each(|_, conn| {
        conn.send("HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        loop {
            conn.send(testkit::client::chunk(&[b'x'; 4096]))?;
        }
    });
    let gateway = gateway_of_two(&endless, &good);
    for _ in 0..10 {
        assert_eq!(gateway.get("/").text(), "good");
    }
    testkit::eventually("its connections end", seconds(10), || endless.open_connections() == 0);
}

fn gateway_of_two(one: &Backend, two: &Backend) -> Gateway {
    gateway(rules(1, &["503"]), &[one, two])
}

fn tcp_connects_are_tried_as_the_pool_says() {
    let echo = Backend::tcp_echo();
    let backends = [ports::reserve(), ports::reserve(), echo.address];
    let ask = |gateway: &Gateway| {
        let mut client = gateway.client();
        client.send("ping").is_ok() && client.wire.fill().is_ok_and(|n| n > 0)
    };
    // The dead are asked again and again.
    let rules = |attempts, on: &[&str]| rules(attempts, on).block("pools.p", "rest_ms", 0);
    let enough = Gateway::start(rules(2, &["connect"]).listener(pool(Listener::tcp(), "tcp", &backends)));
    assert!((0..6).all(|_| ask(&enough)));
    assert!(enough.metric("pool_retries_total", &[("pool", "p"), ("reason", "connect")]) >= 6.0);
    let none = Gateway::start(rules(2, &["reset"]).listener(pool(Listener::tcp(), "tcp", &backends)));
    let served = (0..6).filter(|_| ask(&none)).count();
    assert!((1..=3).contains(&served), "{served} of 6: no connect is tried again");
}

/// Sends `each` GETs on each of `clients` connections, and returns how many were answered with 200.
pub(crate) fn burst(to: SocketAddr, clients: usize, each: usize) -> usize {
    let well = Arc::new(AtomicUsize::new(0));
    let threads: Vec<_> = (0..clients)
        .map(|_| {
            let well = Arc::clone(&well);
            thread::spawn(move || {
                let mut client = testkit::Client::connect(to).unwrap();
                for _ in 0..each {
                    let response = client.get("/").unwrap();
                    well.fetch_add(usize::from(response.status == 200), Ordering::Relaxed);
                    if response.closes() {
                        client = testkit::Client::connect(to).unwrap();
                    }
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    well.load(Ordering::Relaxed)
}

fn storm(attempts: u32) -> Config {
    rules(attempts, &["connect", "reset", "502", "503", "504"])
        .block("pools.p.retry", "budget_percent", 20)
        .block("pools.p.retry", "budget_min", 0)
}

fn c_05_a_storm_costs_a_fifth_more() {
    let backends = [failing(503), failing(503), failing(503)];
    let gateway = gateway(storm(3), &[&backends[0], &backends[1], &backends[2]]);
    let (clients, each) = (24, 100);
    assert_eq!(burst(gateway.front(), clients, each), 0);
    let (sent, came) = (clients * each, count(&[&backends[0], &backends[1], &backends[2]]));
    assert!(came * 10 <= sent * 12, "{came} requests at the backends for {sent} of clients");
    assert!(came * 100 >= sent * 105, "{came} for {sent}: the budget is made use of");
    assert!(gateway.metric("pool_retry_budget_exhausted_total", &[("pool", "p")]) > 0.0);
    let retries = gateway.metric("pool_retries_total", &[("pool", "p"), ("reason", "status")]);
    assert_eq!(retries as usize, came - sent);
}

fn c_05_three_tiers_do_not_multiply() {
    let backend = failing(503);
    let last = gateway(storm(3), &[&backend]);
    let tier = |to: &Gateway| Gateway::start(storm(3).listener(pool(Listener::h1(), "h1", &[to.front()])));
    let middle = tier(&last);
    let first = tier(&middle);
    let (clients, each) = (24, 50);
    assert_eq!(burst(first.front(), clients, each), 0);
    let (sent, came) = (clients * each, backend.request_count());
    // 1.2 to the third; without a budget it would be 64 times as many.
    assert!(came * 1000 <= sent * 1728, "{came} requests at the backend for {sent} of clients");
}

fn a_killed_backend_costs_no_get() {
    let origins = [Backend::standard("a"), Backend::standard("b"), Backend::standard("c")];
    // The backends proper are processes, which can be killed.
    let through =
        |origin: &Backend| Gateway::start(Config::new().listener(Listener::h1().backend(origin.address)));
    let backends = [through(&origins[0]), through(&origins[1]), through(&origins[2])];
    let addresses = [backends[0].front(), backends[1].front(), backends[2].front()];
    // At the moment of its death, a third of all requests is at it.
    let defaults = |config: Config| {
        config.block("pools.p.retry", "budget_percent", 20).block("pools.p.retry", "budget_min", 3)
    };
    let config = defaults(rules(2, &["connect", "reset"]));
    let gateway = Gateway::start(config.listener(pool(Listener::h1(), "h1", &addresses)));
    let load = Load::start(gateway.front(), 16, "/slow/5", ms(0));
    let more = |count: u64| {
        let until = load.served() + count;
        testkit::eventually("more requests are served", seconds(60), || load.served() >= until);
    };
    more(300);
    backends[1].process.signal(testkit::process::SIGKILL);
    more(600);
    let tally = load.stop();
    let lost = [&tally.failed, &tally.refused, &tally.repeated].map(|count| count.load(Ordering::Relaxed));
    assert_eq!(lost, [0; 3], "{:?}", tally.failures.lock().unwrap());
    let retries = |reason| gateway.metric("pool_retries_total", &[("pool", "p"), ("reason", reason)]);
    assert!(retries("stale") + retries("reset") + retries("connect") > 0.0, "it was noticed");
}

fn a_rolling_restart_costs_no_request() {
    let origin = Backend::standard("origin");
    // The backends proper are processes, which drain when they are told to end.
    let at = |address: Option<SocketAddr>| {
        let listener = Listener::h1().backend(origin.address);
        let listener = address.map_or(listener.clone(), |address| listener.at(address));
        Gateway::start(Config::new().listener(listener))
    };
    let mut backends = [at(None), at(None), at(None)];
    let addresses = [backends[0].front(), backends[1].front(), backends[2].front()];
    let config = rules(2, &["connect", "reset"])
        .block("pools.p.retry", "budget_percent", 20)
        .block("pools.p.retry", "budget_min", 3)
        .block("pools.p.health", "type", "tcp")
        .block("pools.p.health", "interval_ms", 100)
        .block("pools.p.health", "timeout_ms", 100);
    let gateway = Gateway::start(config.listener(pool(Listener::h1(), "h1", &addresses)));
    let load = Load::start(gateway.front(), 16, "/slow/5", ms(0));
    for (backend, address) in backends.iter_mut().zip(addresses) {
        let healthy = |wanted: f64| {
            let labels = [("pool", "p"), ("backend", &*address.to_string())];
            gateway.wait_metric("backend_healthy", &labels, |healthy| healthy == wanted);
        };
        healthy(1.0);
        assert_eq!(backend.stop(seconds(20)), 0, "it drains in time");
        healthy(0.0);
        *backend = at(Some(address));
        healthy(1.0);
        let until = load.served() + 200;
        testkit::eventually("more requests are served", seconds(60), || load.served() >= until);
    }
    let tally = load.stop();
    let lost = [&tally.failed, &tally.refused, &tally.repeated].map(|count| count.load(Ordering::Relaxed));
    assert_eq!(lost, [0; 3], "{:?}", tally.failures.lock().unwrap());
}
