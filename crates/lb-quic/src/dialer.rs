//! QUIC connections of our own, to backends: one endpoint for each family of addresses and worker, made when it is first needed.

use std::cell::{OnceCell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::Context;
use std::time::Instant;

use lb_core::rng::SplitMix64;
use lb_io::udp::{Passed, TableId};
use lb_io::{Phase, WorkerIo};
use quiche::ConnectionId;
use tokio::sync::oneshot;

use crate::connection::{Application, Connection, Site, Turns};
use crate::connection_id::{ConnectionIds, LENGTH};
use crate::endpoint::{Datagram, Endpoint, Ground, Shared, Stray, Table};
use crate::memory::QuicMemory;
use crate::peer::Ends;
use crate::transport::largest_packet;

/// A connection that is to be made.
struct Wanted<A: Application> {
    to: SocketAddr,
    server_name: String,
    session: Option<Vec<u8>>,
    config: quiche::Config,
    app: A,
    made: oneshot::Sender<io::Result<Shared<A>>>,
}

/// What an endpoint is told by those that want connections.
struct Desk<A: Application> {
    wanted: RefCell<Vec<Wanted<A>>>,
    turns: Rc<Turns>,
}

/// Makes connections to backends.
pub(crate) struct Dialer<A: Application> {
    io: Rc<WorkerIo>,
    memory: Rc<QuicMemory>,
    v4: OnceCell<Rc<Desk<A>>>,
    v6: OnceCell<Rc<Desk<A>>>,
}

impl<A: Application> fmt::Debug for Dialer<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Dialer")
    }
}

impl<A: Application> Dialer<A> {
    pub(crate) fn new(io: Rc<WorkerIo>, memory: Rc<QuicMemory>) -> Rc<Self> {
        Rc::new(Self { io, memory, v4: OnceCell::new(), v6: OnceCell::new() })
    }

    fn desk(&self, to: &SocketAddr) -> io::Result<&Rc<Desk<A>>> {
        let place = if to.is_ipv4() { &self.v4 } else { &self.v6 };
        if let Some(desk) = place.get() {
            return Ok(desk);
        }
        let socket = self.io.udp_to_backends(to)?;
        let _ = socket.never_fragment();
        let mut key = [0; 32];
        aws_lc_rs::rand::fill(&mut key).map_err(io::Error::other)?;
        let ids = ConnectionIds::new(&key, &[]).ok_or(io::ErrorKind::Other)?;
        let seed = self.io.rng.borrow_mut().next_u64();
        // Nothing is passed on to it: every worker has ports of its own towards backends.
        let own = TableId { epoch: 0, number: 0 };
        let table = Table::new(Rc::new(ids), own, u32::try_from(seed >> 32).unwrap_or_default());
        let turns = Rc::new(Turns::default());
        let desk = Rc::new(Desk { wanted: RefCell::default(), turns: Rc::clone(&turns) });
        let local = socket.local();
        let (memory, rng) = (Rc::clone(&self.memory), SplitMix64::new(seed));
        let stray = Outgoing { desk: Rc::clone(&desk), local, memory, rng };
        let endpoint = Endpoint::new(Rc::clone(&self.io), socket, table, turns, stray);
        tokio::task::spawn_local(endpoint);
        Ok(place.get_or_init(|| desk))
    }

    /// Begins a connection; its handshake is told to `app`.
    pub(crate) fn dial(
        &self,
        to: SocketAddr,
        server_name: String,
        session: Option<Vec<u8>>,
        config: quiche::Config,
        app: A,
    ) -> io::Result<oneshot::Receiver<io::Result<Shared<A>>>> {
        let (made, receiver) = oneshot::channel();
        let desk = self.desk(&to)?;
        desk.wanted.borrow_mut().push(Wanted { to, server_name, session, config, app, made });
        desk.turns.wake();
        Ok(receiver)
    }
}

/// The side of an endpoint that opens connections.
struct Outgoing<A: Application> {
    desk: Rc<Desk<A>>,
    local: SocketAddr,
    memory: Rc<QuicMemory>,
    rng: SplitMix64,
}

impl<A: Application> Outgoing<A> {
    fn connect(&mut self, ground: &mut Ground<A>, wanted: Wanted<A>) {
        let Wanted { to, server_name, session, mut config, app, made } = wanted;
        let Some((place, generation, id)) = ground.table.next() else { return };
        let mut first = [0; LENGTH];
        let (halves, _) = first.as_chunks_mut::<8>();
        for half in halves {
            *half = self.rng.next_u64().to_be_bytes();
        }
        let own = ConnectionId::from_ref(&id);
        config.set_max_send_udp_payload_size(largest_packet(to.ip()));
        let quic = quiche::connect_with_buffer_factory(Some(&server_name), &own, self.local, to, &mut config);
        let mut quic = match quic {
            Ok(quic) => quic,
            Err(error) => {
                let _ = made.send(Err(io::Error::other(error)));
                return;
            }
        };
        if let Some(session) = session {
            // A session that cannot be resumed leads to a whole handshake.
            let _ = quic.set_session(&session);
        }
        let (ends, site) = (Ends { peer: to, local: self.local }, Site { from_any: false, may_move: false });
        let own = (site, self.memory.connection(true));
        let connection = Connection::new(quic, app, (place, generation), &ground.turns, ends, own);
        let shared = ground.table.insert(generation, connection, &[]);
        shared.borrow_mut().said();
        // Nobody may wait for it any more: then its application ends it.
        let _ = made.send(Ok(shared));
    }
}

impl<A: Application> Stray<A> for Outgoing<A> {
    /// What belongs to no connection is late, or was sent by others.
    fn stray(&mut self, _: &mut Ground<A>, _: Datagram<'_>) {}

    fn begin(&mut self, ground: &mut Ground<A>) {
        let wanted = std::mem::take(&mut *self.desk.wanted.borrow_mut());
        for wanted in wanted {
            self.connect(ground, wanted);
        }
    }

    fn passed(&mut self, _: &Context<'_>) -> VecDeque<Passed> {
        VecDeque::new()
    }

    fn reset_token(&self, _: &[u8]) -> u128 {
        0
    }

    fn phase(&self) -> Phase {
        Phase::Serving
    }
}

/// The time by which a dial is to have its connection.
pub(crate) fn limit(settings: &lb_http::service::Settings) -> Instant {
    Instant::now() + settings.connect_timeout.saturating_add(settings.handshake_timeout)
}
