//! The thread that sends the spans of requests to a collector by OTLP.
//!
//! It rests between batches, so that workers wake it once for many requests. A batch that the collector does not accept in time is lost and
//! counted: what is recorded later is worth more than what is old.

mod spans;

use std::io;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use anyhow::Context as _;
use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};
use lb_config::{Collector, TraceProtocol};
use lb_core::log_limit::LogLimit;
use lb_observe::metrics::Metrics;
use lb_observe::traces::{self, TraceHandle, TracedRequest};
use opentelemetry::KeyValue;
use opentelemetry_otlp::tonic_types::metadata::MetadataMap;
use opentelemetry_otlp::tonic_types::transport::ClientTlsConfig;
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithHttpConfig, WithTonicConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SpanExporter as _;
use tokio::sync::mpsc::Receiver;
use tokio::sync::oneshot;
use tokio::time::sleep;

/// How long requests are gathered for a batch.
const REST: Duration = Duration::from_millis(250);

/// Requests that make a batch at most.
const MOST_IN_BATCH: usize = 512;

/// Lines about batches that are lost: few at once, then one in a while.
static LOST: LogLimit = LogLimit::new(3, Duration::from_secs(60));

/// The thread that exports, and what ends it.
#[derive(Debug)]
pub(crate) struct TraceExport {
    handle: TraceHandle,
    close: oneshot::Sender<()>,
    finished: mpsc::Receiver<()>,
}

impl TraceExport {
    /// Starts to export to this collector. Whether it is there shows when the first spans are sent.
    ///
    /// # Errors
    /// When a header or the URL cannot be used, or no thread can be started.
    pub(crate) fn start(collector: &Collector, metrics: Arc<Metrics>) -> anyhow::Result<Self> {
        let (handle, requests) = traces::channel(collector.queue, Arc::clone(&metrics));
        let (close, closed) = oneshot::channel();
        // Never sent on: the end of the thread closes it.
        let (running, finished) = mpsc::sync_channel::<()>(0);
        let (ready, is_ready) = mpsc::sync_channel(1);
        let collector = collector.clone();
        std::thread::Builder::new().name("trace-export".to_owned()).spawn(move || {
            let _running = running;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            match runtime.context("no runtime for traces") {
                Ok(runtime) => runtime.block_on(async {
                    match exporter(&collector) {
                        Ok(exporter) => {
                            let _ = ready.send(Ok(()));
                            export(&exporter, requests, closed, &metrics).await;
                        }
                        Err(error) => drop(ready.send(Err(error))),
                    }
                }),
                Err(error) => drop(ready.send(Err(error))),
            }
        })?;
        is_ready.recv().map_err(io::Error::other)??;
        Ok(Self { handle, close, finished })
    }

    /// A handle for a worker.
    pub(crate) fn handle(&self) -> TraceHandle {
        self.handle.clone()
    }

    /// Sends what was handed over so far and ends the thread. Blocks until then, or for `patience` at most.
    pub(crate) fn finish(self, patience: Duration) {
        let Self { handle, close, finished } = self;
        drop(handle);
        let _ = close.send(());
        let _ = finished.recv_timeout(patience);
    }
}

/// Speaks to the collector in the form that it is to be spoken to.
fn exporter(collector: &Collector) -> anyhow::Result<SpanExporter> {
    let Collector { endpoint, protocol, headers, service_name, timeout, .. } = collector;
    let mut exporter = match protocol {
        TraceProtocol::Http => {
            let has_path = endpoint.split_once("://").is_some_and(|(_, rest)| rest.contains('/'));
            let endpoint = if has_path { endpoint.clone() } else { format!("{endpoint}/v1/traces") };
            let builder = SpanExporter::builder().with_http().with_endpoint(endpoint).with_timeout(*timeout);
            builder.with_headers(headers.iter().cloned().collect()).build()?
        }
        TraceProtocol::Grpc => {
            let mut fields = HeaderMap::new();
            for (name, value) in headers {
                fields.append(HeaderName::try_from(name)?, HeaderValue::try_from(value)?);
            }
            let metadata = MetadataMap::from_headers(fields);
            let builder = SpanExporter::builder().with_tonic().with_endpoint(endpoint).with_timeout(*timeout);
            let builder = builder.with_metadata(metadata);
            match endpoint.starts_with("https") {
                true => builder.with_tls_config(ClientTlsConfig::new().with_native_roots()).build()?,
                false => builder.build()?,
            }
        }
    };
    let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    let instance = KeyValue::new("service.instance.id", std::process::id().to_string());
    let resource = Resource::builder_empty().with_service_name(service_name.clone());
    exporter.set_resource(&resource.with_attributes([version, instance]).build());
    Ok(exporter)
}

/// Exports batch by batch until `closed` and all is sent.
async fn export(
    exporter: &SpanExporter,
    mut requests: Receiver<TracedRequest>,
    closed: oneshot::Receiver<()>,
    metrics: &Metrics,
) {
    let mut closed = std::pin::pin!(closed);
    let mut batch = Vec::new();
    loop {
        let is_closed = tokio::select! {
            biased;
            request = requests.recv() => {
                batch.extend(request);
                // More come meanwhile, and nobody is woken for them.
                let is_closed = tokio::select! {
                    () = sleep(REST) => false,
                    _ = &mut closed => true,
                };
                is_closed || requests.is_closed()
            }
            _ = &mut closed => true,
        };
        loop {
            while batch.len() < MOST_IN_BATCH
                && let Ok(request) = requests.try_recv()
            {
                batch.push(request);
            }
            if batch.is_empty() {
                break;
            }
            send(exporter, &mut batch, metrics).await;
        }
        if is_closed {
            return;
        }
    }
}

/// Sends a batch, and empties it.
async fn send(exporter: &SpanExporter, batch: &mut Vec<TracedRequest>, metrics: &Metrics) {
    let clock = spans::WallClock::now();
    let spans: Vec<_> = batch.drain(..).flat_map(|request| spans::of(&request, &clock)).collect();
    let count = u64::try_from(spans.len()).unwrap_or(u64::MAX);
    match exporter.export(spans).await {
        Ok(()) => metrics.trace_spans.add(count),
        Err(error) => {
            metrics.trace_spans_dropped.add(count);
            if let Some(unsaid) = LOST.admit(std::time::Instant::now()) {
                tracing::warn!(%error, spans = count, unsaid, "the collector of traces has not accepted spans");
            }
        }
    }
}
