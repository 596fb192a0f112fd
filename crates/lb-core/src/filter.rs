//! What happens to a request between its route and its backend, and to the response on its way back.
//!
//! Every kind of filter has its field in [`Chain`], in the order of phases. So the order of filters is no setting, and a filter that is not
//! configured costs one test. All of it is pure: values come in by [`TemplateSource`], and heads are changed in place.

pub mod edit;
pub mod request_id;
pub mod rewrite;
pub mod template;

pub use edit::{HeaderEdits, HeaderLine};
pub use request_id::{KeepFrom, RequestIdPolicy};
pub use rewrite::{Rewrite, RewriteFault};
pub use template::{Template, TemplateSource, TemplateVariable};

/// The filters of a route, in the order of their phases.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Chain {
    /// Which path and host the backend is asked for.
    pub rewrite: Option<Rewrite>,
    /// What becomes of the fields of the request.
    pub request_headers: Option<HeaderEdits>,
    /// What becomes of the fields of the response.
    pub response_headers: Option<HeaderEdits>,
}

impl Chain {
    /// Whether nothing is to be done.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
