//! Lines of access logs: our own in JSON, nginx's and Apache's combined format, and Traefik's in JSON.

use std::net::{IpAddr, SocketAddr};

use lb_core::reason::Reason;
use lb_core::route::Scheme;
use serde_json::Value;

/// How the lines of a log are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogFormat {
    /// Our own, as JSON.
    Json,
    /// nginx's `combined`, which is Apache's as well; a host may stand before it (`vhost_combined`).
    Combined,
    /// Traefik's, as JSON.
    Traefik,
}

/// Bytes of a target after which our log cuts it.
const CUT: usize = 2048;

/// A request as a log has it. What the log does not say is `None`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedRequest {
    /// How the line is written.
    pub format: LogFormat,
    /// The name of the listener.
    pub listener: Option<String>,
    /// Where the client is.
    pub client: Option<IpAddr>,
    /// The method.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// The host asked for.
    pub host: Option<String>,
    /// How the client came.
    pub scheme: Option<Scheme>,
    /// The server name that the client gave while TLS began; `None` inside where it gave none.
    pub server_name: Option<Option<String>>,
    /// The protocol that ALPN has chosen.
    pub alpn: Option<Option<String>>,
    /// The status of the response.
    pub status: Option<u16>,
    /// The name of the route that took the request; empty where none did or it has no name.
    pub route: Option<String>,
    /// The backend that answered; `None` inside where none did.
    pub backend: Option<Option<String>>,
    /// Why the gateway refused or cut the request; `None` inside where it did not.
    pub reason: Option<Option<Reason>>,
    /// The User-Agent field; `None` inside where there was none.
    pub user_agent: Option<Option<String>>,
    /// The Referer field; `None` inside where there was none.
    pub referer: Option<Option<String>>,
    /// Part of the request was not written down as it came.
    pub is_partial: bool,
}

impl LoggedRequest {
    /// Reads a line. Without a format, what stands in the line tells.
    ///
    /// # Errors
    /// What is wrong with the line.
    pub fn parse(line: &str, format: Option<LogFormat>) -> Result<Self, String> {
        if !line.starts_with('{') {
            return match format {
                None | Some(LogFormat::Combined) => combined(line),
                Some(_) => Err("the line is no JSON object".to_owned()),
            };
        }
        let value: Value = serde_json::from_str(line).map_err(|error| format!("no JSON: {error}"))?;
        match format {
            Some(LogFormat::Combined) => Err("the line is JSON".to_owned()),
            Some(LogFormat::Traefik) => traefik(&value),
            Some(LogFormat::Json) => own(&value),
            None if value.get("RequestMethod").is_some() => traefik(&value),
            None => own(&value),
        }
    }

    fn empty(format: LogFormat, method: &str, target: &str) -> Self {
        let (target, host) = origin_form(target);
        let is_partial = target.len() >= CUT || [method, target].iter().any(|text| text.contains('\u{fffd}'));
        Self {
            format,
            listener: None,
            client: None,
            method: method.to_owned(),
            target: target.to_owned(),
            host: host.map(str::to_owned),
            scheme: None,
            server_name: None,
            alpn: None,
            status: None,
            route: None,
            backend: None,
            reason: None,
            user_agent: None,
            referer: None,
            is_partial,
        }
    }
}

/// The path and query of a target, which may name the host as well (RFC 9112 §3.2.2).
fn origin_form(target: &str) -> (&str, Option<&str>) {
    let Some((_, rest)) = target.split_once("://").filter(|_| !target.starts_with('/')) else {
        return (target, None);
    };
    let (host, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    (if path.is_empty() { "/" } else { path }, Some(host))
}

fn text_of<'a>(value: &'a Value, key: &str) -> Option<&'a str> {
    value.get(key)?.as_str()
}

/// A text that may be null: `None` where the log does not have it at all.
fn nullable(value: &Value, key: &str) -> Option<Option<String>> {
    match value.get(key)? {
        Value::Null => Some(None),
        Value::String(text) => Some(Some(text.clone())),
        _ => None,
    }
}

fn status_of(value: &Value, key: &str) -> Option<u16> {
    let status = value.get(key)?.as_u64()?;
    u16::try_from(status).ok().filter(|status| *status > 0)
}

/// An address with or without a port.
fn address(text: &str) -> Option<IpAddr> {
    let socket = text.parse::<SocketAddr>().map(|address| address.ip());
    socket.or_else(|_| text.trim_matches(['[', ']']).parse()).ok()
}

fn own(value: &Value) -> Result<LoggedRequest, String> {
    let method = text_of(value, "method").ok_or("there is no `method`")?;
    let target = text_of(value, "target").ok_or("there is no `target`")?;
    let reason = match nullable(value, "reason") {
        Some(Some(word)) if word.is_empty() => Some(None),
        Some(Some(word)) => {
            let known = Reason::ALL.iter().find(|reason| reason.name() == word);
            Some(Some(*known.ok_or_else(|| format!("there is no reason {word:?}"))?))
        }
        other => other.map(|_| None),
    };
    let client = text_of(value, "client").or_else(|| text_of(value, "client_ip"));
    let tls = value.get("tls");
    let of_tls = |key: &str| tls.and_then(|tls| if tls.is_null() { Some(None) } else { nullable(tls, key) });
    let request = LoggedRequest::empty(LogFormat::Json, method, target);
    Ok(LoggedRequest {
        listener: text_of(value, "listener").map(str::to_owned),
        client: client.and_then(address),
        host: nullable(value, "host").map(Option::unwrap_or_default).or(request.host.clone()),
        scheme: tls.map(|tls| if tls.is_null() { Scheme::Http } else { Scheme::Https }),
        server_name: of_tls("server_name").or_else(|| nullable(value, "server_name")),
        alpn: of_tls("alpn").or_else(|| nullable(value, "alpn")),
        status: status_of(value, "status"),
        route: text_of(value, "route").map(str::to_owned),
        backend: nullable(value, "backend"),
        reason,
        user_agent: nullable(value, "user_agent"),
        referer: nullable(value, "referer"),
        ..request
    })
}

fn traefik(value: &Value) -> Result<LoggedRequest, String> {
    let method = text_of(value, "RequestMethod").ok_or("there is no `RequestMethod`")?;
    let target = text_of(value, "RequestPath").ok_or("there is no `RequestPath`")?;
    let client = text_of(value, "ClientHost").or_else(|| text_of(value, "ClientAddr"));
    let scheme = text_of(value, "RequestScheme").and_then(Scheme::from_word);
    let host = text_of(value, "RequestHost").or_else(|| text_of(value, "RequestAddr")).map(str::to_owned);
    let request = LoggedRequest::empty(LogFormat::Traefik, method, target);
    Ok(LoggedRequest {
        client: client.and_then(address),
        host: host.or(request.host.clone()),
        scheme: scheme.or_else(|| value.get("TLSVersion").map(|_| Scheme::Https)),
        status: status_of(value, "DownstreamStatus"),
        user_agent: text_of(value, "request_User-Agent").map(|text| Some(text.to_owned())),
        referer: text_of(value, "request_Referer").map(|text| Some(text.to_owned())),
        ..request
    })
}

/// `[HOST[:PORT] ]CLIENT IDENT USER [TIME] "METHOD TARGET VERSION" STATUS BYTES "REFERER" "USER-AGENT"`.
fn combined(line: &str) -> Result<LoggedRequest, String> {
    const WRONG: &str = "the line is neither JSON nor in the combined format";
    let (before, rest) = line.split_once(" [").ok_or(WRONG)?;
    let (_, rest) = rest.split_once("] ").ok_or(WRONG)?;
    let words: Vec<&str> = before.split(' ').collect();
    let (host, client) = match words.as_slice() {
        [host, client, _, _, ..] if address(client).is_some() => (Some(*host), *client),
        [client, ..] => (None, *client),
        [] => return Err(WRONG.to_owned()),
    };
    let (request_line, rest) = quoted(rest).ok_or(WRONG)?;
    let mut parts = request_line.splitn(2, ' ');
    let (method, rest_of_line) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let target = rest_of_line.rsplit_once(" HTTP/").map_or(rest_of_line, |(target, _)| target);
    if method.is_empty() || target.is_empty() {
        return Err("the request line was not one of HTTP".to_owned());
    }
    let mut words = rest.split_whitespace();
    let status = words.next().and_then(|status| status.parse().ok());
    let mut texts = Vec::new();
    let mut rest = rest;
    while let Some(at) = rest.find('"') {
        let Some((text, after)) = quoted(rest.get(at..).unwrap_or_default()) else { break };
        texts.push(Some(text).filter(|text| text != "-"));
        rest = after;
    }
    let request = LoggedRequest::empty(LogFormat::Combined, method, target);
    let host = host.map(|host| host.rsplit_once(':').map_or(host, |(host, _)| host).to_owned());
    Ok(LoggedRequest {
        client: address(client),
        host: host.or(request.host.clone()),
        status,
        referer: texts.first().cloned(),
        user_agent: texts.get(1).cloned(),
        ..request
    })
}

/// The text in quotes that a line begins with, and what follows. `\"`, `\\` and `\xNN` stand for their bytes.
fn quoted(line: &str) -> Option<(String, &str)> {
    let rest = line.strip_prefix('"')?;
    let mut bytes = Vec::new();
    let mut chars = rest.bytes().enumerate();
    while let Some((at, byte)) = chars.next() {
        match byte {
            b'"' => {
                let text = String::from_utf8_lossy(&bytes).into_owned();
                return Some((text, rest.get(at.saturating_add(1)..).unwrap_or_default()));
            }
            b'\\' => match chars.next()?.1 {
                b'x' => {
                    let mut digit = || char::from(chars.next()?.1).to_digit(16);
                    bytes.push(u8::try_from(digit()? * 16 + digit()?).ok()?);
                }
                other => bytes.push(other),
            },
            other => bytes.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_formats_are_told_apart() {
        let own = r#"{"time":"x","listener":"a:1","client":"10.0.0.9:7","method":"GET","target":"/a?b","host":"h","version":"HTTP/1.1","tls":null,"status":200,"backend":"b:1","reason":"","route":"r","user_agent":null,"referer":"x"}"#;
        let own = LoggedRequest::parse(own, None).unwrap();
        assert_eq!((own.format, own.method.as_str(), own.target.as_str()), (LogFormat::Json, "GET", "/a?b"));
        assert_eq!((own.client, own.scheme), (Some([10, 0, 0, 9].into()), Some(Scheme::Http)));
        assert_eq!(
            (own.backend, own.reason, own.route),
            (Some(Some("b:1".into())), Some(None), Some("r".into()))
        );
        assert_eq!((own.user_agent, own.referer), (Some(None), Some(Some("x".into()))));

        let nginx =
            r#"::1 - bob [29/Nov/2026:10:00:00 +0000] "POST /a\x22b c HTTP/1.1" 404 12 "-" "curl \"x\"""#;
        let nginx = LoggedRequest::parse(nginx, None).unwrap();
        assert_eq!(
            (nginx.format, nginx.target.as_str(), nginx.status),
            (LogFormat::Combined, "/a\"b c", Some(404))
        );
        assert_eq!((nginx.referer, nginx.user_agent), (Some(None), Some(Some("curl \"x\"".into()))));
        assert_eq!((nginx.host, nginx.client), (None, "::1".parse().ok()));
        let vhost = r#"a.example:80 10.0.0.1 - - [x] "GET http://b.example/x?y HTTP/1.1" 200 1 "-" "-""#;
        let vhost = LoggedRequest::parse(vhost, None).unwrap();
        assert_eq!((vhost.host.as_deref(), vhost.target.as_str()), (Some("a.example"), "/x?y"));

        let traefik = r#"{"ClientHost":"10.0.0.3","RequestMethod":"GET","RequestPath":"/t","RequestHost":"t.example","RequestScheme":"https","DownstreamStatus":308,"request_User-Agent":"x"}"#;
        let traefik = LoggedRequest::parse(traefik, None).unwrap();
        assert_eq!(
            (traefik.format, traefik.status, traefik.scheme),
            (LogFormat::Traefik, Some(308), Some(Scheme::Https))
        );
    }

    #[test]
    fn what_is_no_line_is_told_and_never_panics() {
        for line in [
            "",
            "x",
            "{",
            "{}",
            "[]",
            "a - - [",
            "a - - [x] \"",
            "a - - [x] \"GET\" 1",
            "a - - [x] \"\\x",
            "\u{fffd}",
        ] {
            assert!(LoggedRequest::parse(line, None).is_err(), "{line}");
        }
        let reason = r#"{"method":"GET","target":"/","reason":"bad_luck"}"#;
        assert!(LoggedRequest::parse(reason, None).unwrap_err().contains("bad_luck"));
        let cut = format!(r#"{{"method":"GET","target":"/{}"}}"#, "a".repeat(3000));
        assert!(LoggedRequest::parse(&cut, None).unwrap().is_partial);
    }
}
