//! One client for every version of HTTP, one exchange at a time.

use crate::client::{Client, chunk};
use crate::exchange::Version;
use crate::h2::{H2Client, code};
use crate::h3::{self, H3Client};
use crate::pattern::Verifier;
use crate::seconds;
use crate::wire::{Body, Fault, Headers};
use std::net::SocketAddr;

const BODY_KEPT: usize = 1024 * 1024;

/// How the body of a request is announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upload {
    /// There is none.
    None,
    /// With `content-length`.
    Sized(u64),
    /// Without.
    Unsized,
}

/// A response, read whole.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Status and fields of the interim responses.
    pub interim: Vec<(u16, Headers)>,
    /// The status.
    pub status: u16,
    /// The fields, without the pseudo fields.
    pub headers: Headers,
    /// The first MiB of the body.
    pub body: Vec<u8>,
    /// The whole body, compared with the pattern.
    pub pattern: Verifier,
    /// The trailer section.
    pub trailers: Headers,
}

impl Answer {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

enum Kind {
    H1 { client: Client, chunked: bool, method: String, body: Option<Body> },
    H2 { client: Box<H2Client>, stream: u32, taken: usize },
    H3 { client: Box<H3Client>, stream: u64, taken: usize },
}

/// A connection to a server.
pub struct Front {
    kind: Kind,
    /// The name that requests are for.
    name: Option<String>,
    /// Interim heads that were read before the final one.
    early: Vec<(u16, Headers)>,
    /// The head that was read already.
    head: Option<Answer>,
}

fn plain(headers: &Headers) -> Headers {
    Headers(headers.0.iter().filter(|(name, _)| !name.starts_with(':')).cloned().collect())
}

fn status(headers: &Headers) -> u16 {
    headers.get(":status").and_then(|s| s.parse().ok()).unwrap_or(0)
}

impl Front {
    /// Connects.
    pub fn connect(version: Version, to: SocketAddr) -> Result<Front, Fault> {
        let kind = match version {
            Version::H1 => {
                Kind::H1 { client: Client::connect(to)?, chunked: false, method: String::new(), body: None }
            }
            Version::H2 => Kind::H2 { client: Box::new(H2Client::connect(to)?), stream: 0, taken: 0 },
            Version::H3 => Kind::H3 { client: Box::new(H3Client::connect(to)?), stream: 0, taken: 0 },
        };
        Ok(Front { kind, name: None, early: Vec::new(), head: None })
    }

    /// Sends requests to this name from now on, by `Host` or `:authority`.
    pub fn set_name(&mut self, name: &str) {
        match &mut self.kind {
            Kind::H1 { .. } => self.name = Some(name.to_owned()),
            Kind::H2 { client, .. } => client.authority = name.to_owned(),
            Kind::H3 { client, .. } => client.authority = name.to_owned(),
        }
    }

    /// Sends the head of a request.
    pub fn open(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        upload: Upload,
    ) -> Result<(), Fault> {
        let length = if let Upload::Sized(length) = upload { length.to_string() } else { String::new() };
        let sized = [("content-length", length.as_str())];
        let framing: &[(&str, &str)] = match (upload, &self.kind) {
            (Upload::None, _) | (Upload::Unsized, Kind::H2 { .. } | Kind::H3 { .. }) => &[],
            (Upload::Sized(_), _) => &sized,
            (Upload::Unsized, Kind::H1 { .. }) => &[("transfer-encoding", "chunked")],
        };
        let host: Vec<_> = self.name.iter().map(|name| ("host", name.as_str())).collect();
        let all = [&host, headers, framing].concat();
        self.head = None;
        self.early.clear();
        match &mut self.kind {
            Kind::H1 { client, chunked, method: asked, body } => {
                (*chunked, *asked, *body) = (upload == Upload::Unsized, method.to_owned(), None);
                client.send(crate::request(method, path, &all, b""))
            }
            Kind::H2 { client, stream, taken } => {
                *stream = client.open(method, path, &all, upload == Upload::None)?;
                *taken = 0;
                Ok(())
            }
            Kind::H3 { client, stream, taken } => {
                *stream = client.open(method, path, &all, upload == Upload::None)?;
                *taken = 0;
                Ok(())
            }
        }
    }

    /// Sends content.
    pub fn send(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        match &mut self.kind {
            Kind::H1 { chunked: true, .. } if bytes.is_empty() => Ok(()),
            Kind::H1 { client, chunked: true, .. } => client.send(chunk(bytes)),
            Kind::H1 { client, .. } => client.send(bytes),
            Kind::H2 { client, stream, .. } => client.data(*stream, bytes, false),
            Kind::H3 { client, stream, .. } => client.data(*stream, bytes),
        }
    }

    /// Ends the request, with trailers if there are any.
    pub fn finish(&mut self, trailers: &[(&str, &str)]) -> Result<(), Fault> {
        match &mut self.kind {
            Kind::H1 { chunked: false, .. } => Ok(()),
            Kind::H1 { client, .. } => {
                let fields: String =
                    trailers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
                client.send(format!("0\r\n{fields}\r\n"))
            }
            Kind::H2 { client, stream, .. } if trailers.is_empty() => client.data(*stream, &[], true),
            Kind::H2 { client, stream, .. } => client.trailers(*stream, trailers),
            Kind::H3 { client, stream, .. } if trailers.is_empty() => client.end(*stream),
            Kind::H3 { client, stream, .. } => client.trailers(*stream, trailers),
        }
    }

    /// Waits until `count` interim heads have come, whatever becomes of the final one.
    pub fn interims(&mut self, count: usize) -> Result<Vec<(u16, Headers)>, Fault> {
        let (all, number): (&[Headers], u64) = match &mut self.kind {
            Kind::H1 { client, method, .. } => {
                while self.early.len() < count {
                    let head = client.wire.response_head(method)?;
                    if head.status >= 200 {
                        return Err(Fault::Malformed(format!(
                            "{} before {count} interim heads",
                            head.status
                        )));
                    }
                    self.early.push((head.status, head.headers));
                }
                return Ok(self.early.clone());
            }
            Kind::H2 { client, stream, .. } => {
                let number = *stream;
                client.until("interim heads", seconds(5), |c| c.streams[&number].interim.len() >= count)?;
                (&client.streams[&number].interim, number.into())
            }
            Kind::H3 { client, stream, .. } => {
                client.until(*stream, seconds(5), |response| response.interim.len() >= count)?;
                (&client.streams[stream].interim, *stream)
            }
        };
        if all.len() < count {
            return Err(Fault::Truncated(format!("stream {number}, after {} interim heads", all.len())));
        }
        Ok(all.iter().map(|head| (status(head), plain(head))).collect())
    }

    /// Waits for the final head.
    pub fn head(&mut self) -> Result<Answer, Fault> {
        if let Some(head) = &self.head {
            return Ok(head.clone());
        }
        let mut answer = Answer {
            interim: Vec::new(),
            status: 0,
            headers: Headers::default(),
            body: Vec::new(),
            pattern: Verifier::default(),
            trailers: Headers::default(),
        };
        match &mut self.kind {
            Kind::H1 { client, method, body, .. } => {
                let (interim, head) = client.head(method)?;
                answer.interim = std::mem::take(&mut self.early);
                answer.interim.extend(interim.into_iter().map(|head| (head.status, head.headers)));
                *body = Some(Body::new(head.framing));
                (answer.status, answer.headers) = (head.status, head.headers);
            }
            Kind::H2 { client, stream, .. } => {
                let head = client.head(*stream)?;
                answer.interim =
                    client.streams[stream].interim.iter().map(|head| (status(head), plain(head))).collect();
                (answer.status, answer.headers) = (status(&head), plain(&head));
            }
            Kind::H3 { client, stream, .. } => {
                let head = client.head(*stream)?;
                answer.interim =
                    client.streams[stream].interim.iter().map(|head| (status(head), plain(head))).collect();
                (answer.status, answer.headers) = (status(&head), plain(&head));
            }
        }
        self.head = Some(answer.clone());
        Ok(answer)
    }

    /// The next piece of the response's body; `None` at its end. Over HTTP/2 and HTTP/3 only the first MiB can be
    /// had this way.
    pub fn piece(&mut self) -> Result<Option<Vec<u8>>, Fault> {
        match &mut self.kind {
            Kind::H1 { client, body, .. } => {
                let body = body.as_mut().expect("the head comes first");
                Ok(body.next(&mut client.wire)?.map(<[u8]>::to_vec))
            }
            Kind::H2 { client, stream, taken } => {
                let (number, from) = (*stream, *taken);
                client.until("more of a body", seconds(20), |c| {
                    c.streams[&number].body.len() > from || c.streams[&number].is_over()
                })?;
                let response = &client.streams[&number];
                if response.body.len() > from {
                    *taken = response.body.len();
                    return Ok(Some(response.body[from..].to_vec()));
                }
                match response.reset {
                    Some(_) if !response.ended => Err(Fault::Reset),
                    _ => Ok(None),
                }
            }
            Kind::H3 { client, stream, taken } => {
                let from = *taken;
                client.until(*stream, seconds(20), |response| response.body.len() > from)?;
                let response = &client.streams[stream];
                if response.body.len() > from {
                    *taken = response.body.len();
                    return Ok(Some(response.body[from..].to_vec()));
                }
                if response.reset.is_some() { Err(Fault::Reset) } else { Ok(None) }
            }
        }
    }

    /// Waits for the whole response.
    pub fn answer(&mut self) -> Result<Answer, Fault> {
        let mut answer = self.head()?;
        match &mut self.kind {
            Kind::H1 { client, body, .. } => {
                let mut body = body.take().expect("the head came");
                body.drain(&mut client.wire, |piece| {
                    let room = BODY_KEPT.saturating_sub(answer.body.len()).min(piece.len());
                    answer.body.extend_from_slice(&piece[..room]);
                    answer.pattern.feed(piece);
                })?;
                answer.trailers = body.trailers;
            }
            Kind::H2 { client, stream, .. } => {
                let response = client.response(*stream)?;
                (answer.body, answer.pattern, answer.trailers) =
                    (response.body, response.pattern, response.trailers);
            }
            Kind::H3 { client, stream, .. } => {
                let response = client.response(*stream)?;
                (answer.body, answer.pattern, answer.trailers) =
                    (response.body, response.pattern, response.trailers.unwrap_or_default());
            }
        }
        Ok(answer)
    }

    /// Sends a whole request and waits for the whole response.
    pub fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Answer, Fault> {
        let upload = if body.is_empty() { Upload::None } else { Upload::Sized(body.len() as u64) };
        self.open(method, path, headers, upload)?;
        if !body.is_empty() {
            match self.send(body) {
                // The server may answer early, and stop the rest of the request (RFC 9114 section 4.1).
                Err(Fault::Reset) if matches!(self.kind, Kind::H3 { .. }) => {}
                sent => sent.and_then(|()| self.finish(&[]))?,
            }
        }
        self.answer()
    }

    /// Sends a GET and waits for the whole response.
    pub fn get(&mut self, path: &str) -> Result<Answer, Fault> {
        self.request("GET", path, &[], b"")
    }

    /// Gives up on the exchange by a reset of its stream, or of the connection where there is no other. What is left of the connection.
    pub fn abort(mut self) -> Option<Front> {
        match &mut self.kind {
            Kind::H1 { .. } => {
                let Kind::H1 { client, .. } = self.kind else { unreachable!("it was just seen") };
                client.reset();
                return None;
            }
            Kind::H2 { client, stream, .. } => client.reset(*stream, code::CANCEL).ok(),
            Kind::H3 { client, stream, .. } => client.reset(*stream, h3::code::REQUEST_CANCELLED).ok(),
        };
        Some(self)
    }

    /// Whether the server has broken the response off by a reset of its stream, with a code that is an error.
    pub fn is_broken_off(&self) -> bool {
        match &self.kind {
            Kind::H1 { .. } => false,
            Kind::H2 { client, stream, .. } => {
                let reset = client.streams.get(stream).and_then(|response| response.reset);
                reset.is_some_and(|reset| reset != code::NO_ERROR)
            }
            Kind::H3 { client, stream, .. } => {
                let reset = client.streams.get(stream).and_then(|response| response.reset);
                reset.is_some_and(|reset| reset != h3::code::NO_ERROR)
            }
        }
    }
}
