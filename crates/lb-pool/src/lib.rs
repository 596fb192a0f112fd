//! Pools of backends: what all workers know of them in common, and how each worker picks.
//!
//! A [`SharedPool`] belongs to the process. Whoever learns something of a member says it there: the prober what its checks found, a
//! worker that a member fails its requests, an operator that one is to be drained. That is rare. A [`WorkerPool`] belongs to one worker
//! and picks without a lock; before each pick it looks at one number that tells whether the shared pool has changed since.
//!
//! What is known of an address outlives the configuration that named it: [`Registry`].

mod connection;
mod gate;
mod lineage;
mod member;
mod meters;
mod news;
mod registry;
mod report;
mod shared;
mod tally;
mod tries;
mod worker;

pub use connection::Connection;
pub use gate::{Entry, Gate, Need, Pass, Place, Waiting};
pub use member::{Member, MemberKey};
pub use news::on_news;
pub use registry::Registry;
pub use report::Report;
pub use shared::{Outlier, PoolSettings, SharedPool};
pub use tries::Retry;
pub use worker::WorkerPool;
