//! Two gateways in a row that speak HTTP/3 with each other, in one thread and in virtual time, over a network in memory that loses datagrams,
//! repeats them and lets them overtake each other.
//!
//! Requests, origins and what must hold of each request are those of the exchanges over HTTP/1.1 and HTTP/2 in `lb-http`.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    missing_docs,
    reason = "tests fail by panicking"
)]

#[allow(dead_code, reason = "other tests use more of it")]
#[path = "../../../lb-http/tests/exchange/back.rs"]
mod back;
#[path = "../../../lb-http/tests/exchange/call.rs"]
mod call;
#[allow(dead_code, reason = "other tests use more of it")]
#[path = "../../../lb-http/tests/exchange/chance.rs"]
mod chance;
mod clock;
#[allow(dead_code, reason = "other tests use more of it")]
#[path = "../../../lb-http/tests/exchange/front.rs"]
mod front;
mod gateways;
mod memory;
mod network;
#[allow(dead_code, reason = "other tests use more of it")]
#[path = "../../../lb-http/tests/exchange/rig.rs"]
mod rig;
mod seeds;

use std::future::Future;

use tokio::runtime::Builder;
use tokio::task::LocalSet;

/// Runs a test with a worker in virtual time, which quiche takes for the time as well.
fn within<F: Future>(test: impl FnOnce() -> F) -> F::Output {
    clock::stop();
    let mut builder = Builder::new_current_thread();
    builder.enable_time().start_paused(true).on_thread_unpark(clock::follow);
    let runtime = builder.build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        clock::begin();
        test().await
    })
}
