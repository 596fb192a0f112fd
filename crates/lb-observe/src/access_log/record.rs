//! One line of the access log.

use std::io::Write;
use std::time::{Duration, SystemTime};

use lb_core::access_log::{AccessField, AccessLogFormat, LinePiece};
use lb_core::address::ClientAddress;

use super::timestamp::{CommonLogTime, Timestamp};
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
    /// The ID of the trace that the request belongs to, in hex digits.
    pub trace_id: Option<&'a [u8]>,
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
    /// Appends the record to `line` in `format`, with a line feed.
    ///
    /// Nothing that a peer sent can end a line or a value: in JSON, control and bidirectional characters are escaped and bytes that are not
    /// UTF-8 become U+FFFD; in text, quotes, backslashes and all bytes but printable ASCII stand as `\xNN`. The target is cut after 2,048
    /// bytes, each other text of a peer after 512, so that a field is never longer than six times that.
    pub fn append_to(&self, format: &AccessLogFormat, line: &mut Vec<u8>) {
        line.reserve(TYPICAL_LINE);
        match format {
            AccessLogFormat::Json(fields) => {
                let mut before = b'{';
                for field in fields {
                    line.push(before);
                    before = b',';
                    let _ = write!(line, r#""{field}":"#);
                    self.push_json(*field, line);
                }
                if before == b'{' {
                    line.push(before);
                }
                line.push(b'}');
            }
            AccessLogFormat::Line(pieces) => {
                for piece in pieces {
                    match piece {
                        LinePiece::Text(text) => line.extend_from_slice(text.as_bytes()),
                        LinePiece::Field(field) => self.push_plain(*field, line),
                    }
                }
            }
        }
        line.push(b'\n');
    }

    /// The value of a field.
    fn value(&self, field: AccessField) -> FieldValue<'_> {
        use FieldValue as As;
        let tls = self.tls.as_ref();
        match field {
            AccessField::Time => As::Time(self.time),
            AccessField::TimeLocal => As::TimeLocal(self.time),
            AccessField::Listener => As::Text(self.listener.as_bytes(), MAX_TEXT),
            AccessField::Client => As::Client(self.client),
            AccessField::ClientIp => As::ClientIp(self.client),
            AccessField::Method => As::Text(self.method, MAX_TEXT),
            AccessField::Target => As::Text(self.target, MAX_TARGET),
            AccessField::Host => As::text(self.host),
            AccessField::Version => As::Word(self.version),
            AccessField::Tls => tls.map_or(As::Absent, As::Tls),
            AccessField::TlsVersion => tls.map_or(As::Absent, |tls| As::Word(tls.version)),
            AccessField::Alpn => As::text(tls.and_then(|tls| tls.alpn)),
            AccessField::ServerName => As::text(tls.and_then(|tls| tls.server_name)),
            AccessField::Status => self.status.map_or(As::Absent, |status| As::Number(status.into())),
            AccessField::GrpcStatus => {
                self.grpc_status.map_or(As::Absent, |status| As::Number(status.into()))
            }
            AccessField::BytesIn => As::Number(self.bytes_in),
            AccessField::BytesOut => As::Number(self.bytes_out),
            AccessField::Duration => As::Seconds(self.duration),
            AccessField::Backend => As::text(self.backend.map(str::as_bytes)),
            AccessField::Reason => As::Word(self.reason),
            AccessField::Route => As::Word(self.route),
            AccessField::Retries => As::Number(self.retries.into()),
            AccessField::RequestId => As::text(self.request_id),
            AccessField::TraceId => As::text(self.trace_id),
            AccessField::UserAgent => As::text(self.user_agent),
            AccessField::Referer => As::text(self.referer),
        }
    }

    fn push_json(&self, field: AccessField, line: &mut Vec<u8>) {
        // Writing to a vector cannot fail.
        let _ = match self.value(field) {
            FieldValue::Text(text, max) => {
                push_text(line, text, max);
                Ok(())
            }
            FieldValue::Word(word) => write!(line, r#""{word}""#),
            FieldValue::Number(number) => write!(line, "{number}"),
            FieldValue::Seconds(duration) => push_seconds(line, duration),
            FieldValue::Time(time) => write!(line, r#""{}""#, Timestamp::from(time)),
            FieldValue::TimeLocal(time) => write!(line, r#""{}""#, CommonLogTime(time.into())),
            FieldValue::Client(client) => write!(line, r#""{client}""#),
            FieldValue::ClientIp(client) => match client.ip() {
                Some(ip) => write!(line, r#""{ip}""#),
                None => write!(line, r#""{client}""#),
            },
            FieldValue::Tls(tls) => {
                let written = write!(line, r#"{{"version":"{}""#, tls.version);
                push_member(line, "alpn", tls.alpn);
                push_member(line, "server_name", tls.server_name);
                line.push(b'}');
                written
            }
            FieldValue::Absent => write!(line, "null"),
        };
    }

    fn push_plain(&self, field: AccessField, line: &mut Vec<u8>) {
        let _ = match self.value(field) {
            FieldValue::Text(text, max) if !text.is_empty() => {
                push_hex_escaped(line, text.get(..max).unwrap_or(text));
                Ok(())
            }
            FieldValue::Word(word) if !word.is_empty() => write!(line, "{word}"),
            FieldValue::Number(number) => write!(line, "{number}"),
            FieldValue::Seconds(duration) => push_seconds(line, duration),
            FieldValue::Time(time) => write!(line, "{}", Timestamp::from(time)),
            FieldValue::TimeLocal(time) => write!(line, "{}", CommonLogTime(time.into())),
            FieldValue::Client(client) => write!(line, "{client}"),
            FieldValue::ClientIp(client) => match client.ip() {
                Some(ip) => write!(line, "{ip}"),
                None => write!(line, "{client}"),
            },
            FieldValue::Text(..) | FieldValue::Word(_) | FieldValue::Tls(_) | FieldValue::Absent => {
                write!(line, "-")
            }
        };
    }
}

/// A value before it is JSON or text.
enum FieldValue<'a> {
    /// Bytes of a peer, and how many of them are written.
    Text(&'a [u8], usize),
    /// Text that needs no escapes.
    Word(&'a str),
    Number(u64),
    Seconds(Duration),
    Time(SystemTime),
    TimeLocal(SystemTime),
    Client(ClientAddress),
    ClientIp(ClientAddress),
    Tls(&'a TlsRecord<'a>),
    Absent,
}

impl<'a> FieldValue<'a> {
    fn text(text: Option<&'a [u8]>) -> Self {
        text.map_or(Self::Absent, |text| Self::Text(text, MAX_TEXT))
    }
}

fn push_seconds(line: &mut Vec<u8>, duration: Duration) -> std::io::Result<()> {
    write!(line, "{}.{:06}", duration.as_secs(), duration.subsec_micros())
}

fn push_member(line: &mut Vec<u8>, name: &str, value: Option<&[u8]>) {
    let _ = write!(line, r#","{name}":"#);
    match value {
        Some(text) => push_text(line, text, MAX_TEXT),
        None => line.extend_from_slice(b"null"),
    }
}

/// As nginx escapes, so that what reads its logs reads these.
fn push_hex_escaped(line: &mut Vec<u8>, text: &[u8]) {
    for byte in text {
        match byte {
            b'"' | b'\\' => _ = write!(line, "\\x{byte:02X}"),
            b' '..=b'~' => line.push(*byte),
            _ => _ = write!(line, "\\x{byte:02X}"),
        }
    }
}

/// Appends at most the first `max` bytes of `text` as a JSON string.
pub(crate) fn push_text(line: &mut Vec<u8>, text: &[u8], max: usize) {
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
            trace_id: None,
            retries: 1,
            user_agent: None,
            referer: Some(b"https://example.org/"),
        }
    }

    fn line(record: AccessRecord<'_>) -> String {
        let mut line = Vec::new();
        record.append_to(&AccessLogFormat::default(), &mut line);
        String::from_utf8(line).unwrap()
    }

    fn text(record: AccessRecord<'_>, format: &str) -> String {
        let mut line = Vec::new();
        record.append_to(&AccessLogFormat::parse(format).unwrap(), &mut line);
        String::from_utf8(line).unwrap()
    }

    #[test]
    fn combined_is_what_nginx_writes() {
        assert_eq!(
            text(record(), "combined"),
            "2001:db8::1 - - [01/Jan/1970:00:00:01 +0000] \"GET /a?b=c HTTP/1.1\" 200 12 \"https://example.org/\" \"-\"\n"
        );
    }

    #[test]
    fn lines_and_chosen_fields() {
        let tls = TlsRecord { version: "TLSv1.3", alpn: Some(b"h2"), server_name: None };
        let record = AccessRecord { tls: Some(tls), ..record() };
        let format = "${time} ${client} ${tls_version} ${alpn} ${server_name} ${duration_seconds} ${reason} ${retries} ${grpc_status}";
        assert_eq!(
            text(record, format),
            "1970-01-01T00:00:01.500Z [2001:db8::1]:4711 TLSv1.3 h2 - 1.000250 - 1 -\n"
        );
        let mut line = Vec::new();
        let fields = vec![AccessField::Status, AccessField::ClientIp, AccessField::TimeLocal];
        record.append_to(&AccessLogFormat::Json(fields), &mut line);
        let wanted: &[u8] =
            b"{\"status\":200,\"client_ip\":\"2001:db8::1\",\"time_local\":\"01/Jan/1970:00:00:01 +0000\"}\n";
        assert_eq!(line, wanted);
    }

    #[test]
    fn c_07_a_peer_cannot_forge_a_line_of_text() {
        let every_byte: Vec<u8> = (0..=255).collect();
        let record = AccessRecord { user_agent: Some(&every_byte), referer: Some(b"\" 200 \\"), ..record() };
        let line = text(record, "combined");
        assert_eq!(line.matches('\n').count(), 1);
        assert_eq!(line.matches('"').count(), 6, "{line}");
        assert!(
            line.is_ascii() && line.contains(r#""\x22 200 \x5C""#) && line.contains(r"\x00\x01"),
            "{line}"
        );
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
                r#""reason":"","route":"shop","retries":1,"request_id":null,"trace_id":null,"user_agent":null,"referer":"https://example.org/"}"#,
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
