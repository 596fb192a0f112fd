//! The blocks outside `[[listeners]]`.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use lb_core::access_log::{AccessField, AccessLogFormat};

use super::Report;
use crate::config::{
    AccessLogPlace, AdminAccess, Dns, IdlePool, IoBackend, MetricsBind, Observability, RuntimeSettings,
    Security, UnderscorePolicy, Watchdog, Xdp, XdpMode,
};
use crate::document::View;

pub(super) fn runtime(view: View<'_>, report: &mut Report<'_>) -> Option<RuntimeSettings> {
    let drain_timeout = view.millis("drain_timeout_ms");
    let drain_jitter = view.optional_millis("drain_jitter_ms").unwrap_or(drain_timeout / 4);
    if drain_jitter > drain_timeout {
        let problem = format!("must be at most runtime.drain_timeout_ms ({})", drain_timeout.as_millis());
        report.error(view, "drain_jitter_ms", problem);
    }
    let max_handshakes_in_flight = view.int32("max_handshakes_in_flight");
    let max_keepalive_requests = view.int32("max_keepalive_requests");
    let watchdog = view.block("watchdog");
    Some(RuntimeSettings {
        workers: view.optional_integer("workers").and_then(|n| NonZeroUsize::new(n.try_into().ok()?)),
        io_backend: IoBackend::from_word(view.word("io_backend")?)?,
        drain_timeout,
        readiness_settle: view.millis("readiness_settle_ms"),
        drain_jitter,
        handshake_timeout: view.millis("handshake_timeout_ms"),
        max_handshakes_in_flight,
        max_handshakes_per_network: view
            .optional_integer("max_handshakes_per_network")
            .and_then(|n| n.try_into().ok())
            .unwrap_or_else(|| max_handshakes_in_flight.div_ceil(2)),
        connect_timeout: view.millis("connect_timeout_ms"),
        max_inflight_connections: view.int32("max_inflight_connections"),
        per_ip_connection_cap: view.int32("per_ip_connection_cap"),
        quic_buffer_bytes: view.integer("quic_buffer_bytes"),
        header_underscore_policy: UnderscorePolicy::from_word(view.word("header_underscore_policy")?)?,
        max_keepalive_requests,
        max_requests_per_h2_connection: view
            .optional_integer("max_requests_per_h2_connection")
            .and_then(|n| n.try_into().ok())
            .unwrap_or(if max_keepalive_requests == 0 { 0 } else { max_keepalive_requests.max(1000) }),
        max_requests_per_h3_connection: view.int32("max_requests_per_h3_connection"),
        receive_buffer: NonZeroUsize::new(view.size("receive_buffer_bytes")),
        send_buffer: NonZeroUsize::new(view.size("send_buffer_bytes")),
        watchdog: Watchdog {
            header_deadline: watchdog.millis("header_deadline_ms"),
            body_progress_min_bps: watchdog.integer("body_progress_min_bps"),
            sweep_interval: watchdog.millis("sweep_interval_ms"),
        },
        tls13_only: view.block("tls").flag("tls13_only"),
        xdp: xdp(view, report)?,
    })
}

fn xdp(view: View<'_>, report: &mut Report<'_>) -> Option<Xdp> {
    let xdp = Xdp {
        enabled: view.flag("xdp_enabled"),
        interface: view.text("xdp_interface").filter(|name| !name.is_empty()).map(str::to_owned),
        mode: XdpMode::from_word(view.word("xdp_mode")?)?,
        new_flow_cap_per_sec_per_cpu: view.int32("xdp_new_flow_cap_per_sec_per_cpu"),
    };
    if !xdp.enabled {
        for name in ["xdp_interface", "xdp_mode", "xdp_new_flow_cap_per_sec_per_cpu"] {
            if view.entry(name).is_some() {
                report.warn(view, name, "does nothing while xdp_enabled is false");
            }
        }
    }
    if xdp.enabled && xdp.interface.is_none() {
        report.error(view, "xdp_interface", "must name a network interface, because xdp_enabled = true");
    }
    Some(xdp)
}

pub(super) fn pool(view: View<'_>) -> IdlePool {
    IdlePool {
        per_peer_max: view.size("per_peer_max"),
        total_max: view.size("total_max"),
        idle_timeout: view.millis("idle_timeout_ms"),
        max_age: view.millis("max_age_ms"),
        linger: view.millis("linger_ms"),
    }
}

pub(super) fn dns(view: View<'_>, report: &mut Report<'_>) -> Dns {
    let dns = Dns {
        servers: view.socket_addrs("servers"),
        min_ttl: view.seconds("min_ttl_seconds"),
        max_ttl: view.seconds("max_ttl_seconds"),
        negative_ttl: view.seconds("negative_ttl_seconds"),
        timeout: view.millis("timeout_ms"),
    };
    if dns.max_ttl < dns.min_ttl {
        let problem = format!("must be at least dns.min_ttl_seconds ({})", dns.min_ttl.as_secs());
        report.error(view, "max_ttl_seconds", problem);
    }
    dns
}

pub(super) fn admin(view: View<'_>) -> AdminAccess {
    AdminAccess {
        api_token_hash: view.digest("api_token_hash"),
        allow_non_loopback: view.flag("allow_non_loopback"),
        page: view.flag("page"),
    }
}

pub(super) fn observability(view: View<'_>, admin: &AdminAccess, report: &mut Report<'_>) -> Observability {
    let address = view.socket_addr("metrics_bind");
    let metrics_bind = match address {
        Some(address) => MetricsBind::At(address),
        None if view.text("metrics_bind").is_some() => MetricsBind::Off,
        None => MetricsBind::Default,
    };
    let guarded = admin.allow_non_loopback && admin.api_token_hash.is_some();
    if address.is_some_and(|address| !address.ip().to_canonical().is_loopback()) && !guarded {
        let problem = "must be a loopback address, because [admin] does not have both allow_non_loopback = true and \
                       an api_token_hash";
        report.error(view, "metrics_bind", format!("admin bind refused: {problem}"));
    }
    let access_log = view.text("access_log").map(|target| match target {
        "stdout" => AccessLogPlace::Stdout,
        path => AccessLogPlace::File(PathBuf::from(path)),
    });
    let chosen = view.texts("access_log_fields");
    let mut access_log_format =
        view.text("access_log_format").and_then(|text| AccessLogFormat::parse(text).ok()).unwrap_or_default();
    match &mut access_log_format {
        AccessLogFormat::Json(fields) if view.entry("access_log_fields").is_some() => {
            *fields = chosen.iter().filter_map(|name| AccessField::from_word(name)).collect();
            let is_twice = |(at, field)| fields.iter().take(at).any(|other| other == field);
            if fields.is_empty() {
                report.error(view, "access_log_fields", "names no field".to_owned());
            } else if fields.iter().enumerate().any(is_twice) {
                report.error(view, "access_log_fields", "names a field twice".to_owned());
            }
        }
        AccessLogFormat::Line(_) if view.entry("access_log_fields").is_some() => {
            report.error(view, "access_log_fields", "only with access_log_format = \"json\"".to_owned());
        }
        _ => {}
    }
    if access_log.is_none() && access_log_format != AccessLogFormat::default() {
        report.warn_about(view, "there is a format for an access log, and no access_log".to_owned());
    }
    Observability {
        metrics_bind,
        access_log,
        access_log_format,
        qlog_dir: view.path("qlog_dir"),
        qlog_one_in: view.integer("qlog_one_in"),
        max_exported_backends: view.size("max_exported_backends"),
    }
}

pub(super) fn security(view: View<'_>) -> Security {
    Security { strict_te: view.flag("strict_te"), group_readable_keys: view.flag("group_readable_keys") }
}
