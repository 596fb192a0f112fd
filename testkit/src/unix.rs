//! Lets every client and backend of this crate meet the gateway at a Unix socket: bytes are carried between a TCP port and the socket.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The address of `path`, which begins with `/`, or with `@` in the abstract namespace.
fn address(path: &str) -> UnixAddr {
    match path.strip_prefix('@') {
        Some(name) => UnixAddr::from_abstract_name(name),
        None => UnixAddr::from_pathname(path),
    }
    .unwrap()
}

/// Connects to the socket at `path`.
pub fn connect(path: &str) -> std::io::Result<UnixStream> {
    UnixStream::connect_addr(&address(path))
}

/// Binds a listening socket at `path`.
pub fn listen(path: &str) -> std::io::Result<UnixListener> {
    UnixListener::bind_addr(&address(path))
}

/// A TCP port whose connections lead to a Unix socket, one each.
#[derive(Debug)]
pub struct Port {
    /// Where to connect.
    pub address: SocketAddr,
}

impl Port {
    /// A port that leads to the socket at `path`. A connection ends at once where that cannot be reached.
    pub fn to(path: &str) -> Port {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let path = path.to_owned();
        std::thread::spawn(move || {
            for tcp in listener.incoming().map_while(Result::ok) {
                if let Ok(unix) = connect(&path) {
                    carry(tcp, unix);
                }
            }
        });
        Port { address }
    }
}

/// A Unix socket whose connections lead to a TCP port, one each. Its file stays when this is dropped, as that of a server does which is
/// killed.
#[derive(Debug)]
pub struct Socket {
    /// What a configuration calls it.
    pub name: String,
    listener: Arc<UnixListener>,
    accepted: Arc<AtomicUsize>,
}

impl Socket {
    /// Listens at `path`.
    pub fn at(path: &str, to: SocketAddr) -> Socket {
        let listener = Arc::new(listen(path).unwrap());
        let accepted = Arc::new(AtomicUsize::new(0));
        let (accepting, count) = (Arc::clone(&listener), Arc::clone(&accepted));
        std::thread::spawn(move || {
            while let Ok((unix, _)) = accepting.accept() {
                count.fetch_add(1, Ordering::SeqCst);
                if let Ok(tcp) = TcpStream::connect(to) {
                    carry(tcp, unix);
                }
            }
        });
        Socket { name: format!("unix:{path}"), listener, accepted }
    }

    /// How many connections were accepted.
    pub fn connections(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // Wakes the accepting thread, which then lets go of the socket.
        socket2::SockRef::from(&*self.listener).shutdown(Shutdown::Both).ok();
    }
}

/// Carries bytes both ways until both ends have ended; an error on either side ends both.
fn carry(tcp: TcpStream, unix: UnixStream) {
    tcp.set_nodelay(true).ok();
    let (Ok(tcp_reader), Ok(unix_reader)) = (tcp.try_clone(), unix.try_clone()) else { return };
    let (tcp, unix) = (Arc::new(tcp), Arc::new(unix));
    for is_up in [true, false] {
        let (tcp, unix) = (Arc::clone(&tcp), Arc::clone(&unix));
        let (Ok(tcp_reader), Ok(unix_reader)) = (tcp_reader.try_clone(), unix_reader.try_clone()) else {
            return;
        };
        std::thread::spawn(move || {
            let copied = match is_up {
                true => copy(tcp_reader, &*unix),
                false => copy(unix_reader, &*tcp),
            };
            let how = match (&copied, is_up) {
                (Ok(()), true) => return drop(unix.shutdown(Shutdown::Write)),
                (Ok(()), false) => return drop(tcp.shutdown(Shutdown::Write)),
                (Err(_), _) => Shutdown::Both,
            };
            // A cut is passed on as a cut.
            socket2::SockRef::from(&*tcp).set_linger(Some(std::time::Duration::ZERO)).ok();
            tcp.shutdown(how).ok();
            unix.shutdown(how).ok();
        });
    }
}

fn copy(mut from: impl Read, mut to: impl Write) -> std::io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(()),
            count => to.write_all(&buffer[..count])?,
        }
    }
}
