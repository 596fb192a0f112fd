//! Connections over TCP, inside TLS where the member is reached so.

use std::rc::Rc;
use std::sync::Arc;

use lb_security::{Connector, Stream, TlsFailure};

use super::way::{Caller, Dialled, Dialling};

/// Connects to the caller's member. Inside TLS the member must choose the protocol `alpn`, where there is one.
pub(crate) fn dial(caller: &Caller<'_>, alpn: Option<&'static [u8]>) -> Dialling {
    let Caller { worker, settings, member, client, .. } = caller;
    let to = Connector {
        address: member.endpoint.key.address,
        timeout: settings.connect_timeout,
        tls: member.backend.tls.clone(),
        handshake_timeout: settings.handshake_timeout,
        resets: false,
        preface: member
            .backend
            .proxy_protocol
            .map(|sends| client.header(sends, &worker.io))
            .unwrap_or_default(),
    };
    let (io, metrics) = (Rc::clone(&worker.io), Arc::clone(&worker.metrics));
    Box::pin(async move {
        let count = |result| metrics.backend_tls_handshakes.of(result).inc();
        let stream = to.connect(&io, count).await?;
        if let Stream::Tls(stream) = &stream
            && let Some(alpn) = alpn
            && stream.alpn() != Some(alpn)
        {
            let error =
                TlsFailure::Incompatible.because("the backend does not choose the protocol it is to speak");
            to.tell(&error);
            return Err(error);
        }
        Ok(Dialled::Stream(stream))
    })
}
