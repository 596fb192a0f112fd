//! The admin port.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;

use lb_config::{Config, MetricsBind};
use lb_core::address::Address;
use lb_io::listener::ListeningSocket;
use lb_observe::admin::{Admin, Call, MAX_WAITING_CALLS, Questions, Readiness};
use lb_observe::metrics::Metrics;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};

use crate::faults;
use crate::listeners::explained;
use crate::status::{Desk, Pass, Standing};

/// An admin port that is bound, and served from [`Self::serve`] on as long as this is kept.
#[derive(Debug, Default)]
pub(crate) struct AdminPort {
    socket: Option<ListeningSocket>,
    stop: Option<oneshot::Sender<()>>,
    desk: Option<Rc<Desk>>,
}

impl AdminPort {
    /// Binds the admin port, if there is to be one. One of `inherited` serves where it is at the address, and is taken out.
    pub(crate) fn bind(config: &Config, inherited: &mut Vec<ListeningSocket>) -> anyhow::Result<Self> {
        let address = match config.observability.metrics_bind {
            MetricsBind::Off => None,
            MetricsBind::At(address) => Some(address),
            MetricsBind::Default => Some(MetricsBind::DEFAULT),
        };
        let is_there = |socket: &ListeningSocket| Some(socket.address()) == address.map(Address::Ip);
        let socket = match inherited.iter().position(is_there) {
            Some(at) => Some(inherited.swap_remove(at)),
            None => bind(config)?,
        };
        Ok(Self { socket, stop: None, desk: None })
    }

    /// The socket, for a process that takes over.
    pub(crate) fn socket(&self) -> Option<&ListeningSocket> {
        self.socket.as_ref()
    }

    /// Whether anybody can ask how things stand.
    pub(crate) fn is_served(&self) -> bool {
        self.desk.is_some()
    }

    /// Something else is in force.
    pub(crate) fn tell(&self, standing: Standing) {
        if let Some(desk) = &self.desk {
            desk.tell(standing);
        }
    }

    /// A reload has ended.
    pub(crate) fn reloaded(&self, pass: &Pass, version: u64) {
        if let Some(desk) = &self.desk {
            desk.reloaded(pass, version);
        }
    }

    /// How the newest reload went, as JSON.
    pub(crate) fn newest_reload(&self) -> String {
        self.desk.as_ref().map(|desk| desk.newest_reload()).unwrap_or_default()
    }

    /// Serves the port; gives what is asked there of the control thread.
    pub(crate) fn serve(
        &mut self,
        config: &Config,
        metrics: &Arc<Metrics>,
        readiness: &Arc<Readiness>,
    ) -> anyhow::Result<mpsc::Receiver<Call>> {
        let (caller, calls) = mpsc::channel(MAX_WAITING_CALLS);
        let Some(socket) = &self.socket else { return Ok(calls) };
        let listener = std::net::TcpListener::from(OwnedFd::from(socket.try_clone()?));
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let (stop, stopped) = oneshot::channel::<()>();
        self.stop = Some(stop);
        let desk = Desk::new(Arc::clone(metrics), Arc::clone(readiness));
        self.desk = Some(Rc::clone(&desk));
        let admin = Admin {
            metrics: Arc::clone(metrics),
            readiness: Arc::clone(readiness),
            token_hash: config.admin.api_token_hash,
            check_host: !config.admin.allow_non_loopback,
            page: config.admin.page,
            status: desk,
            calls: caller,
            questions: Questions::default(),
        };
        tokio::task::spawn_local(lb_observe::admin::serve(listener, admin, async {
            let _ = stopped.await;
        }));
        Ok(calls)
    }
}

/// Binds the admin port. The default address is in no file, and another process may have it.
fn bind(config: &Config) -> anyhow::Result<Option<ListeningSocket>> {
    let bind = |address: SocketAddr| std::net::TcpListener::bind(address)?.try_into();
    match config.observability.metrics_bind {
        MetricsBind::Off => Ok(None),
        MetricsBind::At(address) => bind(address).map(Some).map_err(|error: std::io::Error| {
            let problem = format!("cannot bind {address}: {:#}", explained(error, address));
            faults::lines(&config.faults(None, &["metrics_bind"], &address.to_string(), &problem))
        }),
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
