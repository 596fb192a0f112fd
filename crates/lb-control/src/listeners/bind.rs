//! Sockets for the workers: bound anew, or dealt from those that the process was started with.

use std::net::SocketAddr;
use std::num::NonZeroUsize;

use anyhow::Context;
use lb_config::{Config, RuntimeSettings};
use lb_core::address::{Address, UnixPath};
use lb_core::identity::Transport;
use lb_io::listener::ListeningSocket;
use lb_io::sockopts::Buffers;

/// For each worker, its sockets: at each address one, or several where the process was started with more than it has workers.
pub(super) type PerWorker = Vec<Vec<ListeningSocket>>;

/// What sockets are bound with.
pub(super) struct New {
    pub(super) transport: Transport,
    /// Permissions of the file of a Unix socket.
    pub(super) mode: u32,
    pub(super) workers: usize,
    pub(super) buffers: Buffers,
}

/// Duplicates of the sockets at this address that the process was started with. With fewer sockets than workers, workers share one; with
/// more, a worker has several: the kernel queues connections at each of them.
pub(super) fn inherited(
    spare: &[ListeningSocket],
    (address, transport): (Address, Transport),
    workers: usize,
) -> Option<std::io::Result<PerWorker>> {
    let there: Vec<_> = spare.iter().filter(|socket| socket.is_at(&address, transport)).collect();
    if there.is_empty() {
        return None;
    }
    let of_worker = |worker: usize| {
        let own = there.iter().skip(worker).step_by(workers);
        let shared = there.iter().cycle().skip(worker).take(usize::from(worker >= there.len()));
        own.chain(shared).map(|socket| socket.try_clone()).collect()
    };
    Some((0..workers).map(of_worker).collect())
}

/// A new socket for each worker, or one that they share.
pub(super) fn bind_all(address: Address, new: &New) -> anyhow::Result<PerWorker> {
    let mut sockets = PerWorker::new();
    match address {
        Address::Ip(mut address) => {
            for _ in 0..new.workers {
                let socket = match new.transport {
                    Transport::Udp => lb_io::listener::bind_udp(address),
                    Transport::Tcp | Transport::Unix => lb_io::listener::bind(address, new.buffers),
                };
                let socket = socket
                    .map_err(|error| explained_at(error, &address.into()))
                    .with_context(|| format!("cannot bind {address}"))?;
                // Port 0 means any port, but the same one for every worker.
                address = socket.address().socket_addr().unwrap_or(address);
                sockets.push(vec![socket]);
            }
        }
        Address::Unix(path) => {
            let socket = lb_io::listener::bind_unix(&path, new.mode)
                .map_err(|error| explained_at(error, &path.into()))
                .with_context(|| format!("cannot bind {address}"))?;
            for _ in 1..new.workers {
                sockets.push(vec![socket.try_clone().context("cannot share a listening socket")?]);
            }
            sockets.push(vec![socket]);
        }
    }
    Ok(sockets)
}

/// Whether the address could be bound. Nothing listens there afterwards.
pub(super) fn try_bind(address: &Address, transport: Transport) -> anyhow::Result<()> {
    let cannot = || format!("cannot bind {address}");
    lb_io::listener::try_bind(address, transport)
        .map_err(|error| explained_at(error, address))
        .with_context(cannot)
}

fn explained_at(error: std::io::Error, address: &Address) -> anyhow::Error {
    match address {
        Address::Ip(address) => explained(error, *address),
        Address::Unix(path) => explained_unix(error, path),
    }
}

/// What the configuration says of the buffers of sockets.
pub(crate) fn buffers(config: &Config) -> Buffers {
    let RuntimeSettings { receive_buffer, send_buffer, .. } = &config.runtime;
    Buffers { receive: receive_buffer.map(NonZeroUsize::get), send: send_buffer.map(NonZeroUsize::get) }
}

/// With the remedy, where a port may not be bound because it is low.
pub(crate) fn explained(error: std::io::Error, address: SocketAddr) -> anyhow::Error {
    let is_low = address.port() != 0 && error.kind() == std::io::ErrorKind::PermissionDenied;
    let error = anyhow::Error::new(error);
    if !is_low {
        return error;
    }
    error.context(format!(
        "port {} needs the capability CAP_NET_BIND_SERVICE (AmbientCapabilities= of a systemd unit, cap_add of a container), or \
         net.ipv4.ip_unprivileged_port_start={0} or lower",
        address.port()
    ))
}

/// With the remedy, where the directory of a Unix socket is missing or not for this process.
fn explained_unix(error: std::io::Error, path: &UnixPath) -> anyhow::Error {
    let kind = error.kind();
    let error = anyhow::Error::new(error);
    if path.abstract_name().is_some() {
        return error;
    }
    match kind {
        std::io::ErrorKind::NotFound => error
            .context("its directory is not there (RuntimeDirectory= of a systemd unit makes one below /run)"),
        std::io::ErrorKind::PermissionDenied => {
            error.context("the user that the gateway runs as must be able to write to its directory")
        }
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_inherited_socket_has_a_worker_and_every_worker_a_socket() {
        let any = "127.0.0.1:0".parse().unwrap();
        for (count, workers) in [(1, 1), (1, 3), (2, 3), (3, 3), (3, 2), (5, 2), (4, 1)] {
            let mut spare = vec![lb_io::listener::bind(any, Buffers::default()).unwrap()];
            let address = spare[0].address();
            let bound = address.socket_addr().unwrap();
            spare.extend((1..count).map(|_| lb_io::listener::bind(bound, Buffers::default()).unwrap()));
            let dealt = inherited(&spare, (address, Transport::Tcp), workers).unwrap().unwrap();
            assert_eq!(dealt.len(), workers);
            let inodes = |sockets: &[ListeningSocket]| -> Vec<u64> {
                sockets.iter().map(|socket| rustix::fs::fstat(socket).unwrap().st_ino).collect()
            };
            let mut taken: Vec<u64> = dealt.iter().flat_map(|own| inodes(own)).collect();
            assert_eq!(taken.len(), count.max(workers), "{count} sockets, {workers} workers");
            assert!(dealt.iter().all(|own| !own.is_empty()), "{count} sockets, {workers} workers");
            let mut all = inodes(&spare);
            taken.sort_unstable();
            all.sort_unstable();
            taken.dedup();
            assert_eq!(taken, all);
            let other: SocketAddr = "127.0.0.1:1".parse().unwrap();
            assert!(inherited(&spare, (other.into(), Transport::Tcp), workers).is_none());
            assert!(inherited(&spare, (address, Transport::Udp), workers).is_none());
        }
    }
}
