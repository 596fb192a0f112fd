//! Version 1: one line, such as `PROXY TCP4 192.0.2.1 192.0.2.9 50000 443`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use super::{HeaderFault, HeaderVersion, MOST_V1_BYTES, ProxyPreamble, Reading, Tlvs, V1_START};

/// Reads a line that begins with [`V1_START`], as far as it has come.
pub(super) fn read(bytes: &[u8]) -> Result<Reading<'_>, HeaderFault> {
    let window = bytes.get(..bytes.len().min(MOST_V1_BYTES)).unwrap_or_default();
    let Some(end) = window.iter().position(|byte| *byte == b'\n') else {
        return if window.len() == MOST_V1_BYTES { Err(HeaderFault::TooLarge) } else { Ok(Reading::More) };
    };
    let line = window.get(V1_START.len()..end).and_then(|line| line.strip_suffix(b"\r"));
    let line = line.and_then(|line| std::str::from_utf8(line).ok()).ok_or(HeaderFault::Malformed)?;
    let header =
        ProxyPreamble { version: HeaderVersion::V1, addresses: addresses(line)?, tlvs: Tlvs::default() };
    Ok(Reading::Header(header, end.saturating_add(1)))
}

fn addresses(line: &str) -> Result<Option<(SocketAddr, SocketAddr)>, HeaderFault> {
    // What follows `UNKNOWN` is ignored, whatever it is.
    if line == "UNKNOWN" || line.starts_with("UNKNOWN ") {
        return Ok(None);
    }
    let mut words = line.split(' ');
    let mut next = || words.next().ok_or(HeaderFault::Malformed);
    let (from, to) = match next()? {
        "TCP4" => (address::<Ipv4Addr>(next()?)?, address::<Ipv4Addr>(next()?)?),
        "TCP6" => (address::<Ipv6Addr>(next()?)?, address::<Ipv6Addr>(next()?)?),
        _ => return Err(HeaderFault::Malformed),
    };
    let (from_port, to_port) = (port(next()?)?, port(next()?)?);
    if words.next().is_some() {
        return Err(HeaderFault::Malformed);
    }
    Ok(Some((SocketAddr::new(from, from_port), SocketAddr::new(to, to_port))))
}

fn address<A: FromStr + Into<IpAddr>>(text: &str) -> Result<IpAddr, HeaderFault> {
    let address: A = text.parse().map_err(|_| HeaderFault::Malformed)?;
    Ok(address.into().to_canonical())
}

/// Digits alone, without zeros in front.
fn port(text: &str) -> Result<u16, HeaderFault> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| is_plain).ok_or(HeaderFault::Malformed)
}
