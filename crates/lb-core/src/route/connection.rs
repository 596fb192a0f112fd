//! Conditions on the TLS connection that a request came over.
//!
//! What they look at was settled by a handshake that is over: a certificate has been verified, and a server name cannot change any more. So a
//! request that comes over a connection which was made for another name is judged by that name, whatever it says its host is.

use super::host::{Host, HostPattern};

/// What a handshake has settled.
#[derive(Clone, Copy, Debug, Default)]
pub struct ConnectionFacts<'a> {
    /// The name that the client asked for.
    pub server_name: Option<&'a str>,
    /// The protocol that was chosen.
    pub alpn: Option<&'a [u8]>,
    /// The protocols that the client offers, where the handshake is a backend's.
    pub offered: &'a [Box<[u8]>],
    /// The certificate that the client has shown, verified.
    pub certificate: Option<ShownCertificate<'a>>,
}

/// A client's certificate.
#[derive(Clone, Copy, Debug)]
pub struct ShownCertificate<'a> {
    /// SHA-256 of it, in lower-case hex.
    pub sha256: &'a str,
    /// Its subject.
    pub subject: &'a str,
    /// The DNS names that it carries, in lower case.
    pub dns_names: &'a [String],
    /// The URIs that it carries.
    pub uris: &'a [String],
}

/// Conditions that must all hold.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ConnectionConditions {
    /// The client has asked for one of these; none for any.
    pub server_names: Vec<HostPattern>,
    /// One of these was chosen; none for any.
    pub alpn: Vec<Box<[u8]>>,
    /// The client has shown a certificate, or has shown none.
    pub has_certificate: Option<bool>,
    /// It has shown one of these; none for any.
    pub certificates: Vec<CertificatePattern>,
}

impl ConnectionConditions {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a client's certificate counts.
    pub fn asks_for_certificate(&self) -> bool {
        self.has_certificate.is_some() || !self.certificates.is_empty()
    }

    /// How many there are.
    pub(super) fn count(&self) -> u8 {
        let there = [
            !self.server_names.is_empty(),
            !self.alpn.is_empty(),
            self.has_certificate.is_some(),
            !self.certificates.is_empty(),
        ];
        there.into_iter().map(u8::from).fold(0, u8::saturating_add)
    }

    /// The first that does not hold, as the file calls it. A connection without TLS has none of what they ask for.
    pub(super) fn unmet(&self, facts: Option<&ConnectionFacts<'_>>) -> Option<&'static str> {
        let certificate = facts.and_then(|facts| facts.certificate);
        if !self.server_names.is_empty() {
            let name = facts.and_then(|facts| facts.server_name).and_then(|name| Host::of(name.as_bytes()));
            if !name.is_some_and(|name| self.server_names.iter().any(|pattern| pattern.fits(&name))) {
                return Some("server_names");
            }
        }
        if !self.alpn.is_empty() {
            let is_one = |protocol: &[u8]| self.alpn.iter().any(|alpn| **alpn == *protocol);
            let is_met = |facts: &ConnectionFacts<'_>| {
                facts.alpn.is_some_and(is_one) || facts.offered.iter().any(|offered| is_one(offered))
            };
            if !facts.is_some_and(is_met) {
                return Some("alpn");
            }
        }
        if self.has_certificate.is_some_and(|wanted| wanted != certificate.is_some()) {
            return Some("client_cert");
        }
        if !self.certificates.is_empty()
            && !certificate.is_some_and(|one| self.certificates.iter().any(|pattern| pattern.fits(&one)))
        {
            return Some("client_certs");
        }
        None
    }
}

/// What a client's certificate is known by.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CertificatePattern {
    kind: CertificateName,
    text: Box<str>,
    /// The text is the beginning of it.
    is_prefix: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum CertificateName {
    Sha256,
    Subject,
    Dns,
    Uri,
}

impl CertificatePattern {
    /// Reads `sha256:HEX`, or `subject:`, `dns:` or `uri:` with a name, at whose end `*` stands for any rest.
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, name) = text.split_once(':')?;
        let kind = match kind {
            "sha256" => {
                let is_digest = name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
                let text = name.to_ascii_lowercase().into();
                return is_digest.then_some(Self { kind: CertificateName::Sha256, text, is_prefix: false });
            }
            "subject" => CertificateName::Subject,
            "dns" => CertificateName::Dns,
            "uri" => CertificateName::Uri,
            _ => return None,
        };
        let (name, is_prefix) = name.strip_suffix('*').map_or((name, false), |name| (name, true));
        let name = if kind == CertificateName::Dns { name.to_ascii_lowercase() } else { name.to_owned() };
        // `*` alone would be any certificate, which `client_cert` says.
        (!name.is_empty()).then(|| Self { kind, text: name.into(), is_prefix })
    }

    fn fits(&self, certificate: &ShownCertificate<'_>) -> bool {
        let is =
            |name: &str| if self.is_prefix { name.starts_with(&*self.text) } else { name == &*self.text };
        match self.kind {
            CertificateName::Sha256 => is(certificate.sha256),
            CertificateName::Subject => is(certificate.subject),
            CertificateName::Dns => certificate.dns_names.iter().any(|name| is(name)),
            CertificateName::Uri => certificate.uris.iter().any(|uri| is(uri)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> CertificatePattern {
        CertificatePattern::parse(text).unwrap()
    }

    #[test]
    fn certificates_are_known_by_their_names() {
        let (dns, uris) = (vec!["a.example".to_owned()], vec!["spiffe://x/team/app".to_owned()]);
        let sha256 = "ab".repeat(32);
        let facts =
            ShownCertificate { sha256: &sha256, subject: "CN=alice, O=x", dns_names: &dns, uris: &uris };
        let digest = format!("sha256:{}", "AB".repeat(32));
        for text in
            [&digest, "subject:CN=alice, O=x", "subject:CN=alice,*", "dns:A.example", "uri:spiffe://x/team/*"]
        {
            assert!(pattern(text).fits(&facts), "{text}");
        }
        let other = format!("sha256:{}", "cd".repeat(32));
        for text in
            [&other, "subject:CN=alice", "subject:O=x", "dns:example", "dns:*a", "uri:spiffe://x/team"]
        {
            assert!(!pattern(text).fits(&facts), "{text}");
        }
        for text in ["", "alice", "cn:alice", "sha256:ab", "sha256:*", "dns:", "uri:*", "subject:*"] {
            assert_eq!(CertificatePattern::parse(text), None, "{text}");
        }
    }

    #[test]
    fn all_conditions_hold_together_and_none_without_tls() {
        let names = |texts: &[&str]| texts.iter().map(|text| HostPattern::parse(text).unwrap()).collect();
        let certificate = ShownCertificate { sha256: "", subject: "CN=alice", dns_names: &[], uris: &[] };
        let facts = ConnectionFacts {
            server_name: Some("A.example"),
            alpn: Some(b"h2"),
            certificate: Some(certificate),
            ..ConnectionFacts::default()
        };
        let all = ConnectionConditions {
            server_names: names(&["b.example", "*.example"]),
            alpn: vec![b"h2".as_slice().into()],
            has_certificate: Some(true),
            certificates: vec![pattern("subject:CN=alice")],
        };
        assert_eq!((all.unmet(Some(&facts)), all.count()), (None, 4));
        assert_eq!(all.unmet(None), Some("server_names"));
        assert_eq!(all.unmet(Some(&ConnectionFacts { server_name: None, ..facts })), Some("server_names"));
        assert_eq!(all.unmet(Some(&ConnectionFacts { alpn: Some(b"h3"), ..facts })), Some("alpn"));
        let bare = ConnectionFacts { certificate: None, ..facts };
        assert_eq!(all.unmet(Some(&bare)), Some("client_cert"));
        let certificates = ConnectionConditions { has_certificate: None, ..all };
        assert_eq!(certificates.unmet(Some(&bare)), Some("client_certs"));
        let without =
            ConnectionConditions { has_certificate: Some(false), ..ConnectionConditions::default() };
        assert_eq!([without.unmet(None), without.unmet(Some(&bare))], [None; 2]);
        assert_eq!(without.unmet(Some(&facts)), Some("client_cert"));
    }
}
