//! The tries of a request: one after the other, and sometimes two side by side.

use std::rc::Rc;
use std::time::Duration;

use lb_core::failure::{Failure, Kind, Shortage};
use lb_core::retry::RetrySettings;
use lb_pool::{Place, Waiting};
use tokio::time::Instant;

use super::dial::Dial;
use super::stall::Stall;
use super::trace::TrySpan;
use crate::back::AnyBack;
use crate::service::{Member, Pool};
use crate::upstream::{Link, Wait};

/// One try of a request, at one member.
#[derive(Debug, Default)]
pub(super) struct Try {
    /// The member that it goes to, once one is chosen.
    pub(super) member: Option<Chosen>,
    pub(super) leg: Leg,
    /// Room for the request at its member, where that has limits.
    pub(super) room: Option<Place>,
    /// It has a place in the budget of further tries.
    pub(super) charged: bool,
    /// From where on what is kept of the request's body is still to be sent.
    pub(super) resend: Option<usize>,
    /// The backend takes no more at the moment.
    pub(super) stall: Stall,
    /// What the backend answered, or what its failure was answered with; `None` where the backend is not to blame.
    pub(super) status: Option<u16>,
    /// When the head of its response came.
    pub(super) heard: Option<Instant>,
    /// How it failed, where that counts for or against its member.
    pub(super) failure: Option<Failure>,
    /// It was begun beside another one.
    pub(super) second: bool,
    /// Its span, where the trace is recorded.
    pub(super) span: Option<Box<TrySpan>>,
    /// The member is another than the one that the client's cookie stands for: it gets a new one.
    pub(super) moves: bool,
}

/// The member that a try goes to.
#[derive(Clone, Debug)]
pub(super) struct Chosen {
    /// Its position in the pool.
    pub(super) at: usize,
    pub(super) member: Rc<Member>,
    /// When the try began.
    pub(super) since: Instant,
}

/// How far a try has got.
#[derive(Debug, Default)]
pub(super) enum Leg {
    /// A member and a connection are to be chosen.
    #[default]
    Choose,
    /// As [`Self::Choose`], and no pooled connection may be used.
    ChooseFresh,
    /// A member is chosen when the pause before this try is over.
    Pause { until: Instant },
    /// A member that is at its limits is to have room; `fresh` when no pooled connection may be used.
    Queue { waiting: Waiting, at: usize, fresh: bool },
    /// A connection is being made.
    Dial(Dial),
    /// Another exchange is making the connection that this one will share.
    Wait { wait: Wait, since: Instant },
    /// Messages are moving.
    Relay(Link),
    /// The try has ended: its response is complete, another one is taken, or the gateway answers itself.
    Over,
}

impl Try {
    /// The backend's side, while messages are moving.
    #[inline]
    pub(super) fn back(&mut self) -> Option<&mut AnyBack> {
        match &mut self.leg {
            Leg::Relay(link) => Some(&mut link.back),
            _ => None,
        }
    }

    /// Whether the request is on a connection.
    #[inline]
    pub(super) fn is_relaying(&self) -> bool {
        matches!(self.leg, Leg::Relay(_))
    }

    /// Whether its connection had served before this request.
    pub(super) fn is_reused(&self) -> bool {
        matches!(&self.leg, Leg::Relay(link) if link.reused)
    }

    /// Where its member stands in the pool.
    pub(super) fn at(&self) -> Option<usize> {
        self.member.as_ref().map(|chosen| chosen.at)
    }

    /// When it began at its member.
    pub(super) fn since(&self) -> Option<Instant> {
        self.member.as_ref().map(|chosen| chosen.since)
    }

    /// The backend of its member, as the configuration names it.
    pub(super) fn backend(&self) -> Option<&str> {
        self.member.as_ref().map(|chosen| chosen.member.backend.name())
    }

    /// The head of the response has come.
    #[inline]
    pub(super) fn hear(&mut self, pool: &Pool, now: Instant) {
        if self.heard.is_none() {
            self.heard = Some(now);
            if let Some(chosen) = &self.member {
                pool.balance.answered(chosen.at, chosen.since.into_std(), now.into_std());
            }
        }
    }
}

/// Members that were tried in vain, by their position in the pool.
#[derive(Debug, Default)]
struct Vain {
    /// Their connects failed.
    failed: Vec<usize>,
    /// Another try failed there: the next goes elsewhere if it can.
    avoided: Vec<usize>,
}

/// All tries of a request.
#[derive(Debug)]
pub(super) struct Tries {
    /// The try that is driven. Of two side by side each is driven in its turn, and the other waits in `beside`.
    pub(super) current: Try,
    pub(super) beside: Option<Box<Try>>,
    /// Members that were tried in vain.
    vain: Option<Box<Vain>>,
    /// Further tries that were begun, hedges included.
    pub(super) count: u32,
    /// Those of them that followed connections which backends had refused at once, where these do not count.
    pub(super) refused: u32,
    /// Connections that were about to end when the request came.
    pub(super) gone_away: u32,
    /// One of them followed a connection that was lost with the request on it.
    pub(super) lost: bool,
    /// Why no connection to a member came about last; that no port was left for one is remembered.
    pub(super) unconnected: Option<Failure>,
    /// How long one try may take to its response head.
    pub(super) limit: Option<Duration>,
    /// Pauses before further tries.
    pub(super) pauses: u32,
    /// The request is counted in the budget of further tries.
    pub(super) counted: bool,
    /// It was looked at whether a second try is to run beside the first, or none ever is.
    pub(super) hedged: bool,
}

impl Tries {
    /// No try yet, of a request to this pool under these rules.
    pub(super) fn new(pool: &Pool, rules: &RetrySettings) -> Self {
        Self {
            current: Try::default(),
            beside: None,
            vain: None,
            count: 0,
            refused: 0,
            gone_away: 0,
            lost: false,
            unconnected: None,
            limit: rules.per_try_timeout,
            pauses: 0,
            counted: false,
            hedged: !pool.balance.hedges(),
        }
    }

    /// The next try goes to another member than the current one if it can.
    pub(super) fn avoid_current(&mut self) {
        if let Some(at) = self.current.at() {
            self.vain.get_or_insert_default().avoided.push(at);
        }
    }

    /// Whether no connection to this member came about.
    #[inline]
    pub(super) fn has_failed(&self, at: usize) -> bool {
        self.vain.as_ref().is_some_and(|vain| vain.failed.contains(&at))
    }

    /// Whether further tries go to other members than some if they can.
    #[inline]
    pub(super) fn avoids_some(&self) -> bool {
        self.vain.as_ref().is_some_and(|vain| !vain.avoided.is_empty())
    }

    /// Whether further tries go to other members than this one if they can.
    pub(super) fn avoids(&self, at: usize) -> bool {
        self.vain.as_ref().is_some_and(|vain| vain.avoided.contains(&at))
    }

    /// No connection to the member of the current try came about.
    pub(super) fn unconnected(&mut self, failure: Failure) {
        const NO_PORTS: Failure = Kind::Shortage(Shortage::Ports).unconnected();
        if let Some(at) = self.current.at() {
            self.vain.get_or_insert_default().failed.push(at);
        }
        if self.unconnected != Some(NO_PORTS) {
            self.unconnected = Some(failure);
        }
    }

    /// Why no member is left that could be picked.
    pub(super) fn exhausted(&self) -> Failure {
        match self.unconnected {
            Some(failure) if matches!(failure.kind, Kind::Shortage(_) | Kind::Tls { .. }) => failure,
            Some(_) => Kind::AllFailed.unconnected(),
            None => Kind::NoMember.unconnected(),
        }
    }

    /// Puts the try beside in the place of the current one, and that one beside.
    pub(super) fn swap(&mut self) {
        if let Some(beside) = &mut self.beside {
            std::mem::swap(&mut self.current, beside);
        }
    }
}
