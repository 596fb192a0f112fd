//! AES-128 on single blocks, which connection IDs of draft-ietf-quic-load-balancers are encrypted with.

use std::fmt;

use aws_lc_rs::cipher::{AES_128, DecryptingKey, DecryptionContext, EncryptingKey, UnboundCipherKey};
use lb_core::quic::routable::BlockCipher;

/// One key.
pub struct Aes128 {
    encrypting: EncryptingKey,
    decrypting: DecryptingKey,
}

impl fmt::Debug for Aes128 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Aes128")
    }
}

impl Aes128 {
    /// The cipher of this key.
    pub fn new(key: &[u8; 16]) -> Option<Self> {
        let key = || UnboundCipherKey::new(&AES_128, key).ok();
        Some(Self {
            encrypting: EncryptingKey::ecb(key()?).ok()?,
            decrypting: DecryptingKey::ecb(key()?).ok()?,
        })
    }
}

impl BlockCipher for Aes128 {
    fn encrypt(&self, block: &mut [u8; 16]) {
        // A whole block never fails.
        let encrypted = self.encrypting.encrypt(block);
        debug_assert!(encrypted.is_ok());
    }

    fn decrypt(&self, block: &mut [u8; 16]) {
        let decrypted = self.decrypting.decrypt(block, DecryptionContext::None).is_ok();
        debug_assert!(decrypted);
    }
}

#[cfg(test)]
mod tests {
    use lb_core::quic::routable::{Format, ServerId};

    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    }

    #[test]
    fn encrypted_ids_are_those_of_the_draft() {
        let key: [u8; 16] = hex("8f95f09245765f80256934e50c66207f").try_into().unwrap();
        let cipher = Aes128::new(&key).unwrap();
        for (rotation, server, nonce, id) in [
            (0, "ed793a", "ee080dbf", "0720b1d07b359d3c"),
            (1, "ed793a51d49b8f5fab65", "ee080dbf48", "2fcc381bc74cb4fbad2823a3d1f8fed2"),
            (2, "ed793a51d49b8f5f", "ee080dbf48c0d1e5", "504dd2d05a7b0de9b2b9907afb5ecf8cc3"),
            (3, "ed793a51d49b8f5fab", "ee080dbf48c0d1e55d", "125779c9cc86beb3a3a4a3ca96fce4bfe0cdbc"),
        ] {
            let (server, nonce, mut id) = (hex(server), hex(nonce), hex(id));
            let format = Format::new(rotation, server.len(), nonce.len()).unwrap();
            // The last of the draft's examples has another number in its first byte than beside it.
            id[0] = rotation << 5 | id[0] & 0x1f;
            assert_eq!(format.make(&server, &nonce, Some(&cipher)).unwrap().as_bytes(), id);
            assert_eq!(format.server(&id, Some(&cipher)), ServerId::new(&server));
        }
    }
}
