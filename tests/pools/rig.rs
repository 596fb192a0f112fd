//! A gateway with one listener in front of the pool `p`.

use std::net::SocketAddr;

use testkit::{Backend, Config, Gateway, Listener};

/// A listener that sends everything to `p`, with these backends and what else the file says of each.
pub(crate) fn listener_to(kind: Listener, backends: &[(SocketAddr, &str)]) -> Listener {
    let blocks: String = backends
        .iter()
        .map(|(address, more)| format!("[[pools.p.backends]]\naddress = \"{address}\"\n{more}\n"))
        .collect();
    kind.key("pool", "p").text(&blocks)
}

/// An HTTP/1.1 gateway with two workers, whatever the machine, in front of `backends`.
#[track_caller]
pub(crate) fn gateway(policy: &str, backends: &[&Backend], config: impl FnOnce(Config) -> Config) -> Gateway {
    let backends: Vec<(SocketAddr, &str)> = backends.iter().map(|backend| (backend.address, "")).collect();
    let listener = listener_to(Listener::h1(), &backends);
    let base = Config::new().runtime("workers", 2).block("pools.p", "policy", policy);
    Gateway::start(config(base).listener(listener))
}

/// The name that the backend of one more request gives.
#[track_caller]
pub(crate) fn ask(gateway: &Gateway, headers: &[(&str, &str)]) -> String {
    let response = gateway.client().request("GET", "/", headers, b"").unwrap();
    assert_eq!(response.status, 200);
    response.text()
}

/// The same with one worker, where what each worker has of its own is counted.
pub(crate) fn one_worker(config: Config) -> Config {
    config.runtime("workers", 1)
}
