//! Keys of a fixed length in files.

use std::path::Path;

use crate::error::{CertFailure, TlsError};
use crate::files::{self, KeyAccess};

/// The key in a file of `N` bytes that only the users which `access` allows may read (attack T-07).
///
/// # Errors
/// When the file cannot be read, may be read by other users, or has another length.
pub fn load_key<const N: usize>(path: &Path, access: KeyAccess) -> Result<[u8; N], TlsError> {
    let bytes = files::secret(path, access)?;
    let length = bytes.len();
    bytes
        .try_into()
        .map_err(|_| TlsError::of(CertFailure::KeyParse, path, format!("has {length} bytes: a key has {N}")))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_has_its_length_and_is_read_by_its_owner_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        let write = |bytes: &[u8], mode| {
            std::fs::write(&path, bytes).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        };
        write(&[7; 16], 0o600);
        assert_eq!(load_key::<16>(&path, KeyAccess::Owner).unwrap(), [7; 16]);
        assert!(load_key::<32>(&path, KeyAccess::Owner).unwrap_err().to_string().contains("16 bytes"));
        write(&[7; 16], 0o644);
        assert!(load_key::<16>(&path, KeyAccess::Owner).unwrap_err().to_string().contains("0644"));
    }
}
