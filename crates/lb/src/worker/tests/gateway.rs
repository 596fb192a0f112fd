//! A gateway of one worker in this process, which can be asked what it is busy with.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use lb_config::ConfigText;
use lb_control::{
    BackendsTls, Change, FileKeys, ListenerKey, ListenerSockets, NewWorker, Order, Snapshot, load,
};
use lb_core::limit::LimitRegistry;
use lb_io::Runtime;
use lb_io::faults::{self, Left, RingFault};
use lb_io::gate::{AddressGate, CountGate};
use lb_observe::metrics::{BackendMetrics, ListenerMetrics, Metrics, PoolMetrics, WorkerMetrics};
use lb_pool::{Registry, ResolvedBackend};
use lb_security::admission::Gates;
use socket2::SockRef;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use super::PATIENCE;
use crate::worker::run;

/// Bytes of output that the kernel holds for a client, so that the ring has sends to wait with.
const ROOM: usize = 8192;

/// Bytes of a segment towards clients. Less than one would fit otherwise, and would be acknowledged late.
const SEGMENT: u32 = 1400;

type Question = Box<dyn FnOnce() + Send>;

/// A running gateway.
pub(super) struct Gateway {
    pub(super) address: SocketAddr,
    questions: UnboundedSender<Question>,
    orders: UnboundedSender<Order>,
    counts: Counts,
    thread: JoinHandle<()>,
}

/// Where it counts.
#[derive(Clone)]
struct Counts {
    worker: Arc<WorkerMetrics>,
    listener: Arc<ListenerMetrics>,
    backend: Arc<BackendMetrics>,
    pool: Arc<PoolMetrics>,
    /// Places of the listener.
    places: Arc<CountGate>,
}

/// What a worker counts that must go back to where it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Busy {
    left: Left,
    idle: i64,
    clients: i64,
    places: i64,
    taken: usize,
    at_backend: i64,
    pending: i64,
}

impl Gateway {
    /// Starts a worker on the only ring of `runtime`, where `first` fails of the operations from the first on.
    pub(super) fn start(runtime: &Runtime, backend: SocketAddr, first: (RingFault, i32)) -> Self {
        let config = load(&ConfigText::new(text(backend), "test".to_owned())).unwrap();
        let metrics = Metrics::new(1);
        let pools = config.pools_in_use().into_iter().map(|pool| {
            let resolved = pool.backends.iter().map(|one| ResolvedBackend {
                name: one.name.clone(),
                addresses: one.address.literal().into_iter().collect(),
            });
            (pool.id.clone(), resolved.collect())
        });
        let backends = pools.collect();
        let (backends_tls, keys) = (BackendsTls::default(), FileKeys::default());
        let (mut registry, mut limits) = (Registry::new(1, 1), LimitRegistry::default());
        let snapshot = Snapshot::new(&mut registry, &mut limits, config, backends, backends_tls, keys);
        let listener = lb_io::listener::bind("127.0.0.1:0".parse().unwrap(), Default::default()).unwrap();
        let socket = SockRef::from(&listener);
        socket.set_send_buffer_size(ROOM).unwrap();
        socket.set_tcp_mss(SEGMENT).unwrap();
        let address = listener.address().socket_addr().unwrap();
        let front = &snapshot.config.listeners[0];
        let counts = Counts {
            worker: metrics.worker(0),
            listener: metrics.listener(&front.name),
            backend: metrics.backend(&front.pool.id, true, &front.pool.backends[0].name),
            pool: metrics.pool(&front.pool.id),
            places: Arc::default(),
        };
        let gates = Gates {
            address: AddressGate::new(16),
            listener: Arc::clone(&counts.places),
            sources: AddressGate::new(16),
        };
        let (orders, receiver) = unbounded_channel();
        let opened = vec![ListenerSockets {
            id: front.id(),
            key: ListenerKey(1),
            sockets: vec![listener],
            gates,
            tls: None,
            quic: None,
            passthrough: Arc::default(),
        }];
        let change = Change { snapshot: Arc::clone(&snapshot), closed: Vec::new(), opened };
        orders.send(Order::Apply(change, tokio::sync::oneshot::channel().0)).unwrap();
        let new =
            NewWorker { id: 0, seed: 1, snapshot, metrics, access_log: None, traces: None, orders: receiver };
        let (questions, mut asked) = unbounded_channel::<Question>();
        let main = move || async move {
            faults::arm(first.0, first.1).unwrap();
            tokio::task::spawn_local(async move {
                while let Some(question) = asked.recv().await {
                    question();
                }
            });
            run(new).await;
        };
        let thread = runtime.spawn_worker(0, main).unwrap();
        Self { address, questions, orders, counts, thread }
    }

    /// Has the worker answer.
    pub(super) fn ask<T: Send + 'static>(&self, question: impl FnOnce() -> T + Send + 'static) -> T {
        let (tell, answer) = channel();
        let question: Question = Box::new(move || drop(tell.send(question())));
        assert!(self.questions.send(question).is_ok(), "the worker is gone");
        answer.recv_timeout(PATIENCE).expect("the worker stands still")
    }

    /// Waits until nothing is left of any client, and says how many backend connections are kept for the next.
    #[track_caller]
    pub(super) fn until_quiet(&self) -> i64 {
        let end = Instant::now() + PATIENCE;
        loop {
            let busy = self.busy();
            let open = usize::try_from(busy.idle).unwrap();
            let quiet = Busy {
                // What was read last may lie in its buffer until the worker reads again.
                left: Left { listeners: 1, open, buffers: busy.left.buffers.min(1), ..Left::default() },
                idle: busy.idle,
                clients: 0,
                places: 0,
                taken: 0,
                at_backend: 0,
                pending: 0,
            };
            if busy == quiet {
                return busy.idle;
            }
            assert!(Instant::now() < end, "something is left: {busy:?}");
            std::thread::sleep(Duration::from_micros(300));
        }
    }

    fn busy(&self) -> Busy {
        let Counts { worker, listener, backend, pool, places } = self.counts.clone();
        self.ask(move || Busy {
            left: faults::left().unwrap(),
            idle: worker.pool_idle.value(),
            clients: listener.worker(0).connections_inflight.value(),
            places: listener.worker(0).accept_inflight.value(),
            taken: places.open(),
            at_backend: backend.worker(0).inflight.value(),
            pending: pool.worker(0).pending.value(),
        })
    }

    /// Ends the worker.
    pub(super) fn stop(self) {
        self.orders.send(Order::Stop).unwrap();
        self.thread.join().unwrap();
    }
}

/// A configuration whose patience is longer than that of the test.
fn text(backend: SocketAddr) -> String {
    format!(
        "[runtime]\nconnect_timeout_ms = 60000\n\n\
         [runtime.watchdog]\nheader_deadline_ms = 60000\nbody_progress_min_bps = 0\n\n\
         [[listeners]]\naddress = \"127.0.0.1:1\"\nprotocol = \"h1\"\npool = \"back\"\n\n\
         [listeners.http]\nheader_timeout_ms = 60000\nbody_timeout_ms = 60000\ntotal_timeout_ms = 120000\n\
         head_timeout_ms = 60000\nkeepalive_timeout_ms = 60000\nwrite_timeout_ms = 60000\n\n\
         [[pools.back.backends]]\naddress = \"{backend}\"\nprotocol = \"h1\"\n"
    )
}

/// The sockets that this process has open, by inode.
#[derive(Debug)]
pub(super) struct Sockets(BTreeSet<String>);

impl Sockets {
    pub(super) fn open() -> Self {
        let links = std::fs::read_dir("/proc/self/fd").unwrap().filter_map(|entry| {
            let link = std::fs::read_link(entry.ok()?.path()).ok()?;
            link.to_str().filter(|link| link.starts_with("socket:")).map(str::to_owned)
        });
        Self(links.collect())
    }

    /// Waits until all other sockets that are open by now are closed. Other tests of this process have some too, but not for long.
    #[track_caller]
    pub(super) fn assert_no_others(&self) {
        let end = Instant::now() + PATIENCE;
        let mut left: BTreeSet<_> = Self::open().0.difference(&self.0).cloned().collect();
        while !left.is_empty() {
            assert!(Instant::now() < end, "descriptors are left open: {left:?}");
            std::thread::sleep(Duration::from_millis(1));
            let now = Self::open().0;
            left.retain(|socket| now.contains(socket));
        }
    }
}
