//! Two gateways in a row. Clients of the test send requests to the near one, whose backends are the far ones; the backends of the far ones are the
//! test's. So the HTTP/3 front and back run with all that belongs to their connections.

use std::cell::OnceCell;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use lb_core::pool::PoolSettings;
use lb_io::Phase;
use lb_io::udp::Steering;
use lb_quic::{QuicListener, QuicListenerParts, QuicMemory, QuicService, QuicSettings, QuicShared};
use lb_security::admission::Handshakes;
use lb_security::{KeyAccess, RetrySecret, SharedTlsBundle, TicketRotator, TlsConfigBundle};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::back::World;
use crate::call::{self, Call, Done};
use crate::network::Network;
use crate::rig::{Plug, Rig, Setup};

/// The times of the gateways: short, so that each of them comes within a test.
const NEAR: &str = "[listeners.http]\nhead_timeout_ms = 4000\nbody_timeout_ms = 3000\nwrite_timeout_ms = 3000\n\
                    response_idle_timeout_ms = 6000\ntotal_timeout_ms = 30000\nretries = 2\n";
const FAR: &str = "[listeners.http]\nhead_timeout_ms = 3000\nbody_timeout_ms = 3000\nwrite_timeout_ms = 3000\n\
                   response_idle_timeout_ms = 5000\ntotal_timeout_ms = 25000\nretries = 1\n";

/// A certificate with its key, which lasts as long as the process.
fn certificate() -> &'static (tempfile::TempDir, PathBuf, PathBuf) {
    static FILES: OnceLock<(tempfile::TempDir, PathBuf, PathBuf)> = OnceLock::new();
    FILES.get_or_init(|| {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let (certificate, key) = (directory.path().join("far.pem"), directory.path().join("far.key"));
        let made = rcgen::generate_simple_self_signed(["far.example".to_owned()]).unwrap();
        std::fs::write(&certificate, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        std::fs::set_permissions(&key, PermissionsExt::from_mode(0o600)).unwrap();
        (directory, certificate, key)
    })
}

/// The two gateways.
pub(crate) struct Gateways {
    pub(crate) near: Rig,
    pub(crate) fars: Vec<Far>,
    pub(crate) world: Rc<World>,
    pub(crate) network: Rc<Network>,
}

/// A far gateway.
pub(crate) struct Far {
    pub(crate) rig: Rig,
    serving: JoinHandle<()>,
}

/// How the far gateways treat their clients.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Manners {
    /// Requests that a connection may carry; 0 = any number.
    pub(crate) max_requests: u32,
    /// Clients have to prove their addresses.
    pub(crate) retry: bool,
}

impl Far {
    fn new(
        number: u16,
        (world, network): (&Rc<World>, &Rc<Network>),
        memory: &Rc<QuicMemory>,
        manners: Manners,
    ) -> Self {
        let (_, certificate, key) = certificate();
        let retry = if manners.retry { "always" } else { "auto" };
        let lines = format!(
            "[listeners.quic]\ncert_path = \"{}\"\nkey_path = \"{}\"\nretry_secret_path = \"/nowhere\"\nretry = \"{retry}\"\n{FAR}",
            certificate.display(),
            key.display()
        );
        let setup = Setup { backends: 2, front: "quic", listener: &lines, ..Setup::default() };
        let rig = Rig::new(setup, world);
        let listener = &rig.config.listeners[0];
        let tickets = TicketRotator::new(Duration::from_secs(3600), Duration::from_secs(60), Duration::ZERO);
        let bundle = TlsConfigBundle::load(
            listener,
            &[],
            true,
            KeyAccess::Owner,
            &tickets.unwrap(),
            SystemTime::now(),
        );
        let io = Rc::clone(&rig.service.worker.io);
        let parts = QuicListenerParts {
            service: QuicService::Http {
                service: Rc::clone(&rig.service),
                max_requests: manners.max_requests,
            },
            io: Rc::clone(&io),
            admissions: Rc::clone(&rig.admissions),
            handshakes: Handshakes::new(&rig.config),
            memory: Rc::clone(memory),
            tls: SharedTlsBundle::new(bundle.unwrap()),
            shared: QuicShared {
                secret: Arc::new(RetrySecret::of(&[7; 32]).unwrap()),
                steering: Steering::new(number, None),
                qlogs: None,
            },
            settings: QuicSettings::of(listener).unwrap(),
        };
        let listener = QuicListener::new(parts);
        let socket = network.bind(([192, 0, 2, 1], number).into());
        let serving = tokio::task::spawn_local(Rc::clone(&listener).run(io, socket, number.into()));
        Self { rig, serving }
    }

    /// Moves on to a phase, as the control thread does.
    pub(crate) fn advance(&self, phase: Phase) {
        let connections = &self.rig.service.connections;
        connections.advance(phase);
        connections.wake_all();
    }
}

impl Gateways {
    pub(crate) fn new(
        fars: u16,
        pool: PoolSettings,
        world: World,
        network: Rc<Network>,
        manners: Manners,
    ) -> Rc<Self> {
        let world = Rc::new(world);
        let (of_near, memory) = (Rc::clone(&network), Rc::<OnceCell<Rc<QuicMemory>>>::default());
        let made = Rc::clone(&memory);
        let plug: Plug = Box::new(move |upstreams, io, config, metrics| {
            io.set_binds(Rc::new(move |_| Ok(of_near.near())));
            let memory = QuicMemory::new(config, 1, metrics.worker(0));
            lb_quic::plug(upstreams, io, made.get_or_init(|| memory));
        });
        let setup = Setup {
            protocol: "h3",
            backends: fars,
            listener: NEAR,
            plug: Some(plug),
            pool,
            ..Setup::default()
        };
        let near = Rig::new(setup, &world);
        let memory = Rc::clone(memory.get().unwrap());
        let far = |number| Far::new(number, (&world, &network), &memory, manners);
        let fars = (1..=fars).map(far).collect();
        Rc::new(Self { near, fars, world, network })
    }

    /// Runs requests, each of which begins after a time, at once.
    pub(crate) async fn run_all(self: &Rc<Self>, calls: Vec<(Duration, Call)>) -> Vec<Done> {
        let own = Rc::clone(self);
        call::run_all(calls, move |call| {
            let own = Rc::clone(&own);
            async move { call::run(&own.near, call).await }
        })
        .await
    }

    /// Why each gateway has answered requests itself, or has broken off responses.
    pub(crate) fn reasons(&self) -> Vec<String> {
        let counted = |rig: &Rig| {
            let metrics = rig.metrics.encode();
            let of_reason = |line: &&str| line.contains("_rejected_total{") && !line.ends_with(" 0");
            metrics.lines().filter(of_reason).map(str::to_owned).collect::<Vec<_>>().join(", ")
        };
        [&self.near].into_iter().chain(self.fars.iter().map(|far| &far.rig)).map(counted).collect()
    }

    /// Checks what must hold of every request whatever happens to it, and that nothing is left of any.
    pub(crate) async fn check(self: Rc<Self>, done: &[Done]) {
        call::check_all(done, &self.world);
        // What lingers is over by then.
        sleep(Duration::from_secs(60)).await;
        self.near.assert_at_rest();
        for far in &self.fars {
            far.rig.assert_at_rest();
        }
        assert!(self.world.seen().iter().all(|one| one.over), "an origin is left with a request");
        self.near.check_places().await;
        for far in &self.fars {
            far.advance(Phase::Abort);
        }
        // A connection that closes is there for three times what its peer may take to answer, which is long after an outage (RFC 9000 §10.2).
        sleep(Duration::from_secs(120)).await;
        for far in &self.fars {
            assert_eq!(far.rig.service.connections.len(), 0, "connections that do not end");
            assert!(far.serving.is_finished(), "the listener has not ended");
        }
        // All of them have one budget, as listeners and backends of one worker do.
        let held = self.near.metrics.worker(0).quic.buffered.value();
        assert_eq!(held, 0, "bytes that are accounted for nothing");
        assert_eq!(Rc::strong_count(&self), 1, "a task of a request has not ended");
    }
}
