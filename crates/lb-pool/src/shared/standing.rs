//! What becomes of members that fail: they are left alone, put aside, and come back.

use std::time::{Duration, Instant};

use lb_core::outlier::{EjectionCause, Refused};
use lb_core::rest::{Recovery, RestCause};

use super::SharedPool;
use crate::view::MemberView;

/// A response that is waited for less long than this is no evidence that a member is dead.
const LEAST_SILENCE: Duration = Duration::from_secs(1);

impl SharedPool {
    /// A member could not be reached, or answers no request: it is left alone for a while, as long as another is fit.
    pub fn failed(&self, at: usize, cause: RestCause, now: Instant) {
        let Some((member, _)) = self.members.get(at) else { return };
        let Some(until) = self.rests().failed(at, cause, now) else { return };
        self.changed(now);
        if self.is_replaced() {
            return;
        }
        self.metrics.rests.inc();
        let (backend, address) = (&member.key.backend, member.key.address);
        let seconds = until.saturating_duration_since(now).as_secs_f32().round();
        tracing::warn!(pool = self.id.name(), backend, %address, why = cause.as_str(), seconds, "backend cannot be reached — left alone while others are fit");
    }

    /// A member has not responded to a request since `asked`, for longer than is allowed. It is left alone like one that cannot be reached
    /// if it has answered no other request meanwhile: one that is slow with some requests is not dead.
    pub fn timed_out(&self, at: usize, asked: Instant, now: Instant) {
        let Some((member, _)) = self.members.get(at) else { return };
        if now.saturating_duration_since(asked) >= LEAST_SILENCE && member.is_silent_since(asked) {
            self.failed(at, RestCause::Silent, now);
        }
    }

    /// Lets one request through to a member that is left alone; `false` when another request was let through already.
    pub(crate) fn try_one(&self, at: usize, now: Instant) -> bool {
        let is_let = self.rests().try_one(at, now);
        if is_let {
            self.changed(now);
        }
        is_let
    }

    /// A member has answered a request that was sent to it at `asked`.
    pub(crate) fn answered(&self, at: usize, asked: Instant, now: Instant) {
        let back = self.rests().answered(at, asked, now);
        self.came_back(at, back, now);
    }

    pub(super) fn came_back(&self, at: usize, back: Option<Recovery>, now: Instant) {
        let (Some((member, _)), Some(Recovery { away, failures, trials })) = (self.members.get(at), back)
        else {
            return;
        };
        self.changed(now);
        let (backend, address) = (&member.key.backend, member.key.address);
        let seconds = away.as_secs_f32().round();
        tracing::info!(pool = self.id.name(), backend, %address, seconds, failures, trials, "backend is reached again");
    }

    /// Puts a member aside that fails requests, unless too many are out already. Returns whether it was put aside.
    pub fn eject(&self, at: usize, cause: EjectionCause, now: Instant) -> bool {
        let Some((member, _)) = self.members.get(at) else { return false };
        let view = self.view(now);
        let is_fit = |other: usize| view.states.get(other).is_some_and(MemberView::is_fit);
        let ejected = self.ejector().eject(at, now, is_fit);
        let (backend, address) = (&member.key.backend, member.key.address);
        match ejected {
            Ok(until) => {
                self.meters.ejected(at, cause);
                member.live().ejection = Some(cause);
                self.changed(now);
                let time = until.saturating_duration_since(now);
                tracing::warn!(
                    pool = self.id.name(),
                    backend,
                    %address,
                    cause = cause.as_str(),
                    seconds = time.as_secs(),
                    "backend ejected"
                );
                true
            }
            Err(Refused::AlreadyOut | Refused::Unknown) => false,
            Err(refused) => {
                let why = if refused == Refused::Last {
                    "no other could take its load"
                } else {
                    "too many are out"
                };
                tracing::debug!(pool = self.id.name(), backend, %address, cause = cause.as_str(), why, "backend not ejected");
                false
            }
        }
    }

    /// Takes back members whose ejection is over.
    pub(super) fn expire(&self, now: Instant) {
        let mut returned = Vec::new();
        self.ejector().expire(now, |at| returned.push(at));
        for (member, _) in returned.iter().filter_map(|at| self.members.get(*at)) {
            let (backend, address) = (&member.key.backend, member.key.address);
            tracing::info!(pool = self.id.name(), backend, %address, "backend back from ejection, on probation");
        }
        if !returned.is_empty() {
            self.changed(now);
        }
    }
}
