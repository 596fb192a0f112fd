//! What happens to requests and responses on their way.

use std::sync::Arc;

use lb_core::filter::template::TemplateVariable;
use lb_core::filter::{
    Chain, FilterKind, HeaderEdits, HeaderLine, KeepFrom, RequestIdPolicy, Rewrite, Template,
};
use lb_core::head::{FieldName, reads_as};
use lb_core::route::location::NewPath;
use lb_core::route::{PathCondition, RouteSpec, path};

use super::Report;
use super::policy::Policies;
use crate::config::{Route, RouteTarget};
use crate::document::View;
use crate::schema::read_header_line;

/// The filters of a route, if it has any: those of its policies, and its own. `forwards` says whether it leads to backends.
pub(super) fn chain(
    view: View<'_>,
    spec: &RouteSpec,
    forwards: bool,
    policies: &Policies<'_>,
    report: &mut Report<'_>,
) -> Option<Arc<Chain>> {
    for key in ["rewrite", "request_headers"] {
        if !forwards && view.entry(key).is_some() {
            report.error(view, key, "needs pool or split: no backend gets the request");
        }
    }
    let own = Chain {
        rewrite: view.present("rewrite").map(|view| rewrite(view, spec, report)),
        ..edits_alone(view, Some(spec), report)
    };
    policies.level(view, own, report)
}

/// The edits of a policy or a branch.
pub(super) fn edits_alone(view: View<'_>, spec: Option<&RouteSpec>, report: &mut Report<'_>) -> Chain {
    Chain {
        access: Vec::new(),
        rate_limits: Vec::new(),
        concurrency: Vec::new(),
        cors: None,
        fault: None,
        rewrite: None,
        errors: None,
        request_headers: edits(view, "request_headers", spec, report).into_iter().collect(),
        response_headers: edits(view, "response_headers", spec, report).into_iter().collect(),
    }
}

fn rewrite(view: View<'_>, spec: &RouteSpec, report: &mut Report<'_>) -> Rewrite {
    if ["host", "path", "prefix"].iter().all(|key| view.entry(key).is_none()) {
        let problem = "changes nothing: host, path or prefix must be there";
        report.errors.push(report.source.error_about_block(view, problem));
    }
    let host = view.text("host").map(|host| host.as_bytes().into());
    Rewrite { host, path: new_path(view, spec, report) }
}

/// What `path` or `prefix` make of a path.
pub(super) fn new_path(view: View<'_>, spec: &RouteSpec, report: &mut Report<'_>) -> NewPath {
    if view.entry("path").is_some() && view.entry("prefix").is_some() {
        report.error(view, "prefix", "not allowed together with path");
    }
    for key in ["path", "prefix"] {
        let text = view.text(key).unwrap_or("/");
        let is_canonical =
            || path::canonical(text.as_bytes(), false).is_ok_and(|canonical| canonical == text.as_bytes());
        if key == "prefix" && text.contains("${") {
            report.error(view, key, "values from the request cannot stand here");
        } else if text.contains('?') {
            report.error(view, key, "a query cannot stand here");
        } else if !text.contains("${") && !is_canonical() {
            report.error(view, key, "must be in its canonical form: no dot segments, no needless escapes");
        }
    }
    if let Some(text) = view.text("path") {
        let template = match Template::parse(text) {
            Ok(template) => template,
            Err(problem) => {
                report.error(view, "path", problem);
                return NewPath::Same;
            }
        };
        if template.variables().any(|variable| !matches!(variable, TemplateVariable::Capture(_))) {
            report.error(view, "path", "captured text is all that can stand here: ${capture.N}");
        }
        check_captures(view, "path", &template, Some(spec), report);
        return NewPath::Whole(template);
    }
    let Some(text) = view.text("prefix") else { return NewPath::Same };
    if !spec.matches.iter().all(|found| matches!(found.path, PathCondition::Prefix(_))) {
        report.error(view, "prefix", "needs path_prefix in the route, whose place it takes");
    }
    NewPath::Prefix(text.as_bytes().into())
}

/// Every group that a template names is in each pattern that may have matched. What is no route's has no pattern.
fn check_captures(
    view: View<'_>,
    key: &str,
    template: &Template,
    spec: Option<&RouteSpec>,
    report: &mut Report<'_>,
) {
    for variable in template.variables() {
        let TemplateVariable::Capture(group) = variable else { continue };
        let has = |condition: &PathCondition| match condition {
            PathCondition::Regex(pattern) => pattern.has_group(group),
            _ => false,
        };
        if spec.is_none() {
            let problem = "captured text cannot stand in a policy, which knows of no path_regex";
            report.error(view, key, problem);
        } else if spec.is_some_and(|spec| !spec.matches.iter().all(|found| has(&found.path))) {
            report.error(view, key, format!("${{capture.{group}}} needs a path_regex with such a group"));
        }
    }
}

fn edits(
    view: View<'_>,
    key: &'static str,
    spec: Option<&RouteSpec>,
    report: &mut Report<'_>,
) -> Option<HeaderEdits> {
    let view = view.present(key)?;
    let of_requests = key == "request_headers";
    let lines = |key: &str| -> Vec<HeaderLine> {
        view.texts(key).iter().filter_map(|line| read_header_line(line).ok()).collect()
    };
    let (set, add) = (lines("set"), lines("add"));
    let removed: Vec<Box<[u8]>> =
        view.texts("remove").into_iter().map(|name| name.into_bytes().into()).collect();
    if removed.is_empty() && set.is_empty() && add.is_empty() {
        let problem = "changes nothing: remove, set or add must be there";
        report.errors.push(report.source.error_about_block(view, problem));
    }
    let names_of = |lines: &[HeaderLine]| lines.iter().map(|line| line.name.clone()).collect::<Vec<_>>();
    for (key, names) in [("remove", removed.clone()), ("set", names_of(&set)), ("add", names_of(&add))] {
        for name in names {
            let name = String::from_utf8_lossy(&name).to_ascii_lowercase();
            if let Some(problem) = reserved(&name, of_requests) {
                report.error(view, key, problem);
            }
        }
    }
    for (key, lines) in [("set", &set), ("add", &add)] {
        for line in lines {
            check_captures(view, key, &line.value, spec, report);
            if of_requests && line.value.variables().any(|variable| *variable == TemplateVariable::Status) {
                report.error(view, key, "${status} is known of responses alone");
            }
        }
    }
    Some(HeaderEdits::new(removed, set, add))
}

/// Why a field cannot be edited.
fn reserved(name: &str, of_requests: bool) -> Option<String> {
    let name = name.replace('_', "-");
    let known = FieldName::of(name.as_bytes());
    let meant = match name.as_str() {
        "host" if of_requests => "rewrite = { host = … }",
        "x-forwarded-prefix" if of_requests => "rewrite = { prefix = … }",
        "x-forwarded-for" | "x-forwarded-proto" | "x-forwarded-host" | "forwarded" if of_requests => {
            "[listeners.client_address]"
        }
        "x-client-cert-subject" | "x-client-cert-sha256" if of_requests => {
            "client_cert_headers in [listeners.tls]"
        }
        "alt-svc" if !of_requests => "[listeners.alt_svc]",
        "via" | "traceparent" if of_requests => {
            return Some(format!("`{name}` is written by the gateway alone"));
        }
        "trailer" | "expect" => return Some(framing(&name)),
        _ if known.is_hop_by_hop() || known.is_protected() => return Some(framing(&name)),
        _ => return None,
    };
    Some(format!("`{name}` is written by the gateway: what it holds is settled by {meant}"))
}

fn framing(name: &str) -> String {
    format!("`{name}` is about one hop or the framing of a message, which the gateway alone settles")
}

/// `[listeners.request_id]`.
pub(super) fn request_id(view: View<'_>, report: &mut Report<'_>) -> RequestIdPolicy {
    let header = view.text("header").unwrap_or("X-Request-Id");
    let name = header.to_ascii_lowercase();
    if reserved(&name, true).is_some() || matches!(name.as_str(), "cookie" | "set-cookie" | "authorization") {
        report.error(view, "header", format!("`{header}` has another meaning"));
    }
    RequestIdPolicy {
        header: header.into(),
        keep_from: view.word("keep_from").and_then(KeepFrom::from_word).unwrap_or(KeepFrom::Nobody),
        respond: view.flag("respond"),
    }
}

/// The kinds of filters that edit the field of request IDs.
pub(super) fn edits_of_id(chain: &Chain, id: &RequestIdPolicy) -> impl Iterator<Item = FilterKind> {
    let is_it = |edits: &HeaderEdits| edits.names().any(|name| reads_as(name, id.header.as_bytes()));
    let request = chain.request_headers.iter().any(is_it).then_some(FilterKind::RequestHeaders);
    let response =
        (id.respond && chain.response_headers.iter().any(is_it)).then_some(FilterKind::ResponseHeaders);
    request.into_iter().chain(response)
}

/// Refuses conditions on the field of request IDs, and edits of it: what clients send there is not what holds.
pub(super) fn check_request_id(view: View<'_>, route: &Route, id: &RequestIdPolicy, report: &mut Report<'_>) {
    let is_it = |name: &[u8]| reads_as(name, id.header.as_bytes());
    let conditions = route.spec.matches.iter().flat_map(|found| &found.headers);
    let mut keys = Vec::new();
    if conditions.into_iter().any(|condition| is_it(&condition.name)) {
        keys.push(if view.entry("headers").is_some() { "headers" } else { "matches" });
    }
    for kind in route.chain.iter().flat_map(|chain| edits_of_id(chain, id)) {
        let key = kind.as_str();
        keys.push(if view.entry(key).is_some() { key } else { "policies" });
    }
    if let RouteTarget::Split(split) = &route.target
        && split
            .branches
            .iter()
            .filter_map(|branch| branch.chain.as_deref())
            .any(|chain| edits_of_id(chain, id).next().is_some())
    {
        keys.push("split");
    }
    keys.dedup();
    for key in keys {
        let problem = format!(
            "`{}` is the ID that [listeners.request_id] gives on a listener that uses this route",
            id.header
        );
        report.error(view, key, problem);
    }
}
