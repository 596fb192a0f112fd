//! What operators do while QUIC is forwarded: reloads, drains, upgrades.

use testkit::peers::Certificate;
use testkit::process::SIGTERM;
use testkit::successor::Successor;
use testkit::{Gateway, seconds};

use crate::passthrough_rig::{answers, config, holding, next_round, server};

pub(crate) fn a_reload_moves_new_connections_and_leaves_the_others() {
    let certificate = Certificate::localhost();
    let (old, new) = (server(&certificate, "old", &[]), server(&certificate, "new", &[]));
    let (config, address) = config(&[old.address]);
    let mut gateway = Gateway::start(config.clone());
    let client = holding(address, 3, "5");
    assert_eq!(next_round(&client), (vec!["old:hello".to_owned(); 3], 0));
    gateway.reload(config.clone().block("passthrough", "backends", vec![new.address.to_string()]));
    assert_eq!(answers(address, "echo", &["--count", "2"]), ["new:hello", "new:hello"]);
    assert_eq!(next_round(&client), (vec!["old:hello".to_owned(); 3], 0), "they stay where they are");
    // The block goes: its clients have the time of a drain, and no new ones come.
    let listener = testkit::Listener::tcp().backend(old.address);
    let without = testkit::Config::new().block("observability", "metrics_bind", gateway.admin().to_string());
    gateway.reload(without.listener(listener));
    let refused = testkit::peers::scenario("quic_client.py", address, "echo", &["--limit", "2"]);
    assert_eq!(refused["error"], "TimeoutError");
}

pub(crate) fn a_drain_waits_for_connections_that_talk() {
    let certificate = Certificate::localhost();
    let server = server(&certificate, "a", &[]);
    let (config, address) = config(&[server.address]);
    let mut gateway = Gateway::start(config.runtime("drain_timeout_ms", 20_000));
    let client = holding(address, 2, "5");
    assert_eq!(next_round(&client).1, 0);
    gateway.process.signal(SIGTERM);
    assert!(gateway.process.stderr.wait("listener cancelled by drain coordinator", seconds(5)).is_some());
    let refused = testkit::peers::scenario("quic_client.py", address, "echo", &["--limit", "1"]);
    assert_eq!(refused["error"], "TimeoutError", "nothing new is begun");
    assert_eq!(next_round(&client), (vec!["a:hello".to_owned(); 2], 0), "what is there goes on");
    drop(client);
    let code = gateway.process.wait_exit(seconds(10)).expect("silent flows do not keep the process");
    assert_eq!(code, 0);
}

pub(crate) fn connections_outlive_an_upgrade() {
    let certificate = Certificate::localhost();
    let servers = ["a", "b", "c"].map(|name| server(&certificate, name, &[]));
    let (config, address) = config(&servers.each_ref().map(|server| server.address));
    let mut gateway = Gateway::start(config.runtime("drain_timeout_ms", 10_000));
    let client = holding(address, 6, "8");
    let (before, failed) = next_round(&client);
    assert_eq!(failed, 0);
    let successor = Successor::takes_over(&gateway);
    // Where the new process leads them follows from the addresses of the clients alone.
    for _ in 0..3 {
        assert_eq!(next_round(&client), (before.clone(), 0));
    }
    let code = gateway.process.wait_exit(seconds(15)).expect("the first process ends");
    assert_eq!(code, 0);
    assert_eq!(next_round(&client), (before, 0));
    assert_eq!(answers(address, "many", &["--count", "4"]).len(), 4);
    assert!(successor.is_alive());
}
