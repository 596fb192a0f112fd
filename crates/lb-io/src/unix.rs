//! Unix sockets: the files of those that listen, and connections to them.
//!
//! A listening socket is bound under a temporary name beside its own, gets its mode, begins to listen, and is then renamed: clients meet
//! either what was there before or a socket that accepts, and never one with the wrong mode. What was there before may be replaced only
//! where nothing accepts from it any more.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::process::parent_id;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lb_core::address::{MAX_UNIX_PATH, UnixPath};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::sockopts::BACKLOG;

/// The first and the longest wait for room in the queue of a listening socket.
const FIRST_WAIT: Duration = Duration::from_millis(1);
const LONGEST_WAIT: Duration = Duration::from_millis(16);

/// The waits for a socket that its process may have left behind just now: the kernel keeps one that io_uring accepts from a little longer
/// than the process.
const DYING: [Duration; 6] = [
    Duration::from_millis(10),
    Duration::from_millis(20),
    Duration::from_millis(40),
    Duration::from_millis(80),
    Duration::from_millis(160),
    Duration::from_millis(320),
];

/// The address as the kernel takes it: a name in the abstract namespace begins with a zero there.
fn sockaddr(path: &UnixPath) -> io::Result<SockAddr> {
    match path.abstract_name() {
        Some(name) => SockAddr::unix(OsStr::from_bytes(&[b"\0", name].concat())),
        None => SockAddr::unix(OsStr::from_bytes(path.as_bytes())),
    }
}

/// The path of a socket's address, if it is a Unix socket that has one.
pub(crate) fn path_of(address: &SockAddr) -> Option<UnixPath> {
    if let Some(name) = address.as_abstract_namespace() {
        return UnixPath::new([b"@", name].concat()).ok();
    }
    UnixPath::new(address.as_pathname()?.as_os_str().as_bytes()).ok()
}

fn stream_socket() -> io::Result<Socket> {
    Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)
}

/// Connects to the socket at `path`. While the queue of its listener is full, it is tried again; the caller bounds the time.
///
/// # Errors
/// Those of connect(2).
pub(crate) async fn connect(path: &UnixPath) -> io::Result<OwnedFd> {
    let address = sockaddr(path)?;
    let mut wait = FIRST_WAIT;
    loop {
        let socket = stream_socket()?;
        match socket.connect(&address) {
            Ok(()) => return Ok(socket.into()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                tokio::time::sleep(wait).await;
                wait = wait.saturating_mul(2).min(LONGEST_WAIT);
            }
            Err(error) => return Err(error),
        }
    }
}

/// Binds a listening socket at `path`. Its file, if it has one, gets the permissions of `mode`, and is removed with the guard.
///
/// # Errors
/// When something accepts connections at `path` already, when a file stands there that is no socket, and those of bind(2) and rename(2).
pub(crate) fn bind(path: &UnixPath, mode: u32) -> io::Result<(OwnedFd, Option<SocketFile>)> {
    let socket = stream_socket()?;
    let Some(file) = path.file() else {
        bind_name(&socket, &sockaddr(path)?)?;
        socket.listen(BACKLOG)?;
        return Ok((socket.into(), None));
    };
    look_for_another(path, file)?;
    let temporary = Temporary::beside(file)?;
    socket.bind(&SockAddr::unix(temporary.bound_as())?)?;
    std::fs::set_permissions(&temporary.path, PermissionsExt::from_mode(mode))?;
    socket.listen(BACKLOG)?;
    let metadata = std::fs::symlink_metadata(&temporary.path)?;
    std::fs::rename(&temporary.path, file)?;
    let guard = SocketFile {
        path: *path,
        device: metadata.dev(),
        inode: metadata.ino(),
        giver: None,
        is_kept: AtomicBool::new(false),
    };
    Ok((socket.into(), Some(guard)))
}

/// Tries whether [`bind`] could have a path. Nothing listens meanwhile, and what stands at the path stays.
///
/// # Errors
/// Those of [`bind`].
pub(crate) fn try_bind(path: &UnixPath) -> io::Result<()> {
    let socket = stream_socket()?;
    let Some(file) = path.file() else { return bind_name(&socket, &sockaddr(path)?) };
    look_for_another(path, file)?;
    let temporary = Temporary::beside(file)?;
    socket.bind(&SockAddr::unix(temporary.bound_as())?)
}

/// Binds a name in the abstract namespace.
fn bind_name(socket: &Socket, address: &SockAddr) -> io::Result<()> {
    for wait in DYING {
        match socket.bind(address) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => std::thread::sleep(wait),
            result => return result,
        }
    }
    socket.bind(address)
}

/// Makes sure that nothing of value is at `path`: nothing at all, or a socket that no process accepts from.
fn look_for_another(path: &UnixPath, file: &Path) -> io::Result<()> {
    let kind = match std::fs::symlink_metadata(file) {
        Ok(metadata) => metadata.file_type(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !kind.is_socket() {
        let what = "a file that is no socket stands there, and is not removed";
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, what));
    }
    let address = sockaddr(path)?;
    let mut found = stream_socket()?.connect(&address);
    for wait in DYING {
        if found.is_err() {
            break;
        }
        std::thread::sleep(wait);
        found = stream_socket()?.connect(&address);
    }
    match found {
        // Left behind by a process that has ended.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            "a socket is there that this user may not connect to: another process may accept connections from it",
        )),
        // A full queue is that of a process too, and so is a socket of another type.
        _ => Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            "another process has this socket, and accepts connections there",
        )),
    }
}

/// The name that a socket is bound under before it is renamed. When this is dropped no file is left of it.
struct Temporary {
    path: PathBuf,
    /// Keeps the directory open while the socket is bound through it.
    directory: Option<std::fs::File>,
}

impl Temporary {
    fn beside(file: &Path) -> io::Result<Self> {
        let mut name = file.as_os_str().to_owned();
        name.push(format!(".{}.tmp", std::process::id()));
        let temporary = if name.len() <= MAX_UNIX_PATH {
            Self { path: name.into(), directory: None }
        } else {
            // The name that bind(2) takes has a limit that names of files do not have: it is reached through the open directory.
            let directory = file.parent().unwrap_or(Path::new("/"));
            let name = format!(".eg-{}.tmp", std::process::id());
            Self { path: directory.join(name), directory: Some(std::fs::File::open(directory)?) }
        };
        // Another process with this number may have been killed in the middle of a bind.
        match std::fs::symlink_metadata(&temporary.path) {
            Ok(metadata) if metadata.file_type().is_socket() => std::fs::remove_file(&temporary.path)?,
            _ => {}
        }
        Ok(temporary)
    }

    /// The path that bind(2) is given.
    fn bound_as(&self) -> PathBuf {
        match (&self.directory, self.path.file_name()) {
            (Some(directory), Some(name)) => {
                Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name)
            }
            _ => self.path.clone(),
        }
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // After the rename there is none.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// The file of a listening Unix socket that this process has made, or taken over from the process that made it. When this is dropped the
/// file is removed, if it is still that one.
#[derive(Debug)]
pub struct SocketFile {
    path: UnixPath,
    device: u64,
    inode: u64,
    /// The process that has given it to this one. As long as that one is there it may go on without this one.
    giver: Option<u32>,
    /// Another process has taken it over.
    is_kept: AtomicBool,
}

impl SocketFile {
    /// The file of a socket that the process which started this one has handed over.
    pub(crate) fn handed_over(path: UnixPath, device: u64, inode: u64) -> Self {
        Self { path, device, inode, giver: Some(parent_id()), is_kept: AtomicBool::new(false) }
    }

    /// What identifies the file: its device and its number there.
    pub(crate) fn identity(&self) -> (u64, u64) {
        (self.device, self.inode)
    }

    /// Leaves the file to another process.
    pub fn keep(&self) {
        self.is_kept.store(true, Ordering::Relaxed);
    }

    /// Gives the file other permissions, if it is still this one.
    ///
    /// # Errors
    /// Those of chmod(2).
    pub fn set_mode(&self, mode: u32) -> io::Result<()> {
        match self.file() {
            Some(file) => std::fs::set_permissions(file, PermissionsExt::from_mode(mode)),
            None => Ok(()),
        }
    }

    /// Where the file is, unless another one is there by now.
    fn file(&self) -> Option<&Path> {
        let file = self.path.file()?;
        let there = std::fs::symlink_metadata(file).ok()?;
        ((there.dev(), there.ino()) == self.identity()).then_some(file)
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let is_kept = self.is_kept.load(Ordering::Relaxed) || self.giver == Some(parent_id());
        if let Some(file) = self.file().filter(|_| !is_kept)
            && let Err(error) = std::fs::remove_file(file)
        {
            tracing::warn!(%error, path = %self.path, "the file of a Unix socket cannot be removed");
        }
    }
}
