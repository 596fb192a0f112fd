//! What a connection passes before TLS and before anything is served: the header of the PROXY protocol, and the access list of a listener
//! that does not speak HTTP.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lb_config::Listener;
use lb_core::address::ClientAddress;
use lb_core::filter::{AccessList, AccessVerdict};
use lb_core::log_limit::LogLimit;
use lb_core::proxy_protocol::ProxyTrust;
use lb_core::reason::Reason;
use lb_io::{ByteStream, ConnectionGuard};
use lb_observe::metrics::{AcceptReject, Label, ProxyHeaderResult};
use lb_security::admission::Network;
use lb_security::{Greeting, GreetingReader};

use super::{Acceptor, until};

/// Lines about connections that were closed here: so many at once, and how often another one.
const BURST: u32 = 3;
const INTERVAL: Duration = Duration::from_secs(10);

static REFUSED: LogLimit = LogLimit::new(BURST, INTERVAL);
static LET_IN: LogLimit = LogLimit::new(BURST, INTERVAL);
static KEPT_OUT: LogLimit = LogLimit::new(BURST, INTERVAL);

/// What holds for connections of a listener that has rules for them.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Which peers send a header.
    proxy_protocol: Option<Arc<ProxyTrust>>,
    /// How long a header may take.
    timeout: Duration,
    /// Which clients are let in, where they are not let in request by request.
    pub(super) access: Vec<Arc<AccessList>>,
}

impl Entry {
    /// The rules of a listener, if it has any.
    pub(crate) fn of(listener: &Listener) -> Option<Self> {
        let proxy_protocol = listener.proxy_protocol.clone();
        let access = listener.access.clone();
        let has_any = proxy_protocol.is_some() || !access.is_empty();
        has_any.then_some(Self { proxy_protocol, timeout: listener.http.header_timeout, access })
    }

    /// Whether connections may begin with a header.
    pub(super) fn takes_headers(&self) -> bool {
        self.proxy_protocol.is_some()
    }

    fn is_required(&self) -> bool {
        self.proxy_protocol.as_ref().is_some_and(|trust| trust.is_required)
    }

    /// Whether the address of a connection is not that of its client, or not yet known to be.
    pub(super) fn is_proxy(&self, peer: ClientAddress) -> bool {
        self.proxy_protocol.as_ref().is_some_and(|trust| trust.trusts(peer))
    }

    /// Whether a connection of `peer` is closed before a byte of it is read.
    pub(super) fn turns_away(&self, peer: ClientAddress) -> bool {
        self.is_required() && !self.is_proxy(peer)
    }
}

impl Acceptor {
    /// The client of a connection and what it has connected to, as a trusted proxy tells it at the beginning; none where the connection is to be closed. The time runs from
    /// the accept.
    pub(super) async fn client_behind(
        &self,
        stream: &mut ByteStream,
        proxy: ClientAddress,
        entry: &Entry,
        guard: &ConnectionGuard,
    ) -> Option<(ClientAddress, Option<SocketAddr>)> {
        let mut reader = GreetingReader::default();
        let mut greeting = Err(ProxyHeaderResult::Closed);
        let reading = until(guard, |cx| {
            reader.poll(cx, stream, &self.io).map(|read| {
                greeting = read;
                Ok(())
            })
        });
        let in_time = tokio::time::timeout(entry.timeout, reading).await;
        let result = match (in_time, greeting) {
            (Err(_), _) => Err(ProxyHeaderResult::Timeout),
            (Ok(_), Ok(Greeting::Absent)) if entry.is_required() => Err(ProxyHeaderResult::Missing),
            (Ok(_), greeting) => greeting,
        };
        match result {
            Ok(greeting) => {
                self.count_header(greeting.result());
                match greeting {
                    Greeting::Client { from, to, .. } => Some((from.into(), Some(to))),
                    Greeting::Itself | Greeting::Absent => Some((proxy, None)),
                }
            }
            Err(result) => {
                self.refuse_header(result, proxy);
                None
            }
        }
    }

    /// A connection is closed, for want of a header that can be believed.
    pub(super) fn refuse_header(&self, result: ProxyHeaderResult, peer: ClientAddress) {
        self.count_header(result);
        // Probes that connect and leave are no news.
        if result == ProxyHeaderResult::Closed {
            return;
        }
        let Some(unsaid) = REFUSED.admit(Instant::now()) else { return };
        let (listener, network) = (&self.admissions.name, Network::of(peer));
        tracing::warn!(listener, %network, reason = result.name(), unsaid, "connection closed: no usable header of the PROXY protocol");
    }

    /// Whether these lists let a client in, none of which asks for certificates. It is counted and told where one does not.
    pub(super) fn lets_in(&self, client: ClientAddress, lists: &[Arc<AccessList>]) -> bool {
        if lists.is_empty() {
            return true;
        }
        let verdict = AccessVerdict::of(lists, client, false);
        let dry = verdict.dry_addresses.saturating_add(verdict.dry_certificates);
        if dry > 0 {
            let counters = &self.admissions.metrics.worker(self.io.id).filter_dry_runs;
            counters.of(Reason::Access).add(dry.into());
            if let Some(unsaid) = LET_IN.admit(Instant::now()) {
                let (listener, network) = (&self.admissions.name, Network::of(client));
                tracing::warn!(listener, %network, unsaid, "dry run: an access list would have closed a connection");
            }
        }
        if !verdict.lets_in() {
            self.refuse_client(client);
        }
        verdict.lets_in()
    }

    /// A connection is closed whose client is not let in.
    fn refuse_client(&self, client: ClientAddress) {
        self.admissions.worker_metrics.accept_rejects.of(AcceptReject::Access).inc();
        let Some(unsaid) = KEPT_OUT.admit(Instant::now()) else { return };
        let (listener, network) = (&self.admissions.name, Network::of(client));
        tracing::warn!(listener, %network, unsaid, "connection closed: an access list does not let its client in");
    }

    fn count_header(&self, result: ProxyHeaderResult) {
        self.admissions.metrics.worker(self.io.id).proxy_headers.of(result).inc();
    }
}
