//! Version 2: 16 bytes, then addresses, then TLVs.

use std::net::{IpAddr, SocketAddr};

use super::{HeaderFault, HeaderVersion, MOST_V2_BYTES, ProxyPreamble, Reading, Tlvs, V2_SIGNATURE, tlv};

/// The part that every header has.
pub(super) const FIXED: usize = 16;

/// The version, in the upper half of the byte behind the signature.
const VERSION: u8 = 2;

/// Reads a header that begins with [`V2_SIGNATURE`], as far as it has come.
pub(super) fn read(bytes: &[u8]) -> Result<Reading<'_>, HeaderFault> {
    let Some([command, family, high, low]) = bytes.get(V2_SIGNATURE.len()..FIXED) else {
        return Ok(Reading::More);
    };
    if command >> 4 != VERSION {
        return Err(HeaderFault::Malformed);
    }
    let length = FIXED.saturating_add(usize::from(u16::from_be_bytes([*high, *low])));
    if length > MOST_V2_BYTES {
        return Err(HeaderFault::TooLarge);
    }
    let Some(header) = bytes.get(..length) else { return Ok(Reading::More) };
    let rest = header.get(FIXED..).unwrap_or_default();
    let (addresses, tlvs) = match (command & 0xf, family) {
        // What the peer says of itself, such as a probe: whatever follows is ignored.
        (0, _) => (None, Tlvs::default()),
        // It does not say for whom: the same.
        (1, 0x00) => (None, Tlvs::default()),
        (1, 0x11) => {
            let (addresses, tlvs) = split::<12>(rest)?;
            let [a, b, c, d, e, f, g, h, ports @ ..] = addresses;
            (Some(pair([*a, *b, *c, *d].into(), [*e, *f, *g, *h].into(), *ports)), tlv::read(header, tlvs)?)
        }
        (1, 0x21) => {
            let (addresses, tlvs) = split::<36>(rest)?;
            let (from, others) = addresses.split_first_chunk::<16>().ok_or(HeaderFault::Malformed)?;
            let (to, ports) = others.split_first_chunk::<16>().ok_or(HeaderFault::Malformed)?;
            let ports = ports.first_chunk::<4>().ok_or(HeaderFault::Malformed)?;
            (Some(pair((*from).into(), (*to).into(), *ports)), tlv::read(header, tlvs)?)
        }
        (1, 0x31) => {
            let (_, tlvs) = split::<216>(rest)?;
            (None, tlv::read(header, tlvs)?)
        }
        // Datagrams do not come by a connection, and all else has no meaning.
        _ => return Err(HeaderFault::Malformed),
    };
    Ok(Reading::Header(ProxyPreamble { version: HeaderVersion::V2, addresses, tlvs }, length))
}

fn split<const N: usize>(rest: &[u8]) -> Result<(&[u8; N], &[u8]), HeaderFault> {
    rest.split_first_chunk::<N>().ok_or(HeaderFault::Malformed)
}

fn pair(from: IpAddr, to: IpAddr, [a, b, c, d]: [u8; 4]) -> (SocketAddr, SocketAddr) {
    let address = |ip: IpAddr, port| SocketAddr::new(ip.to_canonical(), u16::from_be_bytes(port));
    (address(from, [a, b]), address(to, [c, d]))
}
