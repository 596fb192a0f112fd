//! Field names that the gateway treats specially, recognised by length first.

/// What a field name means to a proxy. Everything else is [`FieldName::Other`] and passes untouched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is the field of that name")]
pub enum FieldName {
    #[default]
    Other,
    AltSvc,
    Connection,
    ContentLength,
    Cookie,
    Expect,
    Host,
    Http2Settings,
    KeepAlive,
    ProxyAuthenticate,
    ProxyAuthorization,
    ProxyConnection,
    Te,
    Traceparent,
    TransferEncoding,
    Upgrade,
    Via,
    XClientCertSha256,
    XClientCertSubject,
    XForwardedFor,
    XForwardedHost,
    XForwardedProto,
}

impl FieldName {
    /// Recognises `name` in any letter case.
    #[inline]
    pub fn of(name: &[u8]) -> Self {
        let (candidate, text): (Self, &[u8]) = match name.len() {
            2 => (Self::Te, b"te"),
            3 => (Self::Via, b"via"),
            4 => (Self::Host, b"host"),
            6 => match name.first() {
                Some(b'c' | b'C') => (Self::Cookie, b"cookie"),
                _ => (Self::Expect, b"expect"),
            },
            7 => match name.first() {
                Some(b'u' | b'U') => (Self::Upgrade, b"upgrade"),
                _ => (Self::AltSvc, b"alt-svc"),
            },
            10 => match name.first() {
                Some(b'c' | b'C') => (Self::Connection, b"connection"),
                _ => (Self::KeepAlive, b"keep-alive"),
            },
            11 => (Self::Traceparent, b"traceparent"),
            14 => match name.first() {
                Some(b'c' | b'C') => (Self::ContentLength, b"content-length"),
                _ => (Self::Http2Settings, b"http2-settings"),
            },
            15 => (Self::XForwardedFor, b"x-forwarded-for"),
            16 => match name.first() {
                Some(b'p' | b'P') => (Self::ProxyConnection, b"proxy-connection"),
                _ => (Self::XForwardedHost, b"x-forwarded-host"),
            },
            17 => match name.first() {
                Some(b't' | b'T') => (Self::TransferEncoding, b"transfer-encoding"),
                _ => (Self::XForwardedProto, b"x-forwarded-proto"),
            },
            18 => (Self::ProxyAuthenticate, b"proxy-authenticate"),
            19 => (Self::ProxyAuthorization, b"proxy-authorization"),
            20 => return Self::XClientCertSha256.if_read_as(name, b"x-client-cert-sha256"),
            21 => return Self::XClientCertSubject.if_read_as(name, b"x-client-cert-subject"),
            _ => return Self::Other,
        };
        if is(name, text) { candidate } else { Self::Other }
    }

    /// `self` if a backend may read `name` as `text`: many take `_` for `-`.
    fn if_read_as(self, name: &[u8], text: &[u8]) -> Self {
        let same = |(a, b): (&u8, &u8)| a.eq_ignore_ascii_case(b) || (*a == b'_' && *b == b'-');
        if name.iter().zip(text).all(same) { self } else { Self::Other }
    }

    /// Fields that concern one connection only and are never forwarded (RFC 9110 §7.6.1).
    #[inline]
    pub fn is_hop_by_hop(self) -> bool {
        FieldNames::HOP_BY_HOP.has(self)
    }

    /// Fields that decide framing or authority: a `Connection` option never removes them (attack H1-09).
    #[inline]
    pub fn is_protected(self) -> bool {
        matches!(self, Self::Host | Self::ContentLength | Self::TransferEncoding)
    }
}

/// Whether `name` is `text` in any letter case. `text` is as long, in lower case, and has but letters, digits and hyphens. Eight bytes are
/// compared at a time.
#[inline]
fn is(name: &[u8], text: &[u8]) -> bool {
    /// Whether two words are equal but for the case of letters: of these bytes of `text`, letters alone have the bit 0x40.
    #[inline]
    fn same(name: u64, text: u64) -> bool {
        let letters = (text & 0x4040_4040_4040_4040) >> 1;
        (name ^ text) & !letters == 0
    }
    let words = |at: usize| {
        let word = |bytes: &[u8]| bytes.get(at..)?.first_chunk().copied().map(u64::from_ne_bytes);
        word(name).zip(word(text))
    };
    if name.len() != text.len() {
        return false;
    }
    let Some(last) = name.len().checked_sub(8) else { return name.eq_ignore_ascii_case(text) };
    // Words overlap where the length is no multiple of theirs.
    [0, last.min(8), last].into_iter().all(|at| words(at).is_some_and(|(name, text)| same(name, text)))
}

/// A set of names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FieldNames(u32);

impl FieldNames {
    /// Fields that concern one connection only and are never forwarded (RFC 9110 §7.6.1).
    pub const HOP_BY_HOP: Self = Self::of(&[
        FieldName::Connection,
        FieldName::Http2Settings,
        FieldName::KeepAlive,
        FieldName::ProxyAuthenticate,
        FieldName::ProxyAuthorization,
        FieldName::ProxyConnection,
        FieldName::Te,
        FieldName::TransferEncoding,
        FieldName::Upgrade,
    ]);

    /// The set of these names.
    pub const fn of(names: &[FieldName]) -> Self {
        let mut set = 0;
        let mut rest = names;
        while let [name, others @ ..] = rest {
            set |= 1 << *name as u32;
            rest = others;
        }
        Self(set)
    }

    /// Whether `name` is among them.
    #[inline]
    pub const fn has(self, name: FieldName) -> bool {
        self.0 & (1 << name as u32) != 0
    }

    /// Whether the two sets share a name.
    #[inline]
    pub const fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Adds a name.
    #[inline]
    pub fn insert(&mut self, name: FieldName) {
        self.0 |= 1 << name as u32;
    }

    /// Adds the names of another set.
    #[inline]
    pub fn extend(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_recognised_in_any_case_and_near_misses_are_not() {
        for (text, name) in [
            ("Host", FieldName::Host),
            ("HOST", FieldName::Host),
            ("te", FieldName::Te),
            ("Cookie", FieldName::Cookie),
            ("expect", FieldName::Expect),
            ("Alt-Svc", FieldName::AltSvc),
            ("Upgrade", FieldName::Upgrade),
            ("Keep-Alive", FieldName::KeepAlive),
            ("content-Length", FieldName::ContentLength),
            ("Transfer-Encoding", FieldName::TransferEncoding),
            ("X-Forwarded-Host", FieldName::XForwardedHost),
            ("X-Forwarded-Proto", FieldName::XForwardedProto),
            ("proxy-connection", FieldName::ProxyConnection),
            ("HTTP2-Settings", FieldName::Http2Settings),
            ("hosts", FieldName::Other),
            ("c0ntent-length", FieldName::Other),
            ("", FieldName::Other),
        ] {
            assert_eq!(FieldName::of(text.as_bytes()), name, "{text}");
        }
    }

    #[test]
    fn one_other_byte_makes_another_name() {
        let names: [&[u8]; 18] = [
            b"te",
            b"via",
            b"host",
            b"cookie",
            b"expect",
            b"upgrade",
            b"alt-svc",
            b"connection",
            b"keep-alive",
            b"traceparent",
            b"content-length",
            b"http2-settings",
            b"x-forwarded-for",
            b"x-forwarded-host",
            b"proxy-connection",
            b"transfer-encoding",
            b"proxy-authenticate",
            b"proxy-authorization",
        ];
        for name in names {
            let known = FieldName::of(name);
            assert_ne!(known, FieldName::Other);
            for at in 0..name.len() {
                for byte in 0..=u8::MAX {
                    let mut other = name.to_vec();
                    other[at] = byte;
                    let is_same = byte.eq_ignore_ascii_case(&name[at]);
                    assert_eq!(FieldName::of(&other) == known, is_same, "{other:?}");
                }
            }
        }
    }
}
