//! One line of the access log.

use std::io::Write;
use std::time::{Duration, SystemTime};

use lb_core::address::ClientAddress;

use super::timestamp::Timestamp;
use crate::escape::is_unsafe;

/// A finished request, as the access log writes it. What a peer sent is given as the bytes that it sent.
#[derive(Clone, Copy, Debug)]
pub struct AccessRecord<'a> {
    /// When the request began.
    pub time: SystemTime,
    /// The listener's name.
    pub listener: &'a str,
    /// The client's address.
    pub client: ClientAddress,
    /// The method.
    pub method: &'a [u8],
    /// The request target as it stood in the request.
    pub target: &'a [u8],
    /// The host asked for.
    pub host: Option<&'a [u8]>,
    /// The client's protocol version, such as `HTTP/1.1`.
    pub version: &'static str,
    /// What TLS has settled, if the client came inside it.
    pub tls: Option<TlsRecord<'a>>,
    /// The status of the response, if there was one.
    pub status: Option<u16>,
    /// How a gRPC call ended, by number; none of other requests, and of calls without a status.
    pub grpc_status: Option<u8>,
    /// Bytes of the request, head included, as the client's connection carried them.
    pub bytes_in: u64,
    /// Bytes of the response, head included, as the client's connection carried them.
    pub bytes_out: u64,
    /// From the first byte of the request to the last of the response, or to the abort.
    pub duration: Duration,
    /// The backend that answered, or that was tried last.
    pub backend: Option<&'a str>,
    /// Why the gateway itself refused or cut the exchange; empty when it did not.
    pub reason: &'static str,
    /// The name of the route that took the request; empty where none did or it has no name.
    pub route: &'a str,
    /// The ID of the request, if it has one.
    pub request_id: Option<&'a [u8]>,
    /// How often the request was sent once more.
    pub retries: u32,
    /// The User-Agent field.
    pub user_agent: Option<&'a [u8]>,
    /// The Referer field.
    pub referer: Option<&'a [u8]>,
}

/// The TLS connection that a request came over.
#[derive(Clone, Copy, Debug)]
pub struct TlsRecord<'a> {
    /// The version, such as `TLSv1.3`.
    pub version: &'static str,
    /// The protocol that ALPN has chosen.
    pub alpn: Option<&'a [u8]>,
    /// The server name that the client asked for.
    pub server_name: Option<&'a [u8]>,
}

impl AccessRecord<'_> {
    /// Appends the record to `line` as a JSON object and a line feed.
    ///
    /// Text is valid JSON whatever a peer sent: control and bidirectional characters are escaped, bytes that are
    /// not UTF-8 become U+FFFD. The target is cut after 2,048 bytes, each other text of a peer after 512, so
    /// that a line stays below about 25 KiB.
    pub fn append_to(&self, line: &mut Vec<u8>) {
        line.reserve(TYPICAL_LINE);
        // Writing to a vector cannot fail.
        let _ = write!(line, r#"{{"time":"{}","listener":"#, Timestamp::from(self.time));
        push_text(line, self.listener.as_bytes(), MAX_TEXT);
        let _ = write!(line, r#","client":"{}","method":"#, self.client);
        push_text(line, self.method, MAX_TEXT);
        line.extend_from_slice(br#","target":"#);
        push_text(line, self.target, MAX_TARGET);
        push_field(line, "host", self.host);
        let _ = write!(line, r#","version":"{}","tls":"#, self.version);
        match &self.tls {
            Some(tls) => {
                let _ = write!(line, r#"{{"version":"{}""#, tls.version);
                push_field(line, "alpn", tls.alpn);
                push_field(line, "server_name", tls.server_name);
                line.push(b'}');
            }
            None => line.extend_from_slice(b"null"),
        }
        line.extend_from_slice(br#","status":"#);
        let _ = match self.status {
            Some(status) => write!(line, "{status}"),
            None => write!(line, "null"),
        };
        let _ = match self.grpc_status {
            Some(status) => write!(line, r#","grpc_status":{status}"#),
            None => write!(line, r#","grpc_status":null"#),
        };
        let _ = write!(
            line,
            r#","bytes_in":{},"bytes_out":{},"duration_seconds":{}.{:06}"#,
            self.bytes_in,
            self.bytes_out,
            self.duration.as_secs(),
            self.duration.subsec_micros(),
        );
        push_field(line, "backend", self.backend.map(str::as_bytes));
        // Names of routes need no escapes.
        let _ = write!(
            line,
            r#","reason":"{}","route":"{}","retries":{}"#,
            self.reason, self.route, self.retries
        );
        push_field(line, "request_id", self.request_id);
        push_field(line, "user_agent", self.user_agent);
        push_field(line, "referer", self.referer);
        line.extend_from_slice(b"}\n");
    }
}

fn push_field(line: &mut Vec<u8>, name: &str, value: Option<&[u8]>) {
    let _ = write!(line, r#","{name}":"#);
    match value {
        Some(text) => push_text(line, text, MAX_TEXT),
        None => line.extend_from_slice(b"null"),
    }
}

/// Appends at most the first `max` bytes of `text` as a JSON string.
fn push_text(line: &mut Vec<u8>, text: &[u8], max: usize) {
    let text = text.get(..max).unwrap_or(text);
    line.push(b'"');
    if text.iter().all(|byte| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\')) {
        line.extend_from_slice(text);
    } else {
        push_escaped(line, text);
    }
    line.push(b'"');
}

fn push_escaped(line: &mut Vec<u8>, text: &[u8]) {
    for chunk in text.utf8_chunks() {
        for character in chunk.valid().chars() {
            let _ = match character {
                '"' | '\\' => write!(line, "\\{character}"),
                // All of these are below U+10000, where JSON needs one escape.
                _ if is_unsafe(character) => write!(line, "\\u{:04x}", u32::from(character)),
                _ => write!(line, "{character}"),
            };
        }
        if !chunk.invalid().is_empty() {
            line.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
}

const TYPICAL_LINE: usize = 512;
const MAX_TARGET: usize = 2_048;
const MAX_TEXT: usize = 512;

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    fn record() -> AccessRecord<'static> {
        AccessRecord {
            time: UNIX_EPOCH + Duration::from_millis(1_500),
            listener: "web",
            client: ([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1], 4711).into(),
            method: b"GET",
            target: b"/a?b=c",
            host: Some(b"example.org"),
            version: "HTTP/1.1",
            tls: None,
            status: Some(200),
            grpc_status: None,
            bytes_in: 0,
            bytes_out: 12,
            duration: Duration::from_micros(1_000_250),
            backend: Some("127.0.0.1:3000"),
            reason: "",
            route: "shop",
            request_id: None,
            retries: 1,
            user_agent: None,
            referer: Some(b"https://example.org/"),
        }
    }

    fn line(record: AccessRecord<'_>) -> String {
        let mut line = Vec::new();
        record.append_to(&mut line);
        String::from_utf8(line).unwrap()
    }

    fn json(record: AccessRecord<'_>) -> serde_json::Value {
        let line = line(record);
        assert_eq!(line.matches('\n').count(), 1);
        serde_json::from_str(&line).unwrap()
    }

    #[test]
    fn a_line_as_it_stands() {
        assert_eq!(
            line(record()),
            concat!(
                r#"{"time":"1970-01-01T00:00:01.500Z","listener":"web","client":"[2001:db8::1]:4711","#,
                r#""method":"GET","target":"/a?b=c","host":"example.org","version":"HTTP/1.1","tls":null,"status":200,"#,
                r#""grpc_status":null,"bytes_in":0,"bytes_out":12,"duration_seconds":1.000250,"backend":"127.0.0.1:3000","#,
                r#""reason":"","route":"shop","retries":1,"request_id":null,"user_agent":null,"referer":"https://example.org/"}"#,
                "\n"
            )
        );
    }

    #[test]
    fn what_is_absent_is_null() {
        assert_eq!(json(AccessRecord { grpc_status: Some(14), ..record() })["grpc_status"], 14);
        assert_eq!(json(AccessRecord { client: ClientAddress::Unix, ..record() })["client"], "unix:");
        let record = AccessRecord { status: None, host: None, backend: None, ..record() };
        let json = json(record);
        assert!(json["status"].is_null() && json["host"].is_null() && json["backend"].is_null());
    }

    #[test]
    fn c_07_a_peer_cannot_forge_a_line() {
        let hostile = "x\r\n{\"status\":200}\u{1b}[2J\\\u{202e}\u{7f}ä";
        let record = AccessRecord { user_agent: Some(hostile.as_bytes()), ..record() };
        let text = line(record);
        assert!(text.contains(r#"x\u000d\u000a{\"status\":200}\u001b[2J\\\u202e\u007fä"#), "{text}");
        assert_eq!(json(record)["user_agent"], hostile);
    }

    #[test]
    fn c_07_a_server_name_cannot_forge_a_line() {
        let hostile = "a\"},\"x\":{\u{202e}";
        let tls = TlsRecord { version: "TLSv1.3", alpn: Some(b"h2"), server_name: Some(hostile.as_bytes()) };
        let json = json(AccessRecord { tls: Some(tls), ..record() });
        assert_eq!(json["tls"]["server_name"], hostile);
        assert_eq!((&json["tls"]["alpn"], &json["tls"]["version"]), (&"h2".into(), &"TLSv1.3".into()));
        let json = self::json(AccessRecord { tls: Some(TlsRecord { alpn: None, ..tls }), ..record() });
        assert!(json["tls"]["alpn"].is_null());
    }

    #[test]
    fn any_byte_gives_json() {
        for byte in 0..=255 {
            let text = [b'a', byte, b'b'];
            let json = json(AccessRecord { method: &text, target: &text, ..record() });
            assert_eq!(json["target"], String::from_utf8_lossy(&text).as_ref());
        }
    }

    #[test]
    fn long_text_is_cut() {
        let long = vec![0x01; 100_000];
        let bytes = Some(long.as_slice());
        let record = AccessRecord {
            method: &long,
            target: &long,
            host: bytes,
            user_agent: bytes,
            referer: bytes,
            ..record()
        };
        assert!(line(record).len() < 26_000);
        assert_eq!(json(record)["target"].as_str().unwrap().len(), 2_048);
        // A character cut in two becomes U+FFFD.
        let odd = "xä".repeat(600);
        let record = AccessRecord { method: odd.as_bytes(), ..record };
        assert!(json(record)["method"].as_str().unwrap().ends_with('\u{fffd}'));
    }
}
