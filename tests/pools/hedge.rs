//! Requests that are sent to a second backend when the first takes its time, over real connections. How two tries end is tested in virtual
//! time, in `crates/lb-http/tests/exchange/tries.rs`.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crate::retry::{burst, count, pool, rules};
use crate::rig::one_worker;
use testkit::backend::Conn;
use testkit::h2::code;
use testkit::harness::Case;
use testkit::{Backend, Client, Config, Fault, Gateway, H2Backend, Listener, ms, seconds};

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = testkit::cases![
        the_second_answers_for_a_slow_first,
        who_leaves_says_nothing_of_how_long_responses_take,
        who_failed_beside_is_not_asked_again,
        who_goes_away_beside_is_not_to_blame,
    ];
    cases.push(Case::new("c_05_hedges_share_the_budget", c_05_hedges_share_the_budget).alone());
    cases
}

type Act = fn(&mut Conn) -> Result<(), Fault>;

/// Two backends that act by who a request comes to first. Requests for `/warm` are answered at once.
struct Pair {
    backends: [Backend; 2],
}

impl Pair {
    fn start(first: Act, second: Act) -> Self {
        let seen: Arc<Mutex<HashSet<String>>> = Arc::default();
        let start = || {
            let seen = Arc::clone(&seen);
            Backend::start(move |conn| {
                loop {
                    let request = conn.request()?;
                    if request.target() == "/warm" {
                        conn.respond(200, &[], b"warm")?;
                    } else if seen.lock().unwrap().insert(request.target().to_owned()) {
                        first(conn)?;
                    } else {
                        second(conn)?;
                    }
                }
            })
        };
        Self { backends: [start(), start()] }
    }

    fn count(&self) -> usize {
        count(&[&self.backends[0], &self.backends[1]])
    }

    /// A gateway in front, and a client on a connection whose worker has seen enough requests to know what is slow.
    fn gateway(&self, config: Config) -> (Gateway, Client) {
        self.gateway_by(config, Listener::h1())
    }

    fn gateway_by(&self, config: Config, listener: Listener) -> (Gateway, Client) {
        let addresses = [self.backends[0].address, self.backends[1].address];
        let gateway = Gateway::start(config.listener(pool(listener, "h1", &addresses)));
        let mut client = gateway.client();
        client.set_timeout(seconds(60));
        for _ in 0..200 {
            assert_eq!(client.get("/warm").unwrap().status, 200);
        }
        (gateway, client)
    }
}

fn hedging(attempts: u32, on: &[&str]) -> Config {
    let config = rules(attempts, on).runtime("max_keepalive_requests", 10_000);
    config.block("pools.p.retry", "hedge_percentile", 99).block("pools.p.retry", "hedge_min_delay_ms", 100)
}

fn hedges(gateway: &Gateway) -> (f64, f64) {
    let of = |name| gateway.metric(name, &[("pool", "p")]);
    (of("pool_hedges_total"), of("pool_hedges_won_total"))
}

fn never(conn: &mut Conn) -> Result<(), Fault> {
    conn.pause(seconds(50));
    conn.respond(200, &[], b"first")
}

fn at_once(conn: &mut Conn) -> Result<(), Fault> {
    conn.respond(200, &[], b"second")
}

fn cut(conn: &mut Conn) -> Result<(), Fault> {
    conn.pause(ms(300));
    conn.reset();
    Err(Fault::Closed)
}

fn no(conn: &mut Conn) -> Result<(), Fault> {
    conn.respond(503, &[], b"no")
}

fn the_second_answers_for_a_slow_first() {
    let pair = Pair::start(never, at_once);
    let (gateway, mut client) = pair.gateway(hedging(1, &["connect"]));
    let warm = hedges(&gateway);
    for number in 0..5 {
        assert_eq!(client.get(&format!("/{number}")).unwrap().text(), "second");
    }
    // A body goes along, if it is small.
    let response = client.request("PUT", "/put", &[], b"a small body").unwrap();
    assert_eq!(response.text(), "second");
    let bodies = pair.backends.iter().flat_map(Backend::requests).filter(|seen| seen.target() == "/put");
    assert_eq!(bodies.map(|seen| seen.body).collect::<Vec<_>>(), [b"a small body"; 2]);
    let (made, won) = hedges(&gateway);
    assert_eq!((made - warm.0, won - warm.1), (6.0, 6.0));
    // What is not waited for any more is cancelled, and its backend holds nothing against the gateway.
    testkit::eventually("nothing is in flight", seconds(10), || {
        gateway.metric("backend_inflight", &[]) == 0.0
    });
}

fn who_failed_beside_is_not_asked_again() {
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let start = || {
        let seen = Arc::clone(&seen);
        Backend::each(move |request, conn| {
            if request.target() == "/warm" {
                return conn.respond(200, &[], b"warm");
            }
            let before = {
                let mut seen = seen.lock().unwrap();
                seen.push(request.target().to_owned());
                seen.iter().filter(|target| *target == request.target()).count()
            };
            match before {
                1 => cut(conn),
                2 => {
                    conn.pause(ms(600));
                    no(conn)
                }
                _ => conn.respond(200, &[], b"third"),
            }
        })
    };
    let backends = [start(), start(), start()];
    let addresses = backends.each_ref().map(|backend| backend.address);
    // The client's address leads to the one that fails first, unless that is avoided.
    let config = hedging(2, &["reset", "503"]).block("pools.p", "policy", "rendezvous");
    let gateway = Gateway::start(config.listener(pool(Listener::h1(), "h1", &addresses)));
    let mut client = gateway.client();
    client.set_timeout(seconds(60));
    for _ in 0..200 {
        assert_eq!(client.get("/warm").unwrap().status, 200);
    }
    for number in 0..3 {
        let target = format!("/{number}");
        assert_eq!(client.get(&target).unwrap().text(), "third");
        let asked = backends
            .each_ref()
            .map(|backend| backend.requests().iter().filter(|request| request.target() == target).count());
        assert_eq!(asked, [1; 3], "{target}");
    }
    // Where all have failed, they are asked again rather than nobody.
    let pair = Pair::start(cut, no);
    let (_gateway, mut client) = pair.gateway(hedging(2, &["reset", "503"]));
    let before = pair.count();
    assert_eq!(client.get("/x").unwrap().status, 503);
    assert_eq!(pair.count() - before, 3);
}

fn who_goes_away_beside_is_not_to_blame() {
    let asked = Arc::new(AtomicUsize::new(0));
    let start = || {
        let asked = Arc::clone(&asked);
        H2Backend::start(move |call| {
            if call.path() == "/warm" {
                return call.respond(200, &[], b"warm");
            }
            if asked.fetch_add(1, Ordering::SeqCst) == 0 {
                call.pause(ms(300));
                return call.goaway(call.stream - 2, code::NO_ERROR);
            }
            call.pause(ms(900));
            call.respond(200, &[], b"second")
        })
    };
    let backends = [start(), start()];
    let addresses = backends.each_ref().map(|backend| backend.address);
    let config = one_worker(hedging(1, &["reset"]))
        .block("pools.p.outlier", "consecutive_gateway_failures", 1)
        .block("pools.p.outlier", "base_ejection_ms", 60_000);
    let gateway = Gateway::start(config.listener(pool(Listener::h1(), "h2", &addresses)));
    let mut client = gateway.client();
    for _ in 0..200 {
        assert_eq!(client.get("/warm").unwrap().status, 200);
    }
    assert_eq!(client.get("/x").unwrap().text(), "second");
    assert_eq!(asked.load(Ordering::SeqCst), 2);
    assert!(gateway.messages().iter().all(|message| message != "backend ejected"));
}

fn who_leaves_says_nothing_of_how_long_responses_take() {
    // As many as the estimate is read after, and far more than one of a hundred.
    const LEAVING: usize = 80;
    let seen: Arc<Mutex<HashSet<String>>> = Arc::default();
    let start = || {
        let seen = Arc::clone(&seen);
        Backend::each(move |request, conn| match request.target() {
            "/leaving" => never(conn),
            "/slow" if seen.lock().unwrap().insert(request.target().to_owned()) => {
                conn.pause(ms(1200));
                conn.respond(200, &[], b"first")
            }
            _ => at_once(conn),
        })
    };
    let pair = Pair { backends: [start(), start()] };
    let (gateway, mut client) = pair.gateway(one_worker(hedging(1, &["connect"])));
    let before = pair.count();
    let leave = || {
        let mut client = gateway.client();
        client.send(testkit::request("GET", "/leaving", &[], b"")).unwrap();
        client
    };
    let leaving: Vec<Client> = (0..LEAVING).map(|_| leave()).collect();
    testkit::eventually("both are asked", seconds(10), || pair.count() - before == 2 * LEAVING);
    std::thread::sleep(ms(2000));
    drop(leaving);
    testkit::eventually("nothing is in flight", seconds(10), || {
        gateway.metric("backend_inflight", &[]) == 0.0
    });
    assert_eq!(client.get("/slow").unwrap().text(), "second");
}

fn c_05_hedges_share_the_budget() {
    let spread = || {
        let turn = Arc::new(std::sync::atomic::AtomicU64::new(0));
        Backend::each(move |_, conn| {
            conn.pause(ms(5 + turn.fetch_add(7, Ordering::Relaxed) % 40));
            conn.respond(200, &[], b"ok")
        })
    };
    let backends = [spread(), spread()];
    let config = rules(1, &["connect"])
        .block("pools.p.retry", "hedge_percentile", 50)
        .block("pools.p.retry", "hedge_min_delay_ms", 1)
        .block("pools.p.retry", "budget_percent", 20)
        .block("pools.p.retry", "budget_min", 0);
    let addresses = [backends[0].address, backends[1].address];
    let gateway = Gateway::start(config.listener(pool(Listener::h1(), "h1", &addresses)));
    let (clients, each) = (24, 60);
    assert_eq!(burst(gateway.front(), clients, each), clients * each);
    let (sent, came) = (clients * each, count(&[&backends[0], &backends[1]]));
    assert!(came > sent, "some are hedged");
    assert!(came * 10 <= sent * 12, "{came} requests at the backends for {sent} of clients");
    assert!(gateway.metric("pool_retry_budget_exhausted_total", &[("pool", "p")]) > 0.0);
}
