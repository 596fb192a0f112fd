//! The one place that drives an exchange: chooses a backend, moves both directions at once, keeps the deadlines, decides what the client
//! is told when something fails.

mod account;
mod again;
mod answers;
mod attempt;
mod choose;
mod dial;
mod grpc;
mod health;
mod hedge;
mod queue;
mod relay;
mod replay;
mod sinks;
mod timing;
mod tunnel;

use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use lb_core::failure::{Failure, Kind, Reach, Reject};
use lb_core::head::{BodyLength, FieldName, RequestHead, Version};
use lb_core::reason::Reason;
use lb_core::route::PoolIndex;
use lb_io::Deadline;
use lb_io::pipe::Pipe;
use lb_pool::{Connection, Place, Waiting};
use tokio::time::Instant;

use crate::back::AnyBack;
use crate::exchange::Front;
use crate::h2::{Outcome, Wait};
use crate::rules::{self, Destination, Hop};
use crate::service::{Service, Settings};
use crate::session::Session;
use crate::websocket::handshake;
use dial::Dial;
use grpc::Call;
use health::Health;
use hedge::Side;
use replay::Replay;
use timing::{Stall, Upload};
use tunnel::Tunnel;
pub use tunnel::TunnelLimits;

/// A connection that failed within this time was refused, and has kept nobody waiting.
const AT_ONCE: Duration = Duration::from_secs(1);

/// How an exchange ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The client has its whole response. Its request body may not have been read to the end.
    Complete,
    /// The client is gone, or must be cut off.
    Broken,
}

/// Who the client is, as far as its connection tells.
#[derive(Debug)]
pub struct Client {
    /// Its address.
    pub address: SocketAddr,
    /// What its requests are given on their way.
    pub hop: Hop,
    /// What TLS has settled, if it came inside it.
    pub session: Option<Rc<Session>>,
}

/// One request on its way to a backend and its response on the way back.
#[derive(Debug)]
pub struct Exchange {
    service: Rc<Service>,
    settings: Rc<Settings>,
    request: RequestHead,
    client: SocketAddr,
    session: Option<Rc<Session>>,
    pool: PoolIndex,
    stage: Stage,
    started: Instant,
    now: Instant,
    /// When something has passed last, either way.
    active: Instant,
    /// The key whose limit ends the exchange, for the log.
    limit: &'static str,
    /// Position of the member that this attempt goes to, and since when.
    member: Option<(usize, Instant)>,
    /// Members whose connects failed.
    failed: Vec<usize>,
    /// Members at which another try failed: the next goes elsewhere if it can.
    avoided: Vec<usize>,
    retries: u32,
    /// Those of them that followed connections which backends had refused at once, where these do not count.
    refused: u32,
    /// One of them followed a connection that was lost with the request on it.
    lost: bool,
    /// Why no connection to a member came about last; that no port was left for one is remembered.
    unconnected: Option<Failure>,
    /// How long one try may take to its response head.
    per_try: Option<Duration>,
    /// The request is counted in the budget of further tries, and so is this try.
    counted: bool,
    charged: bool,
    /// It was looked at whether a second try is to run beside the first, or none ever is.
    hedged: bool,
    /// This try is such a second one.
    second: bool,
    /// The other try, while two run side by side.
    beside: Option<Box<Side>>,
    /// Room for the request at its member, where that has limits.
    room: Option<Place>,
    /// Connections that were about to end when the request came.
    gone_away: u32,
    upload: Upload,
    /// What of the body can be sent again.
    replay: Replay,
    /// The client takes no more at the moment.
    front_stall: Stall,
    /// The backend takes no more at the moment.
    back_stall: Stall,
    response: Response,
    /// What a gRPC call needs besides.
    call: Option<Box<Call>>,
    /// Set from the switch of protocols on.
    tunnel: Option<Box<Tunnel>>,
    /// What the backend answered, or what its failure was answered with; `None` where the client or nobody is to blame.
    backend_status: Option<u16>,
    /// The member is another than the one that the client's cookie stands for: it gets a new one.
    moves: bool,
    /// When the head of its response came.
    heard: Option<Instant>,
    /// How the attempt at the member failed, where that counts against it.
    failure: Option<Failure>,
    /// Response bytes on their way past user space.
    pipe: Option<Pipe>,
    received: u64,
    sent: u64,
    reason: Option<Reason>,
    /// The last turn was taken; `now` is when.
    ended: bool,
}

#[derive(Debug)]
enum Stage {
    /// The connection was accepted under other rules than those of the host that is asked for.
    Misdirected,
    /// The request may be forwarded no further (RFC 9110 §7.6.2).
    LastHop,
    /// A member and a connection are to be chosen; `fresh` when no pooled connection may be used.
    Choose { fresh: bool },
    /// A member that is at its limits is to have room; `fresh` as above.
    Queue { waiting: Waiting, at: usize, fresh: bool },
    /// A connection is being made.
    Dial(Dial),
    /// Another exchange is making the connection that this one will share.
    Wait { wait: Wait, since: Instant },
    /// The gateway answers itself how its backends are.
    Health(Box<Health>),
    /// Messages are moving.
    Relay {
        back: AnyBack,
        reused: bool,
        born: Instant,
        /// The connection's count at its member, unless others share it.
        connection: Option<Connection>,
    },
    /// The response is complete and on its last way to the client.
    Flush,
}

/// What the client was told.
#[derive(Debug, Default)]
struct Response {
    /// Status of the final head; 0 while there is none.
    status: u16,
    interims: u32,
    /// When the first interim response came.
    interim_since: Option<Instant>,
    /// The client was asked for its body by 100 (Continue).
    continues: bool,
    done: bool,
    /// Its length was not announced: trailers can end it at any time.
    takes_trailers: bool,
}

impl Response {
    /// Whether anything has reached the client, interim responses included: what follows can be no other response.
    fn has_begun(&self) -> bool {
        self.status != 0 || self.interims != 0
    }
}

/// What one turn of the state machine came to.
enum Turn {
    Again,
    Wait,
    End(End),
}

impl Exchange {
    /// An exchange for a request that has just been read. `started` is when its first byte came.
    pub fn new(
        service: Rc<Service>,
        settings: Rc<Settings>,
        mut request: RequestHead,
        client: &Client,
        started: Instant,
    ) -> Self {
        // No route: an index that no pool has, which is answered as if the pool were empty.
        let pool = settings.routes.find(&request).map_or(PoolIndex(usize::MAX), |route| route.pool);
        let has_body = !matches!(request.body, BodyLength::None | BodyLength::Known(0));
        let expects = has_body && request.fields.values(FieldName::Expect).next().is_some();
        let reach = rules::spend_forward(&mut request);
        let session = client.session.clone();
        let serves = session.as_ref().is_none_or(|session| session.serves(request.authority()));
        let mut rng = service.worker.io.rng.borrow_mut();
        rules::request(&mut request, &client.hop, &mut rng);
        if request.version == Version::H2 && !request.upgrade.is_empty() {
            let nonce = u128::from(rng.next_u64()) << 64 | u128::from(rng.next_u64());
            handshake::complete_h2_request(&mut request, &handshake::key(nonce.to_be_bytes()));
        }
        drop(rng);
        let call = Call::of(&settings, &request, started);
        let balance = settings.pool(pool).map(|pool| &pool.balance);
        let per_try = balance.and_then(|balance| balance.retry().per_try_timeout);
        let hedged = !balance.is_some_and(|balance| balance.hedges());
        service.worker.begun();
        Self {
            call,
            service,
            settings,
            request,
            client: client.address,
            session,
            pool,
            stage: match (serves, reach) {
                (false, _) => Stage::Misdirected,
                (true, Destination::Here) => Stage::LastHop,
                (true, Destination::Backend) => Stage::Choose { fresh: false },
            },
            started,
            now: started,
            active: started,
            limit: "",
            member: None,
            failed: Vec::new(),
            avoided: Vec::new(),
            retries: 0,
            refused: 0,
            lost: false,
            unconnected: None,
            per_try,
            counted: false,
            charged: false,
            hedged,
            second: false,
            beside: None,
            room: None,
            gone_away: 0,
            upload: Upload::new(has_body, expects, started),
            replay: Replay::default(),
            front_stall: Stall::default(),
            back_stall: Stall::default(),
            response: Response::default(),
            tunnel: None,
            backend_status: None,
            moves: false,
            heard: None,
            failure: None,
            pipe: None,
            received: 0,
            sent: 0,
            reason: None,
            ended: false,
        }
    }

    /// When the last turn was taken.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// Drives the exchange as far as it goes. `deadline` belongs to this exchange while it runs.
    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        front: &mut impl Front,
        deadline: &mut Deadline<'_>,
    ) -> Poll<End> {
        self.now = Instant::now();
        loop {
            let mut turn = self.step(cx, front);
            self.account(front);
            if self.beside.is_some() {
                turn = self.race(cx, front, turn);
            }
            match turn {
                Turn::Again => {}
                Turn::End(end) => {
                    self.ended = true;
                    return Poll::Ready(end);
                }
                Turn::Wait if deadline.poll(cx, self.due()) => {
                    self.now = Instant::now();
                    if let Turn::End(end) = self.expired(cx, front) {
                        self.account(front);
                        self.ended = true;
                        return Poll::Ready(end);
                    }
                }
                Turn::Wait => return Poll::Pending,
            }
        }
    }

    /// Takes one turn.
    fn step(&mut self, cx: &mut Context<'_>, front: &mut impl Front) -> Turn {
        match &mut self.stage {
            Stage::Misdirected => self.misdirected(cx, front),
            Stage::LastHop => self.last_hop(cx, front),
            Stage::Choose { fresh } => {
                let fresh = *fresh;
                self.choose(cx, front, fresh)
            }
            Stage::Queue { .. } => self.queue(cx, front),
            Stage::Dial(dial) => match dial.poll(cx) {
                Poll::Ready(result) => {
                    let ticket = dial.ticket.take();
                    let place = dial.place.take();
                    self.dialled(cx, front, result, ticket, place)
                }
                Poll::Pending if front.poll_hangup(cx).is_ready() && self.upload.is_done() => {
                    self.client_gone(front)
                }
                Poll::Pending => Turn::Wait,
            },
            Stage::Wait { wait, since } => match wait.poll(cx) {
                Poll::Ready(Outcome::Again) => self.share(cx, front, None),
                Poll::Ready(Outcome::Failed(failure)) => {
                    if self.now.saturating_duration_since(*since) < AT_ONCE {
                        self.forgive_refusal();
                    }
                    self.not_connected(cx, front, failure)
                }
                Poll::Pending if front.poll_hangup(cx).is_ready() && self.upload.is_done() => {
                    self.client_gone(front)
                }
                Poll::Pending => Turn::Wait,
            },
            Stage::Health(_) => self.health(cx, front),
            Stage::Relay { .. } => self.relay(cx, front),
            Stage::Flush => self.flush(cx, front),
        }
    }

    /// What to do when the earliest deadline has come.
    fn expired(&mut self, cx: &mut Context<'_>, front: &mut impl Front) -> Turn {
        use timing::Expired;
        let Some(expired) = self.what_expired() else { return Turn::Again };
        self.limit = self.limit_of(expired);
        match expired {
            Expired::Tunnel(tunnel::Expired::Limit(close)) => {
                if let (Some(tunnel), Stage::Relay { back, .. }) = (&mut self.tunnel, &mut self.stage) {
                    tunnel.close(cx, close, front, back, self.now);
                }
                Turn::Again
            }
            // What a side has not taken by now, it does not want.
            Expired::Tunnel(tunnel::Expired::Linger) if self.front_stall.is_on() => {
                front.abort();
                Turn::End(End::Broken)
            }
            Expired::Tunnel(tunnel::Expired::Linger) => Turn::End(End::Complete),
            Expired::ClientRead => {
                self.service.worker.metrics.request_rejected.of(Reason::WriteTimeout).inc();
                self.reason = Some(Reason::WriteTimeout);
                self.cut(front)
            }
            Expired::Upload => self.refuse(cx, front, Reject::new(408, Reason::BodyTimeout)),
            Expired::UploadRate => self.refuse(cx, front, Reject::new(408, Reason::BodyRate)),
            Expired::CallDeadline => self.call_expired(cx, front),
            Expired::CallIdle => self.fail(cx, front, Kind::CallIdle.at(Reach::Sent)),
            Expired::HealthWatch | Expired::Queue => Turn::Again,
            Expired::Try => self.try_expired(cx, front),
            Expired::Hedge => self.hedge(cx, front),
            Expired::Backend => {
                self.blame_silence();
                let failure = Kind::Timeout.at(Reach::Sent);
                if !self.is_out_of_time() && self.give_side_up(failure) {
                    return Turn::Again;
                }
                self.fail(cx, front, failure)
            }
        }
    }
}
