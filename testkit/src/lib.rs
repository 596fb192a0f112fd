//! Test peers that can lie, and a driver for the real binary.
//!
//! The end-to-end tests under `tests/` know the gateway only from outside: a configuration file, sockets, signals, logs
//! and metrics. This crate holds the other half of each conversation. It has its own HTTP/1.1 reader, stricter than
//! any real peer and sharing no code with the gateway, so that a mistake in one cannot hide the same mistake in the other.
//!
//! Everything is plain threads and blocking sockets: a test reads from top to bottom in the order in which things happen. QUIC is the
//! exception below the surface: quinn runs on a thread of its own, behind calls that block.

pub mod backend;
pub mod browser;
pub mod calls;
pub mod certificates;
pub mod client;
pub mod config;
pub mod dns;
pub mod exchange;
pub mod front;
pub mod gateway;
pub mod h2;
pub mod h3;
pub mod harness;
pub mod hung;
pub mod io;
pub mod load;
pub mod logs;
pub mod marked;
pub mod metrics;
pub mod pattern;
pub mod peers;
pub mod ports;
pub mod process;
pub mod proxied;
pub mod quic;
pub mod standard;
pub mod successor;
pub mod tls;
pub mod tools;
pub mod tunnel;
pub mod unix;
pub mod usage;
pub mod websocket;
pub mod wire;

pub use backend::Backend;
pub use client::{Client, Response, request};
pub use config::{Config, Listener, Pool};
pub use exchange::{Exchange, Origin, Received, Version};
pub use front::Front;
pub use gateway::Gateway;
pub use h2::{H2Backend, H2Client};
pub use h3::H3Client;
pub use marked::MarkedSocket;
pub use peers::Peer;
pub use usage::Usage;
pub use wire::{Fault, Headers};

use std::time::{Duration, Instant};

/// Milliseconds, spelled short because the tests are full of them.
pub const fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// Seconds.
pub const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// Looks again every 10 ms until `probe` gives a value, at most for `limit`.
pub fn poll<T>(limit: Duration, mut probe: impl FnMut() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    loop {
        if let Some(value) = probe() {
            return Some(value);
        }
        if start.elapsed() > limit {
            return None;
        }
        std::thread::sleep(ms(10));
    }
}

/// Waits until `condition` holds; panics with `what` when it does not within `limit`.
#[track_caller]
pub fn eventually(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    if poll(limit, || condition().then_some(())).is_none() {
        panic!("not within {limit:?}: {what}");
    }
}

/// Waits until `moved` has begun to grow and then stays for a second; panics with what it was when that does not come within 20 s.
#[track_caller]
pub fn standstill(what: &str, moved: impl Fn() -> u64) -> u64 {
    let mut seen = vec![moved()];
    for _ in 0..40 {
        std::thread::sleep(ms(500));
        let now = moved();
        seen.push(now);
        if now > 0 && seen.ends_with(&[now; 3]) {
            return now;
        }
    }
    panic!("not within 20 s: {what}; every half second it was {seen:?}");
}
