//! Logs of single connections in the qlog format (draft-ietf-quic-qlog-main-schema), one file each, for those who look into what went wrong on a
//! path.
//!
//! Workers never wait for a disk: what a connection logs is handed over, through a bounded channel, to a thread that writes. A log that the
//! thread cannot keep up with, or that gets too long, ends early, and says so by its name.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Weak};

/// Connections that are logged at a time, at most.
const MOST_AT_ONCE: usize = 64;

/// Bytes of one log, at most.
const LONGEST: usize = 16 << 20;

/// Bytes that a connection gathers before it hands them over.
const PIECE: usize = 16 << 10;

/// Messages that may wait for the thread.
const WAITING: usize = 512;

/// What a log is called by the thread.
type Number = u64;

enum Message {
    Begin(Number, String),
    Bytes(Number, Vec<u8>),
    End(Number, bool),
}

/// Chooses the connections that are logged, and writes their logs into a directory. All workers share it.
#[derive(Clone, Debug)]
pub struct Qlogs {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// One of so many connections is logged.
    one_in: u64,
    seen: AtomicU64,
    open: Arc<AtomicUsize>,
    to: SyncSender<Message>,
}

impl Qlogs {
    /// Logs one of `one_in` connections into `directory`, which is made when it is not there.
    ///
    /// # Errors
    /// When nothing can be written there, or there is no thread.
    pub fn open(directory: &Path, one_in: u64) -> io::Result<Self> {
        std::fs::create_dir_all(directory)?;
        // Found out now, not by the first connection.
        tempfile_in(directory)?;
        let (to, from) = sync_channel(WAITING);
        let writer = Writer { directory: directory.to_owned(), logs: HashMap::new() };
        std::thread::Builder::new().name("qlog".into()).spawn(move || writer.run(&from))?;
        let shared = Shared { one_in: one_in.max(1), seen: AtomicU64::new(0), open: Arc::default(), to };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Has a new connection logged, if it is its turn.
    pub(crate) fn choose<F: quiche::BufFactory>(&self, quic: &mut quiche::Connection<F>) {
        let number = self.shared.seen.fetch_add(1, Ordering::Relaxed);
        if !number.is_multiple_of(self.shared.one_in) {
            return;
        }
        if self.shared.open.fetch_add(1, Ordering::Relaxed) >= MOST_AT_ONCE {
            self.shared.open.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        let open = Arc::downgrade(&self.shared.open);
        let log = Log {
            number,
            to: self.shared.to.clone(),
            open,
            gathered: Vec::new(),
            left: LONGEST,
            is_cut: false,
        };
        // Trace identifiers are connection IDs in hexadecimal digits, and of no use as a way out of the directory.
        let name: String = quic.trace_id().chars().filter(char::is_ascii_alphanumeric).collect();
        if self.shared.to.try_send(Message::Begin(number, name)).is_ok() {
            quic.set_qlog(Box::new(log), "ExpressGateway".to_owned(), String::new());
        }
    }
}

/// Whether a file can be made in a directory.
fn tempfile_in(directory: &Path) -> io::Result<()> {
    let path = directory.join(format!(".qlog-{}", std::process::id()));
    File::create(&path)?;
    std::fs::remove_file(path)
}

/// The log of one connection.
struct Log {
    number: Number,
    to: SyncSender<Message>,
    open: Weak<AtomicUsize>,
    gathered: Vec<u8>,
    /// Bytes that it may still have.
    left: usize,
    is_cut: bool,
}

impl Log {
    fn hand_over(&mut self) {
        let bytes = std::mem::take(&mut self.gathered);
        if !bytes.is_empty() && self.to.try_send(Message::Bytes(self.number, bytes)).is_err() {
            self.is_cut = true;
        }
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // quiche has no use for an error: what cannot be kept is left out.
        if !self.is_cut {
            match self.left.checked_sub(bytes.len()) {
                Some(left) => {
                    self.left = left;
                    self.gathered.extend_from_slice(bytes);
                }
                None => self.is_cut = true,
            }
            if self.is_cut || self.gathered.len() >= PIECE {
                self.hand_over();
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.hand_over();
        // Where the thread is behind, it learns of the end when all connections that were logged have gone.
        let _ = self.to.try_send(Message::End(self.number, self.is_cut));
        if let Some(open) = self.open.upgrade() {
            open.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// The thread that writes.
struct Writer {
    directory: PathBuf,
    logs: HashMap<Number, (File, PathBuf)>,
}

impl Writer {
    fn run(mut self, from: &Receiver<Message>) {
        while let Ok(message) = from.recv() {
            match message {
                Message::Begin(number, name) => self.begin(number, &name),
                Message::Bytes(number, bytes) => {
                    let Some((file, path)) = self.logs.get_mut(&number) else { continue };
                    if let Err(error) = file.write_all(&bytes) {
                        tracing::warn!(path = %path.display(), %error, "qlog cannot be written");
                        self.end(number, true);
                    }
                }
                Message::End(number, is_cut) => self.end(number, is_cut),
            }
        }
    }

    fn begin(&mut self, number: Number, name: &str) {
        if self.logs.len() >= 2 * MOST_AT_ONCE {
            // Their ends were lost.
            self.logs.clear();
        }
        let path = self.directory.join(format!("{name}.sqlog"));
        match File::create(&path) {
            Ok(file) => drop(self.logs.insert(number, (file, path))),
            Err(error) => tracing::warn!(path = %path.display(), %error, "qlog cannot be written"),
        }
    }

    fn end(&mut self, number: Number, is_cut: bool) {
        let Some((file, path)) = self.logs.remove(&number) else { return };
        drop(file);
        if is_cut {
            let _ = std::fs::rename(&path, path.with_extension("cut.sqlog"));
        }
    }
}
