//! All that a listener needs for handshakes, as one value.

use std::cell::RefCell;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use lb_config::{ClientAuth, ClientAuthMode, Listener, TlsCertificate, TlsFiles};
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};

use crate::certificate::{Identity, PeerCertificate, unix};
use crate::client_auth::Verifier;
use crate::error::TlsError;
use crate::files::KeyAccess;
use crate::names::Names;
use crate::ticket::{QuicTickets, TicketRotator};

/// One set of client-certificate rules within a bundle. Equal rules have equal ids, whatever certificate they belong to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PolicyId(usize);

/// What metrics say about a certificate.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CertificateFacts {
    /// The file.
    pub cert_path: PathBuf,
    /// Unix time at which the first certificate of the chain runs out.
    pub not_after: i64,
}

/// Certificates, names, client-certificate rules and ticket keys of one listener. Never changed: a handshake that began with a
/// bundle ends with it.
#[derive(Debug)]
pub struct TlsConfigBundle {
    /// One for each policy. Never empty.
    configs: Vec<Arc<ServerConfig>>,
    /// From server names to positions in `certificates`.
    names: Arc<Names>,
    /// For each certificate, its policy; the listener's own certificate comes first.
    policies: Vec<PolicyId>,
    certificates: Vec<CertificateFacts>,
    loaded_at: i64,
    /// Chains and private keys, in the order of `certificates`.
    identities: Vec<QuicIdentity>,
    /// One for each policy.
    rules: Vec<ClientRules>,
}

/// A certificate chain with its private key, for an implementation of TLS that is not rustls.
pub struct QuicIdentity {
    /// The chain in DER, leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// The key in DER.
    pub key: PrivateKeyDer<'static>,
}

/// Shows that there is a key, never which.
impl fmt::Debug for QuicIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuicIdentity").field("chain", &self.chain.len()).finish_non_exhaustive()
    }
}

/// How certificates of clients are judged, and what tickets are bound to.
#[derive(Clone, Debug)]
pub struct ClientRules {
    /// Whether clients are asked for a certificate, and must have one.
    pub mode: ClientAuthMode,
    /// The keys of tickets under these rules.
    pub tickets: QuicTickets,
    verifier: Arc<dyn ClientCertVerifier>,
}

impl ClientRules {
    /// Subjects of the authorities that a client's certificate may come from, in DER.
    pub fn hints(&self) -> impl Iterator<Item = &[u8]> {
        self.verifier.root_hint_subjects().iter().map(AsRef::as_ref)
    }

    /// Judges the chain that a client has shown, leaf first, at `now`.
    ///
    /// # Errors
    /// Why it is not accepted.
    pub fn check(&self, chain: &[CertificateDer<'_>], now: SystemTime) -> Result<PeerCertificate, String> {
        let (leaf, rest) = chain.split_first().ok_or("no certificate was shown")?;
        let since_epoch = now.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let checked = self.verifier.verify_client_cert(leaf, rest, UnixTime::since_unix_epoch(since_epoch));
        checked.map(|_| PeerCertificate::of(leaf)).map_err(|error| error.to_string())
    }
}

impl TlsConfigBundle {
    /// Reads every file that the listener names and checks what they hold against each other and `now`.
    ///
    /// `alpn` is the list of protocols that the listener offers inside TLS, the best first; empty = ALPN is not used.
    ///
    /// # Errors
    /// The first thing that is wrong, with its file.
    pub fn load(
        listener: &Listener,
        alpn: &[&[u8]],
        tls13_only: bool,
        access: KeyAccess,
        tickets: &Arc<TicketRotator>,
        now: SystemTime,
    ) -> Result<Arc<Self>, TlsError> {
        let Some(files) = &listener.tls else {
            return Err(TlsError::config(format!("listener {} has no certificate", listener.name)));
        };
        // Offers X25519MLKEM768 first.
        let provider = Arc::new(default_provider());
        let mut keys = Vec::new();
        let mut certificates = Vec::new();
        let mut names = Names::default();
        let mut rules = Vec::new();
        let mut identities = Vec::new();
        for (cert_path, key_path, wanted, client_auth) in sources(files) {
            let identity = Identity::load(cert_path, key_path, access, &provider, now)?;
            let own = if wanted.is_empty() { &identity.names } else { wanted };
            own.iter().for_each(|name| names.add(name, keys.len()));
            identities.push(QuicIdentity { chain: identity.key.cert.clone(), key: identity.private_key });
            keys.push(identity.key);
            let facts = CertificateFacts { cert_path: cert_path.clone(), not_after: identity.not_after };
            certificates.push(facts);
            rules.push(client_auth);
        }
        let names = Arc::new(names);
        let resolver = Arc::new(BySni { keys, names: Arc::clone(&names) });
        let mut verifiers: Vec<Verifier> = Vec::new();
        let mut policies = Vec::new();
        let mut client_rules = Vec::new();
        for rule in rules {
            let verifier = Verifier::load(rule, &provider)?;
            let known = verifiers.iter().position(|known| known.digest == verifier.digest);
            policies.push(PolicyId(known.unwrap_or(verifiers.len())));
            if known.is_none() {
                client_rules.push(ClientRules {
                    mode: rule.mode,
                    tickets: tickets.for_quic(&listener.name, &verifier.digest),
                    verifier: Arc::clone(&verifier.verifier),
                });
                verifiers.push(verifier);
            }
        }
        let configs = verifiers
            .into_iter()
            .map(|verifier| {
                let mut config = server_config(&provider, tls13_only, &verifier, Arc::clone(&resolver))?;
                config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
                config.ticketer = tickets.bound_to(&listener.name, &verifier.digest);
                Ok(Arc::new(config))
            })
            .collect::<Result<Vec<_>, TlsError>>()?;
        let (loaded_at, rules) = (unix(now), client_rules);
        Ok(Arc::new(Self { configs, names, policies, certificates, loaded_at, identities, rules }))
    }

    /// The rules for clients that ask for `server_name`; without a name, or with one that no certificate is for, the listener's
    /// own. A request whose Host has other rules than its connection's SNI is to be answered 421 (attack T-03).
    pub fn policy_of(&self, server_name: Option<&str>) -> PolicyId {
        self.policies.get(self.identity_of(server_name)).copied().unwrap_or(PolicyId(0))
    }

    /// Which of [`Self::identities`] is shown to clients that ask for `server_name`.
    pub fn identity_of(&self, server_name: Option<&str>) -> usize {
        server_name.and_then(|name| self.names.find(name)).unwrap_or(0)
    }

    /// Chains and keys, the listener's own first.
    pub fn identities(&self) -> &[QuicIdentity] {
        &self.identities
    }

    /// The client-certificate rules of a policy.
    pub fn rules(&self, policy: PolicyId) -> Option<&ClientRules> {
        self.rules.get(policy.0)
    }

    /// The certificates, the listener's own first.
    pub fn certificates(&self) -> &[CertificateFacts] {
        &self.certificates
    }

    /// Unix time at which the files were read.
    pub fn loaded_at(&self) -> i64 {
        self.loaded_at
    }

    /// The configuration for every client, when there is one for all. Otherwise the SNI must be known first.
    pub(crate) fn only_config(&self) -> Option<&Arc<ServerConfig>> {
        match self.configs.as_slice() {
            [only] => Some(only),
            _ => None,
        }
    }

    pub(crate) fn config_of(&self, policy: PolicyId) -> Option<&Arc<ServerConfig>> {
        self.configs.get(policy.0)
    }
}

/// The client-certificate rules that a connection was accepted under, and with them the hosts that it may ask for.
#[derive(Clone, Debug)]
pub struct Accepted {
    bundle: Arc<TlsConfigBundle>,
    policy: PolicyId,
}

impl Accepted {
    /// The rules for a client that has asked for `server_name`. `None` where they are the same for every name.
    pub fn under(bundle: &Arc<TlsConfigBundle>, server_name: Option<&str>) -> Option<Self> {
        let policy = bundle.policy_of(server_name);
        bundle.only_config().is_none().then(|| Self { bundle: Arc::clone(bundle), policy })
    }

    /// Whether requests for `authority` (a host, perhaps with a port; empty = none is named) may come over the connection: the
    /// rules of that host are those that the connection was accepted under. Otherwise the answer is 421 (attack T-03).
    pub fn serves(&self, authority: &[u8]) -> bool {
        let host = match authority.iter().rposition(|byte| matches!(byte, b':' | b']')) {
            Some(at) if authority.get(at) == Some(&b':') => authority.get(..at),
            _ => Some(authority),
        };
        // An address, or what is no name, has the rules of the listener's own certificate.
        let name = host.and_then(|host| std::str::from_utf8(host).ok());
        self.bundle.policy_of(name) == self.policy
    }
}

/// The place of a listener's bundle. A load is one atomic read; handshakes that run keep what they loaded.
#[derive(Clone, Debug)]
pub struct SharedTlsBundle {
    bundle: Arc<ArcSwap<TlsConfigBundle>>,
}

impl SharedTlsBundle {
    /// With its first bundle.
    pub fn new(bundle: Arc<TlsConfigBundle>) -> Self {
        Self { bundle: Arc::new(ArcSwap::new(bundle)) }
    }

    /// The bundle for a handshake that begins now.
    pub fn load(&self) -> Arc<TlsConfigBundle> {
        self.bundle.load_full()
    }

    /// Puts another in its place.
    pub fn store(&self, bundle: Arc<TlsConfigBundle>) {
        self.bundle.store(bundle);
    }
}

/// Every certificate of a listener: files, names that are written, client-certificate rules.
fn sources(files: &TlsFiles) -> impl Iterator<Item = (&PathBuf, &PathBuf, &[String], &ClientAuth)> {
    let own: &[String] = &[];
    std::iter::once((&files.cert_path, &files.key_path, own, &files.client_auth)).chain(
        files.certificates.iter().map(|certificate| {
            let TlsCertificate { cert_path, key_path, server_names, client_auth } = certificate;
            (cert_path, key_path, server_names.as_slice(), client_auth)
        }),
    )
}

fn server_config(
    provider: &Arc<CryptoProvider>,
    tls13_only: bool,
    verifier: &Verifier,
    resolver: Arc<BySni>,
) -> Result<ServerConfig, TlsError> {
    let versions: &[_] = if tls13_only {
        &[&rustls::version::TLS13]
    } else {
        &[&rustls::version::TLS13, &rustls::version::TLS12]
    };
    let mut config = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(versions)
        .map_err(TlsError::config)?
        .with_client_cert_verifier(Arc::clone(&verifier.verifier))
        .with_cert_resolver(resolver);
    // Sessions live in tickets alone: nothing is held for clients that are gone.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(config)
}

thread_local! {
    /// The server name of the ClientHello that was parsed last on this thread: rustls does not pass it on with the connection.
    static ASKED_FOR: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// The server name that a step of a handshake on this thread has met, if any.
pub(crate) fn take_server_name() -> Option<String> {
    ASKED_FOR.take()
}

#[derive(Debug)]
struct BySni {
    /// The listener's own first.
    keys: Vec<Arc<CertifiedKey>>,
    names: Arc<Names>,
}

impl ResolvesServerCert for BySni {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name();
        let at = name.and_then(|name| self.names.find(name)).unwrap_or(0);
        ASKED_FOR.set(name.map(str::to_owned));
        self.keys.get(at).cloned()
    }
}
