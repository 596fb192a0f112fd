//! Listeners whose traffic comes back to them.

use std::collections::HashMap;
use std::net::IpAddr;

use crate::config::{HostPort, Listener, Transport};

/// Positions of the listeners whose backends lead back to them, directly or by way of other listeners, each with the backend that begins
/// the way. Names other than `localhost` and addresses of interfaces are not looked into: only the machine knows those.
pub(super) fn find(listeners: &[Listener]) -> Vec<(usize, &str)> {
    let mut by_port: HashMap<u16, Vec<usize>> = HashMap::new();
    for (at, listener) in listeners.iter().enumerate() {
        if listener.transport() == Transport::Tcp && listener.address.port != 0 {
            by_port.entry(listener.address.port).or_default().push(at);
        }
    }
    let ways: Vec<Vec<(usize, &str)>> = listeners
        .iter()
        .map(|listener| {
            let mut ways: Vec<(usize, &str)> = Vec::new();
            for backend in &listener.pool.backends {
                let there = by_port.get(&backend.address.port).map_or(&[][..], Vec::as_slice);
                for to in there {
                    let leads = listeners.get(*to).is_some_and(|to| reaches(&backend.address, &to.address));
                    if leads && !ways.iter().any(|(known, _)| known == to) {
                        ways.push((*to, backend.name.as_str()));
                    }
                }
            }
            ways
        })
        .collect();
    (0..listeners.len()).filter_map(|at| Some((at, way_back(at, &ways)?))).collect()
}

/// The backend at which a way from the listener back to it begins.
fn way_back<'a>(from: usize, ways: &[Vec<(usize, &'a str)>]) -> Option<&'a str> {
    let leads_home = |first: usize| {
        let (mut seen, mut next) = (vec![false; ways.len()], vec![first]);
        while let Some(at) = next.pop() {
            if at == from {
                return true;
            }
            if let Some(seen) = seen.get_mut(at).filter(|seen| !**seen) {
                *seen = true;
                next.extend(ways.get(at).into_iter().flatten().map(|(to, _)| *to));
            }
        }
        false
    };
    ways.get(from)?.iter().find(|(to, _)| leads_home(*to)).map(|(_, backend)| *backend)
}

/// Whether a connection to `backend` on this machine reaches `listener`.
fn reaches(backend: &HostPort, listener: &HostPort) -> bool {
    if backend == listener {
        return true;
    }
    let is_here = |ip: IpAddr| ip.is_loopback() || ip.is_unspecified();
    match (backend.ip().map(|ip| ip.to_canonical()), listener.ip()) {
        (Some(to), Some(at)) => at.is_unspecified() && is_here(to) && to.is_ipv4() == at.is_ipv4(),
        (None, Some(at)) => backend.host == "localhost" && is_here(at),
        (Some(to), None) => listener.host == "localhost" && is_here(to),
        (None, None) => false,
    }
}
