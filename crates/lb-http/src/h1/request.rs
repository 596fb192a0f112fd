//! Request heads: what is understood, and what is refused before a backend hears of it.

use lb_core::failure::Reject;
use std::mem::MaybeUninit;

use httparse::{Error, Status};
use lb_config::UnderscorePolicy;
use lb_core::head::{BodyLength, FieldName, RequestHead, Span, Version};
use lb_core::reason::Reason;

use super::authority;
use super::framing::{Delimiter, Fault, Framing};
use crate::websocket::handshake;

/// Field lines that any configuration can allow.
pub const MAX_FIELDS: usize = 256;

/// Limits and policies that a head is parsed under.
#[derive(Clone, Copy, Debug)]
pub struct HeadLimits {
    /// Bytes of a whole head.
    pub bytes: usize,
    /// Field lines.
    pub fields: usize,
    /// Bytes of the request target.
    pub target: usize,
    /// What to do with names that contain `_` (attack H1-12).
    pub underscore: UnderscorePolicy,
    /// Whether an unknown transfer coding is answered like a broken one.
    pub strict_te: bool,
    /// Whether `Upgrade: websocket` is honoured.
    pub websocket: bool,
}

/// What a head says about its connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ParsedRequest {
    /// Bytes that the head took.
    pub consumed: usize,
    /// How the body is delimited on the wire.
    pub chunked: bool,
    /// The client would keep the connection open.
    pub keep_alive: bool,
}

/// Parses one head from the start of `bytes` into `head`, which is empty. `None` means that more bytes are needed.
///
/// # Errors
/// When the head is refused; nothing of it may be forwarded.
pub fn parse(
    bytes: &[u8],
    limits: &HeadLimits,
    head: &mut RequestHead,
) -> Result<Option<ParsedRequest>, Reject> {
    let mut lines = [const { MaybeUninit::<httparse::Header<'_>>::uninit() }; MAX_FIELDS];
    let allowed = lines.get_mut(..limits.fields.min(MAX_FIELDS)).unwrap_or_default();
    let mut request = httparse::Request::new(&mut []);
    let consumed = match request.parse_with_uninit_headers(bytes, allowed) {
        Ok(Status::Complete(consumed)) => consumed,
        Ok(Status::Partial) => return too_large(bytes, limits).map_or(Ok(None), Err),
        Err(error) => return Err(syntax(error)),
    };
    let raw = bytes.get(..consumed).unwrap_or(bytes);
    if consumed > limits.bytes {
        return Err(Reject::new(431, Reason::HeaderTooLarge));
    }
    if has_bare_lf(raw) {
        return Err(Reject::new(400, Reason::BareLf));
    }
    let http10 = request.version == Some(0);
    head.version = if http10 { Version::Http10 } else { Version::Http11 };
    head.fields.append_text(raw);
    let span = |part: &[u8]| span_in(raw, part);
    let method = request.method.unwrap_or_default().as_bytes();
    let target = request.path.unwrap_or_default().as_bytes();
    head.method = span(method);
    if method == b"CONNECT" {
        // A forward proxy's method; its early data would be a second message (attack H1-14).
        return Err(Reject::new(405, Reason::Method));
    }
    if method == b"PRI" {
        // Reserved, so that the preface of HTTP/2 is not taken for a request (RFC 9113 §11.6).
        return Err(Reject::new(400, Reason::Method));
    }
    if target.len() > limits.target {
        return Err(Reject::new(414, Reason::UriTooLong));
    }
    let absolute = split_target(method, target)?;
    head.target = match absolute.path {
        // RFC 9112 §3.2.4.
        [] if method == b"OPTIONS" => appended(head, &[b"*"]),
        // `http://host?query` means its root (RFC 9110 §4.2.3).
        [] | [b'?', ..] => appended(head, &[b"/", absolute.path]),
        path => span(path),
    };

    let mut framing = Framing::default();
    let mut host: Option<&[u8]> = None;
    let (mut close, mut keep_alive, mut upgrade) = (false, false, false);
    for line in request.headers.iter() {
        let name = line.name.as_bytes();
        let value = line.value;
        let known = head.fields.add_span(span(name), span(value));
        match known {
            FieldName::Other => {
                if name.contains(&b'_') {
                    underscore(limits.underscore, head)?;
                }
            }
            FieldName::Host => {
                if host.replace(value).is_some() {
                    return Err(Reject::new(400, Reason::Host));
                }
            }
            FieldName::Connection => {
                for option in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                    close |= option.eq_ignore_ascii_case(b"close");
                    keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                    upgrade |= option.eq_ignore_ascii_case(b"upgrade");
                }
            }
            FieldName::Te => {
                let codings = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
                head.takes_trailers |= codings.into_iter().any(|c| c.eq_ignore_ascii_case(b"trailers"));
            }
            known => framing.line(known, value),
        }
    }
    head.authority = span(check_host(host, &absolute, http10)?);
    let delimiter = framing.decide(http10).map_err(|fault| framing_reject(fault, limits.strict_te))?;
    head.body = match delimiter {
        Delimiter::Absent => BodyLength::None,
        Delimiter::Length(length) => BodyLength::Known(length),
        Delimiter::Chunked => BodyLength::Unknown,
    };
    if upgrade && limits.websocket && !http10 && method == b"GET" && head.body == BodyLength::None {
        let asked = head.fields.lines().iter().find(|line| line.known == FieldName::Upgrade);
        if let Some(line) =
            asked.filter(|line| head.fields.slice(line.value).eq_ignore_ascii_case(b"websocket"))
        {
            head.upgrade = line.value;
            handshake::check_h1_request(head)
                .map_err(|fault| Reject::new(fault.status(), Reason::WebSocketHandshake))?;
        }
    }
    let keep_alive = if http10 { keep_alive && !close } else { !close };
    Ok(Some(ParsedRequest { consumed, chunked: delimiter == Delimiter::Chunked, keep_alive }))
}

/// Appends the parts of a target that does not stand in the head as it came.
fn appended(head: &mut RequestHead, parts: &[&[u8]]) -> Span {
    let start = head.fields.text().len();
    for part in parts {
        head.fields.append_text(part);
    }
    Span::new(start, head.fields.text().len())
}

/// Whether an unfinished head can only become too large: its target (414) or the whole (431).
pub(super) fn too_large(bytes: &[u8], limits: &HeadLimits) -> Option<Reject> {
    let line_ended = memchr::memchr(b'\n', bytes).is_some();
    // The longest method of the registry and the spaces around the target.
    if !line_ended && bytes.len() > limits.target.saturating_add(40) {
        return Some(Reject::new(414, Reason::UriTooLong));
    }
    (bytes.len() >= limits.bytes).then_some(Reject::new(431, Reason::HeaderTooLarge))
}

fn syntax(error: Error) -> Reject {
    match error {
        Error::TooManyHeaders => Reject::new(431, Reason::HeaderTooLarge),
        Error::Version => Reject::new(505, Reason::Version),
        _ => Reject::new(400, Reason::HeaderSyntax),
    }
}

fn framing_reject(fault: Fault, strict_te: bool) -> Reject {
    match fault {
        Fault::ContentLength => Reject::new(400, Reason::ContentLength),
        Fault::TransferEncoding | Fault::OldVersion => Reject::new(400, Reason::TransferEncoding),
        Fault::UnknownCoding if strict_te => Reject::new(400, Reason::TransferEncoding),
        Fault::UnknownCoding => Reject::new(501, Reason::TransferEncoding),
        Fault::Both => Reject::new(400, Reason::Framing),
    }
}

/// Applies the policy to the line added last.
fn underscore(policy: UnderscorePolicy, head: &mut RequestHead) -> Result<(), Reject> {
    match policy {
        UnderscorePolicy::Reject => return Err(Reject::new(400, Reason::Underscore)),
        UnderscorePolicy::Drop => {
            if let Some(line) = head.fields.lines_mut().last_mut() {
                line.dropped = true;
            }
        }
        UnderscorePolicy::Allow => {}
    }
    Ok(())
}

/// A target in its parts.
struct Target<'a> {
    /// Of the absolute form.
    authority: Option<&'a [u8]>,
    /// The port that the scheme of the absolute form stands for.
    default_port: u16,
    /// Origin form or `*`.
    path: &'a [u8],
}

/// Splits the absolute form, and refuses what is no target (RFC 9112 §3.2). The path itself is forwarded as it came.
fn split_target<'a>(method: &[u8], target: &'a [u8]) -> Result<Target<'a>, Reject> {
    let bad = Reject::new(400, Reason::HeaderSyntax);
    if !target.iter().all(|byte| matches!(byte, b'!'..=b'~') && *byte != b'#') {
        return Err(bad);
    }
    match target {
        [b'/', ..] => Ok(Target { authority: None, default_port: 0, path: target }),
        b"*" if method == b"OPTIONS" => Ok(Target { authority: None, default_port: 0, path: target }),
        _ => {
            // The scheme says nothing that the connection does not: clients of a TLS listener write `https`.
            let after = |scheme: &[u8], default_port: u16| {
                let (start, rest) = target.split_at_checked(scheme.len())?;
                start.eq_ignore_ascii_case(scheme).then_some((rest, default_port))
            };
            let known = after(b"http://", 80).or_else(|| after(b"https://", 443));
            let (rest, default_port) = known.ok_or(bad)?;
            let path_at = rest.iter().position(|byte| matches!(byte, b'/' | b'?'));
            let (authority, path) = rest.split_at(path_at.unwrap_or(rest.len()));
            Ok(Target { authority: Some(authority), default_port, path })
        }
    }
}

/// One valid `Host`; an absolute target must name the same authority (attack H1-11).
fn check_host<'a>(host: Option<&'a [u8]>, target: &Target<'a>, http10: bool) -> Result<&'a [u8], Reject> {
    let bad = Reject::new(400, Reason::Host);
    match (host, target.authority) {
        (None, _) if !http10 => Err(bad),
        (None, None) => Ok(b""),
        (Some(host), None) if authority::is_valid(host) => Ok(host),
        (Some(host), Some(absolute))
            if authority::is_valid(host)
                && authority::is_valid(absolute)
                && authority::is_same(host, absolute, target.default_port) =>
        {
            Ok(host)
        }
        (None, Some(absolute)) if authority::is_valid(absolute) => Ok(absolute),
        _ => Err(bad),
    }
}

/// Whether any line ends in LF alone. httparse accepts that; a backend may read it differently (attack H1-05).
#[inline]
pub(super) fn has_bare_lf(head: &[u8]) -> bool {
    let pairs = head.iter().zip(head.get(1..).unwrap_or(&[]));
    // Without an early end the compiler looks at many bytes at a time.
    pairs.fold(head.first() == Some(&b'\n'), |found, (before, byte)| {
        found | ((*byte == b'\n') & (*before != b'\r'))
    })
}

/// Whether a head may end in `bytes`, of which those before `from` were looked at already. Spares a head that trickles in from being
/// parsed anew for every byte.
pub(super) fn may_end(bytes: &[u8], from: usize) -> bool {
    let tail = bytes.get(from.saturating_sub(3)..).unwrap_or(&[]);
    memchr::memchr_iter(b'\n', tail).any(|at| {
        let after = tail.get(at.saturating_add(1)..).unwrap_or(&[]);
        matches!(after, [b'\n', ..] | [b'\r', b'\n', ..])
    })
}

/// Where `part`, a slice of `whole`, stands in it.
#[inline]
pub(super) fn span_in(whole: &[u8], part: &[u8]) -> Span {
    let start = (part.as_ptr() as usize).wrapping_sub(whole.as_ptr() as usize);
    debug_assert!(part.is_empty() || start.saturating_add(part.len()) <= whole.len());
    Span::new(start, start.saturating_add(part.len()))
}

#[cfg(test)]
mod tests;
