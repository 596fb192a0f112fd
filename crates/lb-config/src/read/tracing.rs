//! The block of traces.

use lb_core::fraction::Fraction;
use lb_core::trace::Sampler;

use super::Report;
use crate::config::{Collector, TraceProtocol, Tracing};
use crate::document::View;

/// A hundredth of all traces.
const DEFAULT_SAMPLE: &str = "1%";

pub(super) fn tracing(root: View<'_>, report: &mut Report<'_>) -> Tracing {
    let view = root.block("tracing");
    let share = Fraction::parse(view.text("sample").unwrap_or(DEFAULT_SAMPLE)).unwrap_or(Fraction::ALL);
    let sampler = Sampler::new(share, view.flag("parent_based"));
    if root.present("tracing").is_some() && view.text("endpoint").is_none() {
        report.warn_about(view, "there are no traces without an endpoint");
    }
    Tracing { collector: collector(view), sampler }
}

fn collector(view: View<'_>) -> Option<Collector> {
    let endpoint = view.text("endpoint")?.to_owned();
    let headers = view.texts("headers");
    let headers = headers.iter().filter_map(|line| line.split_once(':'));
    Some(Collector {
        endpoint,
        protocol: TraceProtocol::from_word(view.word("protocol")?)?,
        headers: headers.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect(),
        service_name: view.text("service_name").unwrap_or("expressgateway").to_owned(),
        queue: view.size("queue"),
        timeout: view.millis("timeout_ms"),
    })
}
