//! The flows of one listener on one worker, and how they begin, move and end.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use lb_core::flows::{FlowKey, FlowTable};
use lb_io::WorkerIo;
use lb_io::shortage_of;
use lb_io::udp::{NoUplink, Uplinks};
use lb_observe::metrics::{DatagramDrop, FlowEnd, ListenerShard};
use lb_security::admission::Admissions;

use super::flow::{Flow, Occupied, Target, rest};
use super::refusal::Refusal;
use super::settings::UdpSettings;

/// How often sockets that are not needed are closed.
const REST: Duration = Duration::from_secs(5);

/// Everything that changes while a listener runs.
#[derive(Debug)]
pub(super) struct State {
    pub(super) table: FlowTable<Flow>,
    pub(super) uplinks: Uplinks,
    pub(super) settings: Rc<UdpSettings>,
    /// No flow begins any more.
    pub(super) is_closing: bool,
    rest_at: Instant,
}

/// What flows are begun with, besides the state.
#[derive(Clone, Copy, Debug)]
pub(super) struct Around<'a> {
    pub(super) io: &'a WorkerIo,
    pub(super) admissions: &'a Rc<Admissions>,
    pub(super) now: Instant,
}

impl Around<'_> {
    /// What this worker counts for the listener.
    #[inline]
    pub(super) fn shard(&self) -> &ListenerShard {
        self.admissions.metrics.worker(self.io.id)
    }

    /// Counts datagrams that are not forwarded.
    pub(super) fn dropped(&self, reason: DatagramDrop, count: usize) {
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        self.shard().udp_datagrams_dropped.of(reason).add(count);
    }
}

impl State {
    pub(super) fn new(settings: Rc<UdpSettings>, seed: u64, now: Instant) -> std::io::Result<Self> {
        let udp = &settings.udp;
        Ok(Self {
            table: FlowTable::new(udp.max_flows, udp.idle_timeout, seed, now),
            uplinks: Uplinks::new(settings.max_sockets)?,
            settings,
            is_closing: false,
            rest_at: now + REST,
        })
    }

    /// Puts new settings in force, for flows that live as well.
    pub(super) fn replace(&mut self, settings: Rc<UdpSettings>, now: Instant) {
        self.table.set_limits(settings.udp.max_flows, settings.udp.idle_timeout, now);
        self.uplinks.set_most_sockets(settings.max_sockets);
        self.settings = settings;
    }

    /// Begins a flow of `client`, which has sent to `local`.
    pub(super) fn begin(
        &mut self,
        (client, local): (SocketAddr, Option<IpAddr>),
        socket: usize,
        around: &Around<'_>,
    ) -> Result<u32, Refusal> {
        let Self { table, uplinks, settings, is_closing, .. } = self;
        let Around { admissions, now, .. } = *around;
        if *is_closing {
            return Err(Refusal::Draining);
        }
        if admissions.open() >= settings.udp.max_flows || !table.has_room() {
            return Err(Refusal::MaxFlows);
        }
        let source = match settings.udp.max_flows_per_source {
            Some(_) => Some(admissions.admit_source(client.ip()).ok_or(Refusal::PerSource)?),
            None => None,
        };
        let (admission, guard) = admissions.admit(client.into()).map_err(Refusal::Admission)?;
        let flow = table.insert(FlowKey::new(client, local), now, |number| {
            let target = target(settings, uplinks, (client, number), around)?;
            Ok::<_, Refusal>(Flow {
                client,
                local,
                socket,
                target,
                asked: 0,
                answered: 0,
                bytes_in: 0,
                bytes_out: 0,
                _occupied: Occupied { _source: source, _admission: admission, _guard: guard },
            })
        })?;
        around.shard().udp_flows.inc();
        Ok(flow)
    }

    /// Has a flow go on at another backend, if its own has left or is not used any more. Whether the flow still lives.
    #[inline]
    pub(super) fn follow(&mut self, number: u32, around: &Around<'_>) -> bool {
        let Self { table, settings, .. } = self;
        let Some(flow) = table.get_mut(number) else { return false };
        let target = &mut flow.target;
        if Rc::ptr_eq(&target.pool, &settings.pool) {
            let stays = !settings.udp.move_flows || target.pool.balance().is_in_use(target.at, around.now);
            return stays || self.change(number, false, around);
        }
        self.find_again(number, around)
    }

    /// The pool has changed since the flow was looked at last.
    #[cold]
    fn find_again(&mut self, number: u32, around: &Around<'_>) -> bool {
        let Self { table, settings, .. } = self;
        let Some(flow) = table.get_mut(number) else { return false };
        let target = &mut flow.target;
        let is_same = target.pool.balance().shared().id == settings.pool.balance().shared().id;
        let member = target.pool.members().get(target.at).filter(|_| is_same);
        match member.and_then(|member| settings.pool.position(member)) {
            Some(at) => {
                (target.pool, target.at) = (Rc::clone(&settings.pool), at);
                self.follow(number, around)
            }
            None => self.change(number, true, around),
        }
    }

    /// Another backend for a flow. Where there is none, the flow stays as it is, or ends if it must go.
    #[cold]
    fn change(&mut self, number: u32, must: bool, around: &Around<'_>) -> bool {
        let Self { table, uplinks, settings, .. } = self;
        let Some(flow) = table.get_mut(number) else { return false };
        match target(settings, uplinks, (flow.client, number), around) {
            Ok(new) => {
                around.shard().udp_flows_moved.inc();
                let rest = rest(flow, settings.udp.replies);
                let old = std::mem::replace(&mut flow.target, new);
                (flow.asked, flow.answered) = (0, 0);
                uplinks.give_back(old.release(), rest, around.now);
                true
            }
            Err(_) if !must => true,
            Err(_) => {
                self.end(number, FlowEnd::BackendGone, around);
                false
            }
        }
    }

    /// Ends a flow.
    pub(super) fn end(&mut self, number: u32, why: FlowEnd, around: &Around<'_>) {
        if let Some(flow) = self.table.remove(number) {
            self.bury(flow, why, around);
        }
    }

    fn bury(&mut self, flow: Flow, why: FlowEnd, around: &Around<'_>) {
        around.shard().udp_flows_ended.of(why).inc();
        let rest = rest(&flow, self.settings.udp.replies);
        self.uplinks.give_back(flow.target.release(), rest, around.now);
    }

    /// Ends flows that have been silent for too long, and closes sockets that are not needed.
    pub(super) fn tidy(&mut self, around: &Around<'_>) {
        while let Some(flow) = self.table.expire(around.now) {
            self.bury(flow, FlowEnd::Idle, around);
        }
        if around.now >= self.rest_at {
            self.rest_at = around.now + REST;
            self.uplinks.rest(around.now);
        }
        let sockets = i64::try_from(self.uplinks.sockets()).unwrap_or(i64::MAX);
        around.shard().udp_uplinks.set(sockets);
    }

    /// Ends all flows.
    pub(super) fn end_all(&mut self, around: &Around<'_>) {
        for number in self.table.numbers().collect::<Vec<_>>() {
            self.end(number, FlowEnd::Drained, around);
        }
    }

    /// When [`Self::tidy`] is to be called next.
    pub(super) fn due(&self) -> Option<Instant> {
        let rest = (self.uplinks.sockets() > 0).then_some(self.rest_at);
        self.table.due().into_iter().chain(rest).min()
    }
}

/// A backend for a flow, and the way there.
fn target(
    settings: &UdpSettings,
    uplinks: &mut Uplinks,
    (client, number): (SocketAddr, u32),
    around: &Around<'_>,
) -> Result<Target, Refusal> {
    let Around { io, now, .. } = *around;
    let (at, place) = settings.pick(client.into(), now)?;
    let member = settings.pool.members().get(at).ok_or(Refusal::NoBackend)?;
    // A configuration has no Unix socket behind such a listener.
    let address = member.address().socket_addr().ok_or(Refusal::NoBackend)?;
    let uplink = uplinks.take(address, number, now).map_err(|none| {
        if let NoUplink::Socket(error) = none {
            match shortage_of(&error) {
                Some(shortage) => io.tell_shortage(shortage),
                None => tracing::debug!(backend = member.name(), %error, "no socket to a backend"),
            }
        }
        Refusal::NoSocket
    })?;
    Ok(Target::new(uplink, (&settings.pool, at, member), place, io.id, now))
}
