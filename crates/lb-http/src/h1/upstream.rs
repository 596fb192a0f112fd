//! Connections to backends that speak HTTP/1.1: each carries one request at a time, and waits among the idle ones of its endpoint
//! meanwhile.

use std::rc::Rc;

use lb_pool::Connection;

use super::back::H1Back;
use crate::back::AnyBack;
use crate::upstream::{self, Ask, Caller, Dialled, Dialling, Link, Reused, Upstream, Way};

/// The upstream of HTTP/1.1. The idle connections are kept by the endpoint itself, under the limits of the worker.
#[derive(Debug)]
pub(crate) struct H1Upstream;

impl Upstream for H1Upstream {
    fn has_way(&self, caller: &Caller<'_>, ask: Ask) -> bool {
        !ask.fresh
            && !tells_client(caller)
            && caller.worker.upstreams.is_ready(&caller.member.endpoint, caller.now)
    }

    fn way(&self, caller: &Caller<'_>, ask: Ask) -> Way {
        let idle = || caller.worker.upstreams.take(&caller.member.endpoint, caller.now);
        match if ask.fresh || tells_client(caller) { None } else { idle() } {
            Some(Reused { mut back, born, connection }) => {
                back.restart(caller.settings.http.max_header_bytes);
                Way::Open(Link::on(AnyBack::H1(back), true, born, connection))
            }
            None => Way::Dial(None),
        }
    }

    fn dial(&self, caller: &Caller<'_>) -> Dialling {
        upstream::tcp::dial(caller, None)
    }

    fn adopt(&self, caller: &Caller<'_>, made: Dialled, connection: Option<Connection>) -> Option<Link> {
        let Dialled::Stream(stream) = made else { return None };
        let io = Rc::clone(&caller.worker.io);
        let back = Box::new(H1Back::new(stream, io, caller.settings.http.max_header_bytes));
        Some(Link::on(AnyBack::H1(back), false, caller.now, connection))
    }

    /// The connection is kept for another request if it can carry one.
    fn release(&self, caller: &Caller<'_>, link: Link, sent: bool) {
        let Caller { worker, member, now, .. } = caller;
        let Link { back, born, connection, .. } = link;
        match back.into_idle() {
            Ok(Some(back)) if sent && !tells_client(caller) => {
                worker.upstreams.put(&member.endpoint, back, born, connection, worker.busiest(), *now);
            }
            Ok(_) => {}
            Err(reason) => worker.metrics.upstream_rejected.of(reason).inc(),
        }
    }
}

/// Whether a connection is told whose it is: no other client may come to use it (attack R-17).
fn tells_client(caller: &Caller<'_>) -> bool {
    caller.member.backend.proxy_protocol.is_some()
}
