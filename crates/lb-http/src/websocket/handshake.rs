//! Opening handshakes (RFC 6455 §4) in the form that an exchange speaks: a GET with [`RequestHead::upgrade`], and a 101 that accepts it.
//! The codecs of HTTP/2 turn the extended CONNECT (RFC 8441 §5) into that and back.
//!
//! HTTP/2 knows neither `Sec-WebSocket-Key` nor `Sec-WebSocket-Accept`, so where one end speaks it and the other does not, the gateway
//! makes the key and checks the proof for the one, and proves itself to the other. All other fields pass both ways as they are,
//! sub-protocols and extensions among them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use lb_core::head::{BodyLength, Fields, RequestHead, ResponseHead, Span};
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

/// Checks a client's HTTP/1.1 upgrade (RFC 6455 §4.2.1) whose `Upgrade` and `Connection` fields were understood before.
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

/// Gives the upgrade of an HTTP/2 client what a backend that speaks HTTP/1.1 needs: a key (see [`key`]) in place of whatever the client
/// made up, and the version unless the client named one.
pub fn complete_h2_request(head: &mut RequestHead, key: &[u8; 24]) {
    drop_field(&mut head.fields, KEY);
    if head.fields.value_of(VERSION).is_none() {
        head.fields.push(b"Sec-WebSocket-Version", b"13");
    }
    head.fields.push(b"Sec-WebSocket-Key", key);
}

/// Checks that a backend which speaks HTTP/1.1 has accepted `request` (RFC 6455 §4.1). The proof was meant for the gateway, which has made
/// the key: it does not pass on.
///
/// # Errors
/// When it is not the proof for that key; nothing of the response may be forwarded.
pub fn check_h1_response(head: &mut ResponseHead, request: &RequestHead) -> Result<(), ResponseFault> {
    let key = single(&request.fields, KEY).ok_or(ResponseFault)?;
    if single(&head.fields, ACCEPT) != Some(&accept_key(key)) {
        return Err(ResponseFault);
    }
    drop_field(&mut head.fields, ACCEPT);
    Ok(())
}

/// Gives the acceptance of a backend that speaks HTTP/2 the proof that a client which speaks HTTP/1.1 waits for.
pub fn complete_h2_response(head: &mut ResponseHead, request: &RequestHead) {
    drop_field(&mut head.fields, ACCEPT);
    head.reason = text(&mut head.fields, b"Switching Protocols");
    if let Some(key) = single(&request.fields, KEY) {
        head.fields.push(b"Sec-WebSocket-Accept", &accept_key(key));
    }
}

fn check_version(fields: &Fields) -> Result<(), RequestFault> {
    match single(fields, VERSION) {
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
const VERSION: &[u8] = b"sec-websocket-version";

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
    fn an_http_2_client_is_given_key_and_version() {
        let fields: &[(&str, &[u8])] = &[
            ("sec-websocket-protocol", b"chat, superchat"),
            ("sec-websocket-extensions", b"permessage-deflate"),
            ("cookie", b"a=b"),
            // HTTP/2 does not use it; what a client made up must not meet ours.
            ("sec-websocket-key", b"forged"),
        ];
        let mut head = request(b"GET", fields);
        complete_h2_request(&mut head, &key(*b"the sample nonce"));
        assert_eq!(check_h1_request(&head), Ok(()));
        assert_eq!(
            names(&head.fields),
            [
                "sec-websocket-protocol",
                "sec-websocket-extensions",
                "cookie",
                "sec-websocket-version",
                "sec-websocket-key"
            ]
        );
        let mut wire = Vec::new();
        head.target = text(&mut head.fields, b"/chat");
        crate::h1::encode_request(&head, &mut wire);
        let wire = String::from_utf8(wire).unwrap();
        assert!(wire.starts_with("GET /chat HTTP/1.1\r\nsec-websocket-protocol: "), "{wire}");
        assert!(wire.ends_with(
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        ));

        // A version that the client named stays, for the backend to judge.
        let mut head = request(b"GET", &[("sec-websocket-version", b"8")]);
        complete_h2_request(&mut head, &key([0; 16]));
        assert_eq!(head.fields.value_of(VERSION), Some(&b"8"[..]));
        assert_eq!(names(&head.fields).len(), 2);
    }

    #[test]
    fn a_switch_counts_only_with_the_right_proof() {
        let asked = request(b"GET", &[("Sec-WebSocket-Key", EXAMPLE_KEY)]);
        let chosen: (&str, &[u8]) = ("Sec-WebSocket-Protocol", b"superchat");
        let mut head = response(101, &[("Sec-WebSocket-Accept", EXAMPLE_ACCEPT), chosen]);
        check_h1_response(&mut head, &asked).unwrap();
        assert_eq!(names(&head.fields), ["sec-websocket-protocol"]);
        for lines in [
            &[chosen][..],
            &[("Sec-WebSocket-Accept", b"AAAAAAAAAAAAAAAAAAAAAAAAAAA=")],
            &[("Sec-WebSocket-Accept", EXAMPLE_ACCEPT), ("sec-websocket-accept", EXAMPLE_ACCEPT)],
        ] {
            assert_eq!(check_h1_response(&mut response(101, lines), &asked), Err(ResponseFault), "{lines:?}");
        }

        // What an HTTP/2 backend says in its place does not count.
        let mut head = response(101, &[("sec-websocket-accept", b"forged"), chosen]);
        complete_h2_response(&mut head, &asked);
        assert_eq!(head.fields.slice(head.reason), b"Switching Protocols");
        assert_eq!(check_h1_response(&mut head, &asked), Ok(()));
    }
}
