//! Both sides of a connection over the loopback interface.

mod bundles;
mod streams;

use std::future::{Future, poll_fn};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use lb_config::{BackendTls, Config, Listener};
use lb_io::{ByteStream, WorkerIo};
use testkit::certificates::Authority;

use crate::{ClientTls, KeyAccess, TicketRotator, TlsConfigBundle, TlsError, TlsStream};

/// A directory of files, and a listener that uses them.
struct Rig {
    directory: tempfile::TempDir,
    authority: Authority,
    tickets: Arc<TicketRotator>,
}

impl Rig {
    /// With `s.pem` and `s.key` for `server.test`, and `ca.pem`.
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let authority = Authority::new("test authority");
        authority.server(&["server.test"]).write(directory.path(), "s");
        std::fs::write(directory.path().join("ca.pem"), authority.pem()).unwrap();
        let hour = Duration::from_secs(3600);
        Self { directory, authority, tickets: TicketRotator::new(hour, hour, Duration::ZERO).unwrap() }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// `lines` stand in `[listeners.tls]`; `DIR/` in them is the directory.
    fn listener(&self, lines: &str) -> Listener {
        let text = format!(
            "[[listeners]]\naddress = \"0.0.0.0:443\"\nprotocol = \"tls\"\n[listeners.tls]\n\
             cert_path = \"DIR/s.pem\"\nkey_path = \"DIR/s.key\"\n{lines}\n\
             [[listeners.backends]]\naddress = \"10.0.0.1:80\"\n"
        );
        let text = text.replace("DIR", &self.path().display().to_string());
        Config::parse(&text, "lb.toml").unwrap().listeners.remove(0)
    }

    fn load(&self, lines: &str) -> Result<Arc<TlsConfigBundle>, TlsError> {
        let alpn: &[&[u8]] = &[b"h2", b"http/1.1"];
        TlsConfigBundle::load(
            &self.listener(lines),
            alpn,
            false,
            KeyAccess::Owner,
            &self.tickets,
            SystemTime::now(),
        )
    }

    fn client(&self, name: &str) -> Arc<ClientTls> {
        self.client_with(name, None)
    }

    /// A client that shows the certificate `files`.pem.
    fn client_with(&self, name: &str, files: Option<&str>) -> Arc<ClientTls> {
        let certificate = files.map(|files| lb_config::ClientCertificate {
            cert_path: self.file(&format!("{files}.pem")),
            key_path: self.file(&format!("{files}.key")),
        });
        let backend = BackendTls {
            ca_path: Some(self.file("ca.pem")),
            verify_hostname: name.to_owned(),
            verify_peer: true,
            client_certificate: certificate,
        };
        ClientTls::load(&backend, &[b"http/1.1"], KeyAccess::Owner, SystemTime::now()).unwrap()
    }
}

fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(20), test).await.expect("in time") })
}

fn worker() -> Rc<WorkerIo> {
    Rc::new(WorkerIo::new(0, 0))
}

/// Two ends of a connection.
async fn sockets() -> (ByteStream, ByteStream) {
    let listener = lb_io::listener::bind("127.0.0.1:0".parse().unwrap(), Default::default()).unwrap();
    let address = listener.address();
    let listener = lb_io::listener::WorkerListener::new(listener).unwrap();
    let (client, server) = tokio::join!(lb_io::connect(address, Duration::from_secs(5)), listener.accept());
    (client.unwrap(), server.unwrap().0)
}

/// A server's and a client's end after their handshakes, or their errors.
async fn handshake(
    bundle: &Arc<TlsConfigBundle>,
    tls: &ClientTls,
) -> (std::io::Result<TlsStream>, std::io::Result<TlsStream>) {
    let (client, server) = sockets().await;
    let server = TlsStream::server(server, worker(), Arc::clone(bundle)).unwrap();
    let client = TlsStream::client(client, worker(), tls).unwrap();
    let finish =
        |mut stream: TlsStream| async move { poll_fn(|cx| stream.poll_handshake(cx)).await.map(|()| stream) };
    tokio::join!(finish(server), finish(client))
}

async fn established(bundle: &Arc<TlsConfigBundle>, tls: &ClientTls) -> (TlsStream, TlsStream) {
    let (server, client) = handshake(bundle, tls).await;
    (server.unwrap(), client.unwrap())
}

async fn send(stream: &mut TlsStream, mut bytes: &[u8]) -> std::io::Result<()> {
    while !bytes.is_empty() {
        let n = poll_fn(|cx| stream.poll_send(cx, bytes)).await?;
        bytes = &bytes[n..];
    }
    poll_fn(|cx| stream.poll_flush(cx)).await
}

/// What arrives, up to `most` bytes at once.
async fn receive(stream: &mut TlsStream, most: usize) -> std::io::Result<Vec<u8>> {
    let mut buffer = vec![0; most];
    poll_fn(|cx| stream.poll_recv(cx, &mut buffer).map_ok(<[u8]>::to_vec)).await
}
