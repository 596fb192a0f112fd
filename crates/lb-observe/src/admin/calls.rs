//! What the admin port lets operators see and do to backends: read here, answered by the control thread.
//!
//! `GET` shows and changes nothing. `POST` and `DELETE` change, and need a token in force (attack C-08).

use std::time::Duration;

use http_body_util::{BodyExt, Limited};
use hyper::body::{Body, Bytes};
use hyper::{Method, Request};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

/// What is wanted of the backends. Pools and backends are named as `GET /backends` names them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// `GET /backends`, `GET /backends/POOL`: how things stand, of all pools or of one.
    List(Option<String>),
    /// `POST /backends/POOL`: one more, as the body says.
    Add(String, Bytes),
    /// `DELETE /backends/POOL/BACKEND`: one less.
    Remove(String, String),
    /// `POST /backends/POOL/BACKEND/drain` and `…/undrain`.
    Drain(String, String, bool),
    /// `POST /backends/POOL/BACKEND/weight`: another share, as the body says.
    Weight(String, String, Bytes),
    /// `POST /plan`: what a reload with the files in the body would do. Nothing changes.
    Plan {
        /// The files.
        body: Bytes,
        /// Whether values of the environment may be told to who asks.
        with_environment: bool,
    },
    /// `GET /routes`: the routes of all listeners.
    Routes,
    /// `POST /routes/NAME/weights`: other shares of the branches of a split, as the body says.
    RouteWeights(String, Bytes),
    /// `POST /reload`: a pass over the configuration file, as SIGHUP begins.
    Reload,
}

/// An action with a way to answer it.
#[derive(Debug)]
pub struct Call {
    /// What is wanted.
    pub action: Action,
    /// Where the answer goes: JSON, or a status and the reason in plain words.
    pub answer: oneshot::Sender<Result<String, Refusal>>,
}

/// Why an action is not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The status of the response.
    pub status: u16,
    /// One line.
    pub reason: String,
}

impl Refusal {
    /// A refusal with this status and reason.
    pub fn new(status: u16, reason: impl Into<String>) -> Self {
        Self { status, reason: reason.into() }
    }
}

/// Bytes that a body may have.
pub const MAX_BODY_BYTES: usize = 4096;

/// Time that a body may take to come.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);

/// Time for the control thread, which may be waiting for name servers.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Calls that may wait for the control thread.
pub const MAX_WAITING_CALLS: usize = 16;

/// What a path below `/backends` names.
enum Resource {
    All,
    Pool(String),
    Backend(String, String),
    Verb(String, String, Verb),
    Routes,
    RouteWeights(String),
    Reload,
}

enum Verb {
    Drain,
    Undrain,
    Weight,
}

/// Whether a path is about what the control thread answers.
pub(super) fn is_call(path: &str) -> bool {
    if path == "/reload" {
        return true;
    }
    let rest = path.strip_prefix("/backends").or_else(|| path.strip_prefix("/routes"));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The action that a request asks for, its body read.
///
/// # Errors
/// With status 404, 405, 408, 413 or 400.
pub(super) async fn action<B>(request: Request<B>) -> Result<Action, Refusal>
where
    B: Body,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let resource = resource(request.uri().path()).ok_or_else(|| Refusal::new(404, "not found"))?;
    let (get, post, delete) = (
        *request.method() == Method::GET,
        *request.method() == Method::POST,
        *request.method() == Method::DELETE,
    );
    match resource {
        Resource::All if get => Ok(Action::List(None)),
        Resource::Pool(pool) if get => Ok(Action::List(Some(pool))),
        Resource::Pool(pool) if post => Ok(Action::Add(pool, body(request, MAX_BODY_BYTES).await?)),
        Resource::Backend(pool, backend) if delete => Ok(Action::Remove(pool, backend)),
        Resource::Verb(pool, backend, Verb::Drain) if post => Ok(Action::Drain(pool, backend, true)),
        Resource::Verb(pool, backend, Verb::Undrain) if post => Ok(Action::Drain(pool, backend, false)),
        Resource::Verb(pool, backend, Verb::Weight) if post => {
            Ok(Action::Weight(pool, backend, body(request, MAX_BODY_BYTES).await?))
        }
        Resource::Reload if post => Ok(Action::Reload),
        Resource::Routes if get => Ok(Action::Routes),
        Resource::RouteWeights(route) if post => {
            Ok(Action::RouteWeights(route, body(request, MAX_BODY_BYTES).await?))
        }
        _ => Err(Refusal::new(405, "method not allowed")),
    }
}

/// Has the control thread answer.
pub(super) async fn ask(calls: &mpsc::Sender<Call>, action: Action) -> Result<String, Refusal> {
    let (answer, answered) = oneshot::channel();
    let busy = || Refusal::new(503, "the gateway is starting, busy or ending: try again");
    calls.try_send(Call { action, answer }).map_err(|_| busy())?;
    match timeout(ANSWER_TIMEOUT, answered).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) | Err(_) => Err(busy()),
    }
}

fn resource(path: &str) -> Option<Resource> {
    if path == "/reload" {
        return Some(Resource::Reload);
    }
    if let Some(rest) = path.strip_prefix("/routes") {
        let Some(rest) = rest.strip_prefix('/') else { return rest.is_empty().then_some(Resource::Routes) };
        let (route, verb) = rest.split_once('/')?;
        return (verb == "weights").then(|| decode(route)).flatten().map(Resource::RouteWeights);
    }
    let rest = path.strip_prefix("/backends")?;
    let Some(rest) = rest.strip_prefix('/') else { return rest.is_empty().then_some(Resource::All) };
    let mut segments = rest.split('/').map(decode);
    let (pool, backend, verb) = (segments.next()??, segments.next(), segments.next());
    if segments.next().is_some() {
        return None;
    }
    Some(match (backend, verb) {
        (None, _) => Resource::Pool(pool),
        (Some(backend), None) => Resource::Backend(pool, backend?),
        (Some(backend), Some(verb)) => {
            let verb = match verb?.as_str() {
                "drain" => Verb::Drain,
                "undrain" => Verb::Undrain,
                "weight" => Verb::Weight,
                _ => return None,
            };
            Resource::Verb(pool, backend?, verb)
        }
    })
}

/// A segment of a path without its percent encoding (RFC 3986 §2.1): 1 to 512 printable characters of ASCII, as names are.
fn decode(segment: &str) -> Option<String> {
    let (mut text, mut bytes) = (String::new(), segment.bytes());
    while let Some(byte) = bytes.next() {
        let byte = match byte {
            b'%' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                u8::try_from(digit()? * 16 + digit()?).ok()?
            }
            byte => byte,
        };
        if !byte.is_ascii_graphic() || text.len() >= MAX_NAME_BYTES {
            return None;
        }
        text.push(char::from(byte));
    }
    (!text.is_empty()).then_some(text)
}

const MAX_NAME_BYTES: usize = 512;

/// The whole body of a request, which has `limit` bytes at most.
///
/// # Errors
/// With status 413, 400 or 408.
pub(super) async fn body<B>(request: Request<B>, limit: usize) -> Result<Bytes, Refusal>
where
    B: Body,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let too_large = || Refusal::new(413, format!("a body has at most {limit} bytes"));
    // One that is said to be larger is not waited for.
    if request.body().size_hint().lower() > limit as u64 {
        return Err(too_large());
    }
    let body = Limited::new(request.into_body(), limit).collect();
    match timeout(BODY_TIMEOUT, body).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(Refusal::new(400, "the body is cut")),
        Err(_) => Err(Refusal::new(408, "the body is late")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::Full;

    fn read(method: &str, path: &str) -> Result<Action, u16> {
        let request =
            Request::builder().method(method).uri(path).body(Full::new(Bytes::from_static(b"{}"))).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(action(request)).map_err(|refusal| refusal.status)
    }

    #[test]
    fn paths_and_methods_are_actions() {
        let (pool, backend) = ("p".to_owned(), "10.0.0.1:80".to_owned());
        let body = Bytes::from_static(b"{}");
        for (method, path, expected) in [
            ("GET", "/backends", Action::List(None)),
            ("GET", "/backends/p", Action::List(Some(pool.clone()))),
            ("POST", "/backends/p", Action::Add(pool.clone(), body.clone())),
            ("DELETE", "/backends/p/10.0.0.1:80", Action::Remove(pool.clone(), backend.clone())),
            ("DELETE", "/backends/p/10.0.0.1%3A80", Action::Remove(pool.clone(), backend.clone())),
            ("DELETE", "/backends/p/%5B::1%5d:80", Action::Remove(pool.clone(), "[::1]:80".to_owned())),
            ("POST", "/backends/p/10.0.0.1:80/drain", Action::Drain(pool.clone(), backend.clone(), true)),
            ("POST", "/backends/p/10.0.0.1:80/undrain", Action::Drain(pool.clone(), backend.clone(), false)),
            ("POST", "/backends/p/10.0.0.1:80/weight", Action::Weight(pool, backend, body.clone())),
            ("GET", "/routes", Action::Routes),
            ("POST", "/routes/app/weights", Action::RouteWeights("app".to_owned(), body)),
            ("POST", "/reload", Action::Reload),
        ] {
            assert_eq!(read(method, path), Ok(expected), "{method} {path}");
        }
    }

    #[test]
    fn c_08_get_changes_nothing() {
        for path in ["/backends/p/b", "/backends/p/b/drain", "/backends/p/b/undrain", "/backends/p/b/weight"]
        {
            for method in ["GET", "HEAD", "PUT", "PATCH", "OPTIONS"] {
                assert_eq!(read(method, path), Err(405), "{method} {path}");
            }
        }
        assert_eq!(read("DELETE", "/backends/p"), Err(405));
        assert_eq!((read("POST", "/routes"), read("GET", "/routes/app/weights")), (Err(405), Err(405)));
        assert_eq!(read("POST", "/backends"), Err(405));
        assert_eq!(read("GET", "/reload"), Err(405));
        assert_eq!(read("DELETE", "/backends/p/b/drain"), Err(405));
    }

    #[test]
    fn other_paths_are_not_found() {
        let long = format!("/backends/{}", "a".repeat(MAX_NAME_BYTES + 1));
        for path in [
            "/routes/",
            "/routes/app",
            "/routes/app/weight",
            "/routes//weights",
            "/routes/app/weights/",
            "/backendsx",
            "/backends/",
            "/backends//b",
            "/backends/p/",
            "/backends/p/b/",
            "/backends/p/b/x",
            "/backends/p/b/drain/",
            "/backends/%",
            "/backends/%2",
            "/backends/%zz",
            "/backends/%00",
            "/backends/%0a",
            "/backends/%c3%a4",
            &long,
        ] {
            assert_eq!(read("GET", path), Err(404), "{path}");
        }
    }

    #[test]
    fn bodies_are_bounded() {
        let request = Request::post("/backends/p")
            .body(Full::new(Bytes::from(vec![b' '; MAX_BODY_BYTES + 1])))
            .unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        assert_eq!(runtime.block_on(action(request)).unwrap_err().status, 413);
    }
}
