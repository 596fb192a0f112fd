//! The state of a pool that all workers share.

mod standing;
mod told;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lb_core::balance::{self, MemberSpec, MemberState, hash};
use lb_core::health;
use lb_core::identity::PoolId;
use lb_core::outlier::{Counts, EjectionStanding, Ejector};
use lb_core::pool::PoolSettings;
use lb_core::rest::Rests;

use lb_observe::metrics::PoolMetrics;

use crate::feed::{Feed, Subscription};
use crate::member::SharedMember;
use crate::meters::{Meters, Reading};
use crate::tally::Tally;
use crate::view::{MemberView, PoolView, Roster};

/// One version of a pool of the process. Its members and settings are fixed; the state of the members changes. A reload that changes
/// members or settings makes another version, which takes over what is known of the members that stay.
#[derive(Debug)]
pub struct SharedPool {
    /// Its identity, which it has in common with its other versions.
    pub id: PoolId,
    /// The settings of the whole pool.
    pub settings: PoolSettings,
    /// Its members with their settings. Workers identify them by position.
    pub members: Arc<[(Arc<SharedMember>, MemberSpec)]>,
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
            ejected: ejects.then(|| matches!(ejector.standing(at, now), EjectionStanding::Out { .. })),
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
                (sum.since(*earlier), ejector.standing(at, now) == EjectionStanding::Probation)
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
        members: &[(Arc<SharedMember>, MemberSpec)],
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
                    answers: live
                        .health
                        .as_ref()
                        .is_none_or(|target| target.state().is_usable() || target.refuses()),
                    ejected: matches!(ejector.standing(at, now), EjectionStanding::Out { .. }),
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

fn interval_of(settings: &PoolSettings) -> Duration {
    settings.outlier.as_ref().map_or(Duration::ZERO, |outlier| outlier.interval)
}

/// The identity of a member for policies that follow a key: the same on all instances of a fleet.
pub(crate) fn identity(address: lb_core::address::Address) -> u64 {
    hash::bytes(address.to_string().as_bytes())
}
