//! Connections to backends that speak HTTP/1.1: each carries one request at a time, and waits among the idle ones of its endpoint
//! meanwhile. One that was told whose it is waits with its client.

use std::rc::Rc;

use lb_pool::Connection;

use super::back::H1Back;
use crate::back::AnyBack;
use crate::upstream::{self, Ask, Caller, Dialled, Dialling, Link, Reused, Upstream, Way, Whose};

/// The upstream of HTTP/1.1. The idle connections are kept by the endpoint itself, under the limits of the worker.
#[derive(Debug)]
pub(crate) struct H1Upstream;

impl Upstream for H1Upstream {
    fn has_way(&self, caller: &Caller<'_>, ask: Ask) -> bool {
        let (upstreams, now) = (&caller.worker.upstreams, caller.now);
        !ask.fresh
            && match whose(caller) {
                None => upstreams.is_ready(&caller.member.endpoint, now),
                Some(whose) => whose.is_some_and(|whose| upstreams.has_told(&whose, now)),
            }
    }

    fn way(&self, caller: &Caller<'_>, ask: Ask) -> Way {
        let (upstreams, now) = (&caller.worker.upstreams, caller.now);
        let idle = || match whose(caller) {
            None => upstreams.take(&caller.member.endpoint, now),
            Some(whose) => upstreams.take_told(&whose?, now),
        };
        match if ask.fresh { None } else { idle() } {
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
            Ok(Some(back)) if sent => match whose(caller) {
                None => {
                    worker.upstreams.put(&member.endpoint, back, born, connection, worker.busiest(), *now);
                }
                Some(Some(whose)) => worker.upstreams.put_told(&whose, back, born, connection, *now),
                Some(None) => {}
            },
            Ok(_) => {}
            Err(reason) => worker.metrics.upstream_rejected.of(reason).inc(),
        }
    }
}

/// Whose a connection is, where it is told that: no other client may come to use it (attack R-17). None within where the client's connection has no place
/// to keep one.
#[inline]
fn whose<'a>(caller: &Caller<'a>) -> Option<Option<Whose<'a>>> {
    let sends = caller.member.backend.proxy_protocol?;
    Some(caller.client.whose(&caller.member.endpoint, sends))
}
