//! Pools of backends: the state that all workers share, and how each worker picks.
//!
//! A [`SharedPool`] belongs to the process. It is changed by the prober when a check ends, by a worker when a member fails requests, and by
//! an operator, for instance to drain a member. That is rare. A [`WorkerPool`] belongs to one worker and picks without a lock; before each
//! pick it looks at one number, which differs when the shared pool has changed.
//!
//! The state of an address outlives the configuration that named it: [`Registry`].

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
