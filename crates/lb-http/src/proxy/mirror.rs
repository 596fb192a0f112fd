//! Copies of a request to other pools (`mirror` of a route), whose answers nobody hears.
//!
//! A mirror gets the head as the backend does, and the body as it passes. It is an errand in a task of its own, and the exchange that it is a
//! copy of never waits for it: a mirror that falls behind is dropped (attack R-23).

use std::rc::Rc;
use std::task::{Context, Poll};

use lb_config::Mirror;
use lb_core::head::{BodyLength, FieldName, Fields, RequestHead};
use lb_core::retry::{Conditions, RetrySettings};
use lb_observe::metrics::MirrorResult;
use tokio::task::spawn_local;
use tokio::time::timeout;

use super::begin::Running;
use super::exchange::{Exchange, Stage};
use super::extras::Extras;
use super::replay::Replay;
use super::request::Request;
use super::response::Response;
use super::timing::Clock;
use super::tries::Tries;
use crate::budget::BodyShare;
use crate::errand::{BodyEnd, ErrandBody, ErrandFront};
use crate::message::{Front, Gone, Sink};
use crate::service::{HttpWorker, Pool};

/// Mirrors that run at once in a worker.
const MOST_MIRRORS: usize = 1024;

/// The mirrors of an exchange.
#[derive(Debug, Default)]
pub(super) enum Mirrors {
    /// There are none.
    #[default]
    None,
    /// The route has some, which begin with the first try.
    Due,
    /// The bodies of those that run.
    Running(Box<[Rc<ErrandBody>]>),
}

impl Mirrors {
    /// The bodies of those that run.
    pub(super) fn bodies(&self) -> &[Rc<ErrandBody>] {
        match self {
            Self::Running(bodies) => bodies,
            Self::None | Self::Due => &[],
        }
    }
}

impl Drop for Mirrors {
    fn drop(&mut self) {
        self.bodies().iter().for_each(|body| body.finish(BodyEnd::Abandoned));
    }
}

/// Copies a body on its way.
pub(super) struct Tee<'a, S> {
    pub(super) to: &'a mut S,
    /// The mirrors that get it as well.
    pub(super) mirrors: &'a [Rc<ErrandBody>],
}

impl<S: Sink> Sink for Tee<'_, S> {
    #[inline]
    fn data(&mut self, cx: &mut Context<'_>, bytes: &[u8]) {
        self.mirrors.iter().for_each(|body| body.push(bytes));
        self.to.data(cx, bytes);
    }

    fn trailers(&mut self, fields: &Fields) {
        self.mirrors.iter().for_each(|body| body.trailers(fields));
        self.to.trailers(fields);
    }

    fn end(&mut self) {
        self.mirrors.iter().for_each(|body| body.finish(BodyEnd::Complete));
        self.to.end();
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        self.to.poll_flush(cx)
    }
}

/// The place of an errand among those of its worker.
struct Place(Rc<HttpWorker>);

impl Place {
    fn take(worker: &Rc<HttpWorker>) -> Option<Self> {
        let running = worker.errands.get();
        (running < MOST_MIRRORS).then(|| {
            worker.errands.set(running.saturating_add(1));
            Self(Rc::clone(worker))
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.errands.set(self.0.errands.get().saturating_sub(1));
    }
}

/// No further tries.
fn once() -> RetrySettings {
    RetrySettings { attempts: Some(0), conditions: Conditions::NONE, ..RetrySettings::default() }
}

impl Exchange {
    /// Begins the mirrors of the request, as far as chance wants them, when it is about to go to a backend.
    #[inline]
    pub(super) fn begin_mirrors(&mut self) {
        if self.extras.as_ref().is_some_and(|extras| matches!(extras.mirrors, Mirrors::Due)) {
            let drawn = self.drawn_mirrors();
            if let Some(extras) = &mut self.extras {
                extras.mirrors = drawn;
            }
        }
    }

    fn drawn_mirrors(&self) -> Mirrors {
        let (worker, settings) = (&self.service.worker, &self.settings);
        let mut bodies = Vec::new();
        for (mirror, pool) in self.request.route.map_or(&[][..], |route| settings.routes.mirrors(route)) {
            if !mirror.fraction.draws(&mut worker.io.rng.borrow_mut()) {
                continue;
            }
            match self.begin_mirror(mirror, pool) {
                Some(body) => bodies.extend(body),
                None => worker.metrics.mirrors.of(MirrorResult::Full).inc(),
            }
        }
        if bodies.is_empty() { Mirrors::None } else { Mirrors::Running(bodies.into()) }
    }

    /// Begins a mirror; the body that it waits for, if the request has one. `None` where as many run as may, or hold as much.
    fn begin_mirror(&self, mirror: &Mirror, pool: &Rc<Pool>) -> Option<Option<Rc<ErrandBody>>> {
        let worker = &self.service.worker;
        let place = Place::take(worker)?;
        let body = match self.request.head.body {
            BodyLength::None | BodyLength::Known(0) => None,
            length => {
                let most = match length {
                    BodyLength::Known(length) => usize::try_from(length).unwrap_or(usize::MAX),
                    _ => usize::MAX,
                };
                let mut share = BodyShare::new(&worker.mirrored);
                let most = most.min(mirror.max_body_bytes);
                share.hold(most).then(|| ErrandBody::new(most, share))?.into()
            }
        };
        let mut head = worker.take_head();
        head.clone_from(&self.request.head);
        head.fields.remove(FieldName::Expect);
        let mut front = ErrandFront::new(body.clone());
        let errand = self.errand(head, pool, &front);
        let (worker, limit) = (Rc::clone(worker), mirror.timeout);
        spawn_local(async move {
            let late = timeout(limit, errand.run(&mut front)).await.is_err();
            worker.metrics.mirrors.of(front.result(late)).inc();
            drop(place);
        });
        Some(body)
    }

    /// An exchange of the gateway's own on behalf of the client of this one: with neither route nor filters, and tried once.
    fn errand(&self, head: RequestHead, pool: &Rc<Pool>, front: &ErrandFront) -> Running {
        let (service, now) = (Rc::clone(&self.service), self.clock.now);
        let extras = Extras { rules: Some(once()), is_errand: true, ..Extras::default() };
        let mut tries = Tries::new(pool, Extras::rules(Some(&extras), pool.balance.retry()));
        tries.hedged = true;
        service.worker.begun();
        let errand = Self {
            call: None,
            tries,
            client: self.client.again(front.capabilities()),
            stage: Stage::Tries,
            clock: Clock::new(now),
            response: Response::default(),
            filtered: None,
            tunnel: None,
            reason: None,
            extras: Some(Box::new(extras)),
            settings: Rc::clone(&self.settings),
            pool: Rc::clone(pool),
            request: Request::new(head, None, now, None, Replay::new(0, None)),
            service,
        };
        let worker = Rc::clone(&errand.service.worker);
        Running::new(worker.place(errand))
    }
}
