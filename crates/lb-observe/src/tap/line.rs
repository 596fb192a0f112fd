//! One line of a tap.

use lb_core::access_log::AccessLogFormat;
use lb_core::head::Fields;

use crate::access_log::{AccessRecord, push_json_text};

/// Fields that are shown of a request.
const MOST_FIELDS: usize = 50;

/// Bytes that are shown of a field's value.
const MOST_VALUE: usize = 512;

/// What stands in place of a secret.
const MASK: &[u8] = b"***";

/// Parts of names whose values are secrets.
const SECRETS: [&[u8]; 9] =
    [b"auth", b"cookie", b"token", b"secret", b"api-key", b"apikey", b"session", b"password", b"credential"];

/// The record as the access log has it in JSON, and the fields of the request if they are to be shown: those of the head as it stood when the
/// request ended, after what routes did to it.
pub(super) fn of(record: &AccessRecord<'_>, fields: Option<&Fields>) -> Vec<u8> {
    let mut line = Vec::new();
    record.append_to(&AccessLogFormat::default(), &mut line);
    let Some(fields) = fields else { return line };
    // The object and the line are open again.
    line.truncate(line.len().saturating_sub(b"}\n".len()));
    line.extend_from_slice(b",\"fields\":[");
    for (at, field) in fields.iter().take(MOST_FIELDS).enumerate() {
        if at > 0 {
            line.push(b',');
        }
        line.push(b'[');
        push_json_text(&mut line, field.name, MOST_VALUE);
        line.push(b',');
        push_json_text(&mut line, if is_secret(field.name) { MASK } else { field.value }, MOST_VALUE);
        line.push(b']');
    }
    line.extend_from_slice(b"]}\n");
    line
}

/// Whether the value of a field of this name is not for others.
fn is_secret(name: &[u8]) -> bool {
    let name = name.to_ascii_lowercase();
    SECRETS.iter().any(|part| name.windows(part.len()).any(|window| window == *part))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use lb_core::address::ClientAddress;

    use super::*;

    #[test]
    fn d_06_secrets_are_masked_and_lines_are_whole() {
        let mut fields = Fields::default();
        let secrets = [
            "Authorization",
            "Proxy-Authorization",
            "cookie",
            "Set-Cookie",
            "X-Auth",
            "X-Api-Key",
            "X-CSRF-Token",
            "X-Amz-Security-Token",
            "x-session-id",
        ];
        for name in secrets {
            fields.push(name.as_bytes(), b"hush");
        }
        fields.push(b"accept", b"text/\"html\"\x1b");
        fields.push(b"x-long", &[b'a'; 5000]);
        (0..100).for_each(|_| fields.push(b"more", b"1"));
        let record = AccessRecord {
            time: SystemTime::UNIX_EPOCH,
            listener: "web",
            client: ClientAddress::Unix,
            method: b"GET",
            target: b"/a\n",
            host: None,
            version: "HTTP/1.1",
            tls: None,
            status: None,
            grpc_status: None,
            bytes_in: 0,
            bytes_out: 0,
            duration: Duration::ZERO,
            backend: None,
            reason: "",
            route: "",
            request_id: None,
            trace_id: None,
            retries: 0,
            user_agent: None,
            referer: None,
        };
        let line = String::from_utf8(of(&record, Some(&fields))).unwrap();
        assert!(!line.contains("hush"), "{line}");
        assert_eq!(line.matches('\n').count(), 1);
        assert!(line.len() < 12_000);
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        let shown = value["fields"].as_array().unwrap();
        assert_eq!(shown.len(), MOST_FIELDS);
        assert!(shown.iter().take(secrets.len()).all(|field| field[1] == "***"));
        assert_eq!(shown[secrets.len()][1], "text/\"html\"\u{1b}");
        assert_eq!(shown[secrets.len() + 1][1].as_str().unwrap().len(), MOST_VALUE);
        assert!(!String::from_utf8(of(&record, None)).unwrap().contains("fields"));
    }
}
