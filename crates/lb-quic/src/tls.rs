//! TLS of QUIC listeners: BoringSSL with the certificates, client-certificate rules and ticket keys of a bundle.
//!
//! Certificates are parsed when a bundle comes, and shared by all connections under it.

use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use boring::error::ErrorStack;
use boring::ex_data::Index;
use boring::hash::MessageDigest;
use boring::hmac::HmacCtxRef;
use boring::ssl::{
    AlpnError, ClientHello, NameType, SelectCertError, Ssl, SslAlert, SslContextBuilder, SslMethod, SslRef,
    SslSessionCacheMode, SslVerifyError, SslVerifyMode, TicketKeyCallbackResult,
};
use boring::symm::{Cipher, CipherCtxRef};
use foreign_types::ForeignTypeRef;
use lb_config::ClientAuthMode;
use lb_security::{ClientRules, ClientTls, PolicyId, TicketSecrets, TlsConfigBundle};
use rustls_pki_types::CertificateDer;

use crate::connection::Lent;
use crate::identity::Identity;

/// quiche's connections, whose settings can be changed in the handshake.
type Connection = quiche::Connection<Lent>;

/// How often a size is tried that the path may not take.
const PROBES: u8 = 3;

/// Where a connection keeps the rules that its client is judged by.
fn policy_index() -> Result<Index<Ssl, PolicyId>, ErrorStack> {
    static INDEX: OnceLock<Index<Ssl, PolicyId>> = OnceLock::new();
    match INDEX.get() {
        Some(index) => Ok(*index),
        None => {
            let index = Ssl::new_ex_index()?;
            Ok(*INDEX.get_or_init(|| index))
        }
    }
}

/// A context for the connections of a listener under one bundle. `limits` are those that clients remember for their early data: where they
/// have changed since, early data are not accepted. `largest` is the size of the largest packet that is tried on the path to a client.
///
/// # Errors
/// When BoringSSL does not take a certificate or a key.
pub(crate) fn server(
    bundle: &Arc<TlsConfigBundle>,
    limits: Box<[u8]>,
    largest: usize,
) -> Result<SslContextBuilder, ErrorStack> {
    let mut context = SslContextBuilder::new(SslMethod::tls())?;
    let index = policy_index()?;
    let identities: Vec<Identity> = bundle
        .identities()
        .iter()
        .map(|identity| Identity::new(&identity.chain, identity.key.secret_der()))
        .collect::<Result<_, _>>()?;
    // Sessions live in tickets alone.
    context.set_session_cache_mode(SslSessionCacheMode::OFF);
    let own = Arc::clone(bundle);
    context.set_select_certificate_callback(move |mut hello: ClientHello<'_>| {
        let name = hello.servername(NameType::HOST_NAME);
        let (at, policy) = (own.identity_of(name), own.policy_of(name));
        let identity = identities.get(at).ok_or(SelectCertError::ERROR)?;
        let ssl = hello.ssl_mut();
        identity.show(ssl).map_err(|_| SelectCertError::ERROR)?;
        ssl.set_ex_data(index, policy);
        remember(ssl, &limits)?;
        forget_settings(ssl);
        // Before the handshake quiche tries no larger packets than are accepted here, which says nothing of the path.
        Connection::set_max_send_udp_payload_size_in_handshake(ssl, largest)
            .map_err(|_| SelectCertError::ERROR)?;
        Connection::set_discover_pmtu_in_handshake(ssl, true, PROBES).map_err(|_| SelectCertError::ERROR)?;
        if let Some(rules) = own.rules(policy) {
            ask_client(ssl, rules);
        }
        Ok(())
    });
    seal_tickets(&mut context, Arc::clone(bundle), index);
    Ok(context)
}

/// Has a connection take the first protocol that the client offers and that is `allowed`; any, where nothing is. A client that offers none
/// of them is refused (RFC 9001 §8.1).
pub(crate) fn choose_protocol(context: &mut SslContextBuilder, allowed: Vec<Vec<u8>>) {
    context.set_alpn_select_callback(move |_, offered| {
        let mut rest = offered;
        while let Some((length, after)) = rest.split_first() {
            let Some((name, after)) = after.split_at_checked(usize::from(*length)) else { break };
            rest = after;
            if !name.is_empty() && (allowed.is_empty() || allowed.iter().any(|allowed| allowed == name)) {
                return Ok(name);
            }
        }
        Err(AlpnError::ALERT_FATAL)
    });
}

/// A context for connections to a backend, whose certificate is judged as `tls` says.
///
/// # Errors
/// When BoringSSL does not make one.
pub(crate) fn client(tls: &Arc<ClientTls>) -> Result<SslContextBuilder, ErrorStack> {
    let mut context = SslContextBuilder::new(SslMethod::tls())?;
    let own = Arc::clone(tls);
    context.set_custom_verify_callback(SslVerifyMode::PEER, move |ssl| {
        // A client's list has the leaf in it.
        let chain = ssl.peer_cert_chain().into_iter().flatten().filter_map(|shown| shown.to_der().ok());
        let chain: Vec<_> = chain.map(CertificateDer::from).collect();
        own.check(&chain, SystemTime::now()).map_err(|reason| {
            tracing::debug!(reason, "certificate of a QUIC backend is not accepted");
            SslVerifyError::Invalid(SslAlert::BAD_CERTIFICATE)
        })
    });
    Ok(context)
}

/// Binds tickets that allow early data to the limits that the client is told with them: a client must not find that those it sends under
/// have been lowered (RFC 9000 §7.4.1).
#[expect(unsafe_code, reason = "boring has no call for it")]
fn remember(ssl: &mut SslRef, limits: &[u8]) -> Result<(), SelectCertError> {
    // SAFETY: the pointer is that of a live connection which nothing else uses meanwhile, and BoringSSL copies the bytes before it returns.
    // JUSTIFICATION: without it a client that comes back after a reload ends the connection instead of sending its request again.
    let taken =
        unsafe { boring_sys::SSL_set_quic_early_data_context(ssl.as_ptr(), limits.as_ptr(), limits.len()) };
    if taken == 1 { Ok(()) } else { Err(SelectCertError::ERROR) }
}

/// Has a connection free what only its handshake needs with the end of that.
#[expect(unsafe_code, reason = "boring has no call for it")]
fn forget_settings(ssl: &mut SslRef) {
    // SAFETY: the pointer is that of a live connection which nothing else uses meanwhile. Nothing here or in quiche changes settings of TLS after
    // the handshake, and BoringSSL looks whether they are there.
    // JUSTIFICATION: 1 KiB of each idle connection.
    unsafe { boring_sys::SSL_set_shed_handshake_config(ssl.as_ptr(), 1) };
}

/// Asks the client for a certificate, where the rules do.
fn ask_client(ssl: &mut SslRef, rules: &ClientRules) {
    let mode = match rules.mode {
        ClientAuthMode::Off => return,
        ClientAuthMode::Request => SslVerifyMode::PEER,
        ClientAuthMode::Require => SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT,
    };
    let names = rules.hints().filter_map(|der| boring::x509::X509Name::from_der(der).ok());
    if let Ok(mut list) = boring::stack::Stack::new() {
        names.for_each(|name| drop(list.push(name)));
        ssl.set_client_ca_list(list);
    }
    let rules = rules.clone();
    ssl.set_custom_verify_callback(mode, move |ssl| {
        let chain = chain_of(ssl);
        rules.check(&chain, SystemTime::now()).map(drop).map_err(|reason| {
            tracing::debug!(reason, "certificate of a QUIC client is not accepted");
            SslVerifyError::Invalid(SslAlert::BAD_CERTIFICATE)
        })
    });
}

/// The chain that a client has shown, leaf first.
fn chain_of(ssl: &SslRef) -> Vec<CertificateDer<'static>> {
    let leaf = ssl.peer_certificate();
    let leaf = leaf.iter().filter_map(|leaf| leaf.to_der().ok());
    // A server's list does not have the leaf in it.
    let rest =
        ssl.peer_cert_chain().into_iter().flatten().filter_map(|certificate| certificate.to_der().ok());
    leaf.chain(rest).map(CertificateDer::from).collect()
}

/// Seals tickets with keys that are bound to the listener and to the rules of the connection (attacks T-02, T-06).
#[expect(unsafe_code, reason = "the callback has to fill what BoringSSL hands it")]
fn seal_tickets(context: &mut SslContextBuilder, bundle: Arc<TlsConfigBundle>, index: Index<Ssl, PolicyId>) {
    let callback = move |ssl: &SslRef,
                         name: &mut [u8; 16],
                         iv: &mut [u8; 16],
                         cipher: &mut CipherCtxRef,
                         mac: &mut HmacCtxRef,
                         encrypt: bool| {
        let rules = ssl.ex_data(index).and_then(|policy| bundle.rules(*policy));
        let Some(rules) = rules else { return TicketKeyCallbackResult::Noop };
        let found = if encrypt { rules.tickets.newest() } else { rules.tickets.find(name) };
        let Some(secrets) = found else { return TicketKeyCallbackResult::Noop };
        match prepare(&secrets, (name, iv), cipher, mac, encrypt) {
            Ok(()) if secrets.is_newest => TicketKeyCallbackResult::Success,
            Ok(()) => TicketKeyCallbackResult::DecryptSuccessRenew,
            Err(_) => TicketKeyCallbackResult::Error,
        }
    };
    // SAFETY: on success for a new ticket the callback has written the name of the key and a random IV, and has put cipher and MAC under the
    // keys of that name; for an old one it has put them under the keys of the name that stands in it.
    // JUSTIFICATION: tickets of QUIC are sealed under the keys of the listener's rotation, as those of TLS over TCP are.
    unsafe { context.set_ticket_key_callback(callback) };
}

fn prepare(
    secrets: &TicketSecrets,
    (name, iv): (&mut [u8; 16], &mut [u8; 16]),
    cipher: &mut CipherCtxRef,
    mac: &mut HmacCtxRef,
    encrypt: bool,
) -> Result<(), ErrorStack> {
    let aes = Cipher::aes_256_cbc();
    mac.init(&secrets.mac, &MessageDigest::sha256())?;
    if encrypt {
        *name = secrets.name;
        boring::rand::rand_bytes(iv)?;
        cipher.init_encrypt(&aes, &secrets.cipher, iv)
    } else {
        cipher.init_decrypt(&aes, &secrets.cipher, iv)
    }
}
