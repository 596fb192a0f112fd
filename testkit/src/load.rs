//! Steady keep-alive traffic in the background, with every failure counted and a few kept to be shown.

use crate::client::Client;
use crate::wire::Fault;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// What happened so far.
#[derive(Debug, Default)]
pub struct Tally {
    /// Requests answered with 200.
    pub served: AtomicU64,
    /// Requests that a reused connection swallowed by ending before any byte of the answer; repeated on a new one, as any
    /// client does with a GET.
    pub repeated: AtomicU64,
    /// Connections refused, or ended before the first answer on them.
    pub refused: AtomicU64,
    /// Requests that failed in any other way.
    pub failed: AtomicU64,
    /// Responses that announced the end of the connection.
    pub closing: AtomicU64,
    /// The first failures.
    pub failures: Mutex<Vec<String>>,
    /// Requests answered, by the backend that `X-Backend` names.
    pub by_backend: Mutex<std::collections::BTreeMap<String, u64>>,
}

impl Tally {
    fn fail(&self, why: String) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        let mut failures = self.failures.lock().unwrap();
        if failures.len() < 10 {
            failures.push(why);
        }
    }

    /// Requests answered by one backend.
    pub fn served_by(&self, backend: &str) -> u64 {
        self.by_backend.lock().unwrap().get(backend).copied().unwrap_or(0)
    }
}

/// Clients at work until stopped.
pub struct Load {
    /// What happened so far.
    pub tally: Arc<Tally>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    /// `clients` connections, each sending a GET for `target`, waiting for the answer, pausing, and again.
    pub fn start(to: SocketAddr, clients: usize, target: &str, pause: Duration) -> Load {
        let tally = Arc::new(Tally::default());
        let stop = Arc::new(AtomicBool::new(false));
        let threads = (0..clients)
            .map(|_| {
                let (tally, stop, target) = (Arc::clone(&tally), Arc::clone(&stop), target.to_owned());
                std::thread::spawn(move || client(to, &target, pause, &tally, &stop))
            })
            .collect();
        Load { tally, stop, threads }
    }

    /// Stops, and waits for the requests that are under way.
    pub fn stop(mut self) -> Arc<Tally> {
        self.halt();
        Arc::clone(&self.tally)
    }

    /// Requests answered so far.
    pub fn served(&self) -> u64 {
        self.tally.served.load(Ordering::Relaxed)
    }

    fn halt(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().ok();
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.halt();
    }
}

fn client(to: SocketAddr, target: &str, pause: Duration, tally: &Tally, stop: &AtomicBool) {
    let mut connection: Option<Client> = None;
    while !stop.load(Ordering::Relaxed) {
        let reused = connection.is_some();
        let mut client = match connection.take() {
            Some(client) => client,
            None => match Client::connect(to) {
                Ok(client) => client,
                Err(_) => {
                    tally.refused.fetch_add(1, Ordering::Relaxed);
                    std::thread::sleep(Duration::from_millis(5));
                    continue;
                }
            },
        };
        match client.get(target) {
            Ok(response) if response.status == 200 => {
                tally.served.fetch_add(1, Ordering::Relaxed);
                if let Some(backend) = response.header("x-backend") {
                    *tally.by_backend.lock().unwrap().entry(backend).or_default() += 1;
                }
                if response.closes() {
                    tally.closing.fetch_add(1, Ordering::Relaxed);
                } else {
                    connection = Some(client);
                }
            }
            Ok(response) => tally.fail(format!("{} {:?}", response.status, response.text())),
            Err(Fault::Closed | Fault::Reset) if reused => {
                tally.repeated.fetch_add(1, Ordering::Relaxed);
            }
            Err(Fault::Closed | Fault::Reset) => {
                tally.refused.fetch_add(1, Ordering::Relaxed);
            }
            Err(fault) => tally.fail(fault.to_string()),
        }
        if !pause.is_zero() {
            std::thread::sleep(pause);
        }
    }
}
