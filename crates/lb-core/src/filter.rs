//! What happens to a request between its route and its backend, and to the response on its way back.
//!
//! Every kind of filter has its field in [`Chain`], in the order of phases. So the order of filters is no setting, and a filter that is not
//! configured costs one test. All of it is pure: values come in by [`TemplateSource`], and heads are changed in place.

pub mod access;
pub mod concurrency;
pub mod cors;
pub mod edit;
pub mod errors;
pub mod fault;
pub mod rate_limit;
pub mod request_id;
pub mod rewrite;
pub mod template;

pub use access::{
    AccessFiles, AccessList, AccessMap, AccessNetworks, AccessVerdict, LiveNetworks, parse_access_file,
};
pub use concurrency::ConcurrencyLimit;
pub use cors::{CorsAnswer, CorsPolicy, OriginPattern};
pub use edit::{HeaderEdits, HeaderLine};
pub use errors::{ErrorForm, ErrorPage, ErrorPages};
pub use fault::{DrawnFault, FaultPolicy};
pub use rate_limit::{RateLimit, RateNotice, RateVerdict, check_rates};
pub use request_id::{KeepFrom, RequestIdPolicy};
pub use rewrite::{Rewrite, RewriteFault};
pub use template::{Template, TemplateSource, TemplateVariable};

use std::sync::Arc;

use crate::words;

words! {
    /// A kind of filter that a policy may hold.
    FilterKind {
        /// Which clients are let in.
        Access = "access",
        /// How often requests may come.
        RateLimit = "rate_limit",
        /// How many requests may run at once.
        Concurrency = "concurrency",
        /// What scripts of other sites may ask for.
        Cors = "cors",
        /// Faults on purpose.
        Fault = "fault",
        /// Edits of the fields of requests.
        RequestHeaders = "request_headers",
        /// What clients are told with errors.
        Errors = "errors",
        /// Edits of the fields of responses.
        ResponseHeaders = "response_headers",
    }
}

/// Filters in the order of their phases: those of one level (listener, virtual host, route, branch), or of several levels together.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Chain {
    /// Which clients are let in: by the lists of all levels.
    pub access: Vec<Arc<AccessList>>,
    /// How often requests may come: by the limits of all levels.
    pub rate_limits: Vec<Arc<RateLimit>>,
    /// How many requests may run at once: by the limits of all levels.
    pub concurrency: Vec<Arc<ConcurrencyLimit>>,
    /// What scripts of other sites may ask for.
    pub cors: Option<Arc<CorsPolicy>>,
    /// Which requests fail on purpose.
    pub fault: Option<Arc<FaultPolicy>>,
    /// Which path and host the backend is asked for.
    pub rewrite: Option<Rewrite>,
    /// What becomes of the fields of the request: the edits of the outermost level first.
    pub request_headers: Vec<HeaderEdits>,
    /// What clients are told with errors.
    pub errors: Option<Arc<ErrorPages>>,
    /// What becomes of the fields of the response, in the order of levels as well.
    pub response_headers: Vec<HeaderEdits>,
}

impl Chain {
    /// The filters of a level inside this one, behind those of this one. Access lists, limits and edits of both levels hold; of other kinds the inner
    /// level's stands in place of the outer one's.
    #[must_use]
    pub fn within(&self, inner: &Self) -> Self {
        let access = [&*self.access, &*inner.access].concat();
        let rate_limits = [&*self.rate_limits, &*inner.rate_limits].concat();
        let concurrency = [&*self.concurrency, &*inner.concurrency].concat();
        let join = |outer: &[HeaderEdits], inner: &[HeaderEdits]| [outer, inner].concat();
        Self {
            access,
            rate_limits,
            concurrency,
            cors: inner.cors.clone().or_else(|| self.cors.clone()),
            fault: inner.fault.clone().or_else(|| self.fault.clone()),
            rewrite: inner.rewrite.clone().or_else(|| self.rewrite.clone()),
            request_headers: join(&self.request_headers, &inner.request_headers),
            errors: inner.errors.clone().or_else(|| self.errors.clone()),
            response_headers: join(&self.response_headers, &inner.response_headers),
        }
    }

    /// The chain without the filters of some kinds.
    #[must_use]
    pub fn without(&self, kinds: &[FilterKind]) -> Self {
        let mut chain = self.clone();
        for kind in kinds {
            match kind {
                FilterKind::Access => chain.access.clear(),
                FilterKind::RateLimit => chain.rate_limits.clear(),
                FilterKind::Concurrency => chain.concurrency.clear(),
                FilterKind::Cors => chain.cors = None,
                FilterKind::Fault => chain.fault = None,
                FilterKind::RequestHeaders => chain.request_headers.clear(),
                FilterKind::Errors => chain.errors = None,
                FilterKind::ResponseHeaders => chain.response_headers.clear(),
            }
        }
        chain
    }

    /// The kinds of filters that are here and that a policy may hold.
    pub fn kinds(&self) -> impl Iterator<Item = FilterKind> {
        let present = [
            (FilterKind::Access, !self.access.is_empty()),
            (FilterKind::RateLimit, !self.rate_limits.is_empty()),
            (FilterKind::Concurrency, !self.concurrency.is_empty()),
            (FilterKind::Cors, self.cors.is_some()),
            (FilterKind::Fault, self.fault.is_some()),
            (FilterKind::RequestHeaders, !self.request_headers.is_empty()),
            (FilterKind::Errors, self.errors.is_some()),
            (FilterKind::ResponseHeaders, !self.response_headers.is_empty()),
        ];
        present.into_iter().filter_map(|(kind, is_here)| is_here.then_some(kind))
    }

    /// Whether nothing is to be done.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
