//! Session tickets: keys that change, and what each ticket is bound to.
//!
//! A ticket is a session sealed with AES-256-GCM under the newest key: `key name (16) ‖ nonce (12) ‖ ciphertext ‖ tag (16)`.
//! The associated data are the listener's name and a digest of the client-certificate rules, so that a ticket opens nowhere
//! else (attack T-02); rustls itself refuses one that was made for another server name. Nonces are random, which allows 2^32
//! tickets under one key.
//!
//! Keys live in the process and are turned by [`TicketRotator::tick`], or come from a file of 80 or 48 random bytes each,
//! newest first: a name of 16 bytes, and a secret from which the key is derived (HKDF-SHA-256). Instances that read the
//! same file open each other's tickets.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Prk, Salt};
use rustls::server::ProducesTickets;

use crate::error::{CertFailure, TlsError};
use crate::files::{self, KeyAccess};

/// Keys that are kept, however short the interval and long the overlap: the oldest go first.
const MAX_KEYS: usize = 32;

/// The longest lifetime that a ticket may be given (RFC 8446 §4.6.1).
const LONGEST_LIFETIME: Duration = Duration::from_secs(7 * 86_400);

const NAME_LENGTH: usize = 16;

/// Lengths of a key in a file; where both divide the file's length, the first is meant.
const FILE_KEY_LENGTHS: [usize; 2] = [80, 48];

/// The ticket keys of one listener. They outlive every bundle, so that a new certificate ends no session.
pub struct TicketRotator {
    ring: ArcSwap<Ring>,
    interval: Duration,
    overlap: Duration,
}

/// Keys, newest first.
struct Ring {
    keys: Vec<Slot>,
    /// Whether they come from a file, and change only with it.
    from_file: bool,
}

#[derive(Clone)]
struct Slot {
    key: Arc<TicketKey>,
    made_at: Duration,
}

struct TicketKey {
    name: [u8; NAME_LENGTH],
    aead: RandomizedNonceKey,
    /// Keys for tickets of QUIC are derived from it.
    root: Prk,
}

/// Keys for tickets of a TLS library that seals tickets by AES-256-CBC and HMAC-SHA-256 (RFC 5077 §4).
pub struct TicketSecrets {
    /// Stands in the ticket.
    pub name: [u8; 16],
    /// The key of the cipher.
    pub cipher: [u8; 32],
    /// The key of the MAC.
    pub mac: [u8; 32],
    /// Whether it is the newest key. A ticket under another one is to be replaced.
    pub is_newest: bool,
}

impl TicketRotator {
    /// Keys of this process. `now` is any clock that only goes forward, the same in every call.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn new(interval: Duration, overlap: Duration, now: Duration) -> Result<Arc<Self>, TlsError> {
        let ring = Ring { keys: vec![Slot { key: fresh()?, made_at: now }], from_file: false };
        Ok(Arc::new(Self { ring: ArcSwap::from_pointee(ring), interval, overlap }))
    }

    /// Keys of a file. Clients are given interval and overlap as the lifetime of their tickets all the same.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn from_file(
        path: &Path,
        access: KeyAccess,
        interval: Duration,
        overlap: Duration,
    ) -> Result<Arc<Self>, TlsError> {
        let ring = Ring { keys: read(path, access)?, from_file: true };
        Ok(Arc::new(Self { ring: ArcSwap::from_pointee(ring), interval, overlap }))
    }

    /// Reads the file again. Returns whether the newest key is another one now. A file that cannot be read changes nothing.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn reread(&self, path: &Path, access: KeyAccess) -> Result<bool, TlsError> {
        let keys = read(path, access)?;
        let newest = |keys: &[Slot]| keys.first().map(|slot| slot.key.name);
        let is_new = newest(&keys) != newest(&self.ring.load().keys);
        self.ring.store(Arc::new(Ring { keys, from_file: true }));
        Ok(is_new)
    }

    /// Does what is due at `now`: a new key once the newest is `interval` old; an old one goes `overlap` after its successor came. Returns
    /// whether there is a new key. Without randomness the keys stay, and it is tried again next time.
    pub fn tick(&self, now: Duration) -> bool {
        let ring = self.ring.load();
        if ring.from_file {
            return false;
        }
        let age = |slot: &Slot| now.saturating_sub(slot.made_at);
        let is_due = ring.keys.first().is_none_or(|newest| age(newest) >= self.interval);
        let mut keys = Vec::new();
        if is_due && let Ok(key) = fresh() {
            keys.push(Slot { key, made_at: now });
        }
        let rotated = !keys.is_empty();
        for slot in &ring.keys {
            let is_over = keys.last().is_some_and(|next: &Slot| age(next) > self.overlap);
            if !is_over && keys.len() < MAX_KEYS {
                keys.push(slot.clone());
            }
        }
        if rotated || keys.len() != ring.keys.len() {
            self.ring.store(Arc::new(Ring { keys, from_file: false }));
        }
        rotated
    }

    /// When [`Self::tick`] has something to do next, by its clock. `None` for keys of a file.
    pub fn due(&self) -> Option<Duration> {
        let ring = self.ring.load();
        if ring.from_file {
            return None;
        }
        let next_key =
            ring.keys.first().map_or(Duration::ZERO, |newest| newest.made_at.saturating_add(self.interval));
        let successors = ring.keys.iter().take(ring.keys.len().saturating_sub(1));
        // An old one goes when its time is over, not when it ends.
        let ends = successors
            .map(|next| next.made_at.saturating_add(self.overlap).saturating_add(Duration::from_millis(1)));
        ends.chain([next_key]).min()
    }

    /// The producer of tickets for one listener and one set of client-certificate rules.
    pub(crate) fn bound_to(self: &Arc<Self>, listener: &str, rules: &[u8; 32]) -> Arc<dyn ProducesTickets> {
        Arc::new(BoundTickets { rotator: Arc::clone(self), binding: binding(listener, rules) })
    }

    /// The keys of tickets for one QUIC listener and one set of client-certificate rules.
    pub(crate) fn for_quic(self: &Arc<Self>, listener: &str, rules: &[u8; 32]) -> QuicTickets {
        let newest = Arc::new(ArcSwapOption::empty());
        QuicTickets { rotator: Arc::clone(self), binding: binding(listener, rules), newest }
    }
}

/// Ticket keys for one listener and one set of client-certificate rules, for a TLS library that is not rustls. A ticket opens under no other.
#[derive(Clone)]
pub struct QuicTickets {
    rotator: Arc<TicketRotator>,
    binding: Vec<u8>,
    /// Those of the newest key, once they were derived.
    newest: Arc<ArcSwapOption<Derived>>,
}

struct Derived {
    of: Arc<TicketKey>,
    secrets: Arc<TicketSecrets>,
}

/// Shows that there are keys, never which.
impl fmt::Debug for QuicTickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuicTickets").field("rotator", &self.rotator).finish_non_exhaustive()
    }
}

impl QuicTickets {
    /// The keys for a new ticket.
    pub fn newest(&self) -> Option<Arc<TicketSecrets>> {
        let ring = self.rotator.ring.load();
        let key = &ring.keys.first()?.key;
        if let Some(known) = self.newest.load().as_ref().filter(|known| Arc::ptr_eq(&known.of, key)) {
            return Some(Arc::clone(&known.secrets));
        }
        let secrets = self.derived(key, true)?;
        let derived = Derived { of: Arc::clone(key), secrets: Arc::clone(&secrets) };
        self.newest.store(Some(Arc::new(derived)));
        Some(secrets)
    }

    /// The keys of a ticket that has this name in it.
    pub fn find(&self, name: &[u8]) -> Option<Arc<TicketSecrets>> {
        let ring = self.rotator.ring.load();
        match ring.keys.iter().position(|slot| slot.key.name == name)? {
            0 => self.newest(),
            at => self.derived(&ring.keys.get(at)?.key, false),
        }
    }

    fn derived(&self, key: &TicketKey, is_newest: bool) -> Option<Arc<TicketSecrets>> {
        let part = |what: &[u8]| expand(&key.root, &[what, &self.binding]);
        let (cipher, mac) = (part(b"cipher")?, part(b"mac")?);
        Some(Arc::new(TicketSecrets { name: key.name, cipher, mac, is_newest }))
    }
}

/// Shows that there are keys, never which.
impl fmt::Debug for TicketRotator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TicketRotator")
            .field("keys", &self.ring.load().keys.len())
            .field("interval", &self.interval)
            .field("overlap", &self.overlap)
            .finish()
    }
}

#[derive(Debug)]
struct BoundTickets {
    rotator: Arc<TicketRotator>,
    binding: Vec<u8>,
}

impl ProducesTickets for BoundTickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        let lifetime = self.rotator.interval.saturating_add(self.rotator.overlap).min(LONGEST_LIFETIME);
        u32::try_from(lifetime.as_secs()).unwrap_or(u32::MAX)
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let ring = self.rotator.ring.load();
        let key = &ring.keys.first()?.key;
        let mut sealed = plain.to_vec();
        let nonce = key.aead.seal_in_place_append_tag(Aad::from(&self.binding), &mut sealed).ok()?;
        let mut ticket =
            Vec::with_capacity(NAME_LENGTH.saturating_add(NONCE_LEN).saturating_add(sealed.len()));
        ticket.extend_from_slice(&key.name);
        ticket.extend_from_slice(nonce.as_ref());
        ticket.append(&mut sealed);
        Some(ticket)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_at_checked(NAME_LENGTH)?;
        let (nonce, sealed) = rest.split_at_checked(NONCE_LEN)?;
        let ring = self.rotator.ring.load();
        let key = &ring.keys.iter().find(|slot| slot.key.name == name)?.key;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut sealed = sealed.to_vec();
        let length = key.aead.open_in_place(nonce, Aad::from(&self.binding), &mut sealed).ok()?.len();
        sealed.truncate(length);
        Some(sealed)
    }
}

/// What tickets of a listener are bound to.
fn binding(listener: &str, rules: &[u8; 32]) -> Vec<u8> {
    [b"expressgateway ticket 1", rules.as_slice(), listener.as_bytes()].concat()
}

fn expand(root: &Prk, info: &[&[u8]]) -> Option<[u8; 32]> {
    struct KeyLength;
    impl KeyType for KeyLength {
        fn len(&self) -> usize {
            32
        }
    }
    let mut key = [0; 32];
    root.expand(info, KeyLength).ok()?.fill(&mut key).ok()?;
    Some(key)
}

fn fresh() -> Result<Arc<TicketKey>, TlsError> {
    let mut bytes = [0; 80];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| TlsError::config("the system has no randomness"))?;
    derive(&bytes).ok_or_else(|| TlsError::config("no ticket key can be made"))
}

fn read(path: &Path, access: KeyAccess) -> Result<Vec<Slot>, TlsError> {
    let bytes = files::ticket_keys(path, access)?;
    let wrong = || {
        let problem = format!("has {} bytes: keys have 80 bytes each, or 48 each", bytes.len());
        TlsError::of(CertFailure::TicketKeys, path, problem)
    };
    let length =
        FILE_KEY_LENGTHS.into_iter().find(|length| bytes.len().is_multiple_of(*length)).ok_or_else(wrong)?;
    let keys: Option<Vec<_>> = bytes.chunks_exact(length).take(MAX_KEYS).map(derive).collect();
    let keys: Vec<_> =
        keys.ok_or_else(wrong)?.into_iter().map(|key| Slot { key, made_at: Duration::ZERO }).collect();
    if keys.is_empty() { Err(wrong()) } else { Ok(keys) }
}

/// A name, and a key derived from the rest.
fn derive(bytes: &[u8]) -> Option<Arc<TicketKey>> {
    let (name, secret) = bytes.split_first_chunk::<NAME_LENGTH>()?;
    let root = Salt::new(HKDF_SHA256, name).extract(secret);
    let aead =
        RandomizedNonceKey::new(&AES_256_GCM, &expand(&root, &[b"expressgateway ticket key"])?).ok()?;
    Some(Arc::new(TicketKey { name: *name, aead, root }))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const RULES: [u8; 32] = [7; 32];

    fn rotator() -> Arc<TicketRotator> {
        TicketRotator::new(HOUR, HOUR / 2, Duration::ZERO).unwrap()
    }

    #[test]
    fn t_02_a_ticket_opens_only_at_its_listener_and_under_its_rules() {
        let rotator = rotator();
        let tickets = rotator.bound_to("0.0.0.0:443", &RULES);
        let ticket = tickets.encrypt(b"session").unwrap();
        assert_eq!(tickets.decrypt(&ticket).as_deref(), Some(&b"session"[..]));
        assert_eq!(rotator.bound_to("0.0.0.0:444", &RULES).decrypt(&ticket), None);
        assert_eq!(rotator.bound_to("0.0.0.0:443", &[8; 32]).decrypt(&ticket), None);
    }

    #[test]
    fn t_02_keys_for_quic_are_bound_as_tickets_are() {
        let rotator = rotator();
        let tickets = rotator.for_quic("0.0.0.0:443/udp", &RULES);
        let newest = tickets.newest().unwrap();
        let found = tickets.find(&newest.name).unwrap();
        assert!(found.is_newest && found.cipher == newest.cipher && found.mac == newest.mac);
        assert_ne!(newest.cipher, newest.mac);
        for other in
            [rotator.for_quic("0.0.0.0:444/udp", &RULES), rotator.for_quic("0.0.0.0:443/udp", &[8; 32])]
        {
            let other = other.find(&newest.name).unwrap();
            assert!(other.cipher != newest.cipher && other.mac != newest.mac);
        }
        assert!(rotator.tick(HOUR));
        assert!(!tickets.find(&newest.name).unwrap().is_newest);
        assert!(tickets.newest().unwrap().name != newest.name && tickets.find(&[0; 16]).is_none());
    }

    #[test]
    fn a_key_is_replaced_after_the_interval_and_forgotten_after_the_overlap() {
        let rotator = rotator();
        let tickets = rotator.bound_to("l", &RULES);
        let first = tickets.encrypt(b"1").unwrap();
        assert!(!rotator.tick(HOUR - Duration::from_secs(1)));
        assert_eq!(rotator.due(), Some(HOUR));
        assert!(rotator.tick(HOUR));
        let end = HOUR + HOUR / 2 + Duration::from_millis(1);
        assert_eq!(rotator.due(), Some(end), "the first key goes");
        let second = tickets.encrypt(b"2").unwrap();
        assert_ne!(first[..16], second[..16]);
        assert!(!rotator.tick(HOUR + HOUR / 2));
        assert!(tickets.decrypt(&first).is_some(), "within the overlap");
        assert!(!rotator.tick(end));
        assert!(tickets.decrypt(&first).is_none(), "after the overlap");
        assert_eq!(rotator.due(), Some(2 * HOUR));
        assert!(tickets.decrypt(&second).is_some());
    }

    #[test]
    fn a_short_interval_with_a_long_overlap_keeps_a_bounded_number_of_keys() {
        let rotator = TicketRotator::new(Duration::from_secs(1), HOUR, Duration::ZERO).unwrap();
        (1..200).for_each(|second| assert!(rotator.tick(Duration::from_secs(second))));
        assert_eq!(rotator.ring.load().keys.len(), MAX_KEYS);
    }

    #[test]
    fn changed_tickets_and_garbage_do_not_open() {
        let tickets = rotator().bound_to("l", &RULES);
        let ticket = tickets.encrypt(b"session").unwrap();
        for at in 0..ticket.len() {
            let mut changed = ticket.clone();
            changed[at] ^= 1;
            assert_eq!(tickets.decrypt(&changed), None, "byte {at}");
            assert_eq!(tickets.decrypt(&ticket[..at]), None, "cut at {at}");
        }
    }

    #[test]
    fn instances_with_one_file_open_each_others_tickets_and_a_new_key_comes_first() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path();
        let (old, new): (Vec<u8>, Vec<u8>) = ((0..80).collect(), (100..180).collect());
        std::fs::write(path, &old).unwrap();
        let one = TicketRotator::from_file(path, KeyAccess::Owner, HOUR, HOUR).unwrap();
        let other = TicketRotator::from_file(path, KeyAccess::Owner, HOUR, HOUR).unwrap();
        let ticket = one.bound_to("l", &RULES).encrypt(b"s").unwrap();
        assert!(other.bound_to("l", &RULES).decrypt(&ticket).is_some());
        assert!(!one.tick(HOUR * 100), "keys of a file do not turn by themselves");
        assert_eq!(one.due(), None);
        std::fs::write(path, [new, old].concat()).unwrap();
        assert!(other.reread(path, KeyAccess::Owner).unwrap());
        assert!(other.bound_to("l", &RULES).decrypt(&ticket).is_some());
        assert_eq!(other.bound_to("l", &RULES).encrypt(b"s").unwrap()[0], 100);
        std::fs::write(path, [0; 79]).unwrap();
        assert_eq!(other.reread(path, KeyAccess::Owner).unwrap_err().reason, CertFailure::TicketKeys);
        assert!(other.bound_to("l", &RULES).decrypt(&ticket).is_some(), "what ran stays");
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert_eq!(other.reread(path, KeyAccess::Owner).unwrap_err().reason, CertFailure::Permissions);
    }
}
