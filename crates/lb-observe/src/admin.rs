//! The admin server: metrics, probes and the status over plain HTTP/1.1.
//!
//! It lives until the process is about to end, so that a drain can be watched: `/readyz` answers 503 and the
//! shutdown families can be scraped while connections finish. GET changes nothing; what changes backends is POST or DELETE, and needs a
//! token. Questions that need a body are POST as well, and change nothing.

mod answer;
mod body;
mod calls;
mod host;
mod origin;
mod page;
mod peer;
mod questions;
mod server;
mod status;
mod tap;

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

pub use calls::{Action, Call, MAX_BODY_BYTES, MAX_WAITING_CALLS, Refusal};
pub use questions::Questions;
pub use server::serve;
pub use status::{MAX_VIEWERS, StatusPart, StatusSource, StatusState};
use tokio::sync::mpsc;

use crate::metrics::Metrics;

/// What the admin server shows, and to which clients.
#[derive(Clone, Debug)]
pub struct Admin {
    /// What `/metrics` shows.
    pub metrics: Arc<Metrics>,
    /// What the probes show.
    pub readiness: Arc<Readiness>,
    /// SHA-256 of the bearer token without which only probes are answered. Without a hash no token is needed.
    pub token_hash: Option<[u8; 32]>,
    /// Whether a request must name an IP address or `localhost` as its host, against web pages that reach the
    /// port through a name of theirs (attack row C-08). To be switched off where other machines may ask, since
    /// they use names, and a token protects that port.
    pub check_host: bool,
    /// Whether `/` shows the status page, and clients on this machine may look at the status without a token.
    pub page: bool,
    /// What knows how everything stands.
    pub status: Rc<dyn StatusSource>,
    /// Where calls about backends are answered.
    pub calls: mpsc::Sender<Call>,
    /// Bounds what is asked at one time.
    pub questions: Questions,
}

/// What the connections of an admin server share.
#[derive(Debug)]
struct Served {
    admin: Admin,
    status: Rc<status::StatusFeed>,
}

impl Served {
    fn new(admin: Admin) -> Self {
        Self { status: status::StatusFeed::new(Rc::clone(&admin.status)), admin }
    }
}

/// Whether the gateway takes traffic; set by the control thread, read by the probes.
#[derive(Debug, Default)]
pub struct Readiness(AtomicU8);

impl Readiness {
    /// Starts as [`State::Booting`].
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// The state now.
    pub fn state(&self) -> State {
        match self.0.load(Ordering::Acquire) {
            0 => State::Booting,
            1 => State::Ok,
            _ => State::Draining,
        }
    }

    /// Goes on to `state`. There is no way back: a boot that ends during a drain does not end the drain.
    pub fn advance(&self, state: State) {
        self.0.fetch_max(state as u8, Ordering::AcqRel);
    }
}

/// A state of the gateway's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Not every listener is bound yet.
    Booting = 0,
    /// Every listener takes connections.
    Ok = 1,
    /// New connections should go elsewhere.
    Draining = 2,
}

impl State {
    /// What the probes call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Booting => "booting",
            Self::Ok => "ok",
            Self::Draining => "draining",
        }
    }
}

#[cfg(test)]
mod tests;
