//! Exchanges whose fronts and backs are of no protocol of this crate, driven through its public interface in virtual time; and two gateways in
//! a row, with connections in memory between them.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    missing_docs,
    reason = "tests fail by panicking"
)]

mod back;
mod bodies;
mod call;
mod chance;
mod front;
mod mirrors;
mod pair;
mod plugged;
#[allow(dead_code, reason = "other tests use more of it")]
mod rig;
mod tries;
mod wire;

use std::future::Future;

use tokio::runtime::Builder;
use tokio::task::LocalSet;

/// Runs a test with a worker in virtual time.
fn within<F: Future>(test: impl FnOnce() -> F) -> F::Output {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    LocalSet::new().block_on(&runtime, async { test().await })
}
