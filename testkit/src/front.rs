//! One client for both versions of HTTP, one exchange at a time.

use crate::client::{Client, chunk};
use crate::exchange::Version;
use crate::h2::{H2Client, code};
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
}

/// A connection to a server.
pub struct Front {
    kind: Kind,
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
        };
        Ok(Front { kind, head: None })
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
            (Upload::None, _) | (Upload::Unsized, Kind::H2 { .. }) => &[],
            (Upload::Sized(_), _) => &sized,
            (Upload::Unsized, Kind::H1 { .. }) => &[("transfer-encoding", "chunked")],
        };
        let all = [headers, framing].concat();
        self.head = None;
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
        }
    }

    /// Sends content.
    pub fn send(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        match &mut self.kind {
            Kind::H1 { chunked: true, .. } if bytes.is_empty() => Ok(()),
            Kind::H1 { client, chunked: true, .. } => client.send(chunk(bytes)),
            Kind::H1 { client, .. } => client.send(bytes),
            Kind::H2 { client, stream, .. } => client.data(*stream, bytes, false),
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
        }
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
                answer.interim = interim.into_iter().map(|head| (head.status, head.headers)).collect();
                *body = Some(Body::new(head.framing));
                (answer.status, answer.headers) = (head.status, head.headers);
            }
            Kind::H2 { client, stream, .. } => {
                let head = client.head(*stream)?;
                answer.interim =
                    client.streams[stream].interim.iter().map(|head| (status(head), plain(head))).collect();
                (answer.status, answer.headers) = (status(&head), plain(&head));
            }
        }
        self.head = Some(answer.clone());
        Ok(answer)
    }

    /// The next piece of the response's body; `None` at its end. Over HTTP/2 only the first MiB can be had this way.
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
            self.send(body)?;
            self.finish(&[])?;
        }
        self.answer()
    }

    /// Sends a GET and waits for the whole response.
    pub fn get(&mut self, path: &str) -> Result<Answer, Fault> {
        self.request("GET", path, &[], b"")
    }

    /// Gives up on the exchange: RST_STREAM CANCEL, or a reset of the connection.
    pub fn abort(self) -> Option<H2Client> {
        match self.kind {
            Kind::H1 { client, .. } => {
                client.reset();
                None
            }
            Kind::H2 { mut client, stream, .. } => {
                client.reset(stream, code::CANCEL).ok();
                Some(*client)
            }
        }
    }

    /// The code with which the server reset the stream.
    pub fn reset_code(&self) -> Option<u32> {
        match &self.kind {
            Kind::H1 { .. } => None,
            Kind::H2 { client, stream, .. } => client.streams.get(stream).and_then(|s| s.reset),
        }
    }
}
