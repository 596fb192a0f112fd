//! What the admin server answers to a request.

use http_body_util::Full;
use hyper::body::{Body, Bytes};
use hyper::header::{ALLOW, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::{Admin, Refusal, State, calls, host};

/// The answer to `request`, whose body is of interest only where backends are changed.
pub(super) async fn answer<B>(admin: &Admin, request: Request<B>) -> Response<Full<Bytes>>
where
    B: Body,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    if calls::is_about_backends(request.uri().path()) {
        return about_backends(admin, request).await;
    }
    if request.method() != Method::GET {
        return not_allowed("GET");
    }
    if admin.check_host && !host::is_local(&request) {
        return text(StatusCode::FORBIDDEN, "forbidden\n");
    }
    let state = admin.readiness.state();
    match request.uri().path() {
        "/livez" | "/healthz" => probe(true, state),
        "/readyz" => probe(state == State::Ok, state),
        "/startupz" => probe(state != State::Booting, state),
        _ if !is_authorized(admin, &request) => text(StatusCode::FORBIDDEN, "forbidden\n"),
        "/metrics" => respond(StatusCode::OK, METRICS_TYPE, admin.metrics.encode()),
        _ => text(StatusCode::NOT_FOUND, "not found\n"),
    }
}

/// What is shown needs the token where there is one; what changes something needs that there is one (attack C-08).
async fn about_backends<B>(admin: &Admin, request: Request<B>) -> Response<Full<Bytes>>
where
    B: Body,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let changes = request.method() == Method::POST || request.method() == Method::DELETE;
    if !changes && request.method() != Method::GET {
        return not_allowed("GET, POST, DELETE");
    }
    if admin.check_host && !host::is_local(&request) {
        return text(StatusCode::FORBIDDEN, "forbidden\n");
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
    match answer {
        Ok(json) => respond(StatusCode::OK, JSON_TYPE, json),
        Err(Refusal { status: 405, .. }) => not_allowed("GET, POST, DELETE"),
        Err(Refusal { status, reason }) => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            respond(status, TEXT_TYPE, format!("{reason}\n"))
        }
    }
}

fn not_allowed(methods: &'static str) -> Response<Full<Bytes>> {
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

fn probe(passed: bool, state: State) -> Response<Full<Bytes>> {
    let status = if passed { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    respond(status, JSON_TYPE, format!("{{\"status\":\"{}\"}}\n", state.name()))
}

fn text(status: StatusCode, body: &'static str) -> Response<Full<Bytes>> {
    respond(status, TEXT_TYPE, body)
}

fn respond(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

const JSON_TYPE: &str = "application/json; charset=utf-8";
const TEXT_TYPE: &str = "text/plain; charset=utf-8";
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
