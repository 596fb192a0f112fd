//! What the admin server answers to a request.

use std::rc::Rc;

use hyper::body::{Body, Bytes};
use hyper::header::{ALLOW, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::sync::mpsc;

use super::body::AnswerBody;
use super::peer::Peer;
use super::{Admin, Refusal, Served, State, calls, host, origin, page, questions, tap};
use crate::tap::TapFilter;

/// The answer to `request` of `peer`, whose body is of interest only where something is changed.
pub(super) async fn answer<B>(served: &Served, peer: &Rc<Peer>, request: Request<B>) -> Response<AnswerBody>
where
    B: Body,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut response = route(served, peer, request).await;
    page::harden(response.headers_mut());
    response
}

async fn route<B>(served: &Served, peer: &Rc<Peer>, request: Request<B>) -> Response<AnswerBody>
where
    B: Body,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let admin = &served.admin;
    if calls::is_call(request.uri().path()) {
        return call(served, request).await;
    }
    if questions::is_question(request.uri().path()) {
        return question(admin, request).await;
    }
    if request.method() != Method::GET {
        return not_allowed("GET");
    }
    if admin.check_host && !host::is_local(&request) {
        return text(StatusCode::FORBIDDEN, "forbidden\n");
    }
    let state = admin.readiness.state();
    let path = request.uri().path();
    match path {
        "/livez" | "/healthz" => return probe(true, state),
        "/readyz" => return probe(state == State::Ok, state),
        "/startupz" => return probe(state != State::Booting, state),
        _ => {}
    }
    if origin::is_foreign(&request) {
        return text(StatusCode::FORBIDDEN, FOREIGN);
    }
    // They say nothing of this process, and a browser cannot send a token before it has them.
    if let Some(file) = page::file(path).filter(|_| admin.page) {
        return respond(StatusCode::OK, file.content_type, file.text);
    }
    if matches!(path, "/status" | "/status/events") {
        return status(served, peer, &request);
    }
    if path == "/tap" {
        return tap(served, peer, &request);
    }
    match path {
        _ if !is_authorized(admin, &request) => text(StatusCode::FORBIDDEN, "forbidden\n"),
        "/metrics" => respond(StatusCode::OK, METRICS_TYPE, admin.metrics.encode()),
        _ => text(StatusCode::NOT_FOUND, "not found\n"),
    }
}

/// With the page, whoever is on this machine may look without a token, unless a name was asked for, which a web page could have made its own
/// (attack row C-08).
fn status<B>(served: &Served, peer: &Rc<Peer>, request: &Request<B>) -> Response<AnswerBody> {
    let is_open = served.admin.page && peer.is_loopback() && host::is_local(request);
    if !is_open && !is_authorized(&served.admin, request) {
        return text(StatusCode::FORBIDDEN, "forbidden\n");
    }
    if request.uri().path() == "/status" {
        return match served.status.once() {
            Some(json) => respond(StatusCode::OK, JSON_TYPE, json),
            None => text(StatusCode::SERVICE_UNAVAILABLE, "the gateway is starting: try again\n"),
        };
    }
    match served.status.watch(peer) {
        Some(events) => stream("text/event-stream", events),
        None => text(StatusCode::SERVICE_UNAVAILABLE, "as many watch as may: try again later\n"),
    }
}

/// Requests say more than counts do: a tap needs the token, and that there is one (attack row D-06).
fn tap<B>(served: &Served, peer: &Rc<Peer>, request: &Request<B>) -> Response<AnswerBody> {
    let admin = &served.admin;
    if admin.token_hash.is_none() {
        let reason = "forbidden: requests are shown only where admin.api_token_hash is set\n";
        return text(StatusCode::FORBIDDEN, reason);
    }
    if !is_authorized(admin, request) {
        return text(StatusCode::FORBIDDEN, "forbidden: the bearer token is missing or wrong\n");
    }
    let filter = match TapFilter::parse(request.uri().query().unwrap_or_default()) {
        Ok(filter) => filter,
        Err(fault) => return respond(StatusCode::BAD_REQUEST, TEXT_TYPE, format!("{fault}\n")),
    };
    match tap::open(&admin.metrics.taps, filter, peer) {
        Some(lines) => stream("application/x-ndjson", lines),
        None => text(StatusCode::SERVICE_UNAVAILABLE, "as many taps are open as may be: close one\n"),
    }
}

/// What is shown needs the token where there is one; what changes something needs that there is one (attack C-08).
async fn call<B>(served: &Served, request: Request<B>) -> Response<AnswerBody>
where
    B: Body,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let admin = &served.admin;
    let changes = request.method() == Method::POST || request.method() == Method::DELETE;
    if !changes && request.method() != Method::GET {
        return not_allowed("GET, POST, DELETE");
    }
    if admin.check_host && !host::is_local(&request) {
        return text(StatusCode::FORBIDDEN, "forbidden\n");
    }
    if origin::is_foreign(&request) {
        return text(StatusCode::FORBIDDEN, FOREIGN);
    }
    if changes && admin.token_hash.is_none() {
        return text(
            StatusCode::FORBIDDEN,
            "forbidden: backends can be changed only where admin.api_token_hash is set\n",
        );
    }
    if !is_authorized(admin, &request) {
        let reason =
            if changes { "forbidden: the bearer token is missing or wrong\n" } else { "forbidden\n" };
        return text(StatusCode::FORBIDDEN, reason);
    }
    let answer = match calls::action(request).await {
        Ok(action) => calls::ask(&admin.calls, action).await,
        Err(refusal) => Err(refusal),
    };
    if changes {
        served.status.is_outdated();
    }
    answered(answer, "GET, POST, DELETE")
}

/// A question changes nothing, so that it needs the token only where there is one; its body is JSON by its type, which no page of another origin can
/// send without being asked first (attack C-08).
async fn question<B>(admin: &Admin, request: Request<B>) -> Response<AnswerBody>
where
    B: Body,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    if request.method() != Method::POST {
        return not_allowed("POST");
    }
    if admin.check_host && !host::is_local(&request) {
        return text(StatusCode::FORBIDDEN, "forbidden\n");
    }
    if origin::is_foreign(&request) {
        return text(StatusCode::FORBIDDEN, FOREIGN);
    }
    if !is_authorized(admin, &request) {
        return text(StatusCode::FORBIDDEN, "forbidden\n");
    }
    answered(questions::ask(admin, request).await, "POST")
}

fn answered(answer: Result<String, Refusal>, methods: &'static str) -> Response<AnswerBody> {
    match answer {
        Ok(json) => respond(StatusCode::OK, JSON_TYPE, json),
        Err(Refusal { status: 405, .. }) => not_allowed(methods),
        Err(Refusal { status, reason }) => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            respond(status, TEXT_TYPE, format!("{reason}\n"))
        }
    }
}

fn not_allowed(methods: &'static str) -> Response<AnswerBody> {
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "method not allowed\n");
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(methods));
    response
}

/// Whether the request carries the token, or none is needed.
fn is_authorized<B>(admin: &Admin, request: &Request<B>) -> bool {
    let Some(expected) = &admin.token_hash else {
        return true;
    };
    let token = request.headers().get(AUTHORIZATION).map(HeaderValue::as_bytes).and_then(|value| {
        value.strip_prefix(b"Bearer ").or_else(|| value.strip_prefix(b"bearer ")).map(<[u8]>::trim_ascii)
    });
    token.is_some_and(|token| Sha256::digest(token).as_slice().ct_eq(expected).into())
}

fn probe(passed: bool, state: State) -> Response<AnswerBody> {
    let status = if passed { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    respond(status, JSON_TYPE, format!("{{\"status\":\"{}\"}}\n", state.name()))
}

fn text(status: StatusCode, body: &'static str) -> Response<AnswerBody> {
    respond(status, TEXT_TYPE, body)
}

fn respond(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<AnswerBody> {
    let mut response = Response::new(AnswerBody::from(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

fn stream(content_type: &'static str, parts: mpsc::Receiver<Bytes>) -> Response<AnswerBody> {
    let mut response = Response::new(AnswerBody::Parts(parts));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

const FOREIGN: &str = "forbidden: the request comes from a page of another site\n";
const JSON_TYPE: &str = "application/json; charset=utf-8";
const TEXT_TYPE: &str = "text/plain; charset=utf-8";
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
