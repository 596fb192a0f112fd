//! Keys that sign sticky cookies.

use std::path::Path;

use aws_lc_rs::hmac;

use crate::error::{CertFailure, TlsError};
use crate::files::{self, KeyAccess};

/// A key that signs sticky cookies. Instances with equal keys accept each other's cookies.
#[derive(Clone, Debug)]
pub struct StickyKey(hmac::Key);

/// Bytes of a key in a file.
const KEY_BYTES: usize = 32;

/// Bytes of a signature: as hard to guess as a 128-bit key.
const MAC_BYTES: usize = 16;

impl StickyKey {
    /// A random key, which no other process has.
    ///
    /// # Errors
    /// When the system has no randomness to give.
    pub fn generate() -> Result<Self, aws_lc_rs::error::Unspecified> {
        let random = aws_lc_rs::rand::SystemRandom::new();
        Ok(Self(hmac::Key::generate(hmac::HMAC_SHA256, &random)?))
    }

    /// The key in a file of 32 bytes that only the users which `access` allows may read (attack T-07).
    ///
    /// # Errors
    /// When the file cannot be read, may be read by other users, or has another length.
    pub fn load(path: &Path, access: KeyAccess) -> Result<Self, TlsError> {
        let bytes = files::secret(path, access)?;
        if bytes.len() != KEY_BYTES {
            let problem = format!("has {} bytes: a key has {KEY_BYTES}", bytes.len());
            return Err(TlsError::of(CertFailure::KeyParse, path, problem));
        }
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, &bytes)))
    }

    /// The value of the cookie that keeps a client of `pool` at the member of this identity. Without the key it reveals nothing of the
    /// member and cannot be forged.
    pub fn cookie(&self, pool: &str, identity: u64) -> String {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(pool.as_bytes());
        context.update(&[0]);
        context.update(&identity.to_be_bytes());
        let mac = context.sign();
        let shown = mac.as_ref().iter().take(MAC_BYTES);
        shown.map(|byte| format!("{byte:02x}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn cookies_differ_by_key_pool_and_member_and_are_the_same_for_the_same() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        std::fs::write(&path, [7; KEY_BYTES]).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        let key = StickyKey::load(&path, KeyAccess::Owner).unwrap();
        assert_eq!(key.cookie("a", 1), StickyKey::load(&path, KeyAccess::Owner).unwrap().cookie("a", 1));
        assert_eq!(key.cookie("a", 1).len(), 2 * MAC_BYTES);
        let other = StickyKey::generate().unwrap();
        let mut all = [key.cookie("a", 1), key.cookie("a", 2), key.cookie("b", 1), other.cookie("a", 1)];
        all.sort();
        assert!(all.windows(2).all(|pair| pair[0] != pair[1]));
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
        assert!(StickyKey::load(&path, KeyAccess::Owner).unwrap_err().to_string().contains("0640"));
        std::fs::write(&path, [7; 31]).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        assert!(StickyKey::load(&path, KeyAccess::Owner).unwrap_err().to_string().contains("31 bytes"));
    }
}
