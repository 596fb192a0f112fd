//! TLS on both sides of the gateway: certificates, the bundles made of them, session tickets, and a stream; and what is let in at all
//! ([`admission`]).
//!
//! A listener needs a [`TlsConfigBundle`] for handshakes, built from files as a whole and never changed; a [`SharedTlsBundle`] is the place
//! where a newer one replaces it while handshakes run. A [`ClientTls`] is what a backend needs, and a [`Connector`] makes connections to
//! it. [`Stream`] is what protocols hold: a plain connection or a [`TlsStream`], with one set of methods.
//!
//! No error, log line or `Debug` output of this crate shows key material (attack T-10).

pub mod admission;
mod bundle;
mod certificate;
mod client;
mod client_auth;
mod connector;
mod error;
mod failure;
mod files;
pub mod fuzz;
mod hello;
mod inspect;
mod key_file;
mod names;
mod proxy_header;
mod proxy_protocol;
mod random;
mod retry;
mod sticky;
mod stream;
#[cfg(test)]
mod tests;
mod ticket;
mod transport;
mod trust;

pub use bundle::{
    Accepted, CertificateFacts, ClientRules, PolicyId, QuicIdentity, SharedTlsBundle, TlsConfigBundle,
};
pub use certificate::PeerCertificate;
pub use client::ClientTls;
pub use connector::{ConnectError, Connector};
pub use error::{CertFailure, TlsError};
pub use failure::{TlsFailure, failure_of};
pub use files::KeyAccess;
pub use hello::{ClientWish, MOST_HELLO_BYTES, WishReader};
pub use inspect::{Part, identity_faults, rules_fault};
pub use key_file::load_key;
pub use proxy_header::ProxyHeader;
pub use proxy_protocol::{Greeting, GreetingReader};
pub use random::masking_key;
pub use retry::RetrySecret;
pub use sticky::StickyKey;
pub use stream::TlsStream;
pub use ticket::{QuicTickets, TicketRotator, TicketSecrets};
pub use transport::Stream;
pub use trust::futility_of_authorities;

/// ALPN of `h1s` listeners, the best first.
pub const ALPN_HTTP: &[&[u8]] = &[b"h2", b"http/1.1"];
