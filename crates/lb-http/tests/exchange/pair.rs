//! Two gateways in a row. Clients of the test send requests to the near one, whose backends are the far ones, reached over connections in
//! memory; the backends of the far ones are the test's. So HTTP/1.1 and HTTP/2 run with both their ends, with everything that belongs to
//! their connections, in one thread and in virtual time, under faults at any byte.

mod cuts;
mod drains;
mod memory;
mod seeds;

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use lb_core::address::Address;
use lb_core::failure::ResetReason;
use lb_core::head::{BodyLength, RequestHead};
use lb_core::pool::PoolSettings;
use lb_http::proxy::End;
use lb_io::{ByteStream, Phase};
use lb_security::Stream;
use tokio::time::{sleep, timeout};

use crate::back::{Connect, Seen, World};
use crate::front::{Habits, Send, TestFront, Told};
use crate::rig::{Rig, Setup};
use crate::wire::{Shape, connection};

/// No request of a test may take longer: something would hang.
const PATIENCE: Duration = Duration::from_secs(120);

/// The times of the gateways: short, so that each of them comes within a test.
const NEAR: &str = "[listeners.http]\nhead_timeout_ms = 4000\nbody_timeout_ms = 3000\nwrite_timeout_ms = 3000\n\
                    response_idle_timeout_ms = 6000\ntotal_timeout_ms = 30000\nretries = 2\n";
const FAR: &str = "h2c = true\n[listeners.http]\nhead_timeout_ms = 3000\nbody_timeout_ms = 3000\nwrite_timeout_ms = 3000\n\
                   response_idle_timeout_ms = 5000\ntotal_timeout_ms = 25000\nretries = 1\n";

/// What becomes of each connect of the near gateway, by port and number.
pub(crate) type Net = dyn Fn(u16, u64) -> (Connect, Shape);

/// The two gateways.
pub(crate) struct Pair {
    pub(crate) near: Rig,
    pub(crate) fars: Vec<Rc<Far>>,
    pub(crate) world: Rc<World>,
}

/// A far gateway.
pub(crate) struct Far {
    pub(crate) rig: Rig,
    /// It takes no more connections.
    pub(crate) closed: Cell<bool>,
}

/// A request, and what became of it.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) id: usize,
    pub(crate) method: &'static str,
    pub(crate) sent: Vec<u8>,
    pub(crate) end: End,
    pub(crate) told: Told,
    /// The most that waited in the front at once.
    pub(crate) most_unread: usize,
    pub(crate) left: bool,
}

/// What a client sends.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) id: usize,
    pub(crate) method: &'static str,
    pub(crate) body: BodyLength,
    pub(crate) sends: Vec<Send>,
    pub(crate) habits: Habits,
}

impl Call {
    /// A request without a body.
    pub(crate) fn get(id: usize) -> Self {
        Self { id, method: "GET", body: BodyLength::None, sends: Vec::new(), habits: Habits::default() }
    }

    /// A request with a body in one piece.
    pub(crate) fn post(id: usize, length: usize) -> Self {
        let sends = vec![Send::Data(pattern(id, length)), Send::End];
        let body = BodyLength::Known(length as u64);
        Self { id, method: "POST", body, sends, habits: Habits::default() }
    }

    fn bytes(&self) -> Vec<u8> {
        let of = |send: &Send| if let Send::Data(bytes) = send { bytes.clone() } else { Vec::new() };
        self.sends.iter().flat_map(of).collect()
    }
}

/// Bytes that tell to which message they belong, and where in it.
pub(crate) fn pattern(of: usize, length: usize) -> Vec<u8> {
    (0..length)
        .map(|at| (of.wrapping_mul(89).wrapping_add(at.wrapping_mul(31)).wrapping_add(at >> 8) % 251) as u8)
        .collect()
}

/// The request that an origin sees.
pub(crate) fn id_of(seen: &Seen) -> usize {
    seen.field("x-id").unwrap().parse().unwrap()
}

impl Pair {
    /// Near and far gateways that speak `protocol` with each other.
    pub(crate) fn new(
        protocol: &str,
        fars: u16,
        pool: PoolSettings,
        world: World,
        net: Box<Net>,
    ) -> Rc<Self> {
        let world = Rc::new(world);
        let far = |_| {
            let setup = Setup { backends: 2, listener: FAR, ..Setup::default() };
            Rc::new(Far { rig: Rig::new(setup, &world), closed: Cell::new(false) })
        };
        let list: Vec<Rc<Far>> = (0..fars).map(far).collect();
        let setup = Setup { protocol, backends: fars, listener: NEAR, pool, access_log: None };
        let near = Rig::new(setup, &world);
        let (served, made) = (list.clone(), Cell::new(0));
        near.service.worker.io.set_connects(Rc::new(move |address: Address, limit: Duration| {
            let address = address.socket_addr().unwrap();
            let number = made.replace(made.get() + 1);
            let (connect, shape) = net(address.port(), number);
            let far = Rc::clone(&served[usize::from(address.port()) - 1]);
            Box::pin(connects(limit, connect, shape, far)) as Pin<Box<dyn Future<Output = _>>>
        }));
        Rc::new(Self { near, fars: list, world })
    }

    /// Runs a request to its end.
    pub(crate) async fn run(self: Rc<Self>, call: Call) -> Done {
        let sent = call.bytes();
        let head = self.head(&call);
        let left = call.habits.leaves.is_some();
        let mut front = TestFront::new(call.sends, call.habits);
        let running = self.near.run(head, &mut front);
        let Ok(end) = timeout(PATIENCE, running).await else { panic!("request {} hangs", call.id) };
        let told = front.told.borrow().clone();
        let most_unread = front.unread.borrow().most;
        Done { id: call.id, method: call.method, sent, end, told, most_unread, left }
    }

    fn head(&self, call: &Call) -> RequestHead {
        self.near.head(call.method, call.body, &[("x-id", &call.id.to_string())])
    }

    /// Runs requests, each of which begins after a time, at once.
    pub(crate) async fn run_all(self: &Rc<Self>, calls: Vec<(Duration, Call)>) -> Vec<Done> {
        let start = |(after, call)| {
            let pair = Rc::clone(self);
            tokio::task::spawn_local(async move {
                sleep(after).await;
                pair.run(call).await
            })
        };
        let tasks: Vec<_> = calls.into_iter().map(start).collect();
        let mut done = Vec::new();
        for task in tasks {
            match task.await {
                Ok(one) => done.push(one),
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            }
        }
        done
    }

    /// Checks what must hold of every request whatever happens to it, and that nothing is left of any.
    pub(crate) async fn check(self: Rc<Self>, done: &[Done]) {
        let seen = self.world.seen();
        for one in done {
            check_answer(one, &seen);
            check_origins(one, &seen);
        }
        // What lingers is over by then.
        sleep(Duration::from_secs(40)).await;
        self.near.assert_at_rest();
        for far in &self.fars {
            far.rig.assert_at_rest();
        }
        assert!(self.world.seen().iter().all(|one| one.over), "an origin is left with a request");
        self.check_places().await;
        for far in &self.fars {
            far.rig.service.connections.advance(Phase::Abort);
            far.rig.service.connections.wake_all();
        }
        sleep(Duration::from_secs(10)).await;
        for far in &self.fars {
            assert_eq!(far.rig.service.connections.len(), 0, "connections that do not end");
        }
        assert_eq!(Rc::strong_count(&self), 1, "a task of a request has not ended");
    }

    /// Every place that a limit grants can be had again, once idle connections have given theirs back.
    async fn check_places(&self) {
        self.near.service.worker.upstreams.replace(|| {});
        sleep(Duration::from_secs(5)).await;
        for at in 0..self.fars.len() {
            let Some(gate) = self.near.pool.gate(at) else { continue };
            let limit = self.near.pool.shared().settings.limits.max_connections;
            let places: Vec<_> = (0..limit).map_while(|_| gate.connection()).collect();
            assert_eq!(places.len(), limit as usize, "places for connections at member {at}");
        }
        let now = tokio::time::Instant::now().into_std();
        let budget = self.near.pool.retry().budget;
        let granted = (0..budget.min).filter(|_| self.near.pool.take_hedge(now)).count();
        assert_eq!(granted, budget.min as usize, "places in the budget of further tries");
    }
}

/// A request was answered at most once, and what the client takes for whole is whole.
fn check_answer(one: &Done, seen: &[Seen]) {
    let told = &one.told;
    assert!(told.heads.len() <= 1 && told.ends <= 1, "answered twice: {one:?}");
    match one.end {
        End::Complete => {
            assert!(
                told.heads.len() == 1 && told.ends == 1 && told.aborted.is_none(),
                "half an answer: {one:?}"
            );
        }
        End::Broken => {
            let cut = told.aborted.is_some();
            assert!(one.left || cut, "nobody has ended it: {one:?}");
            assert!(told.ends == 0 || !cut, "taken for whole: {one:?}");
        }
    }
    assert_ne!(told.aborted, Some(ResetReason::Refused), "the client may not take it for unprocessed");
    let Some(number) = told.number else { return };
    let origin = &seen[number - 1];
    assert_eq!(id_of(origin), one.id, "the answer of another request");
    let expected = pattern(number, told.body.len());
    assert!(told.body == expected, "other bytes than the origin's, of {}: {:?}", told.body.len(), one.end);
    if told.ends == 1 {
        let ended = origin.answered || origin.announced == Some(origin.given);
        assert!(ended, "an answer is taken for whole that the origin has not ended: {one:?}");
        assert_eq!(told.body.len(), origin.given, "a part is missing");
    }
}

/// The request reached origins as often as it may, as it was.
fn check_origins(one: &Done, seen: &[Seen]) {
    let mine: Vec<&Seen> = seen.iter().filter(|seen| id_of(seen) == one.id).collect();
    let processed = mine.iter().filter(|seen| !seen.refused).count();
    if one.method == "POST" {
        assert!(processed <= 1, "sent {processed} times: {one:?} {mine:?}");
    }
    assert!(mine.len() <= 24, "sent {} times", mine.len());
    for seen in mine {
        assert_eq!(seen.method, one.method);
        assert!(one.sent.starts_with(&seen.body), "another body than the client's");
        assert!(!seen.ended || seen.body == one.sent, "a part of the body is taken for the whole");
    }
}

async fn connects(limit: Duration, connect: Connect, shape: Shape, far: Rc<Far>) -> io::Result<ByteStream> {
    match connect {
        Connect::Hangs => {
            sleep(limit).await;
            return Err(io::ErrorKind::TimedOut.into());
        }
        Connect::Refused(after) => {
            sleep(after).await;
            return Err(io::Error::from_raw_os_error(111));
        }
        Connect::Done(after) => sleep(after).await,
    }
    if far.closed.get() {
        return Err(io::Error::from_raw_os_error(111));
    }
    let (here, there) = connection(shape);
    let service = Rc::clone(&far.rig.service);
    let guard = service.connections.enter();
    tokio::task::spawn_local(lb_http::serve(
        Stream::Plain(there),
        ([192, 0, 2, 200], 40000).into(),
        None,
        guard,
        service,
    ));
    Ok(here)
}

/// Runs a test for each of these seeds, or for the one that the environment names; the first that fails is named.
pub(crate) fn each_seed<F: Future<Output = ()>>(name: &str, count: u64, test: impl Fn(u64) -> F) {
    let one = std::env::var("EG_PAIR_SEED").ok().map(|seed| seed.parse::<u64>().unwrap());
    let count = std::env::var("EG_PAIR_SEEDS").map_or(count, |count| count.parse().unwrap());
    let seeds = one.map_or(0..count, |seed| seed..seed + 1);
    for seed in seeds {
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| crate::within(|| test(seed))));
        if let Err(panic) = result {
            println!(
                "{name}: seed {seed} fails; EG_PAIR_SEED={seed} cargo test --test exchange {name} runs it alone"
            );
            std::panic::resume_unwind(panic);
        }
    }
}
