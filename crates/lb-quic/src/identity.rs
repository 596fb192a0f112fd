//! Certificates with their keys, as connections of BoringSSL share them.

use boring::error::ErrorStack;
use boring::pkey::{PKey, Private};
use boring::ssl::{SslCredential, SslRef};
use boring_sys::{
    CRYPTO_BUFFER, CRYPTO_BUFFER_free, CRYPTO_BUFFER_new, SSL_CREDENTIAL_new_x509,
    SSL_CREDENTIAL_set1_cert_chain, SSL_CREDENTIAL_set1_private_key,
};
use foreign_types::ForeignType;
use rustls_pki_types::CertificateDer;

/// A chain and its key, which were parsed once. A connection that shows it has a reference, and no copy.
pub(crate) struct Identity(SslCredential);

impl Identity {
    /// A chain, leaf first, and the key of the leaf in PKCS #8 or an older form.
    ///
    /// # Errors
    /// When BoringSSL does not take one of them.
    #[expect(unsafe_code, reason = "boring makes no credential of a certificate")]
    pub(crate) fn new(chain: &[CertificateDer<'_>], key: &[u8]) -> Result<Self, ErrorStack> {
        let key: PKey<Private> =
            PKey::private_key_from_pkcs8(key).or_else(|_| PKey::private_key_from_der(key))?;
        // SAFETY: BoringSSL copies the bytes that it is given, takes references of its own to what it keeps, and returns null where it has no
        // memory, which is not used: a chain with a null is not handed on. What is made here is freed once, by `Buffers` and by the credential.
        // JUSTIFICATION: `SslRef::set_certificate` copies and parses the chain for each connection: 3 to 5 KiB with a usual chain.
        unsafe {
            let made = SSL_CREDENTIAL_new_x509();
            if made.is_null() {
                return Err(ErrorStack::get());
            }
            let credential = SslCredential::from_ptr(made);
            let pool = std::ptr::null_mut();
            let buffers =
                Buffers(chain.iter().map(|der| CRYPTO_BUFFER_new(der.as_ptr(), der.len(), pool)).collect());
            let is_whole = !buffers.0.iter().any(|buffer| buffer.is_null());
            let has_taken = is_whole
                && SSL_CREDENTIAL_set1_cert_chain(made, buffers.0.as_ptr(), buffers.0.len()) == 1
                && SSL_CREDENTIAL_set1_private_key(made, key.as_ptr()) == 1;
            if has_taken { Ok(Self(credential)) } else { Err(ErrorStack::get()) }
        }
    }

    /// Has a connection show it.
    ///
    /// # Errors
    /// When there is no memory.
    pub(crate) fn show(&self, ssl: &mut SslRef) -> Result<(), ErrorStack> {
        ssl.add_credential(&self.0)
    }
}

/// References to certificates.
struct Buffers(Vec<*mut CRYPTO_BUFFER>);

impl Drop for Buffers {
    #[expect(unsafe_code, reason = "boring has no type for them")]
    fn drop(&mut self) {
        // SAFETY: each is null, which is allowed, or was made for this value and is freed with it.
        // JUSTIFICATION: see `Identity::new`.
        self.0.iter().for_each(|buffer| unsafe { CRYPTO_BUFFER_free(*buffer) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_and_its_key_belong_together() {
        let made = || rcgen::generate_simple_self_signed(["test.example".to_owned()]).unwrap();
        let (one, other) = (made(), made());
        let chain = [one.cert.der().clone()];
        assert!(Identity::new(&chain, &one.signing_key.serialize_der()).is_ok());
        assert!(Identity::new(&chain, &other.signing_key.serialize_der()).is_err(), "another key");
        assert!(Identity::new(&chain, b"no key").is_err());
        assert!(
            Identity::new(&[CertificateDer::from(vec![1, 2, 3])], &one.signing_key.serialize_der()).is_err()
        );
        assert!(Identity::new(&[], &one.signing_key.serialize_der()).is_err(), "no certificate");
    }
}
