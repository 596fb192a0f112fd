//! Lets every client of this crate speak TLS: a port that takes plain connections and carries each inside TLS.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use rustls::ClientConnection;

use super::TlsClient;

/// A port of this machine behind which a TLS server answers in plain.
#[derive(Debug)]
pub struct Bridge {
    /// Where to connect.
    pub address: SocketAddr,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    established: AtomicUsize,
    resumed: AtomicUsize,
    failures: Mutex<Vec<String>>,
}

/// One connection: whoever has the right to write holds `writer`, so that records leave in the order in which they were made.
struct Carriage {
    tls: Mutex<ClientConnection>,
    writer: Mutex<TcpStream>,
}

impl Bridge {
    /// Carries connections to `to`, asking for the server `name`.
    pub fn start(client: TlsClient, to: SocketAddr, name: &str) -> Bridge {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State::default());
        let (shared, name) = (Arc::clone(&state), name.to_owned());
        std::thread::spawn(move || {
            for plain in listener.incoming().map_while(Result::ok) {
                let (client, state, name) = (client.clone(), Arc::clone(&shared), name.clone());
                std::thread::spawn(move || match client.connect(to, &name) {
                    Ok(connection) => {
                        state.established.fetch_add(1, Ordering::SeqCst);
                        let resumed = usize::from(connection.is_resumed());
                        state.resumed.fetch_add(resumed, Ordering::SeqCst);
                        connection.tcp.set_read_timeout(None).ok();
                        plain.set_nodelay(true).ok();
                        carry(plain, connection.tls, connection.tcp);
                    }
                    Err(error) => state.failures.lock().unwrap().push(error.to_string()),
                });
            }
        });
        Bridge { address, state }
    }

    /// Handshakes that came about.
    pub fn established(&self) -> usize {
        self.state.established.load(Ordering::SeqCst)
    }

    /// How many of them resumed a session.
    pub fn resumed(&self) -> usize {
        self.state.resumed.load(Ordering::SeqCst)
    }

    /// Why handshakes failed.
    pub fn failures(&self) -> Vec<String> {
        self.state.failures.lock().unwrap().clone()
    }
}

fn carry(mut plain: TcpStream, tls: ClientConnection, mut tcp: TcpStream) {
    let (Ok(reader), Ok(writer)) = (plain.try_clone(), tcp.try_clone()) else { return };
    let carriage = Arc::new(Carriage { tls: Mutex::new(tls), writer: Mutex::new(writer) });
    let sender = Arc::clone(&carriage);
    let upwards = std::thread::spawn(move || sender.send_all(reader));
    if carriage.receive_all(&mut tcp, &mut plain).is_err() {
        // A cut is passed on as a cut.
        socket2::SockRef::from(&plain).set_linger(Some(std::time::Duration::ZERO)).ok();
        plain.shutdown(Shutdown::Read).ok();
    } else {
        plain.shutdown(Shutdown::Write).ok();
        upwards.join().ok();
    }
    tcp.shutdown(Shutdown::Both).ok();
}

impl Carriage {
    /// Seals what `act` has the connection say, and sends it.
    fn send(&self, act: impl FnOnce(&mut ClientConnection)) -> std::io::Result<()> {
        let mut writer = self.writer.lock().unwrap();
        let mut records = Vec::new();
        {
            let mut tls = self.tls.lock().unwrap();
            act(&mut tls);
            while tls.wants_write() {
                tls.write_tls(&mut records)?;
            }
        }
        writer.write_all(&records)
    }

    fn send_all(&self, mut plain: TcpStream) {
        let mut buffer = vec![0; 16 * 1024];
        loop {
            match plain.read(&mut buffer) {
                Ok(0) => {
                    self.send(|tls| tls.send_close_notify()).ok();
                    self.writer.lock().unwrap().shutdown(Shutdown::Write).ok();
                    return;
                }
                Ok(n) => {
                    let all = |tls: &mut ClientConnection| tls.writer().write_all(&buffer[..n]).unwrap();
                    if self.send(all).is_err() {
                        return;
                    }
                }
                Err(_) => {
                    self.writer.lock().unwrap().shutdown(Shutdown::Both).ok();
                    return;
                }
            }
        }
    }

    /// Ends well with close_notify alone.
    fn receive_all(&self, tcp: &mut TcpStream, plain: &mut TcpStream) -> std::io::Result<()> {
        let mut buffer = vec![0; 32 * 1024];
        loop {
            let mut data = Vec::new();
            let (mut is_over, mut answers) = (false, false);
            let count = self.opened(&mut data, &mut is_over, &mut answers, &[])?;
            debug_assert_eq!(count, 0);
            if data.is_empty() && !is_over {
                let count = tcp.read(&mut buffer)?;
                if count == 0 {
                    return Err(std::io::ErrorKind::UnexpectedEof.into());
                }
                let mut rest = &buffer[..count];
                while !rest.is_empty() {
                    let taken = self.opened(&mut data, &mut is_over, &mut answers, rest)?;
                    rest = &rest[taken..];
                }
            }
            plain.write_all(&data)?;
            if answers {
                self.send(|_| {})?;
            }
            if is_over {
                return Ok(());
            }
        }
    }

    /// Takes some of `input` in and adds the data that it holds to `data`.
    fn opened(
        &self,
        data: &mut Vec<u8>,
        is_over: &mut bool,
        answers: &mut bool,
        input: &[u8],
    ) -> std::io::Result<usize> {
        let mut tls = self.tls.lock().unwrap();
        let mut rest = input;
        let count = if input.is_empty() { 0 } else { tls.read_tls(&mut rest)? };
        let state = tls.process_new_packets().map_err(std::io::Error::other)?;
        let from = data.len();
        data.resize(from + state.plaintext_bytes_to_read(), 0);
        tls.reader().read_exact(&mut data[from..])?;
        *is_over |= state.peer_has_closed();
        *answers |= tls.wants_write();
        Ok(count)
    }
}
