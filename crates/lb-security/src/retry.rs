//! The secret behind QUIC's address validation: Retry tokens (RFC 9000 §8.1.2), and keys that are derived from it.
//!
//! A token is `nonce (12) ‖ ciphertext ‖ tag (16)` by AES-256-GCM. Sealed are the time of its making in seconds since the Unix epoch (8), the
//! client's address (16, that of IPv4 as IPv6 has it) and port (2), and the connection ID that the client has chosen first; the associated data
//! are the connection ID of the Retry packet. So a token is good for one client, for one Retry, and for a short time, on every instance that
//! reads the same secret, before and after a restart (attack Q-12).

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Prk, Salt};

use crate::error::{CertFailure, TlsError};
use crate::files::{self, KeyAccess};

/// Bytes of a secret in a file.
const SECRET_BYTES: usize = 32;

/// How long a token is good for: a round trip and what a busy client adds.
const LIFETIME: Duration = Duration::from_secs(10);

/// How far ahead the clock of another instance may be.
const SKEW: Duration = Duration::from_secs(5);

/// Bytes of a connection ID at most (RFC 9000 §17.2).
const MAX_CONNECTION_ID: usize = 20;

/// A secret that instances may share.
pub struct RetrySecret {
    root: Prk,
    tokens: RandomizedNonceKey,
}

/// Shows that there is one, never which.
impl fmt::Debug for RetrySecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RetrySecret")
    }
}

impl RetrySecret {
    /// The secret in a file of 32 bytes that only the users which `access` allows may read (attack T-07). A file that does not exist is made,
    /// with mode 0600, and the directories above it.
    ///
    /// # Errors
    /// When the file cannot be read or made, may be read by other users, or has another length.
    pub fn load_or_make(path: &Path, access: KeyAccess) -> Result<Self, TlsError> {
        let problem = |what: String| TlsError::of(CertFailure::KeyParse, path, what);
        if !path.try_exists().unwrap_or(true) {
            make(path).map_err(|error| problem(format!("cannot be made: {error}")))?;
        }
        let bytes = files::secret(path, access)?;
        if bytes.len() != SECRET_BYTES {
            return Err(problem(format!("has {} bytes: a secret has {SECRET_BYTES}", bytes.len())));
        }
        Self::of(&bytes).ok_or_else(|| problem("no keys can be derived from it".to_owned()))
    }

    /// The secret of these bytes.
    pub fn of(bytes: &[u8]) -> Option<Self> {
        let root = Salt::new(HKDF_SHA256, b"expressgateway quic 1").extract(bytes);
        let tokens = RandomizedNonceKey::new(&AES_256_GCM, &expand(&root, b"retry token")?).ok()?;
        Some(Self { root, tokens })
    }

    /// A key for another purpose. Equal secrets give equal keys.
    pub fn key_for(&self, purpose: &[u8]) -> Option<[u8; 32]> {
        expand(&self.root, purpose)
    }

    /// The token of a Retry to `client`: `retry_id` is the source connection ID of the Retry packet, `original_id` the destination connection ID
    /// of the Initial packet that it answers. `now` is the time since the Unix epoch.
    pub fn token(
        &self,
        now: Duration,
        client: SocketAddr,
        retry_id: &[u8],
        original_id: &[u8],
    ) -> Option<Vec<u8>> {
        let mut sealed = now.as_secs().to_be_bytes().to_vec();
        sealed.extend_from_slice(&ends_of(client));
        sealed.extend_from_slice(original_id);
        let nonce = self.tokens.seal_in_place_append_tag(Aad::from(retry_id), &mut sealed).ok()?;
        let mut token = nonce.as_ref().to_vec();
        token.append(&mut sealed);
        Some(token)
    }

    /// The original destination connection ID, where the token is one of this secret, for this client and this Retry, and not too old.
    pub fn open(&self, now: Duration, client: SocketAddr, retry_id: &[u8], token: &[u8]) -> Option<Vec<u8>> {
        let (of, original_id) = self.opened(now, retry_id, token)?;
        (of == ends_of(client)).then_some(original_id)
    }

    /// As [`Self::open`] where something else has compared the client's address.
    pub fn open_for_any(&self, now: Duration, retry_id: &[u8], token: &[u8]) -> Option<Vec<u8>> {
        self.opened(now, retry_id, token).map(|(_, original_id)| original_id)
    }

    /// Whose a token is that is not too old, and the original destination connection ID.
    fn opened(&self, now: Duration, retry_id: &[u8], token: &[u8]) -> Option<([u8; ENDS], Vec<u8>)> {
        let (nonce, sealed) = token.split_at_checked(NONCE_LEN)?;
        if sealed.len() > 8 + ENDS + MAX_CONNECTION_ID + AES_256_GCM.tag_len() {
            return None;
        }
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut sealed = sealed.to_vec();
        let opened = self.tokens.open_in_place(nonce, Aad::from(retry_id), &mut sealed).ok()?;
        let (made_at, rest) = opened.split_first_chunk()?;
        let (client, original_id) = rest.split_first_chunk()?;
        let made_at = Duration::from_secs(u64::from_be_bytes(*made_at));
        let is_fresh = made_at <= now.saturating_add(SKEW) && now <= made_at.saturating_add(LIFETIME);
        is_fresh.then(|| (*client, original_id.to_vec()))
    }
}

/// Bytes of a client's address and port.
const ENDS: usize = 18;

fn ends_of(client: SocketAddr) -> [u8; ENDS] {
    let wide = match client.ip() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    let mut ends = [0; ENDS];
    let bytes = wide.octets().into_iter().chain(client.port().to_be_bytes());
    for (place, byte) in ends.iter_mut().zip(bytes) {
        *place = byte;
    }
    ends
}

fn expand(root: &Prk, purpose: &[u8]) -> Option<[u8; 32]> {
    struct KeyLength;
    impl KeyType for KeyLength {
        fn len(&self) -> usize {
            32
        }
    }
    let mut key = [0; 32];
    root.expand(&[purpose], KeyLength).ok()?.fill(&mut key).ok()?;
    Some(key)
}

/// Makes the file of a new secret. It is complete before it has its name, so that instances that start together agree on one.
fn make(path: &Path) -> std::io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;

    let mut bytes = [0; SECRET_BYTES];
    aws_lc_rs::rand::fill(&mut bytes).map_err(std::io::Error::other)?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Some(directory) = directory {
        std::fs::create_dir_all(directory)?;
    }
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}.tmp", std::process::id()));
    let temporary = std::path::PathBuf::from(temporary);
    let written = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)
        .and_then(|mut file| file.write_all(&bytes).and_then(|()| file.sync_all()))
        .and_then(|()| match std::fs::hard_link(&temporary, path) {
            // Another instance was faster: its secret is the one.
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
            linked => linked,
        });
    let _ = std::fs::remove_file(&temporary);
    written
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const NOW: Duration = Duration::from_secs(1_800_000_000);

    #[test]
    fn q_12_a_token_is_good_for_one_client_one_retry_and_a_short_time() {
        let secret = RetrySecret::of(&[7; 32]).unwrap();
        let client: SocketAddr = "192.0.2.1:4433".parse().unwrap();
        let token = secret.token(NOW, client, b"retry-id", b"original").unwrap();
        let other_instance = RetrySecret::of(&[7; 32]).unwrap();
        let open = |now, client: &str, id: &[u8], token: &[u8]| {
            other_instance.open(now, client.parse().unwrap(), id, token)
        };
        let original = Some(b"original".to_vec());
        assert_eq!(open(NOW, "192.0.2.1:4433", b"retry-id", &token), original);
        assert_eq!(open(NOW, "[::ffff:192.0.2.1]:4433", b"retry-id", &token), original);
        assert_eq!(open(NOW + LIFETIME, "192.0.2.1:4433", b"retry-id", &token), original);
        assert_eq!(open(NOW - SKEW, "192.0.2.1:4433", b"retry-id", &token), original);
        let late = NOW + LIFETIME + Duration::from_secs(1);
        assert_eq!(open(late, "192.0.2.1:4433", b"retry-id", &token), None);
        assert_eq!(open(NOW - 2 * SKEW, "192.0.2.1:4433", b"retry-id", &token), None);
        assert_eq!(open(NOW, "192.0.2.2:4433", b"retry-id", &token), None);
        assert_eq!(open(NOW, "192.0.2.1:4434", b"retry-id", &token), None);
        assert_eq!(open(NOW, "192.0.2.1:4433", b"retry-ie", &token), None);
        assert_eq!(secret.open_for_any(NOW, b"retry-id", &token), original);
        assert_eq!(secret.open_for_any(late, b"retry-id", &token), None);
        assert_eq!(secret.open_for_any(NOW, b"retry-ie", &token), None);
        assert_eq!(RetrySecret::of(&[8; 32]).unwrap().open(NOW, client, b"retry-id", &token), None);
        for at in 0..token.len() {
            let mut changed = token.clone();
            changed[at] ^= 1;
            assert_eq!(open(NOW, "192.0.2.1:4433", b"retry-id", &changed), None, "byte {at}");
            assert_eq!(open(NOW, "192.0.2.1:4433", b"retry-id", &token[..at]), None, "cut at {at}");
        }
        assert_eq!(open(NOW, "192.0.2.1:4433", b"retry-id", &[0; 2000]), None);
        assert_ne!(secret.key_for(b"a"), secret.key_for(b"b"));
        assert_eq!(secret.key_for(b"a"), other_instance.key_for(b"a"));
    }

    #[test]
    fn a_secret_is_made_once_and_read_only_where_nobody_else_can() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deep/er/retry.secret");
        let first = RetrySecret::load_or_make(&path, KeyAccess::Owner).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read(&path).unwrap().len(), SECRET_BYTES);
        let second = RetrySecret::load_or_make(&path, KeyAccess::Owner).unwrap();
        assert_eq!(first.key_for(b"x"), second.key_for(b"x"));
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
        let error = RetrySecret::load_or_make(&path, KeyAccess::Owner).unwrap_err().to_string();
        assert!(error.contains("0640"), "{error}");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        std::fs::write(&path, [1; 31]).unwrap();
        let error = RetrySecret::load_or_make(&path, KeyAccess::Owner).unwrap_err().to_string();
        assert!(error.contains("31 bytes"), "{error}");
    }
}
