//! How a line of the access log is written: which fields, in which form.

use std::fmt;

crate::words! {
    /// A fact of a finished request, by its name in the access log.
    AccessField {
        /// When the request began, in UTC.
        Time = "time",
        /// The same time as Apache and nginx write it.
        TimeLocal = "time_local",
        /// The listener's name.
        Listener = "listener",
        /// The client's address and port.
        Client = "client",
        /// The client's address without its port.
        ClientIp = "client_ip",
        /// The method.
        Method = "method",
        /// The request target.
        Target = "target",
        /// The host asked for.
        Host = "host",
        /// The version of HTTP.
        Version = "version",
        /// What TLS has settled, as one object.
        Tls = "tls",
        /// The version of TLS.
        TlsVersion = "tls_version",
        /// The protocol that ALPN has chosen.
        Alpn = "alpn",
        /// The server name that the client gave while TLS began.
        ServerName = "server_name",
        /// The status of the response.
        Status = "status",
        /// How a gRPC call ended.
        GrpcStatus = "grpc_status",
        /// Bytes of the request, head included.
        BytesIn = "bytes_in",
        /// Bytes of the response, head included.
        BytesOut = "bytes_out",
        /// How long the exchange took.
        Duration = "duration_seconds",
        /// The backend that answered, or that was tried last.
        Backend = "backend",
        /// Why the gateway itself refused or cut the exchange.
        Reason = "reason",
        /// The route that took the request.
        Route = "route",
        /// How often the request was sent once more.
        Retries = "retries",
        /// The ID of the request.
        RequestId = "request_id",
        /// The trace that the request belongs to.
        TraceId = "trace_id",
        /// The User-Agent field.
        UserAgent = "user_agent",
        /// The Referer field.
        Referer = "referer",
    }
}

impl AccessField {
    /// What a JSON line has when nothing else is chosen.
    pub const OF_JSON: &'static [Self] = &[
        Self::Time,
        Self::Listener,
        Self::Client,
        Self::Method,
        Self::Target,
        Self::Host,
        Self::Version,
        Self::Tls,
        Self::Status,
        Self::GrpcStatus,
        Self::BytesIn,
        Self::BytesOut,
        Self::Duration,
        Self::Backend,
        Self::Reason,
        Self::Route,
        Self::Retries,
        Self::RequestId,
        Self::TraceId,
        Self::UserAgent,
        Self::Referer,
    ];
}

/// A part of a line that is no JSON.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LinePiece {
    /// It stands in every line.
    Text(Box<str>),
    /// The value of the request.
    Field(AccessField),
}

/// How a line of the access log is written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AccessLogFormat {
    /// A JSON object with these fields, in this order.
    Json(Vec<AccessField>),
    /// Text with values in it.
    Line(Vec<LinePiece>),
}

impl Default for AccessLogFormat {
    fn default() -> Self {
        Self::Json(AccessField::OF_JSON.to_vec())
    }
}

/// The format that nginx and Apache call so, which most tools read.
const COMBINED: &str = "${client_ip} - - [${time_local}] \"${method} ${target} ${version}\" ${status} ${bytes_out} \"${referer}\" \"${user_agent}\"";

impl AccessLogFormat {
    /// Reads `json`, `combined`, or a text with `${FIELD}` in it.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "json" => Ok(Self::default()),
            "combined" => Self::line(COMBINED),
            text if !text.contains("${") => Err("a line without `${…}` says nothing of a request".to_owned()),
            text if text.chars().any(char::is_control) => Err("it holds a control character".to_owned()),
            text => Self::line(text),
        }
    }

    fn line(text: &str) -> Result<Self, String> {
        let (mut pieces, mut rest) = (Vec::new(), text);
        while let Some((before, after)) = rest.split_once("${") {
            if !before.is_empty() {
                pieces.push(LinePiece::Text(before.into()));
            }
            let (name, after) = after.split_once('}').ok_or("a `${` has no `}`")?;
            match AccessField::from_word(name).filter(|field| *field != AccessField::Tls) {
                Some(field) => pieces.push(LinePiece::Field(field)),
                None => {
                    let words = AccessField::WORDS.iter().filter(|word| **word != "tls");
                    let words = words.copied().collect::<Vec<_>>().join(", ");
                    return Err(format!("there is no value ${{{name}}}; there are {words}"));
                }
            }
            rest = after;
        }
        if !rest.is_empty() {
            pieces.push(LinePiece::Text(rest.into()));
        }
        Ok(Self::Line(pieces))
    }
}

/// As it is told of a change: `json` with the fields, or the text of a line.
impl fmt::Display for AccessLogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Json(fields) if fields == AccessField::OF_JSON => f.write_str("json"),
            Self::Json(fields) => {
                f.write_str("json of")?;
                fields.iter().try_for_each(|field| write!(f, " {field}"))
            }
            Self::Line(pieces) => pieces.iter().try_for_each(|piece| match piece {
                LinePiece::Text(text) => f.write_str(text),
                LinePiece::Field(field) => write!(f, "${{{field}}}"),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_read_as_they_are_shown() {
        for text in ["json", "${status}", "a ${client_ip} b ${tls_version}${route}", COMBINED] {
            assert_eq!(AccessLogFormat::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(AccessLogFormat::parse("combined").unwrap().to_string(), COMBINED);
        assert_eq!(AccessLogFormat::parse("json").unwrap(), AccessLogFormat::default());
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, wanted) in [
            ("yaml", "says nothing"),
            ("${status", "has no `}`"),
            ("${password}", "no value ${password}; there are time, time_local"),
            ("${tls}", "no value ${tls}"),
            ("${status}\n${time}", "control character"),
        ] {
            let error = AccessLogFormat::parse(text).unwrap_err();
            assert!(error.contains(wanted), "{text}: {error}");
        }
    }
}
