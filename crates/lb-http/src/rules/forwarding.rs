//! What backends are told of the client where other proxies may stand in front: `[listeners.client_address]`.

use lb_core::forwarded::{ADDRESS_FIELDS, AddressSource, RequestOrigin, TrustPolicy, is_x_forwarded};
use lb_core::head::{RequestHead, reads_as};

/// What is known of the client of a request, and by which rules.
#[derive(Clone, Copy, Debug)]
pub struct Forwarding<'a> {
    /// The rules.
    pub policy: &'a TrustPolicy,
    /// The client.
    pub origin: &'a RequestOrigin,
}

/// What becomes of a line of the request.
enum Fate {
    Passes,
    Goes,
    /// It tells the client's address from here on.
    Tells,
}

impl Forwarding<'_> {
    /// Whether what the peer says passes with its address behind it, as on listeners without rules.
    pub(super) fn appends(&self) -> bool {
        self.policy.appends && !self.origin.is_trusted()
    }

    /// Drops what the request says of its client and says it anew (attack C-09). `peer` is the peer's address in text.
    pub(super) fn rewrite(&self, head: &mut RequestHead, peer: &str) {
        let mut tells: Vec<Vec<u8>> = Vec::new();
        let fates: Vec<Fate> = {
            let fields = &head.fields;
            fields.lines().iter().map(|line| self.fate(fields.slice(line.name))).collect()
        };
        for (at, fate) in fates.into_iter().enumerate() {
            let Some(line) = head.fields.lines_mut().get_mut(at) else { continue };
            let (name, was_dropped) = (line.name, line.dropped);
            line.dropped |= !matches!(fate, Fate::Passes);
            if matches!(fate, Fate::Tells) && !was_dropped {
                let name = head.fields.slice(name).to_vec();
                if !tells.iter().any(|told| told.eq_ignore_ascii_case(&name)) {
                    tells.push(name);
                }
            }
        }
        let client = self.origin.client.ip().map(|ip| ip.to_canonical().to_string());
        let client = client.as_deref().unwrap_or(peer);
        for name in tells {
            head.fields.push(&name, client.as_bytes());
        }
        let told = self.origin.told.as_deref();
        let mut list = String::new();
        for hop in told.iter().flat_map(|told| &told.hops) {
            list += &format!("{hop}, ");
        }
        head.fields.push_joined(b"X-Forwarded-For", &[list.as_bytes(), peer.as_bytes()]);
        let scheme = self.origin.scheme.as_str();
        head.fields.push(b"X-Forwarded-Proto", scheme.as_bytes());
        match told.and_then(|told| told.host.as_deref()) {
            Some(host) => head.fields.push(b"X-Forwarded-Host", host),
            None if head.authority.is_empty() => {}
            None => head.fields.push_copy(b"X-Forwarded-Host", head.authority),
        }
        if let Some(port) = told.and_then(|told| told.port) {
            head.fields.push(b"X-Forwarded-Port", port.to_string().as_bytes());
        }
        if self.policy.sends_forwarded {
            let value = self.forwarded(head.authority(), peer);
            head.fields.push(b"Forwarded", value.as_bytes());
        }
    }

    fn fate(&self, name: &[u8]) -> Fate {
        // Nothing else begins so.
        if !matches!(name, [b'x' | b'X' | b't' | b'T' | b'c' | b'C' | b'f' | b'F', ..])
            && !self.has_own_field()
        {
            return Fate::Passes;
        }
        let is_trusted = self.origin.is_trusted();
        if is_x_forwarded(name) {
            let is_made_anew = ["for", "proto", "host", "port"]
                .iter()
                .any(|end| reads_as(name.get(12..).unwrap_or_default(), end.as_bytes()));
            return if is_made_anew || !is_trusted || name.contains(&b'_') {
                Fate::Goes
            } else {
                Fate::Passes
            };
        }
        let own = match &self.policy.source {
            AddressSource::Field(own) => reads_as(name, own.as_bytes()),
            _ => false,
        };
        if !own && !ADDRESS_FIELDS.iter().any(|field| reads_as(name, field.as_bytes())) {
            return Fate::Passes;
        }
        let is_forwarded = reads_as(name, b"forwarded");
        if is_trusted && !is_forwarded && !name.contains(&b'_') { Fate::Tells } else { Fate::Goes }
    }

    fn has_own_field(&self) -> bool {
        matches!(self.policy.source, AddressSource::Field(_))
    }

    /// The value of `Forwarded`: the client, with what it asked for, and the hops behind it.
    fn forwarded(&self, authority: &[u8], peer: &str) -> String {
        let told = self.origin.told.as_deref();
        let hops = told.iter().flat_map(|told| &told.hops);
        let mut nodes = hops.map(|hop| node(&hop.to_string())).chain([node(peer)]);
        let mut value =
            format!("for={};proto={}", nodes.next().unwrap_or_default(), self.origin.scheme.as_str());
        let host = told.and_then(|told| told.host.as_deref()).unwrap_or(authority);
        // Authorities have no quotes and no backslashes; what had them would not be told.
        if !host.is_empty()
            && host.iter().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\'))
        {
            value += &format!(";host=\"{}\"", String::from_utf8_lossy(host));
        }
        for node in nodes {
            value += &format!(", for={node}");
        }
        value
    }
}

/// An address as `for` of `Forwarded` has it (RFC 7239 §6).
fn node(address: &str) -> String {
    if address.contains(':') { format!("\"[{address}]\"") } else { address.to_owned() }
}

#[cfg(test)]
mod tests {
    use lb_core::address::ClientAddress;
    use lb_core::head::{FieldName, Span, Version};
    use lb_core::network::NetworkMap;
    use lb_core::rng::SplitMix64;
    use lb_core::route::{IpNetwork, Scheme};

    use super::super::{Hop, request};
    use super::*;

    /// The fields that a backend gets, of a request from `peer`, where 10.0.0.0/8 is trusted.
    fn told(peer: &str, source: &str, forwarded: bool, lines: &[(&str, &str)]) -> Vec<String> {
        let policy = TrustPolicy {
            trusted: NetworkMap::new([(IpNetwork::parse("10.0.0.0/8").unwrap(), ())]),
            source: AddressSource::parse(source).unwrap(),
            appends: false,
            max_hops: 32,
            sends_forwarded: forwarded,
        };
        let mut head = RequestHead::default();
        let start = head.fields.append_text(b"a.example");
        head.authority = Span::new(start, start + 9);
        for (name, value) in lines {
            head.fields.push(name.as_bytes(), value.as_bytes());
        }
        let peer = ClientAddress::from((peer.parse::<std::net::IpAddr>().unwrap(), 4711));
        let origin = policy.origin(&head.fields, peer, Scheme::Http);
        let hop = Hop::new(peer, "http", Version::Http11);
        let forwarding = Forwarding { policy: &policy, origin: &origin };
        request(&mut head, &hop, Some(forwarding), &mut SplitMix64::new(1));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let fields = head
            .fields
            .iter()
            .filter(|field| !matches!(field.known, FieldName::Traceparent | FieldName::Via));
        fields.map(|field| format!("{}: {}", text(field.name), text(field.value))).collect()
    }

    #[test]
    fn c_09_what_others_say_is_dropped() {
        let forged = [
            ("X-Forwarded-For", "192.0.2.1"),
            ("x_forwarded_for", "192.0.2.1"),
            ("X-Forwarded-Proto", "https"),
            ("X-Forwarded-Host", "evil"),
            ("X-Forwarded_Port", "1"),
            ("X-Forwarded-User", "root"),
            ("Forwarded", "for=192.0.2.1"),
            ("X-Real-IP", "192.0.2.1"),
            ("X_Client_IP", "192.0.2.1"),
            ("True-Client-IP", "192.0.2.1"),
            ("CF-Connecting-IP", "192.0.2.1"),
            ("Fastly-Client-IP", "192.0.2.1"),
            ("Cookie", "a=b"),
            ("X-Forwarder", "1"),
        ];
        assert_eq!(
            told("198.51.100.1", "x_forwarded_for", false, &forged),
            [
                "Cookie: a=b",
                "X-Forwarder: 1",
                "X-Forwarded-For: 198.51.100.1",
                "X-Forwarded-Proto: http",
                "X-Forwarded-Host: a.example"
            ]
        );
    }

    #[test]
    fn c_09_what_trusted_proxies_say_is_told_without_what_clients_say() {
        let lines = [
            ("Connection", "X-Forwarded-For, X-Real-IP"),
            ("X-Forwarded-For", "203.0.113.9, 192.0.2.1"),
            ("X-Forwarded-For", "10.0.0.2"),
            ("X-Forwarded-Proto", "https"),
            ("X-Forwarded-Host", "shop.example"),
            ("X-Forwarded-Port", "8443"),
            ("X-Forwarded-Prefix", "/shop"),
            ("X_Forwarded_Prefix", "/evil"),
            ("Forwarded", "for=203.0.113.9"),
            ("True-Client-IP", "203.0.113.9"),
        ];
        assert_eq!(
            told("10.0.0.1", "x_forwarded_for", true, &lines),
            [
                "X-Forwarded-Prefix: /shop",
                "True-Client-IP: 192.0.2.1",
                "X-Forwarded-For: 192.0.2.1, 10.0.0.2, 10.0.0.1",
                "X-Forwarded-Proto: https",
                "X-Forwarded-Host: shop.example",
                "X-Forwarded-Port: 8443",
                "Forwarded: for=192.0.2.1;proto=https;host=\"shop.example\", for=10.0.0.2, for=10.0.0.1",
            ]
        );
        let lines = [("Via-Proxy", "2001:db8::1"), ("via_proxy", "x"), ("X-Forwarded-For", "203.0.113.9")];
        assert_eq!(
            told("10.0.0.1", "header:Via-Proxy", true, &lines),
            [
                "Via-Proxy: 2001:db8::1",
                "X-Forwarded-For: 2001:db8::1, 10.0.0.1",
                "X-Forwarded-Proto: http",
                "X-Forwarded-Host: a.example",
                "Forwarded: for=\"[2001:db8::1]\";proto=http;host=\"a.example\", for=10.0.0.1",
            ]
        );
    }
}
