//! What the admin server answers to a request.

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{ALLOW, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::{Admin, State, host};

/// The answer to `request`, whose body is of no interest.
pub(super) fn answer<B>(admin: &Admin, request: &Request<B>) -> Response<Full<Bytes>> {
    if request.method() != Method::GET {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "method not allowed\n");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
        return response;
    }
    if admin.check_host && !host::is_local(request) {
        return text(StatusCode::FORBIDDEN, "forbidden\n");
    }
    let state = admin.readiness.state();
    match request.uri().path() {
        "/livez" | "/healthz" => probe(true, state),
        "/readyz" => probe(state == State::Ok, state),
        "/startupz" => probe(state != State::Booting, state),
        _ if !is_authorized(admin, request) => text(StatusCode::FORBIDDEN, "forbidden\n"),
        "/metrics" => respond(StatusCode::OK, METRICS_TYPE, admin.metrics.encode()),
        _ => text(StatusCode::NOT_FOUND, "not found\n"),
    }
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

fn probe(passed: bool, state: State) -> Response<Full<Bytes>> {
    let status = if passed { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    respond(status, "application/json; charset=utf-8", format!("{{\"status\":\"{}\"}}\n", state.name()))
}

fn text(status: StatusCode, body: &'static str) -> Response<Full<Bytes>> {
    respond(status, "text/plain; charset=utf-8", body)
}

fn respond(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
