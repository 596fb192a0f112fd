//! What operators are shown of the members of a pool.

use std::time::{Duration, Instant};

use lb_core::address::Address;
use lb_core::health::{HealthState, ProbeOutcome, Target};
use lb_core::outlier::{Counts, EjectionCause, EjectionStanding};
use lb_core::rest::RestCause;

use crate::shared::SharedPool;

impl SharedPool {
    /// What is known of the members now, for the admin port.
    pub fn report(&self, now: Instant) -> Vec<Report> {
        let members = 0..self.members.len();
        // Workers that eject a member wait for this lock, so that it is held for no more than copies.
        let standings: Vec<_> = {
            let ejector = self.ejector();
            members.clone().map(|at| (ejector.standing(at, now), ejector.ejections(at))).collect()
        };
        let rests: Vec<_> = {
            let rests = self.rests();
            members.map(|at| rests.of(at).map(|rest| (rest.cause, rest.until))).collect()
        };
        let known = standings.into_iter().zip(rests);
        let reports =
            self.members.iter().zip(known).map(|((member, spec), ((standing, ejections), rest))| {
                let live = member.live().clone();
                let counts = member.counts();
                let (requests_running, connections) = member.running();
                Report {
                    backend: member.key.backend.clone(),
                    address: member.key.address,
                    weight: live.weight.unwrap_or(spec.weight),
                    priority: spec.priority,
                    draining: live.draining,
                    health: live.health.as_ref().map(|target| target.state()),
                    last: live.health.as_ref().and_then(Target::last),
                    ejected_for: match standing {
                        EjectionStanding::Out { until } => Some(until.saturating_duration_since(now)),
                        EjectionStanding::In | EjectionStanding::Probation => None,
                    },
                    ejection_cause: live.ejection.filter(|_| standing != EjectionStanding::In),
                    probation: standing == EjectionStanding::Probation,
                    ejections,
                    rest: rest.map(|(cause, until)| (cause, until.saturating_duration_since(now))),
                    requests_running,
                    connections,
                    requests: counts.requests,
                    failures: counts.failures,
                    mean_latency: mean(&counts),
                }
            });
        reports.collect()
    }
}

/// What operators are shown of a member.
#[derive(Clone, Debug)]
pub struct Report {
    /// The backend as the configuration names it.
    pub backend: String,
    /// The address.
    pub address: Address,
    /// The weight in force.
    pub weight: u32,
    /// Its level; 0 is the best.
    pub priority: u32,
    /// It gets nothing more.
    pub draining: bool,
    /// What its health checks say; `None` without any.
    pub health: Option<HealthState>,
    /// How its last probe ended.
    pub last: Option<ProbeOutcome>,
    /// How much longer it is put aside.
    pub ejected_for: Option<Duration>,
    /// Why it was put aside last, while it is or is on probation.
    pub ejection_cause: Option<EjectionCause>,
    /// It came back from that a short while ago.
    pub probation: bool,
    /// How often it was put aside.
    pub ejections: u64,
    /// Why it is left alone, if it is, and how much longer until a request is let through to it.
    pub rest: Option<(RestCause, Duration)>,
    /// Requests, or connections that carry bytes without a protocol, that it serves now.
    pub requests_running: u64,
    /// Connections to it, in use or kept idle. One that pools share counts where it was made.
    pub connections: u64,
    /// Requests that it was given and that have ended, since it came to be a member. A connection that carries bytes without a protocol
    /// is one, which ends with its connect.
    pub requests: u64,
    /// Those that it failed.
    pub failures: u64,
    /// The mean time to the head of a response, or to a connection; `None` before the first.
    pub mean_latency: Option<Duration>,
}

fn mean(counts: &Counts) -> Option<Duration> {
    let nanos = counts.latency.as_nanos().checked_div(u128::from(counts.timed))?;
    Some(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
}
