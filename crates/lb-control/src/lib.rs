//! What runs beside the workers, on the control thread.
//!
//! [`Control::start`] reads what a configuration names, binds its listeners and has workers started; [`Control::run`] then serves signals,
//! reloads, names, sources of backends, health checks and the admin port until the process is told to end, and drains it. Workers are
//! reached by [`Order`]s alone, and find in a [`Snapshot`] what they serve by. How a worker obeys an order is not known here: whoever starts
//! the control thread passes in how a worker is spawned.

mod access_files;
mod admin_port;
mod alone;
mod answer_bodies;
mod api;
mod aside;
mod control;
mod decision;
mod descriptors;
mod discovery;
mod drain;
mod ending;
mod faults;
mod file_keys;
mod inspect;
mod listeners;
mod named_files;
mod names;
mod needs;
mod orders;
mod overlay;
mod plan;
mod pools;
mod probe;
mod process;
mod reload;
mod renewal;
mod route_weights;
mod signals;
mod snapshot;
mod source;
mod start;
mod status;
mod sticky;
mod systemd;
mod tls;
mod together;
mod traces;
mod upgrade;
mod xdp;

pub use access_files::{AccessSets, read_access_files};
pub use alone::Alone;
pub use control::Control;
pub use drain::ProcessOutcome;
pub use file_keys::FileKeys;
pub use inspect::{Findings, inspect};
pub use orders::{Change, ListenerKey, ListenerSockets, Order};
pub use signals::Signals;
pub use snapshot::{PoolBackends, PoolInForce, Snapshot};
pub use source::{Source, load};
pub use start::{NewWorker, Spawn, Start};
pub use sticky::StickyKeys;
pub use tls::BackendsTls;
pub use upgrade::Program;
