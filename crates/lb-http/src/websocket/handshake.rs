//! Opening handshakes: of HTTP/1.1 (RFC 6455 §4), of HTTP/2 (RFC 8441 §5), and from one to the other.
//!
//! In both forms of a head, [`RequestHead::upgrade`] holds the protocol: the `Upgrade` token, or `:protocol`. HTTP/2 knows neither
//! `Sec-WebSocket-Key` nor `Sec-WebSocket-Accept`, so whoever speaks HTTP/1.1 for an HTTP/2 peer makes the one and checks the other.
//! All other fields pass both ways as they are, sub-protocols and extensions among them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use lb_core::head::{BodyLength, FieldName, Fields, RequestHead, ResponseHead, Span};
use sha1::{Digest, Sha1};

/// What is wrong with a client's handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestFault {
    /// The method is not that of a handshake, or a body follows.
    Method,
    /// `Sec-WebSocket-Version` is not 13.
    Version,
    /// `Sec-WebSocket-Key` is absent, repeated, or not 16 bytes in base64.
    Key,
}

impl RequestFault {
    /// The status of the answer. A 426 bears `Sec-WebSocket-Version: 13` (RFC 6455 §4.4).
    pub fn status(self) -> u16 {
        match self {
            Self::Version => 426,
            Self::Method | Self::Key => 400,
        }
    }
}

/// A backend's answer is no proof that it speaks WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseFault;

/// `Sec-WebSocket-Key` from 16 random bytes.
pub fn key(nonce: [u8; 16]) -> [u8; 24] {
    let mut text = [0; 24];
    // 16 bytes are 24 characters.
    let written = STANDARD.encode_slice(nonce, &mut text);
    debug_assert_eq!(written, Ok(24));
    text
}

/// `Sec-WebSocket-Accept` for a key as it stands in the field (RFC 6455 §4.2.2).
pub fn accept_key(sec_websocket_key: &[u8]) -> [u8; 28] {
    let digest = Sha1::new().chain_update(sec_websocket_key).chain_update(GUID).finalize();
    let mut text = [0; 28];
    let written = STANDARD.encode_slice(digest, &mut text);
    debug_assert_eq!(written, Ok(28));
    text
}

/// Checks an HTTP/1.1 upgrade (RFC 6455 §4.2.1) whose `Upgrade` and `Connection` fields were understood before.
///
/// # Errors
/// When no server could agree to it.
pub fn check_h1_request(head: &RequestHead) -> Result<(), RequestFault> {
    if head.method() != b"GET" || head.body != BodyLength::None {
        return Err(RequestFault::Method);
    }
    check_version(&head.fields)?;
    match single(&head.fields, KEY) {
        Some(key) if is_key(key) => Ok(()),
        _ => Err(RequestFault::Key),
    }
}

/// Checks an extended CONNECT with `:protocol = websocket` (RFC 8441 §5).
///
/// # Errors
/// When no server could agree to it.
pub fn check_h2_request(head: &RequestHead) -> Result<(), RequestFault> {
    if head.method() != b"CONNECT" || !head.upgrade().eq_ignore_ascii_case(b"websocket") {
        return Err(RequestFault::Method);
    }
    check_version(&head.fields)
}

/// Turns an extended CONNECT into an upgrade with this key (see [`key`]).
pub fn h2_request_to_h1(head: &mut RequestHead, key: &[u8; 24]) {
    drop_field(&mut head.fields, KEY);
    head.method = text(&mut head.fields, b"GET");
    head.body = BodyLength::None;
    head.fields.push(b"Sec-WebSocket-Key", key);
}

/// Turns an upgrade into an extended CONNECT.
pub fn h1_request_to_h2(head: &mut RequestHead) {
    drop_field(&mut head.fields, KEY);
    head.method = text(&mut head.fields, b"CONNECT");
    head.body = BodyLength::Unknown;
    head.fields.drop_hop_by_hop();
}

/// Turns a backend's 101 into the 200 of an extended CONNECT. `key` is what the backend was sent.
///
/// # Errors
/// When the backend did not accept that key, or not this protocol; nothing of the response may be forwarded.
pub fn h1_response_to_h2(head: &mut ResponseHead, key: &[u8]) -> Result<(), ResponseFault> {
    let upgrade =
        head.fields.values(FieldName::Upgrade).any(|value| value.eq_ignore_ascii_case(b"websocket"));
    let accepted = single(&head.fields, ACCEPT) == Some(&accept_key(key));
    if head.status != 101 || !upgrade || !accepted {
        return Err(ResponseFault);
    }
    drop_field(&mut head.fields, ACCEPT);
    head.fields.drop_hop_by_hop();
    // A tunnel has no length (RFC 9110 §9.3.6).
    head.fields.remove(FieldName::ContentLength);
    head.status = 200;
    head.reason = Span::default();
    head.body = BodyLength::Unknown;
    Ok(())
}

/// Turns the 2xx of an extended CONNECT into a 101 for a client that sent `key`.
pub fn h2_response_to_h1(head: &mut ResponseHead, key: &[u8]) {
    drop_field(&mut head.fields, ACCEPT);
    head.fields.remove(FieldName::ContentLength);
    head.status = 101;
    head.reason = text(&mut head.fields, b"Switching Protocols");
    head.body = BodyLength::None;
    head.fields.push(b"Upgrade", b"websocket");
    head.fields.push(b"Sec-WebSocket-Accept", &accept_key(key));
}

fn check_version(fields: &Fields) -> Result<(), RequestFault> {
    match single(fields, b"sec-websocket-version") {
        Some(b"13") => Ok(()),
        _ => Err(RequestFault::Version),
    }
}

/// Whether it is 16 bytes in base64.
fn is_key(text: &[u8]) -> bool {
    let mut nonce = [0; 18];
    text.len() == 24 && STANDARD.decode_slice(text, &mut nonce) == Ok(16)
}

/// The value of a field that occurs once.
fn single<'a>(fields: &'a Fields, name: &[u8]) -> Option<&'a [u8]> {
    let mut values = fields.iter().filter(|field| field.name.eq_ignore_ascii_case(name));
    let first = values.next()?;
    values.next().is_none().then_some(first.value)
}

fn drop_field(fields: &mut Fields, name: &[u8]) {
    for at in 0..fields.lines().len() {
        let is_it =
            fields.lines().get(at).is_some_and(|line| fields.slice(line.name).eq_ignore_ascii_case(name));
        if let Some(line) = fields.lines_mut().get_mut(at).filter(|_| is_it) {
            line.dropped = true;
        }
    }
}

fn text(fields: &mut Fields, bytes: &[u8]) -> Span {
    let start = fields.append_text(bytes);
    Span::new(start, start.saturating_add(bytes.len()))
}

const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const KEY: &[u8] = b"sec-websocket-key";
const ACCEPT: &[u8] = b"sec-websocket-accept";

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 6455 §1.3.
    const EXAMPLE_KEY: &[u8] = b"dGhlIHNhbXBsZSBub25jZQ==";
    const EXAMPLE_ACCEPT: &[u8] = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

    fn request(method: &[u8], lines: &[(&str, &[u8])]) -> RequestHead {
        let mut head = RequestHead::default();
        head.method = text(&mut head.fields, method);
        head.upgrade = text(&mut head.fields, b"websocket");
        for (name, value) in lines {
            head.fields.push(name.as_bytes(), value);
        }
        head
    }

    fn response(status: u16, lines: &[(&str, &[u8])]) -> ResponseHead {
        let mut head = ResponseHead { status, ..ResponseHead::default() };
        for (name, value) in lines {
            head.fields.push(name.as_bytes(), value);
        }
        head
    }

    fn names(fields: &Fields) -> Vec<String> {
        fields.iter().map(|field| String::from_utf8_lossy(field.name).to_ascii_lowercase()).collect()
    }

    #[test]
    fn keys_are_those_of_the_rfc() {
        assert_eq!(key(*b"the sample nonce"), EXAMPLE_KEY);
        assert_eq!(accept_key(EXAMPLE_KEY), EXAMPLE_ACCEPT);
    }

    #[test]
    fn an_upgrade_needs_its_method_version_and_key() {
        let sound: &[(&str, &[u8])] = &[("Sec-WebSocket-Version", b"13"), ("sec-websocket-KEY", EXAMPLE_KEY)];
        assert_eq!(check_h1_request(&request(b"GET", sound)), Ok(()));
        assert_eq!(check_h1_request(&request(b"POST", sound)), Err(RequestFault::Method));
        let mut body = request(b"GET", sound);
        body.body = BodyLength::Known(1);
        assert_eq!(check_h1_request(&body), Err(RequestFault::Method));
        for versions in [&[][..], &["8"], &["13, 8"], &["13", "13"]] {
            let mut head = request(b"GET", &[("Sec-WebSocket-Key", EXAMPLE_KEY)]);
            versions.iter().for_each(|value| head.fields.push(b"Sec-WebSocket-Version", value.as_bytes()));
            let fault = check_h1_request(&head).unwrap_err();
            assert_eq!((fault, fault.status()), (RequestFault::Version, 426));
        }
        for bad in
            [&b""[..], b"dGhlIHNhbXBsZSBub25jZQ=", b"dGhlIHNhbXBsZSBub25jZWU=", b"dGhlIHNhbXBsZSBub25j%Q=="]
        {
            let head = request(b"GET", &[("Sec-WebSocket-Version", b"13"), ("Sec-WebSocket-Key", bad)]);
            assert_eq!(check_h1_request(&head), Err(RequestFault::Key), "{bad:?}");
        }
        let twice = [sound, &[("Sec-WebSocket-Key", EXAMPLE_KEY)]].concat();
        assert_eq!(check_h1_request(&request(b"GET", &twice)), Err(RequestFault::Key));
    }

    #[test]
    fn an_extended_connect_becomes_an_upgrade_and_back() {
        let fields: &[(&str, &[u8])] = &[
            ("sec-websocket-version", b"13"),
            ("sec-websocket-protocol", b"chat, superchat"),
            ("sec-websocket-extensions", b"permessage-deflate"),
            ("cookie", b"a=b"),
            // HTTP/2 does not use it; what a client made up must not meet ours.
            ("sec-websocket-key", b"forged"),
        ];
        let mut head = request(b"CONNECT", fields);
        assert_eq!(check_h2_request(&head), Ok(()));
        assert_eq!(check_h2_request(&request(b"GET", fields)), Err(RequestFault::Method));
        h2_request_to_h1(&mut head, &key(*b"the sample nonce"));
        assert_eq!(check_h1_request(&head), Ok(()));
        let kept = ["sec-websocket-version", "sec-websocket-protocol", "sec-websocket-extensions", "cookie"];
        assert_eq!(names(&head.fields), [&kept[..], &["sec-websocket-key"]].concat());
        let mut wire = Vec::new();
        head.target = text(&mut head.fields, b"/chat");
        crate::h1::encode_request(&head, &mut wire);
        let wire = String::from_utf8(wire).unwrap();
        assert!(wire.starts_with("GET /chat HTTP/1.1\r\nsec-websocket-version: 13\r\n"), "{wire}");
        assert!(wire.ends_with(
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        ));

        h1_request_to_h2(&mut head);
        assert_eq!(
            (head.method(), head.upgrade(), head.body),
            (&b"CONNECT"[..], &b"websocket"[..], BodyLength::Unknown)
        );
        assert_eq!(names(&head.fields), kept);
    }

    #[test]
    fn a_switch_becomes_a_success_only_with_the_right_proof() {
        let lines = |accept: &'static [u8]| -> Vec<(&'static str, &'static [u8])> {
            vec![
                ("Upgrade", b"WebSocket"),
                ("Connection", b"Upgrade"),
                ("Sec-WebSocket-Accept", accept),
                ("Sec-WebSocket-Protocol", b"superchat"),
            ]
        };
        let mut head = response(101, &lines(EXAMPLE_ACCEPT));
        h1_response_to_h2(&mut head, EXAMPLE_KEY).unwrap();
        assert_eq!((head.status, head.body), (200, BodyLength::Unknown));
        assert_eq!(names(&head.fields), ["sec-websocket-protocol"]);
        h2_response_to_h1(&mut head, EXAMPLE_KEY);
        assert_eq!(head.fields.value_of(b"sec-websocket-accept"), Some(EXAMPLE_ACCEPT));
        assert_eq!(head.fields.slice(head.reason), b"Switching Protocols");
        assert!(h1_response_to_h2(&mut head, EXAMPLE_KEY).is_ok());

        let without_upgrade = lines(EXAMPLE_ACCEPT).split_off(1);
        let twice = [lines(EXAMPLE_ACCEPT), lines(EXAMPLE_ACCEPT)].concat();
        for (status, lines) in [
            (200, lines(EXAMPLE_ACCEPT)),
            (101, lines(b"AAAAAAAAAAAAAAAAAAAAAAAAAAA=")),
            (101, without_upgrade),
            (101, twice),
        ] {
            assert_eq!(h1_response_to_h2(&mut response(status, &lines), EXAMPLE_KEY), Err(ResponseFault));
        }
    }
}
