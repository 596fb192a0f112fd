//! Certificates for tests: an authority, and what it signs.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams,
    SerialNumber, date_time_ymd,
};

/// Signs certificates.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate with its key, in PEM.
#[derive(Clone, Debug)]
pub struct Leaf {
    /// The chain: this certificate alone, unless a test appends others.
    pub cert: String,
    /// The private key.
    pub key: String,
    /// The serial number, for revocation lists.
    pub serial: u64,
}

/// The subject of self-signed certificates.
const SELF: &str = "self";

static SERIAL: AtomicU64 = AtomicU64::new(1000);

impl Authority {
    /// A self-signed authority.
    pub fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        Self { issuer: CertifiedIssuer::self_signed(authority_params(name), key).unwrap() }
    }

    /// An authority that this one has signed.
    pub fn intermediate(&self, name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        Self { issuer: CertifiedIssuer::signed_by(authority_params(name), key, &self.issuer).unwrap() }
    }

    /// Its own certificate.
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// A server's certificate for `names`, which may be wildcards or addresses.
    pub fn server(&self, names: &[&str]) -> Leaf {
        self.sign(names, |_| {})
    }

    /// A server's certificate that has expired years ago.
    pub fn expired(&self, names: &[&str]) -> Leaf {
        self.sign(names, |params| {
            params.not_before = date_time_ymd(2020, 1, 1);
            params.not_after = date_time_ymd(2021, 1, 1);
        })
    }

    /// A server's certificate whose time comes decades from now.
    pub fn of_the_future(&self, names: &[&str]) -> Leaf {
        self.sign(names, |params| {
            params.not_before = date_time_ymd(2090, 1, 1);
            params.not_after = date_time_ymd(2095, 1, 1);
        })
    }

    /// A client's certificate with this common name.
    pub fn client(&self, common_name: &str) -> Leaf {
        self.sign(&[], |params| {
            params.distinguished_name.push(DnType::CommonName, common_name);
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        })
    }

    /// A revocation list with these serial numbers.
    pub fn revocation_list(&self, serials: &[u64]) -> String {
        let revoked_certs = serials.iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        CertificateRevocationListParams {
            this_update: date_time_ymd(2024, 1, 1),
            next_update: date_time_ymd(2094, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked_certs.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        }
        .signed_by(&self.issuer)
        .unwrap()
        .pem()
        .unwrap()
    }

    /// What the self-signed certificate `leaf` signs, though it may be no authority, in the chain below it.
    pub fn server_of(leaf: &Leaf, names: &[&str]) -> Leaf {
        let mut owner = CertificateParams::default();
        owner.distinguished_name.push(DnType::CommonName, SELF);
        let issuer = Issuer::new(owner, KeyPair::from_pem(&leaf.key).unwrap());
        let mut params = leaf_params(names);
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &issuer).unwrap().pem() + &leaf.cert;
        Leaf { cert, key: key.serialize_pem(), serial: 0 }
    }

    fn sign(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Leaf {
        let mut params = leaf_params(names);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        params.serial_number = Some(SerialNumber::from(serial));
        params.use_authority_key_identifier_extension = true;
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        Leaf { cert: cert.pem(), key: key.serialize_pem(), serial }
    }
}

fn leaf_params(names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.serial_number = Some(SerialNumber::from(SERIAL.fetch_add(1, Ordering::Relaxed)));
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2094, 1, 1));
    params
}

impl Leaf {
    /// A self-signed certificate for `names`: an authority as `openssl req -x509` makes it, or none. With a past, it has expired.
    pub fn self_signed(names: &[&str], is_authority: bool, has_expired: bool) -> Leaf {
        let mut params = leaf_params(names);
        params.extended_key_usages.clear();
        params.distinguished_name.push(DnType::CommonName, SELF);
        if is_authority {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        }
        if has_expired {
            params.not_after = date_time_ymd(2021, 1, 1);
        }
        let key = KeyPair::generate().unwrap();
        let cert = params.self_signed(&key).unwrap();
        Leaf { cert: cert.pem(), key: key.serialize_pem(), serial: 0 }
    }

    /// Writes `<name>.pem` and `<name>.key` into `directory`; the key can be read by its owner alone.
    pub fn write(&self, directory: &Path, name: &str) -> (PathBuf, PathBuf) {
        let (cert, key) = (directory.join(format!("{name}.pem")), directory.join(format!("{name}.key")));
        write(&cert, &self.cert, 0o644);
        write(&key, &self.key, 0o600);
        (cert, key)
    }
}

/// Replaces the file at `path` in one step, as an operator's tool does.
pub fn write(path: &Path, text: impl AsRef<[u8]>, mode: u32) {
    let new = path.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(mode)).unwrap();
    std::fs::rename(&new, path).unwrap();
}

fn authority_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.serial_number = Some(SerialNumber::from(SERIAL.fetch_add(1, Ordering::Relaxed)));
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages =
        vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2095, 1, 1));
    params
}
