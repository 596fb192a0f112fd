//! What a header of version 2 says besides the addresses: type, length and value, one behind the other.

use super::HeaderFault;
use super::checksum::crc32c;

/// The protocol that was chosen on the client's connection (ALPN).
pub(super) const ALPN: u8 = 0x01;
/// The host that the client asked for (SNI).
pub(super) const AUTHORITY: u8 = 0x02;
/// The checksum of the header.
pub(super) const CRC32C: u8 = 0x03;
/// What names the connection.
pub(super) const UNIQUE_ID: u8 = 0x05;
/// What is known of TLS on the client's connection.
pub(super) const SSL: u8 = 0x20;
/// Its version, within [`SSL`].
pub(super) const SSL_VERSION: u8 = 0x21;
/// The common name of the client's certificate, within [`SSL`].
pub(super) const SSL_CN: u8 = 0x22;

/// The longest name of a connection.
const MOST_UNIQUE_ID_BYTES: usize = 128;

/// What a header says besides the addresses. All of it is as the peer has written it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tlvs<'a> {
    /// The protocol that was chosen on the client's connection.
    pub alpn: Option<&'a [u8]>,
    /// The host that the client asked for.
    pub authority: Option<&'a [u8]>,
    /// What names the connection.
    pub unique_id: Option<&'a [u8]>,
    /// TLS on the client's connection.
    pub ssl: Option<SslFacts<'a>>,
}

impl Tlvs<'_> {
    /// Whether nothing is said.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What is known of TLS on the client's connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SslFacts<'a> {
    /// Whether the client came inside TLS (1), and has shown a certificate on this connection (2) or in this session (4).
    pub client: u8,
    /// 0 where the certificate has been verified.
    pub verify: u32,
    /// The version of TLS.
    pub version: Option<&'a [u8]>,
    /// The common name of the client's certificate.
    pub common_name: Option<&'a [u8]>,
}

/// Reads the TLVs of a header, which end with it.
pub(super) fn read<'a>(header: &'a [u8], tlvs: &'a [u8]) -> Result<Tlvs<'a>, HeaderFault> {
    let mut found = Tlvs::default();
    let mut rest = tlvs;
    while let Some((kind, value, behind)) = next(rest)? {
        match kind {
            ALPN => found.alpn = Some(value),
            AUTHORITY => found.authority = Some(value),
            UNIQUE_ID if value.len() > MOST_UNIQUE_ID_BYTES => return Err(HeaderFault::Malformed),
            UNIQUE_ID => found.unique_id = Some(value),
            SSL => found.ssl = Some(ssl(value)?),
            CRC32C => check(header, value, behind)?,
            _ => {}
        }
        rest = behind;
    }
    Ok(found)
}

/// A TLV: its type, its value, and what stands behind it.
type Tlv<'a> = (u8, &'a [u8], &'a [u8]);

/// The first TLV.
fn next(bytes: &[u8]) -> Result<Option<Tlv<'_>>, HeaderFault> {
    let (kind, high, low, rest) = match bytes {
        [] => return Ok(None),
        [kind, high, low, rest @ ..] => (*kind, *high, *low, rest),
        _ => return Err(HeaderFault::Malformed),
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    let (value, behind) = rest.split_at_checked(length).ok_or(HeaderFault::Malformed)?;
    Ok(Some((kind, value, behind)))
}

fn ssl(value: &[u8]) -> Result<SslFacts<'_>, HeaderFault> {
    let [client, a, b, c, d, rest @ ..] = value else { return Err(HeaderFault::Malformed) };
    let mut facts =
        SslFacts { client: *client, verify: u32::from_be_bytes([*a, *b, *c, *d]), ..SslFacts::default() };
    let mut rest = rest;
    while let Some((kind, value, behind)) = next(rest)? {
        match kind {
            SSL_VERSION => facts.version = Some(value),
            SSL_CN => facts.common_name = Some(value),
            _ => {}
        }
        rest = behind;
    }
    Ok(facts)
}

/// The checksum is that of the header with zeros in its own place.
fn check(header: &[u8], value: &[u8], behind: &[u8]) -> Result<(), HeaderFault> {
    let told = <[u8; 4]>::try_from(value).map_err(|_| HeaderFault::Malformed)?;
    let before = header.len().saturating_sub(behind.len()).saturating_sub(told.len());
    let parts = [header.get(..before).unwrap_or_default(), &[0; 4], behind];
    if crc32c(&parts) == u32::from_be_bytes(told) { Ok(()) } else { Err(HeaderFault::Checksum) }
}
