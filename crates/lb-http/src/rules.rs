//! What a proxy must do to every head, whatever protocols stand on either side.

use lb_core::address::ClientAddress;
use lb_core::head::{FieldName, FieldNames, Fields, RequestHead, ResponseHead, Version};
use lb_core::rng::SplitMix64;
use lb_core::trace::TraceParent;
use lb_security::PeerCertificate;

mod forwarding;

pub use forwarding::Forwarding;

/// Fields that this hop adds to a request, or adds to.
const ADDED: FieldNames = FieldNames::of(&[
    FieldName::XForwardedFor,
    FieldName::XForwardedProto,
    FieldName::XForwardedHost,
    FieldName::Via,
    FieldName::Traceparent,
]);

/// Bytes of a trailer section.
pub(crate) const MAX_TRAILER_BYTES: usize = 8192;

/// Fields of a trailer section.
pub(crate) const MAX_TRAILER_FIELDS: usize = 32;

/// What this hop adds to the requests of one client connection.
#[derive(Debug)]
pub struct Hop {
    /// The client's address in text, without port; IPv4-mapped addresses as IPv4. `unknown` for a client of a Unix socket.
    client: Box<str>,
    scheme: &'static str,
    version: Version,
    /// The lines of every request that brings none of [`ADDED`] itself.
    lines: Fields,
    /// The lines that stand for the client's own of these names, where clients' certificates are checked.
    certificate: Option<Box<Fields>>,
}

impl Hop {
    /// The hop of a client that speaks `version`; `scheme` is `http` or `https`.
    pub fn new(client: ClientAddress, scheme: &'static str, version: Version) -> Self {
        // RFC 7239 §6.2 has this word for a client without an address.
        let client =
            client.ip().map_or("unknown".to_owned(), |ip| ip.to_canonical().to_string()).into_boxed_str();
        let mut lines = Fields::default();
        lines.push(b"X-Forwarded-For", client.as_bytes());
        lines.push(b"X-Forwarded-Proto", scheme.as_bytes());
        lines.push(b"Via", via(version));
        lines.shrink_to_fit();
        Self { client, scheme, version, lines, certificate: None }
    }

    /// The client's address in text.
    pub(crate) fn client(&self) -> &str {
        &self.client
    }

    /// Tells the backend `certificate`, and drops whatever the client itself says about certificates.
    pub fn tell_certificate(&mut self, certificate: Option<&PeerCertificate>) {
        let mut lines = Fields::default();
        if let Some(certificate) = certificate {
            lines.push(b"X-Client-Cert-Subject", certificate.subject.as_bytes());
            lines.push(b"X-Client-Cert-SHA256", certificate.sha256.as_bytes());
        }
        lines.shrink_to_fit();
        self.certificate = Some(Box::new(lines));
    }
}

fn via(version: Version) -> &'static [u8] {
    match version {
        Version::Http10 => b"HTTP/1.0 expressgateway",
        Version::Http11 => b"HTTP/1.1 expressgateway",
        Version::H2 => b"HTTP/2 expressgateway",
        Version::H3 => b"HTTP/3 expressgateway",
    }
}

/// Takes the fields of the client's hop out of a request and puts those of this hop in.
/// `told` is what is known of the client behind other proxies, where the listener asks for that.
pub fn request(head: &mut RequestHead, hop: &Hop, told: Option<Forwarding<'_>>, rng: &mut SplitMix64) {
    head.fields.drop_hop_by_hop();
    if head.version == Version::Http10 {
        // An HTTP/1.0 client cannot wait for 100 (RFC 9110 §10.1.1).
        head.fields.remove(FieldName::Expect);
    }
    if let Some(certificate) = &hop.certificate {
        head.fields.remove(FieldName::XClientCertSubject);
        head.fields.remove(FieldName::XClientCertSha256);
        head.fields.append(certificate);
    }
    if let Some(forwarding) = told.filter(|forwarding| !forwarding.appends()) {
        forwarding.rewrite(head, &hop.client);
        append_to_list(head, FieldName::Via, b"Via", via(head.version));
        return trace_context(head, rng);
    }
    if head.version == hop.version && !head.fields.may_have(ADDED) {
        head.fields.append(&hop.lines);
    } else {
        append_to_list(head, FieldName::XForwardedFor, b"X-Forwarded-For", hop.client.as_bytes());
        head.fields.remove(FieldName::XForwardedProto);
        head.fields.push(b"X-Forwarded-Proto", hop.scheme.as_bytes());
        head.fields.remove(FieldName::XForwardedHost);
        append_to_list(head, FieldName::Via, b"Via", via(head.version));
    }
    if !head.authority.is_empty() {
        head.fields.push_copy(b"X-Forwarded-Host", head.authority);
    }
    trace_context(head, rng);
}

/// How far a request may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// To a backend.
    Backend,
    /// No further than the gateway, which answers it.
    Here,
}

/// Counts this hop in the `Max-Forwards` of OPTIONS and TRACE (RFC 9110 §7.6.2), for which alone the field has a meaning. What is no number
/// is ignored and passes, and so are several fields.
pub fn spend_forward(head: &mut RequestHead) -> Destination {
    if !matches!(head.method(), b"OPTIONS" | b"TRACE") {
        return Destination::Backend;
    }
    let mut told = head.fields.iter().filter(|field| field.name.eq_ignore_ascii_case(MAX_FORWARDS));
    let (Some(field), None) = (told.next(), told.next()) else { return Destination::Backend };
    if field.value.is_empty() || !field.value.iter().all(u8::is_ascii_digit) {
        return Destination::Backend;
    }
    let add =
        |sum: u64, digit: &u8| sum.saturating_mul(10).saturating_add(u64::from(digit.wrapping_sub(b'0')));
    let value = field.value.iter().fold(0, add);
    drop(told);
    let Some(left) = value.checked_sub(1) else { return Destination::Here };
    head.fields.remove_named(MAX_FORWARDS);
    head.fields.push(b"Max-Forwards", left.to_string().as_bytes());
    Destination::Backend
}

const MAX_FORWARDS: &[u8] = b"max-forwards";

/// Appends an element to a list field, as the last line of that name.
fn append_to_list(head: &mut RequestHead, known: FieldName, name: &[u8], element: &[u8]) {
    let mut list = Vec::new();
    for value in head.fields.values(known) {
        list.extend_from_slice(value);
        list.extend_from_slice(b", ");
    }
    head.fields.remove(known);
    if list.is_empty() {
        head.fields.push(name, element);
    } else {
        head.fields.push_joined(name, &[&list, element]);
    }
}

/// W3C Trace Context: a new parent id within the client's trace, or a new trace without the sampled flag.
fn trace_context(head: &mut RequestHead, rng: &mut SplitMix64) {
    let mut line = [0u8; 55];
    let inherited =
        head.fields.values(FieldName::Traceparent).next().filter(|value| TraceParent::parse(value).is_some());
    if let (Some(slot), Some(value)) = (line.get_mut(..), inherited.and_then(|value| value.get(..55))) {
        slot.copy_from_slice(value);
    } else {
        line.copy_from_slice(b"00-00000000000000000000000000000000-0000000000000000-00");
        write_hex(&mut line, 3, rng.next_u64() | 1);
        write_hex(&mut line, 19, rng.next_u64());
    }
    write_hex(&mut line, 36, rng.next_u64() | 1);
    head.fields.remove(FieldName::Traceparent);
    head.fields.push(b"traceparent", &line);
}

/// Writes 16 hexadecimal digits at `at`.
fn write_hex(line: &mut [u8; 55], at: usize, value: u64) {
    let [high, low] = [value >> 32, value & 0xffff_ffff].map(|half| hex8(half).to_be_bytes());
    for (slots, digits) in [(at, high), (at.saturating_add(8), low)] {
        if let Some(slots) = line.get_mut(slots..slots.saturating_add(8)) {
            slots.copy_from_slice(&digits);
        }
    }
}

/// The eight hexadecimal digits of a 32-bit number, the first in the highest byte. All digits are made at once: each half-byte is
/// moved into a byte of its own, and those above nine are carried from `9` to `a`.
fn hex8(half: u64) -> u64 {
    let x = (half | half << 16) & 0x0000_ffff_0000_ffff;
    let x = (x | x << 8) & 0x00ff_00ff_00ff_00ff;
    let x = (x | x << 4) & 0x0f0f_0f0f_0f0f_0f0f;
    let above_nine = (x.wrapping_add(0x0606_0606_0606_0606) >> 4) & 0x0101_0101_0101_0101;
    x.wrapping_add(0x3030_3030_3030_3030).wrapping_add(above_nine.wrapping_mul(0x27))
}

/// Takes the fields of the backend's hop out of a response. `alt_svc` replaces the backend's `Alt-Svc`.
pub fn response(head: &mut ResponseHead, alt_svc: Option<&str>) {
    head.fields.drop_hop_by_hop();
    if alt_svc.is_some() {
        head.fields.remove(FieldName::AltSvc);
        announce(head, alt_svc);
    }
}

/// Announces another way to the same host (RFC 7838 §3).
pub(crate) fn announce(head: &mut ResponseHead, alt_svc: Option<&str>) {
    if let Some(value) = alt_svc {
        head.fields.push(b"Alt-Svc", value.as_bytes());
    }
}

/// Whether a trailer of this name is dropped: it frames, routes, authenticates, or changes what the head said (RFC 9110 §6.5.1, attack
/// H1-17).
pub(crate) fn is_forbidden_trailer(name: &[u8]) -> bool {
    const EXACT: &[&str] = &[
        "age",
        "authorization",
        "cache-control",
        "connection",
        "cookie",
        "date",
        "expect",
        "expires",
        "forwarded",
        "host",
        "http2-settings",
        "keep-alive",
        "location",
        "max-forwards",
        "pragma",
        "range",
        "retry-after",
        "set-cookie",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "vary",
        "via",
        "warning",
        "www-authenticate",
    ];
    const PREFIXES: &[&str] = &["content-", "if-", "proxy-", "x-client-cert-", "x-forwarded-", ":"];
    EXACT.iter().any(|exact| name.eq_ignore_ascii_case(exact.as_bytes()))
        || name.contains(&b'_')
        || PREFIXES.iter().any(|prefix| {
            name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(ip: &str) -> ClientAddress {
        std::net::SocketAddr::new(ip.parse().unwrap(), 4711).into()
    }

    fn forwarded(lines: &[(&str, &str)]) -> Vec<(String, String)> {
        let mut head = RequestHead::default();
        let start = head.fields.append_text(b"a.example");
        head.authority = lb_core::head::Span::new(start, start + 9);
        for (name, value) in lines {
            head.fields.push(name.as_bytes(), value.as_bytes());
        }
        let hop = Hop::new(client("::ffff:192.0.2.7"), "http", Version::Http11);
        request(&mut head, &hop, None, &mut SplitMix64::new(1));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        head.fields.iter().map(|field| (text(field.name), text(field.value))).collect()
    }

    fn value<'a>(fields: &'a [(String, String)], name: &str) -> Vec<&'a str> {
        fields.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str()).collect()
    }

    #[test]
    fn forwarding_fields_are_added() {
        let fields = forwarded(&[("A", "b")]);
        let [a, xff, proto, via, host, trace] = &fields[..] else { panic!("{fields:?}") };
        let line = |(name, value): &(String, String)| format!("{name}: {value}");
        assert_eq!(line(a), "A: b");
        assert_eq!(line(xff), "X-Forwarded-For: 192.0.2.7");
        assert_eq!(line(proto), "X-Forwarded-Proto: http");
        assert_eq!(line(via), "Via: HTTP/1.1 expressgateway");
        assert_eq!(line(host), "X-Forwarded-Host: a.example");
        assert!(trace.0 == "traceparent" && TraceParent::parse(trace.1.as_bytes()).is_some(), "{trace:?}");
    }

    #[test]
    fn a_client_cannot_tell_its_own_certificate() {
        let told = PeerCertificate {
            subject: "CN=alice".to_owned(),
            sha256: "ab".repeat(32),
            common_name: "alice".to_owned(),
            dns_names: Vec::new(),
            uris: Vec::new(),
            not_after: 0,
        };
        for (certificate, subject, others) in [(Some(&told), &["CN=alice"][..], 2), (None, &[], 0)] {
            let mut hop = Hop::new(client("192.0.2.7"), "https", Version::H2);
            hop.tell_certificate(certificate);
            for version in [Version::H2, Version::Http11] {
                let mut head = RequestHead { version, ..RequestHead::default() };
                for name in [
                    "x-client-cert-subject",
                    "X-Client-Cert-SHA256",
                    "X_Client_Cert_Subject",
                    "x_client-cert_sha256",
                ] {
                    head.fields.push(name.as_bytes(), b"forged");
                }
                request(&mut head, &hop, None, &mut SplitMix64::new(1));
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                let fields: Vec<_> =
                    head.fields.iter().map(|field| (text(field.name), text(field.value))).collect();
                assert_eq!(value(&fields, "x-client-cert-subject"), subject, "{fields:?}");
                let about =
                    |name: &str| name.to_ascii_lowercase().replace('_', "-").starts_with("x-client-cert");
                assert_eq!(fields.iter().filter(|(name, _)| about(name)).count(), others, "{fields:?}");
            }
        }
        assert!(is_forbidden_trailer(b"X-Client-Cert-Subject") && !is_forbidden_trailer(b"x-checksum"));
    }

    #[test]
    fn digits_are_those_of_the_standard_formatter() {
        for value in [0, 0x0123_4567_89ab_cdef, u64::MAX, 0x9a9a_a9a9_0f0f_f0f0] {
            let mut line = [b'-'; 55];
            write_hex(&mut line, 3, value);
            assert_eq!(&line[2..20], format!("-{value:016x}-").as_bytes());
        }
    }

    #[test]
    fn forwarding_fields_are_appended_or_overwritten() {
        let fields = forwarded(&[
            ("X-Forwarded-For", "10.0.0.1"),
            ("x-forwarded-for", "10.0.0.2"),
            ("X-Forwarded-Proto", "https"),
            ("X-Forwarded-Host", "evil"),
            ("Via", "1.1 other"),
        ]);
        assert_eq!(value(&fields, "x-forwarded-for"), ["10.0.0.1, 10.0.0.2, 192.0.2.7"]);
        assert_eq!(value(&fields, "x-forwarded-proto"), ["http"]);
        assert_eq!(value(&fields, "x-forwarded-host"), ["a.example"]);
        assert_eq!(value(&fields, "via"), ["1.1 other, HTTP/1.1 expressgateway"]);
    }

    #[test]
    fn a_trace_is_continued_or_begun() {
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let fields = forwarded(&[("Traceparent", parent)]);
        let [child] = value(&fields, "traceparent")[..] else { panic!("{fields:?}") };
        assert_eq!((&child[..36], &child[52..]), (&parent[..36], "-01"));
        assert_ne!(&child[36..52], &parent[36..52]);
        for bad in [
            "",
            "00-0",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        ] {
            let fields = forwarded(&[("traceparent", bad)]);
            let [new] = value(&fields, "traceparent")[..] else { panic!("{fields:?}") };
            assert!(TraceParent::parse(new.as_bytes()).is_some() && new.ends_with("-00"), "{new}");
        }
    }

    #[test]
    fn only_options_and_trace_are_counted_down() {
        let spent = |method: &str, told: &[&str]| {
            let mut head = RequestHead::default();
            let start = head.fields.append_text(method.as_bytes());
            head.method = lb_core::head::Span::new(start, start + method.len());
            for value in told {
                head.fields.push(b"Max-Forwards", value.as_bytes());
            }
            let reach = spend_forward(&mut head);
            let left: Vec<_> =
                head.fields.iter().map(|field| String::from_utf8_lossy(field.value).into_owned()).collect();
            (reach, left.join(" "))
        };
        for method in ["OPTIONS", "TRACE"] {
            assert_eq!(spent(method, &["0"]).0, Destination::Here);
            assert_eq!(spent(method, &["3"]), (Destination::Backend, "2".to_owned()));
            let most = (u64::MAX - 1).to_string();
            assert_eq!(spent(method, &[&"9".repeat(40)]), (Destination::Backend, most));
            for odd in [&["x"][..], &["-1"], &["1, 2"], &[""], &["0", "0"], &["1", "2"], &[]] {
                assert_eq!(spent(method, odd), (Destination::Backend, odd.join(" ")));
            }
        }
        assert_eq!(spent("GET", &["0"]), (Destination::Backend, "0".to_owned()));
        assert_eq!(spent("options", &["0"]), (Destination::Backend, "0".to_owned()));
    }

    #[test]
    fn alt_svc_replaces_the_origins() {
        let mut head = ResponseHead::default();
        head.fields.push(b"Alt-Svc", b"clear");
        response(&mut head, Some("h3=\":443\"; ma=60"));
        assert_eq!(head.fields.value_of(b"alt-svc"), Some(&b"h3=\":443\"; ma=60"[..]));
    }
}
