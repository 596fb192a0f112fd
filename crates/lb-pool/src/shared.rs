//! The state of a pool that all workers share.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lb_core::balance::{self, MemberSpec, MemberState, hash};
use lb_core::breaker::Limits;
use lb_core::health;
use lb_core::outlier::{Analysis, Cause, Counts, EjectionSettings, Ejector, Refused, Standing, StreakLimits};
use lb_core::rest::{self, Rests};

use lb_observe::metrics::PoolMetrics;

use crate::member::Member;
use crate::meters::{Meters, Reading};
use crate::tally::Tally;
use crate::tries::Retry;

/// The settings of a pool as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolSettings {
    /// How members are picked.
    pub balance: balance::Settings,
    /// When members that fail requests are put aside; `None` for never.
    pub outlier: Option<Outlier>,
    /// When members are probed, where they are.
    pub health: Option<health::Settings>,
    /// What each member is given at once.
    pub limits: Limits,
    /// Which requests are tried again.
    pub retry: Retry,
    /// How long a member that cannot be reached is left alone at first; `None` for never.
    pub rest: Option<Duration>,
}

/// When members that fail requests are put aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outlier {
    /// Failures in a row, as one worker sees them.
    pub streaks: StreakLimits,
    /// The comparison of members that is made once in each interval, over all workers.
    pub analysis: Analysis,
    /// The interval of that.
    pub interval: Duration,
    /// How ejections go.
    pub ejection: EjectionSettings,
}

/// A pool of the process. Its members and settings are fixed; the state of the members changes.
#[derive(Debug)]
pub struct SharedPool {
    /// Its name: that of the configuration, or of the listener whose own it is.
    pub name: String,
    /// The settings of the whole pool.
    pub settings: PoolSettings,
    /// Its members with their settings. Workers identify them by position.
    pub members: Vec<(Arc<Member>, MemberSpec)>,
    ejector: Mutex<Ejector>,
    /// Locked after the ejector where both locks are taken.
    rests: Mutex<Rests>,
    /// How many workers share its limits.
    pub(crate) workers: usize,
    /// The sums of those when they were looked at last, and when they are looked at next.
    looked: Mutex<(Vec<Counts>, Instant)>,
    /// Changes whenever the state of a member changes.
    epoch: AtomicU64,
    meters: Meters,
    /// The metrics of the pool as a whole.
    metrics: Arc<PoolMetrics>,
    /// No member is fit, and all are used.
    panic: AtomicBool,
    /// Another pool has taken its place: only requests that began with it still use it.
    is_replaced: AtomicBool,
}

/// The part of a pool's state that outlives a change of its settings or members.
#[derive(Debug)]
pub(crate) struct Learned {
    pub(crate) ejector: Ejector,
    pub(crate) rests: Rests,
    /// The pool was in panic.
    pub(crate) panic: bool,
}

/// The part of a member's state that a worker needs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View {
    pub(crate) state: MemberState,
    /// How often it was put aside: when the number changes, failures are counted anew.
    pub(crate) ejections: u64,
    /// Until when it is on probation.
    pub(crate) probation_until: Option<Instant>,
    /// It is left alone, but for one request that may be let through now.
    pub(crate) is_due: bool,
}

impl View {
    /// Whether the member takes work, and neither checks nor failures speak against it.
    pub(crate) fn is_fit(&self) -> bool {
        let state = &self.state;
        state.healthy && !state.ejected && !state.draining && state.weight > 0
    }
}

impl SharedPool {
    pub(crate) fn new(
        name: String,
        settings: PoolSettings,
        members: Vec<(Arc<Member>, MemberSpec)>,
        known: Learned,
        workers: usize,
        (meters, metrics): (Meters, Arc<PoolMetrics>),
        now: Instant,
    ) -> Self {
        let Learned { ejector, rests, panic } = known;
        let counts = members.iter().map(|(member, _)| member.counts()).collect();
        let looked = (counts, now + interval_of(&settings));
        let pool = Self {
            name,
            settings,
            members,
            ejector: Mutex::new(ejector),
            rests: Mutex::new(rests),
            workers,
            looked: Mutex::new(looked),
            epoch: AtomicU64::new(0),
            meters,
            metrics,
            panic: AtomicBool::new(panic),
            is_replaced: AtomicBool::new(false),
        };
        pool.show(now);
        pool.look_for_panic(now);
        pool
    }

    /// From now on another pool shows the state of the members in metrics.
    pub(crate) fn replaced(&self) {
        self.is_replaced.store(true, Ordering::Relaxed);
    }

    /// Whether this pool shows the state of the members in metrics.
    pub(crate) fn is_shown(&self) -> bool {
        !self.meters.is_empty()
    }

    /// Shows the state of the members in metrics.
    fn show(&self, now: Instant) {
        if self.meters.is_empty() || self.is_replaced.load(Ordering::Relaxed) {
            return;
        }
        let ejector = self.ejector();
        let ejects = self.settings.outlier.is_some();
        self.meters.show(self.members.iter().enumerate().map(|(at, (member, _))| Reading {
            usable: member.live().health.as_ref().map(|target| target.state().is_usable()),
            ejected: ejects.then(|| matches!(ejector.standing(at, now), Standing::Out { .. })),
        }));
    }

    #[inline]
    pub(crate) fn tally(&self, worker: usize, at: usize) -> Option<&Tally> {
        self.members.get(at)?.0.tally(worker)
    }

    /// Takes back members whose ejection is over and, once in each interval, puts aside those that stand out. To be called at
    /// [`Self::due`].
    pub fn tend(&self, now: Instant) {
        self.expire(now);
        let is_due = self.rests().tend(now);
        if is_due {
            self.changed(now);
        }
        let Some(outlier) = &self.settings.outlier else { return };
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        let (earlier, next) = &mut *looked;
        if now < *next {
            return;
        }
        *next = now + outlier.interval;
        let sums: Vec<Counts> = self.members.iter().map(|(member, _)| member.counts()).collect();
        let ejector = self.ejector();
        let windows: Vec<(Counts, bool)> = sums
            .iter()
            .zip(earlier.iter())
            .enumerate()
            .map(|(at, (sum, earlier))| {
                (sum.since(*earlier), ejector.standing(at, now) == Standing::Probation)
            })
            .collect();
        drop(ejector);
        *earlier = sums;
        for suspect in outlier.analysis.suspects(&windows) {
            self.eject(suspect.at, suspect.cause, now);
        }
    }

    /// When [`Self::tend`] has something to do next.
    pub fn due(&self) -> Option<Instant> {
        let rest = self.rests().next_due();
        let next = self.settings.outlier.as_ref().map(|_| {
            let next = self.looked.lock().unwrap_or_else(PoisonError::into_inner).1;
            self.ejector().next_return().map_or(next, |back| back.min(next))
        });
        [rest, next].into_iter().flatten().min()
    }

    pub(crate) fn rests(&self) -> MutexGuard<'_, Rests> {
        self.rests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether no member is fit, so that all are used.
    pub fn is_in_panic(&self) -> bool {
        self.panic.load(Ordering::Relaxed)
    }

    pub(crate) fn ejector(&self) -> MutexGuard<'_, Ejector> {
        self.ejector.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number that changes whenever the state of a member changes.
    #[inline]
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Relaxed)
    }

    fn changed(&self, now: Instant) {
        // The locks order the changes; this only makes them known.
        self.epoch.fetch_add(1, Ordering::Relaxed);
        // A rest has begun, or the next trial of one; an ejection may end before the next look.
        crate::news::tell();
        self.show(now);
        self.look_for_panic(now);
    }

    /// Writes to the log when the pool goes into panic, and when it comes out.
    fn look_for_panic(&self, now: Instant) {
        if self.is_replaced.load(Ordering::Relaxed) {
            return;
        }
        let views = self.views(now);
        let states = self.members.iter().zip(&views).map(|((_, spec), view)| {
            // A member that may be given one request counts as unfit.
            let ejected = view.state.ejected || view.is_due;
            (spec.priority, MemberState { ejected, ..view.state })
        });
        let panic = balance::standing(states, self.settings.balance.panic_threshold_percent).panic;
        let resting = self.rests().count();
        self.metrics.set_standing(panic, resting);
        if self.panic.swap(panic, Ordering::Relaxed) == panic {
            return;
        }
        let members = views.len();
        let fit = views.iter().filter(|view| view.is_fit() && !view.is_due).count();
        if panic {
            tracing::warn!(
                pool = self.name,
                fit,
                members,
                "pool in panic: too few backends are fit, so all are used"
            );
        } else {
            tracing::info!(pool = self.name, fit, members, "pool out of panic");
        }
    }

    /// The state of each member.
    pub(crate) fn views(&self, now: Instant) -> Vec<View> {
        let ejector = self.ejector();
        let probation = self.settings.outlier.as_ref().map(|outlier| outlier.ejection.probation);
        let rests = self.rests();
        let views = self.members.iter().enumerate().map(|(at, (member, spec))| {
            let live = member.live();
            let returned = ejector.returned(at);
            let recovered = live.health.as_ref().and_then(health::Target::healthy_since);
            View {
                state: MemberState {
                    healthy: live.health.as_ref().is_none_or(|target| target.state().is_usable()),
                    ejected: matches!(ejector.standing(at, now), Standing::Out { .. }),
                    draining: live.draining,
                    weight: live.weight.unwrap_or(spec.weight),
                    healthy_since: recovered.max(returned).max(rests.returned(at)),
                },
                ejections: ejector.ejections(at),
                probation_until: returned.zip(probation).map(|(returned, probation)| returned + probation),
                is_due: false,
            }
        });
        let mut views: Vec<View> = views.collect();
        if rests.count() > 0 {
            self.leave_alone(&rests, &mut views);
        }
        views
    }

    /// Takes members out of use that are left alone, as long as another is fit.
    fn leave_alone(&self, rests: &Rests, views: &mut [View]) {
        let anybody = views.iter().enumerate().any(|(at, view)| view.is_fit() && rests.of(at).is_none());
        if !anybody && self.settings.balance.panic_threshold_percent == 0 {
            // Without a threshold there is no panic, which would use them.
            return;
        }
        for (at, view) in views.iter_mut().enumerate() {
            let Some(rest) = rests.of(at) else { continue };
            if anybody && rest.is_due && view.is_fit() {
                view.is_due = true;
            } else {
                view.state.ejected = true;
            }
        }
    }

    /// A member could not be reached, or answers no request: it is left alone for a while, as long as another is fit.
    pub fn failed(&self, at: usize, cause: rest::Cause, now: Instant) {
        let Some((member, _)) = self.members.get(at) else { return };
        let Some(until) = self.rests().failed(at, cause, now) else { return };
        self.changed(now);
        if self.is_replaced.load(Ordering::Relaxed) {
            return;
        }
        self.metrics.rests.inc();
        let (backend, address) = (&member.key.backend, member.key.address);
        let seconds = until.saturating_duration_since(now).as_secs_f32().round();
        tracing::warn!(pool = self.name, backend, %address, why = cause.as_str(), seconds, "backend cannot be reached — left alone while others are fit");
    }

    /// A member has not responded to a request since `asked`, for longer than is allowed. It is left alone like one that cannot be reached
    /// if it has answered no other request meanwhile: one that is slow with some requests is not dead.
    pub fn timed_out(&self, at: usize, asked: Instant, now: Instant) {
        let Some((member, _)) = self.members.get(at) else { return };
        if now.saturating_duration_since(asked) >= LEAST_SILENCE && member.is_silent_since(asked) {
            self.failed(at, rest::Cause::Silent, now);
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

    fn came_back(&self, at: usize, back: Option<rest::Back>, now: Instant) {
        let (Some((member, _)), Some(rest::Back { away, failures, trials })) = (self.members.get(at), back)
        else {
            return;
        };
        self.changed(now);
        let (backend, address) = (&member.key.backend, member.key.address);
        let seconds = away.as_secs_f32().round();
        tracing::info!(pool = self.name, backend, %address, seconds, failures, trials, "backend is reached again");
    }

    /// Puts a member aside that fails requests, unless too many are out already. Returns whether it was put aside.
    pub fn eject(&self, at: usize, cause: Cause, now: Instant) -> bool {
        let Some((member, _)) = self.members.get(at) else { return false };
        let views = self.views(now);
        let ejected = self.ejector().eject(at, now, |other| views.get(other).is_some_and(View::is_fit));
        let (backend, address) = (&member.key.backend, member.key.address);
        match ejected {
            Ok(until) => {
                self.meters.ejected(at, cause);
                self.changed(now);
                let time = until.saturating_duration_since(now);
                tracing::warn!(
                    pool = self.name,
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
                tracing::debug!(pool = self.name, backend, %address, cause = cause.as_str(), why, "backend not ejected");
                false
            }
        }
    }

    /// Takes back members whose ejection is over.
    fn expire(&self, now: Instant) {
        let mut returned = Vec::new();
        self.ejector().expire(now, |at| returned.push(at));
        for (member, _) in returned.iter().filter_map(|at| self.members.get(*at)) {
            let (backend, address) = (&member.key.backend, member.key.address);
            tracing::info!(pool = self.name, backend, %address, "backend back from ejection, on probation");
        }
        if !returned.is_empty() {
            self.changed(now);
        }
    }

    /// Lets a probe of a member begin, if one is due.
    #[must_use]
    pub fn begin_probe(&self, at: usize, now: Instant) -> bool {
        self.members
            .get(at)
            .and_then(|(member, _)| Some(member.live().health.as_mut()?.begin(now)))
            .unwrap_or(false)
    }

    /// When the next probe of a member is due.
    pub fn probe_due(&self, at: usize) -> Option<Instant> {
        self.members.get(at)?.0.live().health.as_ref()?.due()
    }

    /// Forgets the probe of a member that is under way, if one is: its settings have changed.
    pub fn abandon_probe(&self, at: usize) {
        if let Some((member, _)) = self.members.get(at)
            && let Some(target) = member.live().health.as_mut()
        {
            target.abandon();
        }
    }

    /// Takes in how a probe ended.
    pub fn end_probe(&self, at: usize, outcome: health::Outcome, now: Instant) {
        let Some((member, _)) = self.members.get(at) else { return };
        self.meters.probed(at, outcome);
        let change = member.live().health.as_mut().and_then(|target| target.end(outcome, now));
        let Some(change) = change else { return };
        if change.from == health::State::Unhealthy && change.to.is_usable() {
            // A passed check shows that the member is well: no request has to find out.
            let back = self.rests().well(at, now);
            self.came_back(at, back, now);
        }
        self.changed(now);
        let (backend, address) = (&member.key.backend, member.key.address);
        let (from, to) = (change.from.as_str(), change.to.as_str());
        if change.to.is_usable() {
            tracing::info!(pool = self.name, backend, %address, from, to, "backend health changed");
        } else {
            tracing::warn!(pool = self.name, backend, %address, from, to, why = change.why.as_str(), "backend health changed");
        }
    }

    /// Lets a member finish what it has and gives it nothing more, or takes that back.
    pub fn set_draining(&self, at: usize, draining: bool) -> bool {
        let Some((member, _)) = self.members.get(at) else { return false };
        let before = std::mem::replace(&mut member.live().draining, draining);
        if before != draining {
            self.changed(Instant::now());
        }
        true
    }

    /// Gives the configured weight back to the members of the backends that `whose` names.
    pub fn forget_weights(&self, whose: impl Fn(&str) -> bool) {
        let members = self.members.iter().map(|(member, _)| member);
        let forgotten = members.filter(|member| member.live().weight.is_some() && whose(&member.key.backend));
        if forgotten.map(|member| member.live().weight = None).count() > 0 {
            self.changed(Instant::now());
        }
    }

    /// Gives a member another weight than the configured one, or the configured one again.
    pub fn set_weight(&self, at: usize, weight: Option<u32>) -> bool {
        let Some((member, _)) = self.members.get(at) else { return false };
        let before = std::mem::replace(&mut member.live().weight, weight);
        if before != weight {
            self.changed(Instant::now());
        }
        true
    }
}

/// A response that is waited for less long than this is no evidence that a member is dead.
const LEAST_SILENCE: Duration = Duration::from_secs(1);

fn interval_of(settings: &PoolSettings) -> Duration {
    settings.outlier.as_ref().map_or(Duration::ZERO, |outlier| outlier.interval)
}

/// The identity of a member for policies that follow a key: the same on all instances of a fleet.
pub(crate) fn identity(address: std::net::SocketAddr) -> u64 {
    hash::bytes(address.to_string().as_bytes())
}
