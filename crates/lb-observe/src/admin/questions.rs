//! Questions that need a body: read here, answered by the control thread. They change nothing.

use std::sync::Arc;

use hyper::Request;
use hyper::body::Body;
use hyper::header::CONTENT_TYPE;
use tokio::sync::Semaphore;

use super::{Action, Admin, Refusal, calls};

/// Bytes that the body of `/plan` may have: a configuration of 4 MiB, as JSON writes it.
const MAX_PLAN_BYTES: usize = 9 << 20;

/// Questions that are read and answered at one time. Their bodies may be large.
const AT_ONCE: usize = 2;

/// What bounds the questions that are asked at one time.
#[derive(Clone, Debug)]
pub struct Questions(Arc<Semaphore>);

impl Default for Questions {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(AT_ONCE)))
    }
}

/// Whether a path is that of a question.
pub(super) fn is_question(path: &str) -> bool {
    path == "/plan"
}

/// Has a question answered, whose method and token are in order.
///
/// # Errors
/// With status 415, 503, or that of the answer.
pub(super) async fn ask<B>(admin: &Admin, request: Request<B>) -> Result<String, Refusal>
where
    B: Body,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let is_json = request.headers().get(CONTENT_TYPE).is_some_and(|value| {
        let kind = value.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default();
        kind.trim_ascii().eq_ignore_ascii_case(b"application/json")
    });
    if !is_json {
        return Err(Refusal::new(415, "the body must be application/json"));
    }
    let Ok(_place) = admin.questions.0.try_acquire() else {
        return Err(Refusal::new(503, "the gateway answers other questions: try again"));
    };
    let body = calls::body(request, MAX_PLAN_BYTES).await?;
    calls::ask(&admin.calls, Action::Plan { body, with_environment: admin.token_hash.is_some() }).await
}
