//! A gateway that serves HTTP/2 without TLS, a witness beside the attacker, and the verdicts that most attacks share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use testkit::h2::{H2Response, code};
use testkit::{Config, Exchange, Fault, Gateway, H2Client, Listener, Origin, Usage, Version, ms, seconds};

/// Kinds of abuse, as the ledger of architecture.md section 1 lists them.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    Reset,
    LocalReset,
    Continuation,
    Headers,
    EmptyData,
    Settings,
    Ping,
    Priority,
    Unknown,
    WindowUpdate,
    WindowStall,
}

impl Kind {
    /// Where it is counted: family, label and its value.
    fn series(self) -> (&'static str, &'static str, &'static str) {
        let abuse = |kind| ("http2_abuse_total", "kind", kind);
        let rejected = |reason| ("request_rejected_total", "reason", reason);
        match self {
            Kind::Reset => abuse("peer_reset"),
            Kind::LocalReset => abuse("local_reset"),
            Kind::Continuation => abuse("header_overflow"),
            Kind::Headers => rejected("header_too_large"),
            Kind::EmptyData => abuse("empty_data"),
            Kind::Settings => abuse("settings"),
            Kind::Ping => abuse("ping"),
            Kind::Priority => abuse("priority"),
            Kind::Unknown => abuse("unknown"),
            Kind::WindowUpdate => abuse("window_update"),
            Kind::WindowStall => rejected("write_timeout"),
        }
    }
}

pub(crate) const MIB: u64 = 1024 * 1024;

pub(crate) struct Rig {
    pub(crate) gateway: Gateway,
    pub(crate) origin: Origin,
}

impl Rig {
    /// A standard backend of that version.
    pub(crate) fn standard(back: Version) -> Rig {
        Rig::with(Origin::standard(back, "origin"), |listener| listener)
    }

    pub(crate) fn with(origin: Origin, listener: impl FnOnce(Listener) -> Listener) -> Rig {
        let block = listener(Listener::h2c());
        let block = match &origin {
            Origin::H1(backend) => block.backend(backend.address),
            Origin::H2(backend) => block.h2_backend(backend.address),
        };
        // The cap on requests of a connection is not what is tried here.
        let config = Config::new().runtime("max_keepalive_requests", 0).listener(block);
        Rig { gateway: Gateway::start(config), origin }
    }

    #[track_caller]
    pub(crate) fn client(&self) -> H2Client {
        H2Client::connect(self.gateway.front()).expect("HTTP/2 by prior knowledge")
    }

    /// Requests that arrived from anybody but the witness.
    pub(crate) fn arrived(&self) -> usize {
        self.origin.requests().iter().filter(|r| !r.path.starts_with(WITNESS)).count()
    }

    /// Begins to measure, with a well-behaved client at work.
    pub(crate) fn watch(&self) -> Watch {
        let mut warm = self.client();
        assert_eq!(warm.get(WITNESS).unwrap().status(), 200);
        let stop = Arc::new(AtomicBool::new(false));
        let served = Arc::new(AtomicUsize::new(0));
        let (halt, count) = (Arc::clone(&stop), Arc::clone(&served));
        let thread = std::thread::spawn(move || {
            let mut failures = Vec::new();
            while !halt.load(Ordering::Relaxed) {
                match warm.get(WITNESS) {
                    Ok(response) if response.status() == 200 => {
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok(response) => failures.push(format!("{} {}", response.status(), response.text())),
                    Err(fault) => {
                        failures.push(fault.to_string());
                        break;
                    }
                }
                std::thread::sleep(ms(10));
            }
            failures
        });
        Watch { usage: Usage::watch(&self.gateway), stop, served, thread }
    }

    /// Panics unless a metric counts that kind of abuse.
    #[track_caller]
    pub(crate) fn assert_counted(&self, kind: Kind) {
        let (family, label, value) = kind.series();
        self.gateway.wait_metric(family, &[(label, value)], |count| count > 0.0);
    }
}

/// The path of the well-behaved client; every scripted backend answers it.
const WITNESS: &str = "/witness";

/// A backend that answers the witness by itself and everything else by `script`.
pub(crate) fn scripted(
    version: Version,
    script: impl Fn(&mut dyn Exchange) -> Result<(), Fault> + Send + Sync + 'static,
) -> Origin {
    Origin::start(version, move |exchange| {
        if exchange.path().starts_with(WITNESS) {
            exchange.drain()?;
            return exchange.respond(200, &[], b"here");
        }
        script(exchange)
    })
}

/// How many requests are at work in a backend, and how many were at most.
#[derive(Default)]
pub(crate) struct AtWork {
    now: AtomicUsize,
    peak: AtomicUsize,
    total: AtomicUsize,
}

impl AtWork {
    pub(crate) fn now(&self) -> usize {
        self.now.load(Ordering::SeqCst)
    }

    pub(crate) fn peak(&self) -> usize {
        self.peak.load(Ordering::SeqCst)
    }

    pub(crate) fn total(&self) -> usize {
        self.total.load(Ordering::SeqCst)
    }
}

/// A backend that works on each request until it is abandoned, for a minute at most.
pub(crate) fn toiling(version: Version) -> (Origin, Arc<AtWork>) {
    let work = Arc::new(AtWork::default());
    let shared = Arc::clone(&work);
    let origin = scripted(version, move |exchange| {
        let now = shared.now.fetch_add(1, Ordering::SeqCst) + 1;
        shared.peak.fetch_max(now, Ordering::SeqCst);
        shared.total.fetch_add(1, Ordering::SeqCst);
        exchange.abandoned(seconds(60));
        shared.now.fetch_sub(1, Ordering::SeqCst);
        Err(Fault::Closed)
    });
    (origin, work)
}

/// A measurement that runs.
pub(crate) struct Watch {
    usage: Usage,
    stop: Arc<AtomicBool>,
    served: Arc<AtomicUsize>,
    thread: JoinHandle<Vec<String>>,
}

impl Watch {
    /// The witness got every answer, memory grew by less than `memory` bytes, and processor time is in proportion to the
    /// bytes that the attacker sent. The bound is generous: an unprotected peer is off by orders of magnitude.
    #[track_caller]
    pub(crate) fn verdict(self, rig: &Rig, attacker_bytes: u64, memory: u64) {
        let before = self.served.load(Ordering::Relaxed);
        testkit::eventually("the witness is served", seconds(5), || {
            self.served.load(Ordering::Relaxed) > before + 2
        });
        let spent = self.usage.so_far(&rig.gateway);
        self.stop.store(true, Ordering::Relaxed);
        let failures = self.thread.join().unwrap();
        assert!(failures.is_empty(), "the witness suffered: {:?}", &failures[..failures.len().min(5)]);
        assert!(
            spent.grown < memory,
            "memory grew by {} KiB for {} KiB sent, over {} KiB",
            spent.grown / 1024,
            attacker_bytes / 1024,
            memory / 1024
        );
        let allowed = seconds(2) + Duration::from_micros(attacker_bytes);
        assert!(
            spent.processor < allowed,
            "{:?} of processor time for {attacker_bytes} bytes",
            spent.processor
        );
        rig.origin.assert_clean();
    }
}

/// The attacker was told ENHANCE_YOUR_CALM, or lost the connection without words.
#[track_caller]
pub(crate) fn assert_calmed(case: &str, client: &mut H2Client) {
    assert_sent_away(case, client, &[code::ENHANCE_YOUR_CALM]);
}

/// The connection was ended, with one of these codes if with any.
#[track_caller]
pub(crate) fn assert_sent_away(case: &str, client: &mut H2Client, codes: &[u32]) {
    client.until("GOAWAY or the end", seconds(5), |c| !c.goaways.is_empty() || c.gone.is_some()).ok();
    assert!(!client.goaways.is_empty() || client.gone.is_some(), "{case}: the connection goes on");
    // A graceful GOAWAY may come first.
    let odd = client.goaways.iter().find(|g| g.code != code::NO_ERROR && !codes.contains(&g.code));
    assert!(odd.is_none(), "{case}: {odd:?}");
    client.closed(seconds(5)).unwrap_or_else(|e| panic!("{case}: after GOAWAY: {e}"));
}

/// The stream was reset with PROTOCOL_ERROR, with or without a 400 before it, and the connection goes on.
#[track_caller]
pub(crate) fn assert_stream_refused(case: &str, client: &mut H2Client, stream: u32) -> H2Response {
    let response = client.over(stream).unwrap_or_else(|e| panic!("{case}: {e}; {:?}", client.goaways));
    assert!([0, 400].contains(&response.status()), "{case}: answered with {}", response.status());
    assert_eq!(response.reset, Some(code::PROTOCOL_ERROR), "{case}: the stream's end");
    assert_eq!(client.goaways, [], "{case}: the whole connection suffers");
    response
}

/// The request was rejected: by a reset, or by an answer of these statuses.
#[track_caller]
pub(crate) fn assert_rejected(case: &str, client: &mut H2Client, stream: u32, statuses: &[u16]) {
    let response = client.over(stream).unwrap_or_else(|e| panic!("{case}: {e}; {:?}", client.goaways));
    let by_answer = statuses.contains(&response.status());
    let by_reset = response.status() == 0 && response.reset == Some(code::PROTOCOL_ERROR);
    assert!(by_answer || by_reset, "{case}: {} {:?}", response.status(), response.reset);
}
