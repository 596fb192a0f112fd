//! The filters of an exchange: what `lb_core::filter` decides, applied to its heads.
//!
//! The order is that of phases, whatever stands first in the file: the client's ID is taken out before routes are looked at, and what the
//! gateway writes is written after the fields of the client's hop are gone, so that `Connection` takes none of it away (attack R-11).

use std::time::{SystemTime, UNIX_EPOCH};

use lb_core::failure::Reject;
use lb_core::filter::template::{TemplateSource, TemplateVariable};
use lb_core::filter::{Chain, HeaderEdits, KeepFrom, RequestIdPolicy, request_id};
use lb_core::head::{RequestHead, ResponseHead, Span, reads_as};
use lb_core::reason::Reason;
use lb_core::rng::SplitMix64;
use lb_core::route::location::NewPath;
use lb_core::route::{Host, RouteCaptures, condition};

use crate::proxy::Client;
use crate::routes::{Matched, scheme, set_target, split_target};
use crate::service::Settings;

/// What the filters of an exchange know.
#[derive(Debug, Default)]
pub(crate) struct Filtered {
    /// The target as it was matched, where the backend is asked for another; the log has this one.
    pub(crate) asked: Option<Span>,
    /// The ID of the request.
    pub(crate) id: Option<Box<[u8]>>,
    /// The edits of the response, where they hold values of the request.
    bound: Option<Box<HeaderEdits>>,
}

/// Takes the client's ID out of a request, and says which ID it has from now on.
pub(crate) fn take_request_id(
    policy: &RequestIdPolicy,
    head: &mut RequestHead,
    rng: &mut SplitMix64,
) -> Box<[u8]> {
    // What `Connection` names is gone before it counts.
    head.fields.drop_hop_by_hop();
    let name = policy.header.as_bytes();
    let sent = || head.fields.iter().find(|field| field.name.eq_ignore_ascii_case(name));
    let kept: Option<Box<[u8]>> = match policy.keep_from {
        KeepFrom::Anyone => {
            sent().filter(|field| request_id::is_acceptable(field.value)).map(|field| field.value.into())
        }
        // No proxy is trusted.
        KeepFrom::Trusted | KeepFrom::Nobody => None,
    };
    head.fields.remove_where(|field| reads_as(field, name));
    kept.unwrap_or_else(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let millis = u64::try_from(since.as_millis()).unwrap_or_default();
        Box::new(request_id::make(millis, [rng.next_u64(), rng.next_u64()]))
    })
}

/// Phase 10 of a request whose hop is done with: rewrite, then edits. `id` is what [`take_request_id`] came to. Besides, why the request is
/// refused, where the path that comes of it may not be forwarded.
pub(crate) fn request(
    settings: &Settings,
    matched: Option<Matched>,
    id: Option<Box<[u8]>>,
    client: &Client,
    head: &mut RequestHead,
) -> (Option<Box<Filtered>>, Option<Reject>) {
    let chain = matched.and_then(|matched| Some((matched, settings.routes.chain(matched.route)?)));
    if chain.is_none() && id.is_none() {
        return (None, None);
    }
    let mut filtered = Filtered { id, ..Filtered::default() };
    let fault =
        chain.and_then(|(matched, chain)| filtered.apply(settings, matched, chain, client, head).err());
    if let (Some(id), Some(policy)) = (&filtered.id, &settings.request_id) {
        head.fields.push(policy.header.as_bytes(), id);
    }
    (Some(Box::new(filtered)), fault)
}

impl Filtered {
    fn apply(
        &mut self,
        settings: &Settings,
        matched: Matched,
        chain: &Chain,
        client: &Client,
        head: &mut RequestHead,
    ) -> Result<(), Reject> {
        let (path, query) = split_target(head.target());
        let needs = |edits: &Option<HeaderEdits>| edits.as_ref().is_some_and(HeaderEdits::needs_request);
        let rewrites_captured = chain.rewrite.as_ref().is_some_and(|rewrite| rewrite.path.has_captures());
        let needs_values = needs(&chain.request_headers) || needs(&chain.response_headers);
        let (path, rewritten, rendered) = {
            let canonical = settings.routes.canonical(path);
            let canonical = canonical.as_deref().unwrap_or(path);
            let captures = if rewrites_captured || needs_values {
                settings.routes.captures(matched.route, canonical)
            } else {
                RouteCaptures::default()
            };
            let values = RequestValues {
                head,
                path: canonical,
                query: query.and_then(|query| query.get(1..)).unwrap_or_default(),
                client,
                id: self.id.as_deref().unwrap_or_default(),
                route: settings.routes.label(matched.route).map_or("", |(name, _)| name),
                captures: &captures,
            };
            let rewritten = match &chain.rewrite {
                Some(rewrite) => {
                    let allow = settings.routes.allows_ambiguous();
                    let prefix = usize::try_from(matched.prefix).unwrap_or(usize::MAX);
                    rewrite
                        .path(canonical, prefix, &captures, allow)
                        .map_err(|_| Reject::new(400, Reason::Rewrite))?
                }
                None => None,
            };
            let taken = match &chain.rewrite {
                Some(rewrite) if matches!(&rewrite.path, NewPath::Prefix(new) if matches!(&**new, b"" | b"/")) => {
                    canonical.get(..usize::try_from(matched.prefix).unwrap_or_default()).unwrap_or_default()
                }
                _ => &[],
            };
            if let Some(edits) = chain.response_headers.as_ref().filter(|edits| edits.needs_request()) {
                self.bound = Some(Box::new(edits.bound(&values)));
            }
            let rendered = chain.request_headers.as_ref().map(|edits| edits.render(&values));
            let target = rewritten.map(|path| [&path, query.unwrap_or_default()].concat());
            (taken.to_vec(), target, rendered)
        };
        if let Some(target) = rewritten {
            self.asked = Some(head.target);
            set_target(head, &target);
        }
        if !path.is_empty() {
            // Whatever the client has said of it.
            head.fields.remove_where(|field| reads_as(field, b"x-forwarded-prefix"));
            head.fields.push(b"X-Forwarded-Prefix", &path);
        }
        if let Some(host) = chain.rewrite.as_ref().and_then(|rewrite| rewrite.host.as_deref()) {
            set_authority(head, host);
        }
        if let (Some(edits), Some(rendered)) = (&chain.request_headers, rendered) {
            edits.apply(&rendered, &mut head.fields);
        }
        Ok(())
    }

    /// Phases 24 and 25 of a response, the gateway's own included. `route` is the one that took the request.
    pub(crate) fn response(&self, settings: &Settings, route: Option<u32>, head: &mut ResponseHead) {
        let chain = route.and_then(|route| settings.routes.chain(route));
        let edits = self.bound.as_deref().or_else(|| chain?.response_headers.as_ref());
        if let Some(edits) = edits {
            let rendered = edits.render(&head.status);
            edits.apply(&rendered, &mut head.fields);
        }
        if let (Some(id), Some(policy)) = (&self.id, settings.request_id.as_ref().filter(|id| id.respond)) {
            head.fields.remove_named(policy.header.as_bytes());
            head.fields.push(policy.header.as_bytes(), id);
        }
    }
}

/// Phases 24 and 25, where there are filters.
#[inline]
pub(crate) fn response(
    filtered: Option<&Filtered>,
    settings: &Settings,
    route: Option<u32>,
    head: &mut ResponseHead,
) {
    if let Some(filtered) = filtered {
        filtered.response(settings, route, head);
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
    client: &'a Client,
    id: &'a [u8],
    route: &'a str,
    captures: &'a RouteCaptures<'a>,
}

impl TemplateSource for RequestValues<'_> {
    fn value(&self, variable: &TemplateVariable, out: &mut Vec<u8>) {
        use TemplateVariable as Of;
        let session = self.client.session.as_deref();
        let certificate = session.and_then(|session| session.certificate());
        let text = match variable {
            Of::ClientIp => self.client.hop.client().as_bytes(),
            Of::Scheme => scheme(self.client).as_str().as_bytes(),
            Of::Host => {
                let host = Host::of(self.head.authority());
                out.extend_from_slice(host.as_ref().map(Host::as_bytes).unwrap_or_default());
                return;
            }
            Of::Method => self.head.method(),
            Of::Path => self.path,
            Of::Query => self.query,
            Of::Url => {
                out.extend_from_slice(scheme(self.client).as_str().as_bytes());
                out.extend_from_slice(b"://");
                out.extend_from_slice(self.head.authority());
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
