//! For how long a further try takes up the budget, and a tunnel counts as a request.

use crate::retry::{pool, rules};
use crate::rig::one_worker;
use testkit::backend::Conn;
use testkit::harness::Case;
use testkit::websocket::accept_key;
use testkit::{Backend, Client, Config, Fault, Gateway, Listener, eventually, request, seconds};

pub(crate) fn cases() -> Vec<Case> {
    testkit::cases![
        a_place_in_the_budget_ends_with_the_head,
        a_place_in_the_budget_ends_with_the_switch,
        a_tunnel_is_no_request_for_the_budget,
    ]
}

fn budget(percent: u32, min: u32) -> Config {
    let config = one_worker(rules(1, &["503"])).block("pools.p.retry", "budget_percent", percent);
    config.block("pools.p.retry", "budget_min", min)
}

fn gateway(config: Config, backends: &[&Backend]) -> Gateway {
    let addresses: Vec<_> = backends.iter().map(|backend| backend.address).collect();
    Gateway::start(config.listener(pool(Listener::h1().websocket(), "h1", &addresses)))
}

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// Opens a tunnel through the gateway.
fn tunnel(gateway: &Gateway) -> Client {
    let fields = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", KEY),
    ];
    let mut client = gateway.client();
    client.send(request("GET", "/tunnel", &fields, b"")).unwrap();
    assert_eq!(client.head("GET").unwrap().1.status, 101);
    client
}

fn switch(conn: &mut Conn) -> Result<(), Fault> {
    conn.send(format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {}\r\n\r\n",
        accept_key(KEY)
    ))?;
    conn.hold(seconds(60));
    Ok(())
}

/// A backend that answers everything with 503 but what has no turn for it.
fn bad(but: &'static str) -> Backend {
    Backend::each(move |request, conn| {
        if request.target() == but {
            return if but == "/tunnel" { switch(conn) } else { conn.respond(200, &[], b"well") };
        }
        conn.respond(503, &[], b"no")
    })
}

fn good() -> Backend {
    Backend::each(|request, conn| match request.target() {
        "/tunnel" => switch(conn),
        "/endless" => {
            conn.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nthe first of many")?;
            conn.hold(seconds(60));
            Ok(())
        }
        _ => conn.respond(200, &[], b"good"),
    })
}

/// One try at once, and one each second: what is tried again next waits for the second to pass, and for nothing else.
fn next_is_tried_again(gateway: &Gateway, bad: &Backend) {
    eventually("another request is tried again", seconds(20), || {
        let before = bad.request_count();
        let status = gateway.get("/").status;
        status == 200 && bad.request_count() > before
    });
}

fn a_place_in_the_budget_ends_with_the_head() {
    let (bad, good) = (bad("/none"), good());
    let gateway = gateway(budget(0, 1), &[&bad, &good]);
    // Whichever comes first: one of them is tried again.
    let mut open = Vec::new();
    while bad.request_count() == 0 {
        let mut client = gateway.client();
        client.send(request("GET", "/endless", &[], b"")).unwrap();
        assert_eq!(client.head("GET").unwrap().1.status, 200);
        open.push(client);
    }
    next_is_tried_again(&gateway, &bad);
}

fn a_place_in_the_budget_ends_with_the_switch() {
    let (bad, good) = (bad("/none"), good());
    let gateway = gateway(budget(0, 1), &[&bad, &good]);
    let mut open = Vec::new();
    while bad.request_count() == 0 {
        open.push(tunnel(&gateway));
    }
    next_is_tried_again(&gateway, &bad);
}

fn a_tunnel_is_no_request_for_the_budget() {
    let (bad, good) = (bad("/tunnel"), good());
    // Of two requests at once one may be tried again, of one none.
    let gateway = gateway(budget(50, 0), &[&bad, &good]);
    let _tunnels = [tunnel(&gateway), tunnel(&gateway), tunnel(&gateway), tunnel(&gateway)];
    let mut client = gateway.client();
    let statuses: Vec<u16> = (0..20).map(|_| client.get("/").unwrap().status).collect();
    let well = statuses.iter().filter(|status| **status == 200).count();
    assert_eq!(well, 10, "those that came to the good one first: {statuses:?}");
    assert_eq!(gateway.metric("pool_retries_total", &[("pool", "p")]), 0.0);
}
