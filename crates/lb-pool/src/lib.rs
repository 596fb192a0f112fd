//! Pools of backends: the state that all workers share, and how each worker picks.
//!
//! A [`SharedPool`] belongs to the process. It is changed by the prober when a check ends, by a worker when a member fails requests, and by
//! an operator, for instance to drain a member. That is rare. Each change is published as a [`PoolView`], which any number of subscribers
//! on any thread follow by a [`Subscription`]: [`SharedPool::subscribe`] for one pool, [`Registry::subscribe`] for all of them. A
//! [`WorkerPool`] belongs to one worker and picks without a lock; before each pick it looks at one number, which differs when there is
//! something new to be seen.
//!
//! The state of an address outlives the configuration that named it: [`Registry`].

mod connection;
mod feed;
mod gate;
mod lineage;
mod member;
mod meters;
mod registry;
mod report;
mod shared;
mod tally;
mod tries;
mod view;
mod worker;
mod worker_member;

pub use connection::Connection;
pub use feed::Subscription;
pub use gate::{Entry, Gate, Need, Pass, Place, Waiting};
pub use member::{MemberKey, ResolvedBackend, SharedMember};
pub use registry::Registry;
pub use report::Report;
pub use shared::SharedPool;
pub use view::PoolView;
pub use worker::WorkerPool;
pub use worker_member::WorkerMember;
