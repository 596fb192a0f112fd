//! The state of a pool that all workers share.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lb_core::balance::{self, MemberSpec, MemberState, hash};
use lb_core::breaker::Limits;
use lb_core::health;
use lb_core::identity::PoolId;
use lb_core::outlier::{Analysis, Cause, Counts, EjectionSettings, Ejector, Refused, Standing, StreakLimits};
use lb_core::rest::{self, Rests};

use lb_observe::metrics::PoolMetrics;

use crate::feed::{Feed, Subscription};
use crate::member::Member;
use crate::meters::{Meters, Reading};
use crate::tally::Tally;
use crate::tries::Retry;
use crate::view::{MemberView, PoolView, Roster};

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

/// One version of a pool of the process. Its members and settings are fixed; the state of the members changes. A reload that changes
/// members or settings makes another version, which takes over what is known of the members that stay.
#[derive(Debug)]
pub struct SharedPool {
    /// Its identity, which it has in common with its other versions.
    pub id: PoolId,
    /// The settings of the whole pool.
    pub settings: PoolSettings,
    /// Its members with their settings. Workers identify them by position.
    pub members: Arc<[(Arc<Member>, MemberSpec)]>,
    /// The number of this version.
    generation: u64,
    ejector: Mutex<Ejector>,
    /// Locked after the ejector where both locks are taken.
    rests: Mutex<Rests>,
    /// How many workers share its limits.
    pub(crate) workers: usize,
    /// The sums of those when they were looked at last, and when they are looked at next.
    looked: Mutex<(Vec<Counts>, Instant)>,
    meters: Meters,
    /// The metrics of the pool as a whole.
    metrics: Arc<PoolMetrics>,
    /// Held while a change is published, and before any other lock.
    publishing: Mutex<()>,
    /// The state of this version.
    feed: Arc<Feed<PoolView>>,
    /// The state of the newest version.
    versions: Arc<Feed<PoolView>>,
    /// Changes with every pool of the process.
    news: Arc<Feed<()>>,
    /// No member is fit, and all are used.
    panic: AtomicBool,
    /// Another version has taken its place, or the pool is gone.
    is_replaced: AtomicBool,
}

/// What a pool begins with.
#[derive(Debug)]
pub(crate) struct Beginning {
    pub(crate) id: PoolId,
    pub(crate) settings: PoolSettings,
    pub(crate) members: Roster,
    pub(crate) ejector: Ejector,
    pub(crate) rests: Rests,
    /// How many workers share its limits.
    pub(crate) workers: usize,
    pub(crate) meters: Meters,
    pub(crate) metrics: Arc<PoolMetrics>,
    pub(crate) news: Arc<Feed<()>>,
}

impl SharedPool {
    /// A pool that takes the place of `old`, an earlier version of it, if there was one.
    pub(crate) fn new(beginning: Beginning, old: Option<&Self>, now: Instant) -> Self {
        let Beginning { id, settings, members, ejector, rests, workers, meters, metrics, news } = beginning;
        let counts = members.iter().map(|(member, _)| member.counts()).collect();
        let looked = (counts, now + interval_of(&settings));
        let states = State { ejector: &ejector, rests: &rests }.views(&settings, &members, now);
        let generation = old.map_or(0, |old| old.generation.wrapping_add(1));
        let first = view(&id, generation, &settings, &members, states, rests.count());
        let panic = old.is_some_and(Self::is_in_panic);
        let first = Arc::new(first);
        let pool = Self {
            versions: match old {
                Some(old) => Arc::clone(&old.versions),
                None => Feed::new(Arc::clone(&first)),
            },
            feed: Feed::new(Arc::clone(&first)),
            id,
            generation,
            settings,
            members,
            ejector: Mutex::new(ejector),
            rests: Mutex::new(rests),
            workers,
            looked: Mutex::new(looked),
            meters,
            metrics,
            publishing: Mutex::new(()),
            news,
            panic: AtomicBool::new(panic),
            is_replaced: AtomicBool::new(false),
        };
        if let Some(old) = old {
            // A change of the old version that is being published has been published when this lock is had.
            let _publishing = lock(&old.publishing);
            old.is_replaced.store(true, Ordering::Relaxed);
            pool.versions.publish(Arc::clone(&first));
        }
        pool.show(now);
        pool.tell_of_panic(&first);
        pool.news.publish(Arc::default());
        pool
    }

    /// The state of this pool, now and after each change, whatever versions of it a reload makes. One subscription outlives all of them,
    /// and ends with the pool.
    pub fn subscribe(&self) -> Subscription<PoolView> {
        self.versions.subscribe()
    }

    /// The state of this version of the pool, which requests that began with it go on using after a reload has made another one.
    pub(crate) fn subscribe_to_version(&self) -> Subscription<PoolView> {
        self.feed.subscribe()
    }

    /// No configuration names the pool any more.
    pub(crate) fn end(&self) {
        let _publishing = lock(&self.publishing);
        self.is_replaced.store(true, Ordering::Relaxed);
        self.versions.end();
    }

    /// Whether this pool shows the state of the members in metrics.
    pub(crate) fn is_shown(&self) -> bool {
        !self.meters.is_empty()
    }

    /// Shows the state of the members in metrics.
    fn show(&self, now: Instant) {
        if self.meters.is_empty() {
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
        let mut looked = lock(&self.looked);
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
            let next = lock(&self.looked).1;
            self.ejector().next_return().map_or(next, |back| back.min(next))
        });
        [rest, next].into_iter().flatten().min()
    }

    pub(crate) fn rests(&self) -> MutexGuard<'_, Rests> {
        lock(&self.rests)
    }

    /// Whether no member is fit, so that all are used.
    pub fn is_in_panic(&self) -> bool {
        self.panic.load(Ordering::Relaxed)
    }

    pub(crate) fn ejector(&self) -> MutexGuard<'_, Ejector> {
        lock(&self.ejector)
    }

    /// Publishes a change that has been made.
    fn changed(&self, now: Instant) {
        {
            // Views are published in the order in which they are made, so that the last one holds every change.
            let _publishing = lock(&self.publishing);
            let view = Arc::new(self.view(now));
            self.feed.publish(Arc::clone(&view));
            // Another version has taken its place: only requests that began with this one still use it.
            if !self.is_replaced() {
                self.show(now);
                self.tell_of_panic(&view);
                self.versions.publish(view);
            }
        }
        // A rest has begun, or the next trial of one; an ejection may end before the next look.
        self.news.publish(Arc::default());
    }

    fn is_replaced(&self) -> bool {
        self.is_replaced.load(Ordering::Relaxed)
    }

    /// Writes to the log when the pool goes into panic, and when it comes out.
    fn tell_of_panic(&self, view: &PoolView) {
        self.metrics.set_standing(view.panic, view.resting);
        if self.panic.swap(view.panic, Ordering::Relaxed) == view.panic {
            return;
        }
        let (pool, fit, members) = (self.id.name(), view.fit(), view.states.len());
        if view.panic {
            tracing::warn!(pool, fit, members, "pool in panic: too few backends are fit, so all are used");
        } else {
            tracing::info!(pool, fit, members, "pool out of panic");
        }
    }

    /// The state of the pool now.
    pub(crate) fn view(&self, now: Instant) -> PoolView {
        let (ejector, rests) = (self.ejector(), self.rests());
        let states = State { ejector: &ejector, rests: &rests }.views(&self.settings, &self.members, now);
        view(&self.id, self.generation, &self.settings, &self.members, states, rests.count())
    }

    /// A member could not be reached, or answers no request: it is left alone for a while, as long as another is fit.
    pub fn failed(&self, at: usize, cause: rest::Cause, now: Instant) {
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
        tracing::info!(pool = self.id.name(), backend, %address, seconds, failures, trials, "backend is reached again");
    }

    /// Puts a member aside that fails requests, unless too many are out already. Returns whether it was put aside.
    pub fn eject(&self, at: usize, cause: Cause, now: Instant) -> bool {
        let Some((member, _)) = self.members.get(at) else { return false };
        let view = self.view(now);
        let is_fit = |other: usize| view.states.get(other).is_some_and(MemberView::is_fit);
        let ejected = self.ejector().eject(at, now, is_fit);
        let (backend, address) = (&member.key.backend, member.key.address);
        match ejected {
            Ok(until) => {
                self.meters.ejected(at, cause);
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
    fn expire(&self, now: Instant) {
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
            tracing::info!(pool = self.id.name(), backend, %address, from, to, "backend health changed");
        } else {
            tracing::warn!(pool = self.id.name(), backend, %address, from, to, why = change.why.as_str(), "backend health changed");
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

/// What is known of the members of a pool beside what each of them knows itself.
struct State<'a> {
    ejector: &'a Ejector,
    rests: &'a Rests,
}

impl State<'_> {
    /// The state of each member.
    fn views(
        &self,
        settings: &PoolSettings,
        members: &[(Arc<Member>, MemberSpec)],
        now: Instant,
    ) -> Vec<MemberView> {
        let Self { ejector, rests } = self;
        let probation = settings.outlier.as_ref().map(|outlier| outlier.ejection.probation);
        let views = members.iter().enumerate().map(|(at, (member, spec))| {
            let live = member.live();
            let returned = ejector.returned(at);
            let recovered = live.health.as_ref().and_then(health::Target::healthy_since);
            MemberView {
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
        let mut views: Vec<MemberView> = views.collect();
        if rests.count() > 0 {
            self.leave_alone(settings, &mut views);
        }
        views
    }

    /// Takes members out of use that are left alone, as long as another is fit.
    fn leave_alone(&self, settings: &PoolSettings, views: &mut [MemberView]) {
        let rests = self.rests;
        let anybody = views.iter().enumerate().any(|(at, view)| view.is_fit() && rests.of(at).is_none());
        if !anybody && settings.balance.panic_threshold_percent == 0 {
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
}

fn view(
    pool: &PoolId,
    generation: u64,
    settings: &PoolSettings,
    roster: &Roster,
    states: Vec<MemberView>,
    resting: usize,
) -> PoolView {
    let standings = roster.iter().zip(&states).map(|((_, spec), view)| {
        // A member that may be given one request counts as unfit.
        let ejected = view.state.ejected || view.is_due;
        (spec.priority, MemberState { ejected, ..view.state })
    });
    let panic = balance::standing(standings, settings.balance.panic_threshold_percent).panic;
    let (pool, balance, roster) = (pool.clone(), settings.balance.clone(), Arc::clone(roster));
    PoolView { pool, generation, balance, roster, states, resting, panic }
}

/// A panic elsewhere leaves a whole value behind.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A response that is waited for less long than this is no evidence that a member is dead.
const LEAST_SILENCE: Duration = Duration::from_secs(1);

fn interval_of(settings: &PoolSettings) -> Duration {
    settings.outlier.as_ref().map_or(Duration::ZERO, |outlier| outlier.interval)
}

/// The identity of a member for policies that follow a key: the same on all instances of a fleet.
pub(crate) fn identity(address: lb_core::address::Address) -> u64 {
    hash::bytes(address.to_string().as_bytes())
}
