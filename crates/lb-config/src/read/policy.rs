//! `[policies.NAME]`: filters under a name, and the levels at which they hold.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use lb_core::filter::{
    AccessFiles, AccessList, AccessMap, AccessNetworks, Chain, CorsPolicy, ErrorPage, ErrorPages,
    FaultPolicy, FilterKind, OriginPattern,
};
use lb_core::fraction::Fraction;
use lb_core::route::IpNetwork;

use super::{Report, filter, rate};
use crate::document::{View, near};

/// Every policy by its name.
pub(super) struct Policies<'a> {
    policies: BTreeMap<&'a str, (View<'a>, Chain)>,
    used: RefCell<BTreeSet<&'a str>>,
}

impl<'a> Policies<'a> {
    /// Reads every `[policies.NAME]`.
    pub(super) fn read(root: View<'a>, report: &mut Report<'_>) -> Self {
        let mut policies = BTreeMap::new();
        for (name, view) in root.named("policies") {
            let access = view.present("access").map(|view| access(name, view, report)).into_iter().collect();
            let rate_limits =
                view.present("rate_limit").and_then(|view| rate::rate_limit(name, view, report));
            let rate_limits = rate_limits.into_iter().collect();
            let concurrency = view.present("concurrency").map(|view| rate::concurrency(name, view, report));
            let concurrency = concurrency.into_iter().collect();
            let cors = view.present("cors").map(|view| cors(view, report));
            let fault = view.present("fault").map(|view| fault(view, report));
            let errors = view.present("errors").map(|view| errors(view, report));
            let edits = filter::edits_alone(view, None, report);
            let chain = Chain { access, rate_limits, concurrency, cors, fault, errors, ..edits };
            policies.insert(name, (view, chain));
        }
        Self { policies, used: RefCell::default() }
    }

    /// The filters of a level: those of the policies that the block names, and its `own`. None = nothing.
    pub(super) fn level(&self, view: View<'_>, own: Chain, report: &mut Report<'_>) -> Option<Arc<Chain>> {
        let mut level = Chain::default();
        for name in view.texts("policies") {
            let Some((known, (_, chain))) = self.policies.get_key_value(name.as_str()) else {
                let mut problem = format!("there is no policy \"{name}\"");
                if let Some(near) = near(&name, self.policies.keys().copied().take(100)) {
                    problem += &format!("; did you mean \"{near}\"?");
                }
                report.error(view, "policies", problem);
                continue;
            };
            self.used.borrow_mut().insert(known);
            if let Some(kind) = twice(&level, chain) {
                let problem = format!("{kind} is in two of these policies: a level has it once");
                report.error(view, "policies", problem);
            }
            level = level.within(chain);
        }
        if let Some(kind) = twice(&level, &own) {
            let problem = format!("{kind} is in one of these policies as well: a level has it once");
            report.error(view, kind.as_str(), problem);
        }
        let level = level.within(&own);
        (!level.is_empty()).then(|| Arc::new(level))
    }

    /// Warns of policies that nothing names.
    pub(super) fn warn_unused(&self, report: &mut Report<'_>) {
        for (name, (view, _)) in &self.policies {
            if !self.used.borrow().contains(name) {
                report.warn_about(*view, format!("nothing has the policy \"{name}\""));
            }
        }
    }
}

/// A kind of filter that both have.
fn twice(one: &Chain, other: &Chain) -> Option<FilterKind> {
    one.kinds().find(|kind| other.kinds().any(|also| also == *kind))
}

/// The filters of several levels together, from the outermost to the innermost. Where one level alone has some, it is shared.
pub(super) fn levels<'c>(levels: impl IntoIterator<Item = Option<&'c Arc<Chain>>>) -> Option<Arc<Chain>> {
    let mut present = levels.into_iter().flatten();
    let first = Arc::clone(present.next()?);
    Some(present.fold(first, |outer, inner| Arc::new(outer.within(inner))))
}

fn errors(view: View<'_>, report: &mut Report<'_>) -> Arc<ErrorPages> {
    let mut pages: Vec<ErrorPage> = Vec::new();
    for page in view.texts("pages").iter().filter_map(|text| ErrorPage::parse(text)) {
        let meets = |other: &ErrorPage| {
            page.statuses.start() <= other.statuses.end() && other.statuses.start() <= page.statuses.end()
        };
        if let Some(other) = pages.iter().find(|other| meets(other)) {
            let problem =
                format!("{} has another page already", page.statuses.start().max(other.statuses.start()));
            report.error(view, "pages", problem);
        }
        pages.push(page);
    }
    let errors =
        ErrorPages { pages, problem_json: view.flag("problem_json"), intercept: view.flag("intercept") };
    if errors.intercept && errors.pages.is_empty() {
        report.error(view, "intercept", "needs pages, whose statuses are those that are intercepted");
    }
    if !errors.problem_json && errors.pages.is_empty() {
        let problem = "changes nothing: pages must be there, or problem_json be true";
        report.errors.push(report.source.error_about_block(view, problem));
    }
    Arc::new(errors)
}

fn access(policy: &str, view: View<'_>, report: &mut Report<'_>) -> Arc<AccessList> {
    let networks = |key| {
        let texts = view.texts(key);
        texts.iter().filter_map(|text| IpNetwork::parse(text)).collect::<Vec<_>>()
    };
    let (allow, deny) = (networks("allow"), networks("deny"));
    let (allow_file, deny_file) = (view.path("allow_file"), view.path("deny_file"));
    let client_certificate = view.word("client_cert").map(|wanted| wanted == "any");
    let has_files = allow_file.is_some() || deny_file.is_some();
    if allow.is_empty() && deny.is_empty() && !has_files && client_certificate.is_none() {
        let problem =
            "lets everybody in: allow, deny, allow_file, deny_file or client_cert must say whom it does not";
        report.errors.push(report.source.error_about_block(view, problem));
    }
    let networks = if has_files {
        AccessNetworks::Files(AccessFiles::new((allow, allow_file), (deny, deny_file)))
    } else {
        AccessNetworks::Fixed(AccessMap::new((!allow.is_empty()).then_some(allow), deny))
    };
    Arc::new(AccessList {
        policy: policy.into(),
        networks,
        client_certificate,
        dry_run: view.flag("dry_run"),
    })
}

fn cors(view: View<'_>, report: &mut Report<'_>) -> Arc<CorsPolicy> {
    let origins: Vec<_> =
        view.texts("allow_origins").iter().filter_map(|text| OriginPattern::parse(text)).collect();
    let credentials = view.flag("allow_credentials");
    let is_any = origins.contains(&OriginPattern::Any);
    if is_any && credentials && !view.flag("reflect_any_origin") {
        let problem =
            "would let any site act as its visitors: with allow_credentials, \"*\" needs reflect_any_origin";
        report.error(view, "allow_origins", problem);
    }
    if view.flag("reflect_any_origin") && !is_any {
        report.error(view, "reflect_any_origin", "needs \"*\" in allow_origins");
    }
    let mut any_or = |key: &str, texts: Vec<String>| {
        let is_any = texts.iter().any(|text| text == "*");
        if is_any && texts.len() > 1 {
            report.error(view, key, "\"*\" stands alone");
        }
        (!is_any).then(|| texts.into_iter().map(String::into_boxed_str).collect::<Vec<_>>())
    };
    let methods = match view.entry("allow_methods") {
        Some(_) => view.texts("allow_methods"),
        None => ["GET", "HEAD", "POST"].map(str::to_owned).to_vec(),
    };
    let methods = any_or("allow_methods", methods);
    let headers = any_or("allow_headers", view.texts("allow_headers"));
    Arc::new(CorsPolicy {
        origins,
        methods,
        headers,
        exposed: view.texts("expose_headers").join(", ").into(),
        credentials,
        reflects: view.flag("reflect_any_origin"),
        max_age_seconds: view.int32("max_age_seconds"),
    })
}

fn fault(view: View<'_>, report: &mut Report<'_>) -> Arc<FaultPolicy> {
    let mut share = |key: &str, of: &str| {
        if view.entry(key).is_some() && view.entry(of).is_none() {
            report.error(view, key, format!("needs {of}"));
        }
        view.text(key).and_then(Fraction::parse).unwrap_or(Fraction::ALL)
    };
    let (delayed, aborted) = (share("delay_fraction", "delay_ms"), share("abort_fraction", "abort_status"));
    let delay = view.optional_integer("delay_ms").map(|ms| (Duration::from_millis(ms), delayed));
    let status = view.optional_integer("abort_status").and_then(|status| u16::try_from(status).ok());
    let abort = status.map(|status| (status, aborted));
    if delay.is_none() && abort.is_none() {
        let problem = "does nothing: delay_ms or abort_status must be there";
        report.errors.push(report.source.error_about_block(view, problem));
    }
    Arc::new(FaultPolicy { delay, abort })
}
