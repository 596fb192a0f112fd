//! Text with values of a request in it: `https://${host}/x`.
//!
//! A template is read once, while the configuration is. It is data and no language: a value stands for itself, and there is nothing to
//! choose or to compute.

use std::fmt;

/// A value that a template can hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TemplateVariable {
    /// The client's address without its port; `unknown` for a client of a Unix socket.
    ClientIp,
    /// `http` or `https`.
    Scheme,
    /// The host that is asked for, without its port.
    Host,
    /// The method.
    Method,
    /// The path as it was matched.
    Path,
    /// The query without its `?`.
    Query,
    /// Scheme, authority, path and query.
    Url,
    /// The ID of the request.
    RequestId,
    /// The name of the route.
    Route,
    /// The server name that the client gave while TLS began.
    ServerName,
    /// The version of TLS.
    TlsVersion,
    /// The subject of the client's certificate.
    CertSubject,
    /// The fingerprint of the client's certificate.
    CertSha256,
    /// A field as the client sent it; the first line of its name.
    Header(Box<[u8]>),
    /// A cookie.
    Cookie(Box<[u8]>),
    /// A group of the route's `path_regex`, by its number or its name.
    Capture(Box<str>),
    /// The status of the response.
    Status,
}

/// Words that stand for a variable by themselves.
const WORDS: &[(&str, TemplateVariable)] = &[
    ("client_ip", TemplateVariable::ClientIp),
    ("scheme", TemplateVariable::Scheme),
    ("host", TemplateVariable::Host),
    ("method", TemplateVariable::Method),
    ("path", TemplateVariable::Path),
    ("query", TemplateVariable::Query),
    ("url", TemplateVariable::Url),
    ("request_id", TemplateVariable::RequestId),
    ("route", TemplateVariable::Route),
    ("server_name", TemplateVariable::ServerName),
    ("tls_version", TemplateVariable::TlsVersion),
    ("cert_subject", TemplateVariable::CertSubject),
    ("cert_sha256", TemplateVariable::CertSha256),
    ("status", TemplateVariable::Status),
];

impl TemplateVariable {
    /// Reads what stands between `${` and `}`.
    ///
    /// # Errors
    /// What is wrong with it.
    fn parse(name: &str) -> Result<Self, String> {
        if let Some((_, variable)) = WORDS.iter().find(|(word, _)| *word == name) {
            return Ok(variable.clone());
        }
        match name.split_once('.') {
            Some(("header", field)) if !field.is_empty() => Ok(Self::Header(field.as_bytes().into())),
            Some(("cookie", cookie)) if !cookie.is_empty() => Ok(Self::Cookie(cookie.as_bytes().into())),
            Some(("capture", group)) if !group.is_empty() => Ok(Self::Capture(group.into())),
            Some(("claim", _)) => Err(format!("not built yet: ${{{name}}}, which needs authentication")),
            _ if name == "user" => Err(format!("not built yet: ${{{name}}}, which needs authentication")),
            _ => {
                let words: Vec<&str> = WORDS.iter().map(|(word, _)| *word).collect();
                let words = words.join(", ");
                Err(format!(
                    "there is no value ${{{name}}}; there are {words}, header.N, cookie.N, capture.N"
                ))
            }
        }
    }
}

/// Where the values of a template come from.
pub trait TemplateSource {
    /// Appends a value; nothing where there is none.
    fn value(&self, variable: &TemplateVariable, out: &mut Vec<u8>);
}

/// A source without values.
impl TemplateSource for () {
    fn value(&self, _variable: &TemplateVariable, _out: &mut Vec<u8>) {}
}

/// A source that has but the status of a response.
impl TemplateSource for u16 {
    fn value(&self, variable: &TemplateVariable, out: &mut Vec<u8>) {
        if *variable == TemplateVariable::Status {
            out.extend_from_slice(self.to_string().as_bytes());
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Piece {
    Text(Box<[u8]>),
    Value(TemplateVariable),
}

/// Text with values in it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Template(Vec<Piece>);

impl Template {
    /// Reads a text in which `${NAME}` stands for a value.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (mut pieces, mut rest) = (Vec::new(), text);
        while let Some((before, after)) = rest.split_once("${") {
            if !before.is_empty() {
                pieces.push(Piece::Text(before.as_bytes().into()));
            }
            let (name, after) = after.split_once('}').ok_or("a `${` has no `}`")?;
            pieces.push(Piece::Value(TemplateVariable::parse(name)?));
            rest = after;
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.as_bytes().into()));
        }
        Ok(Self(pieces))
    }

    /// A text without values.
    pub fn constant(text: &[u8]) -> Self {
        Self(vec![Piece::Text(text.into())])
    }

    /// The values in it.
    pub fn variables(&self) -> impl Iterator<Item = &TemplateVariable> {
        self.0.iter().filter_map(|piece| match piece {
            Piece::Value(variable) => Some(variable),
            Piece::Text(_) => None,
        })
    }

    /// The text before the first value.
    pub fn start(&self) -> &[u8] {
        match self.0.first() {
            Some(Piece::Text(text)) => text,
            _ => &[],
        }
    }

    /// The text, if it has no values.
    pub fn as_constant(&self) -> Option<&[u8]> {
        match self.0.as_slice() {
            [] => Some(&[]),
            [Piece::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// Appends the text with its values.
    pub fn render(&self, source: &impl TemplateSource, out: &mut Vec<u8>) {
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => out.extend_from_slice(text),
                Piece::Value(variable) => source.value(variable, out),
            }
        }
    }

    /// The template with all values in place but the status of the response, which comes later.
    #[must_use]
    pub fn bound(&self, source: &impl TemplateSource) -> Self {
        let bound = self.0.iter().map(|piece| match piece {
            Piece::Value(variable) if *variable != TemplateVariable::Status => {
                let mut text = Vec::new();
                source.value(variable, &mut text);
                Piece::Text(text.into())
            }
            other => other.clone(),
        });
        Self(bound.collect())
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => f.write_str(&String::from_utf8_lossy(text))?,
                Piece::Value(variable) => write!(f, "${{{variable:?}}}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Named;

    impl TemplateSource for Named {
        fn value(&self, variable: &TemplateVariable, out: &mut Vec<u8>) {
            out.extend_from_slice(format!("<{variable:?}>").as_bytes());
        }
    }

    fn text(template: &Template, source: &impl TemplateSource) -> String {
        let mut out = Vec::new();
        template.render(source, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn values_stand_in_text() {
        let template = Template::parse("a ${host}/${status}$ {b}").unwrap();
        assert_eq!(text(&template, &Named), "a <Host>/<Status>$ {b}");
        assert_eq!(text(&template.bound(&Named), &204), "a <Host>/204$ {b}");
        assert_eq!((template.start(), template.as_constant()), (&b"a "[..], None));
        assert_eq!(Template::parse("x").unwrap().as_constant(), Some(&b"x"[..]));
        assert_eq!(Template::parse("").unwrap().as_constant(), Some(&b""[..]));
        let header = Template::parse("${header.X-A}").unwrap();
        assert_eq!(header.variables().next(), Some(&TemplateVariable::Header(b"X-A".as_slice().into())));
    }

    #[test]
    fn what_is_no_value_is_said() {
        for (wrong, told) in [
            ("${host", "has no `}`"),
            ("${hosts}", "there is no value ${hosts}"),
            ("${header.}", "there is no value"),
            ("${user}", "not built yet"),
            ("${claim.sub}", "not built yet"),
            ("${}", "there is no value ${}"),
        ] {
            let problem = Template::parse(wrong).unwrap_err();
            assert!(problem.contains(told), "{wrong}: {problem}");
        }
    }
}
