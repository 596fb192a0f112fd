//! The admin port.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use lb_config::{Config, MetricsBind};
use lb_observe::admin::{Admin, Call, MAX_WAITING_CALLS, Readiness};
use lb_observe::metrics::Metrics;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};

use crate::listeners::explained;

/// An admin port that is served as long as this is kept.
#[derive(Debug)]
pub(crate) struct AdminPort {
    _stop: oneshot::Sender<()>,
}

/// Binds and serves the admin port, if there is to be one; gives what is asked there of the control thread.
pub(crate) fn open(
    config: &Config,
    metrics: &Arc<Metrics>,
    readiness: &Arc<Readiness>,
) -> anyhow::Result<(AdminPort, mpsc::Receiver<Call>)> {
    let (caller, calls) = mpsc::channel(MAX_WAITING_CALLS);
    let (stop, stopped) = oneshot::channel::<()>();
    if let Some(listener) = bind(config.observability.metrics_bind)? {
        let admin = Admin {
            metrics: Arc::clone(metrics),
            readiness: Arc::clone(readiness),
            token_hash: config.admin.api_token_hash,
            check_host: !config.admin.allow_non_loopback,
            calls: caller,
        };
        tokio::task::spawn_local(lb_observe::admin::serve(listener, admin, async {
            let _ = stopped.await;
        }));
    }
    Ok((AdminPort { _stop: stop }, calls))
}

/// Binds the admin port. The default address is in no file, and another process may have it.
fn bind(wanted: MetricsBind) -> anyhow::Result<Option<TcpListener>> {
    let bind = |address: SocketAddr| {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener)
    };
    match wanted {
        MetricsBind::Off => Ok(None),
        MetricsBind::At(address) => bind(address)
            .map(Some)
            .map_err(|error| explained(error, address))
            .with_context(|| format!("observability.metrics_bind: cannot bind {address}")),
        MetricsBind::Default => Ok(bind(MetricsBind::DEFAULT)
            .inspect_err(|error| {
                tracing::warn!(
                    %error,
                    "no admin port: {} cannot be bound — set observability.metrics_bind",
                    MetricsBind::DEFAULT
                );
            })
            .ok()),
    }
}
