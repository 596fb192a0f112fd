//! The filters of an exchange: what `lb_core::filter` decides, applied to its heads.
//!
//! The order is that of phases, whatever stands first in the file: the client's ID is taken out before routes are looked at, and what the
//! gateway writes is written after the fields of the client's hop are gone, so that `Connection` takes none of it away (attack R-11).

use std::borrow::Cow;

use lb_core::failure::Reject;
use lb_core::filter::template::{TemplateSource, TemplateVariable};
use lb_core::filter::{
    Chain, CorsAnswer, ErrorForm, ErrorPages, HeaderEdits, KeepFrom, RateNotice, RequestIdPolicy, errors,
    request_id,
};
use lb_core::forwarded::RequestOrigin;
use lb_core::head::{RequestHead, ResponseHead, Span, reads_as};
use lb_core::reason::Reason;
use lb_core::rng::SplitMix64;
use lb_core::route::{Host, RouteCaptures, RouteDestination, condition};
use tokio::time::Instant;

use crate::answer;
use crate::concurrency::Held;
use crate::proxy::Client;
use crate::routes::{Matched, set_target, split_target};
use crate::service::Settings;

/// Who asks: the client, and the peer whose connection the request came over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asker<'a> {
    /// The client, behind whatever proxies are trusted.
    pub(crate) origin: &'a RequestOrigin,
    /// The peer.
    pub(crate) client: &'a Client,
}

/// What the filters of an exchange know.
#[derive(Debug, Default)]
pub(crate) struct Filtered {
    /// The target as it was matched, where the backend is asked for another; the log has this one.
    pub(crate) asked: Option<Span>,
    /// The ID of the request.
    pub(crate) id: Option<Box<[u8]>>,
    /// The value of a `Set-Cookie` that keeps the client on its branch of a split.
    cookie: Option<Box<[u8]>>,
    /// Where the table leads the request; None without a table, and where the request was refused before.
    at: Option<RouteDestination>,
    /// The branch of the route's split.
    branch: Option<u32>,
    /// What scripts of other sites are let see.
    cors: Option<Box<CorsAnswer>>,
    /// What the response tells of the limits of the route.
    notice: Option<RateNotice>,
    /// Its places among the requests that run.
    held: Option<Box<Held>>,
    /// The edits of the response one after the other, where some hold values of the request: those that do, with the values.
    bound: Vec<Option<Box<HeaderEdits>>>,
}

/// What an exchange is marked by, before its filters run.
#[derive(Debug)]
pub(crate) struct Marks {
    /// The ID of the request, as [`take_request_id`] has it.
    pub(crate) id: Option<Box<[u8]>>,
    /// The value of a `Set-Cookie`.
    pub(crate) cookie: Option<Box<[u8]>>,
    /// It is a CORS preflight.
    pub(crate) is_preflight: bool,
    /// What the response tells of limits.
    pub(crate) notice: Option<RateNotice>,
    /// Its places among the requests that run.
    pub(crate) held: Option<Box<Held>>,
}

/// Takes the client's ID out of a request, and says which ID it has from now on.
pub(crate) fn take_request_id(
    policy: &RequestIdPolicy,
    origin: &RequestOrigin,
    head: &mut RequestHead,
    rng: &mut SplitMix64,
) -> Box<[u8]> {
    // What `Connection` names is gone before it counts.
    head.fields.drop_hop_by_hop();
    let name = policy.header.as_bytes();
    let sent = || head.fields.iter().find(|field| field.name.eq_ignore_ascii_case(name));
    let keeps = match policy.keep_from {
        KeepFrom::Anyone => true,
        KeepFrom::Trusted => origin.is_trusted(),
        KeepFrom::Nobody => false,
    };
    let acceptable = sent().filter(|field| keeps && request_id::is_acceptable(field.value));
    let kept: Option<Box<[u8]>> = acceptable.map(|field| field.value.into());
    head.fields.remove_where(|field| reads_as(field, name));
    kept.unwrap_or_else(|| Box::new(request_id::new(rng)))
}

/// Phase 10 of a request whose hop is done with: rewrite, then edits, of the levels of its route and then of its branch. Besides, why the
/// request is refused, where the path that comes of it may not be forwarded.
pub(crate) fn request(
    settings: &Settings,
    at: Option<RouteDestination>,
    matched: Option<Matched>,
    Marks { id, cookie, is_preflight, notice, held }: Marks,
    asker: Asker<'_>,
    head: &mut RequestHead,
) -> (Option<Box<Filtered>>, Option<Reject>) {
    let branch = matched.and_then(|matched| matched.branch);
    let chains = settings.routes.chains(at, branch);
    if chains == [None, None] && id.is_none() && cookie.is_none() {
        return (None, None);
    }
    let mut filtered = Filtered { id, cookie, at, branch, notice, held, ..Filtered::default() };
    if let Some(policy) = chains.iter().flatten().find_map(|chain| chain.cors.as_deref()) {
        filtered.cors = Some(Box::new(policy.answer(head, is_preflight)));
    }
    let has_filters = chains != [None, None];
    let fault = if has_filters { filtered.apply(settings, matched, chains, asker, head).err() } else { None };
    // No backend gets a preflight, whatever its path would become.
    let fault = fault.filter(|_| !is_preflight);
    if let (Some(id), Some(policy)) = (&filtered.id, &settings.request_id) {
        head.fields.push(policy.header.as_bytes(), id);
    }
    (Some(Box::new(filtered)), fault)
}

impl Filtered {
    fn apply(
        &mut self,
        settings: &Settings,
        matched: Option<Matched>,
        chains: [Option<&Chain>; 2],
        asker: Asker<'_>,
        head: &mut RequestHead,
    ) -> Result<(), Reject> {
        let rewrite = chains.iter().flatten().find_map(|chain| chain.rewrite.as_ref());
        let prefix = matched.and_then(|matched| usize::try_from(matched.prefix).ok()).unwrap_or_default();
        let (path, query) = split_target(head.target());
        let canonical = settings.routes.canonical(path);
        let canonical = canonical.as_deref().unwrap_or(path);
        let edits_of_request = || chains.iter().flatten().flat_map(|chain| &chain.request_headers);
        let edits_of_response = || chains.iter().flatten().flat_map(|chain| &chain.response_headers);
        let binds = edits_of_response().any(HeaderEdits::needs_request);
        let needs_values = binds || edits_of_request().any(HeaderEdits::needs_request);
        let captures = match matched {
            Some(matched) if needs_values || rewrite.is_some_and(|rewrite| rewrite.path.has_captures()) => {
                settings.routes.captures(matched.route, canonical)
            }
            _ => RouteCaptures::default(),
        };
        let made = match rewrite {
            Some(rewrite) => rewrite
                .path(canonical, prefix, &captures, settings.routes.allows_ambiguous())
                .map_err(|_| Reject::new(400, Reason::Rewrite))?,
            None => None,
        };
        let target = made.map(|path| [&path, query.unwrap_or_default()].concat());
        let is_taken_off = rewrite.is_some_and(|rewrite| rewrite.path.takes_off());
        let taken = canonical.get(..prefix).filter(|_| is_taken_off).unwrap_or_default().to_vec();
        let values = RequestValues {
            head,
            path: canonical,
            query: query.and_then(|query| query.get(1..)).unwrap_or_default(),
            asker,
            id: self.id.as_deref().unwrap_or_default(),
            route: matched.map_or("", |matched| settings.routes.name(matched.route)),
            captures: &captures,
        };
        let rendered: Vec<_> = edits_of_request().map(|edits| (edits, edits.render(&values))).collect();
        if binds {
            let bind = |edits: &HeaderEdits| edits.needs_request().then(|| Box::new(edits.bound(&values)));
            self.bound = edits_of_response().map(bind).collect();
        }
        if let Some(target) = target {
            self.asked = Some(head.target);
            set_target(head, &target);
        }
        if !taken.is_empty() {
            // Whatever the client has said of it.
            head.fields.remove_where(|field| reads_as(field, b"x-forwarded-prefix"));
            head.fields.push(b"X-Forwarded-Prefix", &taken);
        }
        if let Some(host) = rewrite.and_then(|rewrite| rewrite.host.as_deref()) {
            set_authority(head, host);
        }
        for (edits, rendered) in &rendered {
            edits.apply(rendered, &mut head.fields);
        }
        Ok(())
    }

    fn error_body<'s>(
        &self,
        errors: &ErrorPages,
        settings: &'s Settings,
        request: &RequestHead,
        status: u16,
        reason: Option<Reason>,
    ) -> Option<ErrorBody<'s>> {
        let fields = request.fields.iter().filter(|field| field.name.eq_ignore_ascii_case(b"accept"));
        let varies = errors.problem_json;
        match errors.form(status, fields.map(|field| field.value)) {
            ErrorForm::Problem => {
                let title = answer::reason_phrase(status);
                let text = errors::problem(status, title, reason.map(Reason::name), self.id.as_deref());
                let body = Cow::Owned(text.into_bytes());
                Some(ErrorBody { content_type: "application/problem+json", body, varies })
            }
            ErrorForm::Page(page) => {
                let body = Cow::Borrowed(settings.routes.page(page)?);
                Some(ErrorBody { content_type: page.content_type(), body, varies })
            }
            ErrorForm::Plain => None,
        }
    }

    /// What clients are told with errors, as the innermost level says.
    fn errors<'s>(&self, settings: &'s Settings) -> Option<&'s ErrorPages> {
        let chains = settings.routes.chains(self.at, self.branch);
        chains.into_iter().flatten().rev().find_map(|chain| chain.errors.as_deref())
    }

    /// Phases 24 and 25 of a response, the gateway's own included.
    fn response(&self, settings: &Settings, head: &mut ResponseHead) {
        let chains = settings.routes.chains(self.at, self.branch);
        let edits = chains.into_iter().flatten().flat_map(|chain| &chain.response_headers);
        for (number, edits) in edits.enumerate() {
            let edits = self.bound.get(number).and_then(Option::as_deref).unwrap_or(edits);
            let rendered = edits.render(&head.status);
            edits.apply(&rendered, &mut head.fields);
        }
        if let Some(cors) = &self.cors {
            cors.apply(&mut head.fields);
        }
        if let Some(notice) = &self.notice {
            settings.routes.tell_limit(self.at, notice, head);
        }
        if let (Some(id), Some(policy)) = (&self.id, settings.request_id.as_ref().filter(|id| id.respond)) {
            head.fields.remove_named(policy.header.as_bytes());
            head.fields.push(policy.header.as_bytes(), id);
        }
        if let Some(cookie) = &self.cookie {
            head.fields.push(b"Set-Cookie", cookie);
        }
    }
}

/// Phase 21: what stands in place of a body of the gateway's own, or of a backend's.
#[derive(Debug)]
pub(crate) struct ErrorBody<'a> {
    pub(crate) content_type: &'static str,
    pub(crate) body: Cow<'a, [u8]>,
    /// Other clients may be told the same in another form, by their `Accept`.
    pub(crate) varies: bool,
}

/// Phase 21 of an answer of the gateway's own with this status, for this reason.
#[inline]
pub(crate) fn error_body<'s>(
    filtered: Option<&Filtered>,
    settings: &'s Settings,
    request: &RequestHead,
    status: u16,
    reason: Option<Reason>,
) -> Option<ErrorBody<'s>> {
    let filtered = filtered?;
    filtered.error_body(filtered.errors(settings)?, settings, request, status, reason)
}

/// Whether another client may be told with this status what this one is not, by its `Accept`.
#[inline]
pub(crate) fn error_varies(filtered: Option<&Filtered>, settings: &Settings, status: u16) -> bool {
    filtered.and_then(|filtered| filtered.errors(settings)).is_some_and(|errors| errors.varies(status))
}

/// Phase 21 of a backend's response: what stands in place of its body, if anything does.
#[inline]
pub(crate) fn intercepted<'s>(
    filtered: Option<&Filtered>,
    settings: &'s Settings,
    request: &RequestHead,
    status: u16,
) -> Option<ErrorBody<'s>> {
    let filtered = filtered?;
    if status < 400 || request.is_head() {
        return None;
    }
    let errors = filtered.errors(settings).filter(|errors| errors.intercepts(status))?;
    filtered.error_body(errors, settings, request, status, None)
}

/// The response of a backend begins.
#[inline]
pub(crate) fn answered(filtered: Option<&Filtered>, status: u16, now: Instant) {
    if let Some(held) = filtered.and_then(|filtered| filtered.held.as_deref()) {
        held.answered(status, now);
    }
}

/// The exchange ends, perhaps because the time for its response was over.
#[inline]
pub(crate) fn ends(filtered: Option<&Filtered>, now: Instant, is_late: bool) {
    if let Some(held) = filtered.and_then(|filtered| filtered.held.as_deref()) {
        held.ends(now, is_late);
    }
}

/// Phases 24 and 25, where there are filters.
#[inline]
pub(crate) fn response(filtered: Option<&Filtered>, settings: &Settings, head: &mut ResponseHead) {
    if let Some(filtered) = filtered {
        filtered.response(settings, head);
    }
}

/// Another host for the backend.
fn set_authority(head: &mut RequestHead, host: &[u8]) {
    let start = head.fields.append_text(host);
    head.authority = Span::new(start, start.saturating_add(host.len()));
    head.fields.remove(lb_core::head::FieldName::Host);
    head.fields.push(b"Host", host);
}

/// The values of a request for templates.
struct RequestValues<'a> {
    head: &'a RequestHead,
    path: &'a [u8],
    query: &'a [u8],
    asker: Asker<'a>,
    id: &'a [u8],
    route: &'a str,
    captures: &'a RouteCaptures<'a>,
}

impl TemplateSource for RequestValues<'_> {
    fn value(&self, variable: &TemplateVariable, out: &mut Vec<u8>) {
        use TemplateVariable as Of;
        let session = self.asker.client.session.as_deref();
        let certificate = session.and_then(|session| session.certificate());
        let text = match variable {
            Of::ClientIp => {
                match self.asker.origin.client.ip() {
                    Some(ip) => out.extend_from_slice(ip.to_canonical().to_string().as_bytes()),
                    None => out.extend_from_slice(self.asker.client.hop.client().as_bytes()),
                }
                return;
            }
            Of::Scheme => self.asker.origin.scheme.as_str().as_bytes(),
            Of::Host => {
                let host = Host::of(self.head.authority());
                out.extend_from_slice(host.as_ref().map(Host::as_bytes).unwrap_or_default());
                return;
            }
            Of::Method => self.head.method(),
            Of::Path => self.path,
            Of::Query => self.query,
            Of::Url => {
                out.extend_from_slice(self.asker.origin.scheme.as_str().as_bytes());
                out.extend_from_slice(b"://");
                let told = self.asker.origin.authority();
                out.extend_from_slice(told.as_deref().unwrap_or(self.head.authority()));
                out.extend_from_slice(self.path);
                if !self.query.is_empty() {
                    out.push(b'?');
                    out.extend_from_slice(self.query);
                }
                return;
            }
            Of::RequestId => self.id,
            Of::Route => self.route.as_bytes(),
            Of::ServerName => session.and_then(|session| session.record().server_name).unwrap_or_default(),
            Of::TlsVersion => session.map(|session| session.record().version.as_bytes()).unwrap_or_default(),
            Of::CertSubject => certificate.map(|found| found.subject.as_bytes()).unwrap_or_default(),
            Of::CertSha256 => certificate.map(|found| found.sha256.as_bytes()).unwrap_or_default(),
            Of::Header(name) => self.head.fields.value_of(name).unwrap_or_default(),
            Of::Cookie(name) => {
                out.extend_from_slice(&condition::cookie_of(self.head, name).unwrap_or_default());
                return;
            }
            Of::Capture(group) => self.captures.group(group),
            // Comes with the response.
            Of::Status => &[],
        };
        out.extend_from_slice(text);
    }
}
