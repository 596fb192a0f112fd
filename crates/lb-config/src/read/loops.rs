//! Listeners whose traffic comes back to them.

use std::collections::HashMap;
use std::net::IpAddr;

use lb_core::address::UnixPath;

use crate::config::{Listener, Protocol, SocketName};

/// Positions of the listeners whose backends lead back to them, directly or by way of other listeners, each with the backend that begins
/// the way. Names other than `localhost` and addresses of interfaces are not looked into: only the machine knows those.
pub(super) fn find(listeners: &[Listener]) -> Vec<(usize, &str)> {
    let mut by_place: HashMap<(Place, bool), Vec<usize>> = HashMap::new();
    for (at, listener) in listeners.iter().enumerate() {
        if listener.protocol != Protocol::Quic && listener.address.host_port().is_none_or(|own| own.port != 0)
        {
            by_place.entry((Place::of(&listener.address), is_udp(listener))).or_default().push(at);
        }
    }
    let ways: Vec<Vec<(usize, &str)>> = listeners
        .iter()
        .map(|listener| {
            let mut ways: Vec<(usize, &str)> = Vec::new();
            for backend in listener.pools().flat_map(|pool| &pool.backends) {
                let place = (Place::of(&backend.address), is_udp(listener));
                let there = by_place.get(&place).map_or(&[][..], Vec::as_slice);
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

/// Whether datagrams come in, and go on to backends.
fn is_udp(listener: &Listener) -> bool {
    listener.protocol == Protocol::Udp
}

/// What the addresses of a backend and of the listener that it reaches have in common.
#[derive(PartialEq, Eq, Hash)]
enum Place {
    Port(u16),
    Unix(UnixPath),
}

impl Place {
    fn of(address: &SocketName) -> Self {
        match address {
            SocketName::Host(address) => Self::Port(address.port),
            SocketName::Unix(path) => Self::Unix(*path),
        }
    }
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
fn reaches(backend: &SocketName, listener: &SocketName) -> bool {
    if backend == listener {
        return true;
    }
    let (Some(backend), Some(listener)) = (backend.host_port(), listener.host_port()) else { return false };
    let is_here = |ip: IpAddr| ip.is_loopback() || ip.is_unspecified();
    match (backend.ip().map(|ip| ip.to_canonical()), listener.ip()) {
        (Some(to), Some(at)) => at.is_unspecified() && is_here(to) && to.is_ipv4() == at.is_ipv4(),
        (None, Some(at)) => backend.host == "localhost" && is_here(at),
        (Some(to), None) => listener.host == "localhost" && is_here(to),
        (None, None) => false,
    }
}
