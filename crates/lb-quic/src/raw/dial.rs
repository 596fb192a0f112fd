//! The connection to a backend that a client's is relayed to. It is made when the client's handshake is over: an address that is forged
//! completes none, and reaches no backend (attack Q-01).

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

use lb_l4::Connects;
use lb_observe::metrics::RelayEnd;
use lb_pool::WorkerMember;
use lb_security::{ClientTls, TlsFailure, failure_of};
use tokio::sync::oneshot;

use super::back::Back;
use super::end::{Close, REFUSED};
use super::front::{Front, FrontParts, State};
use super::session::finish;
use super::settings::RawSettings;
use crate::endpoint::Shared;
use crate::transport;

/// Makes a connection for this client; without one the client's ends. `key` is what hashing policies go by.
pub(super) async fn connect(shared: Shared<Front>, key: Option<u64>) {
    let (parts, settings, protocol) = {
        let connection = shared.borrow();
        let app = &connection.app;
        (Rc::clone(&app.parts), Rc::clone(&app.settings), connection.quic.application_proto().to_vec())
    };
    let connects = Connects { io: &parts.io, metrics: &parts.metrics, settings: &settings.tcp };
    let made = connects.connect(key, async |member| open(&parts, &settings, &protocol, member).await).await;
    match made {
        Some((back, stay)) => Front::join(&shared, &back, stay),
        None => {
            let connection = &mut *shared.borrow_mut();
            if matches!(connection.app.state, State::Dialling) {
                let close = Close::of_transport(REFUSED, "no backend can be reached");
                close.tell(&mut connection.quic);
                finish(&mut connection.app, RelayEnd::Unreachable, &close);
                connection.said();
            }
        }
    }
}

/// A connection to a member, with the client's protocol.
async fn open(
    parts: &FrontParts,
    settings: &RawSettings,
    protocol: &[u8],
    member: &WorkerMember<ClientTls>,
) -> io::Result<Shared<Back>> {
    let failed = || io::Error::from(io::ErrorKind::ConnectionRefused);
    let to: SocketAddr = member.address().socket_addr().ok_or(io::ErrorKind::Unsupported)?;
    let tls = member.tls.clone().ok_or_else(|| TlsFailure::Internal.because("a QUIC backend without TLS"))?;
    let config = transport::relayed(&tls, &settings.quic, &settings.raw, protocol);
    let config = config.map_err(|error| TlsFailure::Internal.because(error))?;
    let (sender, established) = oneshot::channel();
    let limit = Instant::now() + settings.tcp.connect_timeout.saturating_add(settings.tcp.handshake_timeout);
    let app = Back::new(&parts.io, std::sync::Arc::clone(&tls), protocol.to_vec(), sender, limit);
    let made = parts.dialer.0.dial(to, tls.server_name(), None, config, app)?;
    let connection = made.await.map_err(|_| failed())??;
    let outcome = established.await.unwrap_or_else(|_| Err(failed()));
    let counted = match &outcome {
        Ok(result) => Some(*result),
        Err(error) => failure_of(error).map(|failure| failure.result()),
    };
    parts.metrics.backend_tls_handshakes.of(counted.unwrap_or(lb_observe::metrics::TlsResult::Closed)).inc();
    if let Err(error) = &outcome {
        tls.tell(member.address(), error);
    }
    outcome.map(|_| connection)
}
