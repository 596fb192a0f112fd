//! The kinds of string, each with its check.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use lb_core::access_log::{AccessField, AccessLogFormat};
use lb_core::address::UNIX_PREFIX;
use lb_core::filter::{ErrorPage, FilterKind};
use lb_core::filter::{HeaderLine, OriginPattern, Template};
use lb_core::forwarded::AddressSource;
use lb_core::fraction::Fraction;
use lb_core::limit::LimitKey;
use lb_core::proxy_protocol::ProxySends;
use lb_core::route::{CertificatePattern, HostPattern, IpNetwork, Pattern, Want, path};

use crate::config::{HashKey, HostPort, QuicLb, RetryOn, SocketName, SplitKey, hex_octets, is_token};
use crate::document::Value;

/// What a string must be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Text {
    /// Anything.
    Any,
    /// Not blank.
    NotBlank,
    /// A path; not blank.
    Path,
    /// `name:port`, `1.2.3.4:port` or `[::1]:port`.
    HostPort,
    /// What [`Self::HostPort`] is, or `unix:` and a path.
    SocketName,
    /// The permissions of a file.
    Mode,
    /// An IP address and a port.
    SocketAddr,
    /// An IP address.
    Ip,
    /// An IP address and a port, or the word `off`.
    SocketAddrOrOff,
    /// An IP address, and a port unless it is 53.
    DnsServer,
    /// A DNS name, or one with `*` in place of its first label.
    ServerName,
    /// 64 hex digits.
    Sha256,
    /// A token of HTTP.
    Token,
    /// What the hashing policies hash.
    HashKey,
    /// A path of a URL that may stand in a cookie.
    CookiePath,
    /// The target of a request: path and query.
    Target,
    /// A host with or without a port.
    Authority,
    /// A status, or the first and last of a range.
    Statuses,
    /// What is tried again.
    RetryOn,
    /// A DNS name, whose labels may begin with `_`.
    ServiceName,
    /// Bytes, as text with escapes or in hex digits.
    Payload,
    /// What a route is called.
    RouteName,
    /// A host, an IP address, or `*.` and a domain.
    HostPattern,
    /// A host without a port.
    HostName,
    /// A path in canonical form.
    RoutePath,
    /// A regular expression.
    Regex,
    /// A condition on the value of a field, parameter or cookie.
    ValueCondition,
    /// A network (CIDR).
    Network,
    /// An origin of scripts, or many.
    Origin,
    /// The field that tells the client's address.
    AddressSource,
    /// What a header of the PROXY protocol says besides the addresses.
    ProxyTlv,
    /// What a client's certificate is known by.
    CertificatePattern,
    /// The body of an answer.
    Body,
    /// The value of a field.
    FieldValue,
    /// What the clients of a split are known by.
    SplitKey,
    /// The name of a field, a colon, and its value.
    HeaderLine,
    /// A kind of filter that a policy may hold.
    FilterKind,
    /// What requests are counted by.
    LimitKey,
    /// A share, in percent or as a fraction.
    Fraction,
    /// Statuses of errors, and the file of their page.
    ErrorPage,
    /// The name of an application protocol, as ALPN has it (RFC 7301 §3.1).
    Alpn,
    /// The ID of a server in hex digits, `=`, and the address of a backend.
    QuicServer,
    /// The ID of a server in hex digits.
    ServerId,
    /// How lines of the access log are written.
    AccessLogFormat,
    /// A field of the access log.
    AccessField,
    /// Where a collector of traces listens.
    CollectorUrl,
}

impl Text {
    /// The end of the sentence `must be …`.
    pub(crate) fn expected(self) -> &'static str {
        match self {
            Self::Any => "a string",
            Self::NotBlank => "a string that is not blank",
            Self::Path => "a path that is not blank",
            Self::HostPort => "\"host:port\"",
            Self::SocketName => "\"host:port\" or \"unix:/path\"",
            Self::Mode => "permissions in octal digits such as \"0660\"",
            Self::SocketAddr => "\"ip:port\"",
            Self::SocketAddrOrOff => "\"ip:port\" or \"off\"",
            Self::DnsServer => "\"ip\" or \"ip:port\"",
            Self::ServerName => "a DNS name, or one that begins with \"*.\"",
            Self::Sha256 => "64 hex digits",
            Self::Token => "a token (RFC 9110 §5.6.2)",
            Self::HashKey => {
                "\"source_address\", \"header:NAME\", \"cookie:NAME\", \"path\", \"query:NAME\" or \"connection_id\""
            }
            Self::CookiePath => "a path that begins with \"/\", without \";\", spaces and control characters",
            Self::Target => "a path that begins with \"/\", without \"#\", spaces and control characters",
            Self::Authority => "a host, with or without a port",
            Self::CollectorUrl => "\"http://host:port\" or \"https://host:port\", with or without a path",
            Self::Statuses => "a status 100..=599, or two of them with \"-\" between",
            Self::RetryOn => {
                "\"connect\", \"refused\", \"reset\", \"timeout\", \"500\", \"502\", \"503\" or \"504\""
            }
            Self::ServiceName => "a DNS name",
            Self::Payload => {
                "text whose backslashes begin \\\\, \\r, \\n, \\t, \\0 or \\xNN, or \"hex:\" and hex digits in pairs, up to 1200 bytes"
            }
            Self::Alpn => "the name of a protocol, 1 to 255 bytes long",
            Self::Ip => "an IP address",
            Self::RouteName => "1 to 64 letters, digits, `-`, `_` and `.`",
            Self::HostPattern => "a DNS name, one that begins with \"*.\", or an IP address, without a port",
            Self::HostName => "a DNS name or an IP address, without a port",
            Self::RoutePath => "a path that begins with \"/\", in its canonical form",
            Self::Regex => "a regular expression, without look-around",
            Self::ValueCondition => "\"N=value\", \"N\", \"!N\" or \"N~regex\"",
            Self::Network => "a network such as \"10.0.0.0/8\", or an IP address",
            Self::Origin => {
                "an origin such as \"https://app.example.com\", with \"*.\" before the domain for those below it, \"null\" or \"*\""
            }
            Self::AddressSource => "\"x_forwarded_for\", \"forwarded\" or \"header:NAME\"",
            Self::ProxyTlv => "\"authority\", \"alpn\", \"ssl\" or \"unique_id\"",
            Self::CertificatePattern => {
                "\"sha256:\" and 64 hex digits, or \"subject:\", \"dns:\" or \"uri:\" and a name, at the end of which \"*\" may stand"
            }
            Self::Body => "text of at most 65536 bytes",
            Self::FieldValue => "text without control characters",
            Self::SplitKey => "\"cookie\", \"client_ip\" or \"header:NAME\"",
            Self::HeaderLine => "\"N: value\", in whose value `${…}` may stand",
            Self::LimitKey => {
                "\"client_ip\", \"header:NAME\", \"cookie:NAME\", \"query:NAME\", \"host\", \"path\", \"route\", or several of them joined by \"+\""
            }
            Self::FilterKind => {
                "\"access\", \"rate_limit\", \"concurrency\", \"cors\", \"fault\", \"request_headers\", \"errors\" or \"response_headers\""
            }
            Self::Fraction => "a share such as \"0.1%\" or \"1/3\", of at most all",
            Self::ErrorPage => "statuses of errors and a file, such as \"404: /path\" or \"500-504: /path\"",
            Self::AccessLogFormat => "\"json\", \"combined\", or a text with `${FIELD}` in it",
            Self::AccessField => "the name of a field of the access log",
            Self::ServerId => "1 to 3 bytes in hex digits",
            Self::QuicServer => "1 to 15 bytes in hex digits, \"=\", and \"ip:port\"",
        }
    }

    /// Whether a message may show the value: a token pasted in place of its hash must not reach a log.
    pub(crate) fn is_secret(self) -> bool {
        self == Self::Sha256
    }

    /// Reads `text`, which has no white space around it.
    ///
    /// # Errors
    /// What is wrong with the text, beyond [`Self::expected`].
    pub(crate) fn read(self, text: &str) -> Result<Value, String> {
        match self {
            Self::Any => Ok(Value::Text(text.to_owned())),
            Self::NotBlank | Self::Path if text.is_empty() => Err(String::new()),
            Self::NotBlank | Self::Path => Ok(Value::Text(text.to_owned())),
            Self::HostPort => HostPort::parse(text).map(Value::HostPort).map_err(|e| e.to_string()),
            Self::SocketName => {
                SocketName::parse(text).map(|address| Value::SocketName(address, text.to_owned()))
            }
            Self::Mode => checked(text, |text| read_mode(text).is_some()),
            Self::SocketAddr | Self::SocketAddrOrOff | Self::DnsServer if text.starts_with(UNIX_PREFIX) => {
                Err("a Unix socket cannot stand here".to_owned())
            }
            Self::SocketAddrOrOff if text == "off" => Ok(Value::Text(text.to_owned())),
            Self::SocketAddr | Self::SocketAddrOrOff => {
                text.parse().map(Value::SocketAddr).map_err(|_| String::new())
            }
            Self::DnsServer => text
                .parse::<IpAddr>()
                .map(|ip| SocketAddr::new(ip, 53))
                .or_else(|_| text.parse())
                .map(Value::SocketAddr)
                .map_err(|_| String::new()),
            Self::ServerName => read_server_name(text).map(Value::Text).ok_or_else(String::new),
            Self::Token => checked(text, is_token),
            Self::HashKey => checked(text, |text| HashKey::parse(text).is_some()),
            Self::CookiePath => checked(text, |text| is_target(text, b';')),
            Self::Target => checked(text, |text| is_target(text, b'#')),
            Self::Authority => checked(text, is_authority),
            Self::CollectorUrl => checked(text, is_collector_url),
            Self::Statuses => checked(text, |text| read_statuses(text).is_some()),
            Self::RetryOn => checked(text, |text| RetryOn::from_word(text).is_some()),
            Self::ServiceName => {
                let is_name = !text.contains(':')
                    && HostPort::parse(&format!("{text}:0")).is_ok_and(|found| found.ip().is_none());
                if is_name { Ok(Value::Text(text.to_ascii_lowercase())) } else { Err(String::new()) }
            }
            Self::AccessLogFormat => AccessLogFormat::parse(text).map(|_| Value::Text(text.to_owned())),
            Self::AccessField => match AccessField::from_word(text) {
                Some(field) => Ok(Value::Text(field.as_str().to_owned())),
                None => Err(format!("there are {}", AccessField::WORDS.join(", "))),
            },
            Self::Payload => checked(text, |text| read_payload(text).is_some()),
            Self::Alpn => checked(text, |text| (1..=255).contains(&text.len())),
            Self::Ip => checked(text, |text| text.parse::<IpAddr>().is_ok()),
            Self::RouteName => checked(text, is_route_name),
            Self::HostPattern => {
                let detail = || match text.rsplit_once(':') {
                    Some((_, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
                        "the port does not count: leave it out".to_owned()
                    }
                    _ => String::new(),
                };
                let is_pattern = HostPattern::parse(text).is_some();
                if is_pattern { Ok(Value::Text(text.to_owned())) } else { Err(detail()) }
            }
            Self::HostName => {
                checked(text, |text| matches!(HostPattern::parse(text), Some(HostPattern::Exact(_))))
            }
            Self::RoutePath => read_route_path(text),
            Self::Regex => Pattern::new(text, false).map(|_| Value::Text(text.to_owned())),
            Self::ValueCondition => read_value_condition(text).map(|_| Value::Text(text.to_owned())),
            Self::Network => checked(text, |text| IpNetwork::parse(text).is_some()),
            Self::Origin => checked(text, |text| OriginPattern::parse(text).is_some()),
            Self::AddressSource => checked(text, is_address_source),
            Self::ProxyTlv => checked(text, |text| ProxySends::TLVS.contains(&text)),
            Self::CertificatePattern => checked(text, |text| CertificatePattern::parse(text).is_some()),
            Self::Body => checked(text, |text| text.len() <= 65_536),
            Self::FieldValue => checked(text, |text| !text.chars().any(char::is_control) && !text.is_empty()),
            Self::SplitKey if text == "user" => {
                Err("not built yet: users, which need authentication".to_owned())
            }
            Self::SplitKey => checked(text, |text| SplitKey::parse(text).is_some()),
            Self::HeaderLine => read_header_line(text).map(|_| Value::Text(text.to_owned())),
            Self::LimitKey => LimitKey::parse_parts(text).map(|_| Value::Text(text.to_owned())),
            Self::FilterKind => checked(text, |text| FilterKind::from_word(text).is_some()),
            Self::Fraction => checked(text, |text| Fraction::parse(text).is_some()),
            Self::ErrorPage => checked(text, |text| ErrorPage::parse(text).is_some()),
            Self::ServerId => checked(text, |text| hex_octets(text).is_some_and(|id| id.len() <= 3)),
            Self::QuicServer => checked(text, |text| QuicLb::parse_server(text).is_some()),
            Self::Sha256 => read_digest(text).map(Value::Digest).ok_or_else(String::new),
        }
    }
}

fn is_route_name(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=64).contains(&text.len()) && text.bytes().all(fits)
}

fn is_address_source(text: &str) -> bool {
    AddressSource::parse(text).is_some_and(|source| is_token(source.field()))
}

/// Segments that a path of a route may have.
const MOST_SEGMENTS: usize = lb_core::route::table::MOST_SEGMENTS;

fn read_route_path(text: &str) -> Result<Value, String> {
    if !text.starts_with('/') {
        return Err(String::new());
    }
    if text.contains(['?', '#']) {
        return Err("conditions on the query stand under `query`".to_owned());
    }
    if text.split('/').count() > MOST_SEGMENTS {
        return Err(format!("it has at most {MOST_SEGMENTS} segments"));
    }
    match path::canonical(text.as_bytes(), false) {
        Ok(canonical) if canonical == text.as_bytes() => Ok(Value::Text(text.to_owned())),
        Ok(canonical) => Err(format!("that is \"{}\"", String::from_utf8_lossy(&canonical))),
        Err(_) => Err(String::new()),
    }
}

/// A name and what its value must be.
pub(crate) fn read_value_condition(text: &str) -> Result<(String, Want), String> {
    let (name, want) = match (text.strip_prefix('!'), text.find(['=', '~'])) {
        (Some(name), _) => (name, Want::Absent),
        (None, None) => (text, Want::Present),
        (None, Some(at)) => {
            let (name, value) = text.split_at(at);
            match value.strip_prefix('~') {
                Some(pattern) => (name, Want::Fits(Pattern::new(pattern, false)?)),
                None => (name, Want::Is(value.get(1..).unwrap_or_default().as_bytes().into())),
            }
        }
    };
    let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'!');
    if is_name { Ok((name.to_owned(), want)) } else { Err(String::new()) }
}

/// The longest value that an edit of fields has in the file.
const MOST_VALUE: usize = 4096;

/// A field line whose value may hold values of the request.
pub(crate) fn read_header_line(text: &str) -> Result<HeaderLine, String> {
    let (name, value) = text.split_once(':').ok_or_else(String::new)?;
    let value = value.trim();
    if !is_token(name) || value.len() > MOST_VALUE || value.chars().any(char::is_control) {
        return Err(String::new());
    }
    Ok(HeaderLine { name: name.as_bytes().into(), value: Template::parse(value)? })
}

/// The most that a probe sends: what every path carries whole.
const MOST_PAYLOAD: usize = 1200;

/// The bytes that a text with escapes, or `hex:` and digits, stands for.
pub(crate) fn read_payload(text: &str) -> Option<Vec<u8>> {
    let bytes = match text.strip_prefix("hex:") {
        Some(digits) => read_hex(&digits.replace(' ', ""))?,
        None => read_escapes(text)?,
    };
    (bytes.len() <= MOST_PAYLOAD).then_some(bytes)
}

fn read_escapes(text: &str) -> Option<Vec<u8>> {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'\\' {
            bytes.push(*first);
            continue;
        }
        let (escape, after) = rest.split_first()?;
        rest = after;
        bytes.push(match escape {
            b'\\' => b'\\',
            b'r' => b'\r',
            b'n' => b'\n',
            b't' => b'\t',
            b'0' => 0,
            b'x' => {
                let (pair, after) = rest.split_first_chunk()?;
                rest = after;
                read_pair(*pair)?
            }
            _ => return None,
        });
    }
    Some(bytes)
}

fn read_hex(digits: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
    rest.is_empty().then_some(pairs)?.iter().map(|pair| read_pair(*pair)).collect()
}

fn read_pair([high, low]: [u8; 2]) -> Option<u8> {
    let digit = |hex: u8| char::from(hex).to_digit(16);
    u8::try_from(digit(high)? * 16 + digit(low)?).ok()
}

fn checked(text: &str, fits: impl FnOnce(&str) -> bool) -> Result<Value, String> {
    if fits(text) { Ok(Value::Text(text.to_owned())) } else { Err(String::new()) }
}

/// Whether it can stand in a request line or a field as it is.
fn is_target(text: &str, forbidden: u8) -> bool {
    text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != forbidden)
}

fn is_collector_url(text: &str) -> bool {
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    let parts = rest.map(|rest| rest.split_once('/').unwrap_or((rest, "")));
    parts.is_some_and(|(authority, path)| {
        is_authority(authority)
            && path.bytes().all(|byte| matches!(byte, b'!'..=b'~') && byte != b'#' && byte != b'?')
    })
}

fn is_authority(text: &str) -> bool {
    HostPort::parse(text).is_ok() || HostPort::parse(&format!("{text}:0")).is_ok()
}

/// The statuses that `200` or `200-399` stands for.
pub(crate) fn read_statuses(text: &str) -> Option<RangeInclusive<u16>> {
    let status = |text: &str| {
        let digits = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|status| digits && (100..=599).contains(status))
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let range = status(first.trim())?..=status(last.trim())?;
    Some(range).filter(|range| !range.is_empty())
}

/// The permissions that `660` or `0660` stands for.
pub(crate) fn read_mode(text: &str) -> Option<u32> {
    let fits = (3..=4).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    u32::from_str_radix(text, 8).ok().filter(|mode| fits && *mode <= 0o777)
}

/// The name in lower case. A wildcard stands for one whole label (RFC 6125 §6.4.3).
fn read_server_name(text: &str) -> Option<String> {
    let fits = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    let name = text.strip_suffix('.').unwrap_or(text);
    let labels = name.strip_prefix("*.").unwrap_or(name);
    (name.len() <= 253 && labels.split('.').all(fits)).then(|| name.to_ascii_lowercase())
}

fn read_digest(text: &str) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != digest.len() || !rest.is_empty() {
        return None;
    }
    for (byte, pair) in digest.iter_mut().zip(pairs) {
        *byte = read_pair(*pair)?;
    }
    Some(digest)
}
