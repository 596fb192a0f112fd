//! One process for one configuration file and user, unless a second is asked for.
//!
//! Listening sockets are shared on purpose (`SO_REUSEPORT`), so a second process of the same file would silently take half of the
//! traffic. A socket in the abstract namespace stands for the file: the kernel removes it with the process, however that ends, and it is
//! as far-reaching as the ports are, since both belong to the network namespace. Anybody may bind such a name, so the kernel is asked
//! whose it is, and one that another user has is not believed.

use std::future::pending;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::bail;
use rustix::net::sockopt::socket_peercred;
use rustix::process::getuid;

/// How often the place is tried for that another process has.
const AGAIN: Duration = Duration::from_millis(200);

/// The place of the process that runs a file. It is free when this is dropped.
#[derive(Debug)]
pub struct Alone {
    /// Holds the place, or waits for it.
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Alone {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Alone {
    /// Takes the place as soon as the process that has it drains.
    pub fn claim_when_free(path: PathBuf) -> Self {
        let task = tokio::task::spawn_local(async move {
            loop {
                match Self::claim(&path) {
                    Ok(Some(_alone)) => pending().await,
                    Ok(None) => return,
                    Err(_) => tokio::time::sleep(AGAIN).await,
                }
            }
        });
        Self { task }
    }

    /// Takes the place of the process that runs the file at `path`. `None` where there is nothing to be told apart by, such as a pipe.
    ///
    /// # Errors
    /// When a process of this user has it.
    pub fn claim(path: &Path) -> anyhow::Result<Option<Self>> {
        let Ok(name) = name(path) else { return Ok(None) };
        let claimed = SocketAddr::from_abstract_name(name.as_bytes())
            .and_then(|address| UnixListener::bind_addr(&address).map_err(|error| holder(error, &address)));
        match claimed {
            Ok(listener) => Ok(answers(listener).ok()),
            Err(error) => match error.downcast::<Holder>() {
                Ok(Holder { pid }) => bail!(
                    "{}: process {pid} of the same user runs this file already, and both would share its ports — stop that one, or \
                     start this one with --allow-second",
                    path.display()
                ),
                Err(error) => {
                    tracing::debug!(%error, "whether the file is run already cannot be told");
                    Ok(None)
                }
            },
        }
    }
}

/// The process of this user that has the place.
#[derive(Debug)]
struct Holder {
    pid: i32,
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "process {}", self.pid)
    }
}

impl std::error::Error for Holder {}

/// Who has the name that could not be bound.
fn holder(error: io::Error, address: &SocketAddr) -> io::Error {
    if error.kind() != io::ErrorKind::AddrInUse {
        return error;
    }
    let peer = UnixStream::connect_addr(address).and_then(|stream| Ok(socket_peercred(&stream)?));
    match peer {
        Ok(peer) if peer.uid == getuid() => io::Error::other(Holder { pid: peer.pid.as_raw_nonzero().get() }),
        Ok(_) => io::Error::other("the name is another user's"),
        Err(error) => error,
    }
}

/// Takes those who ask and lets them go: the queue of those who wait has an end.
fn answers(listener: UnixListener) -> io::Result<Alone> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::UnixListener::from_std(listener)?;
    let task = tokio::task::spawn_local(async move {
        // Out of descriptors nobody can be answered, and the name is held all the same.
        while listener.accept().await.is_ok() {}
        std::future::pending::<()>().await;
    });
    Ok(Alone { task })
}

/// The same for every process that would read this very file: the path alone is not enough where containers share a network.
fn name(path: &Path) -> io::Result<String> {
    let path = std::fs::canonicalize(path)?;
    let device = path.parent().unwrap_or(&path).metadata()?.dev();
    if !path.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let hash = fnv(std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str()));
    Ok(format!("expressgateway/{}/{device:x}/{hash:016x}", getuid().as_raw()))
}

/// FNV-1a: the same in every version of the program, which a hash of the standard library need not be.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
