//! Pools of backends: what they are given, and what becomes of a request that one of them fails.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::indexing_slicing, reason = "a test fails by panicking")]

#[path = "pools/limits.rs"]
mod limits;
#[path = "pools/retry.rs"]
mod retry;

fn main() {
    let mut cases = Vec::new();
    cases.extend(limits::cases());
    cases.extend(retry::cases());
    testkit::harness::main(env!("CARGO_BIN_EXE_expressgateway"), cases);
}
