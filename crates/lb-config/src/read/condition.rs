//! Conditions of routes.

use std::sync::Arc;

use lb_core::filter::Chain;
use lb_core::head::FieldName;
use lb_core::route::{
    CertificatePattern, ConnectionConditions, HostPattern, IpNetwork, PathCondition, Pattern,
    RouteConditions, Scheme, ValueCondition, path,
};

use super::Report;
use crate::config::Route;
use crate::document::View;
use crate::schema::read_value_condition;

/// Conditions in a set.
const MOST_CONDITIONS: usize = 32;

/// The conditions of a route, or of one of its sets.
pub(super) fn read(view: View<'_>, report: &mut Report<'_>) -> RouteConditions {
    let ignore_case = view.flag("ignore_case");
    let paths: Vec<_> =
        ["path", "path_prefix", "path_regex"].into_iter().filter(|key| view.entry(key).is_some()).collect();
    if let [first, second, ..] = paths.as_slice() {
        report.error(view, second, format!("not allowed together with {first}"));
    }
    if ignore_case && paths.is_empty() {
        report.error(view, "ignore_case", "needs path, path_prefix or path_regex");
    }
    for key in ["path", "path_prefix"] {
        if view.text(key).is_some_and(|text| path::is_suspicious(text.as_bytes())) {
            let problem = "some backends read this path as another: requests for it are answered 400 unless all readings have the same route";
            report.warn(view, key, problem);
        }
    }
    let path = if let Some(text) = view.text("path") {
        PathCondition::Exact(text.as_bytes().into())
    } else if let Some(text) = view.text("path_prefix") {
        PathCondition::Prefix(text.strip_suffix('/').unwrap_or(text).as_bytes().into())
    } else if let Some(text) = view.text("path_regex") {
        // With letter case ignored it may be too large where it was not before.
        match Pattern::new(text, ignore_case) {
            Ok(pattern) => PathCondition::Regex(pattern),
            Err(problem) => {
                report.error(view, "path_regex", problem);
                PathCondition::Any
            }
        }
    } else {
        PathCondition::Any
    };
    let found = RouteConditions {
        path,
        ignore_case,
        methods: view.texts("methods").into_iter().map(|method| method.into_bytes().into()).collect(),
        headers: headers(view, report),
        query: values(view, "query"),
        cookies: values(view, "cookies"),
        sources: view.texts("sources").iter().filter_map(|text| IpNetwork::parse(text)).collect(),
        scheme: view.word("scheme").and_then(Scheme::from_word),
        connection: connection(view),
    };
    let count = found.headers.len() + found.query.len() + found.cookies.len();
    if count > MOST_CONDITIONS {
        let problem =
            format!("at most {MOST_CONDITIONS} conditions on fields, query and cookies stand together");
        report.errors.push(report.source.error_about_block(view, problem));
    }
    found
}

/// Conditions on the client's TLS connection, if there are any.
fn connection(view: View<'_>) -> Option<Box<ConnectionConditions>> {
    let patterns = view.texts("client_certs");
    let found = ConnectionConditions {
        server_names: view.texts("server_names").iter().filter_map(|name| HostPattern::parse(name)).collect(),
        alpn: view.texts("alpn").into_iter().map(|alpn| alpn.into_bytes().into()).collect(),
        has_certificate: view.word("client_cert").map(|wanted| wanted == "any"),
        certificates: patterns.iter().filter_map(|text| CertificatePattern::parse(text)).collect(),
    };
    (!found.is_empty()).then(|| Box::new(found))
}

fn values(view: View<'_>, key: &str) -> Vec<ValueCondition> {
    let read = |text: &String| read_value_condition(text).ok();
    let found = view.texts(key);
    found
        .iter()
        .filter_map(read)
        .map(|(name, want)| ValueCondition { name: name.into_bytes().into(), want })
        .collect()
}

/// RouteConditions on fields; such as say nothing about a request as backends see it are errors.
fn headers(view: View<'_>, report: &mut Report<'_>) -> Vec<ValueCondition> {
    let mut conditions = values(view, "headers");
    for condition in &mut conditions {
        condition.name.make_ascii_lowercase();
        let name = String::from_utf8_lossy(&condition.name).into_owned();
        let meant = match name.as_str() {
            "host" => "hosts",
            "cookie" => "cookies",
            "x-forwarded-for" | "forwarded" | "x-real-ip" => "sources",
            "x-forwarded-proto" => "scheme",
            "x-forwarded-host" => "hosts",
            "x-client-cert-subject" | "x-client-cert-sha256" => "client_certs",
            name => {
                let known = FieldName::of(name.as_bytes());
                if known.is_hop_by_hop() || known.is_protected() {
                    let problem = format!(
                        "`{name}` is about one hop or the framing of a message, and nothing that backends see"
                    );
                    report.error(view, "headers", problem);
                }
                continue;
            }
        };
        report.error(view, "headers", format!("a condition on `{name}` is written under {meant}"));
    }
    conditions
}

/// Whether clients of a listener come inside TLS, and none of them is asked for a certificate.
pub(super) fn tells_no_certificates(listener: View<'_>) -> bool {
    let Some(tls) = listener.present("tls").or(listener.present("quic")) else { return false };
    let asks = |view: View<'_>| view.word("client_auth").is_some_and(|mode| mode != "off");
    !asks(tls) && !tls.blocks("certificates").into_iter().any(asks)
}

/// Refuses access by certificates that nobody shows.
pub(super) fn check_access(view: View<'_>, chain: Option<&Arc<Chain>>, report: &mut Report<'_>) {
    let mut lists = chain.into_iter().flat_map(|chain| &chain.access);
    if let Some(list) = lists.find(|list| list.client_certificate.is_some()) {
        let problem = format!(
            "client_cert of access in \"{}\" needs client_auth = \"request\" or \"require\": nobody shows a certificate",
            list.policy
        );
        report.error(view, "policies", problem);
    }
}

/// Refuses conditions on certificates that nobody shows.
pub(super) fn check_certificates(view: View<'_>, route: &Route, report: &mut Report<'_>) {
    let mut conditions = route.spec.matches.iter().filter_map(|found| found.connection.as_deref());
    if conditions.any(ConnectionConditions::asks_for_certificate) {
        let keys = ["client_certs", "client_cert", "matches"];
        let key = keys.into_iter().find(|key| view.entry(key).is_some()).unwrap_or("matches");
        let problem = "needs client_auth = \"request\" or \"require\" on a listener that uses this route: nobody shows a certificate";
        report.error(view, key, problem);
    }
}
