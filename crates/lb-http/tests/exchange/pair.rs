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
use lb_core::pool::PoolSettings;
use lb_io::{ByteStream, Phase};
use lb_security::Stream;
use tokio::time::sleep;

use crate::back::{Connect, World};
use crate::call::{self, Call, Done};
use crate::rig::{Rig, Setup};
use crate::wire::{Shape, connection};

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
        let setup = Setup { protocol, backends: fars, listener: NEAR, pool, ..Setup::default() };
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

    /// Runs requests, each of which begins after a time, at once.
    pub(crate) async fn run_all(self: &Rc<Self>, calls: Vec<(Duration, Call)>) -> Vec<Done> {
        let pair = Rc::clone(self);
        call::run_all(calls, move |call| {
            let pair = Rc::clone(&pair);
            async move { call::run(&pair.near, call).await }
        })
        .await
    }

    /// Checks what must hold of every request whatever happens to it, and that nothing is left of any.
    pub(crate) async fn check(self: Rc<Self>, done: &[Done]) {
        call::check_all(done, &self.world);
        // What lingers is over by then.
        sleep(Duration::from_secs(40)).await;
        self.near.assert_at_rest();
        for far in &self.fars {
            far.rig.assert_at_rest();
        }
        assert!(self.world.seen().iter().all(|one| one.over), "an origin is left with a request");
        self.near.check_places().await;
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
