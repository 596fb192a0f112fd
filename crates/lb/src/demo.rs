//! `expressgateway demo`: something to look at within a minute.

use std::convert::Infallible;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use anyhow::Context;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use lb_control::{ProcessOutcome, Source};
use lb_io::inherited::Inherited;
use tokio::runtime::{Builder, LocalOptions};

use crate::cli::DemoArgs;
use crate::gateway;

/// Runs three backends and a gateway in front of them.
pub(crate) fn run(args: &DemoArgs) -> anyhow::Result<ProcessOutcome> {
    let listen = free(args.listen)?;
    let admin = free(args.admin)?;
    let backends: Vec<SocketAddr> =
        ["red", "green", "blue"].into_iter().map(backend).collect::<Result<_, _>>()?;
    let mut text = format!(
        "[runtime]\nworkers = 1\nreadiness_settle_ms = 0\ndrain_timeout_ms = 1000\n\n[observability]\nmetrics_bind = \"{admin}\"\n\n\
         [admin]\npage = true\n\n\
         [[listeners]]\naddress = \"{listen}\"\nprotocol = \"h1\"\n"
    );
    for backend in &backends {
        text.push_str(&format!("\n[[listeners.backends]]\naddress = \"{backend}\"\nprotocol = \"h1\"\n"));
    }
    let mut out = std::io::stdout().lock();
    writeln!(out, "\nExpressGateway demo: three backends, one gateway. Open:\n")?;
    writeln!(out, "  http://{listen}/          reload a few times: red, green and blue take turns")?;
    writeln!(out, "  http://{admin}/          how it stands, live")?;
    writeln!(out, "  http://{admin}/metrics    what the gateway counts")?;
    writeln!(out, "  http://{admin}/readyz     whether it takes traffic\n")?;
    writeln!(out, "The configuration behind it:\n\n{text}\nCtrl-C ends it.\n")?;
    drop(out);
    gateway::run(Source::Text(text), true, Inherited::default())
}

/// `address`, with a free port in place of port 0.
fn free(address: SocketAddr) -> anyhow::Result<SocketAddr> {
    let probe =
        TcpListener::bind(address).with_context(|| format!("{address} cannot be bound; choose another"))?;
    Ok(probe.local_addr()?)
}

/// Starts a backend of one colour on a thread of its own.
fn backend(colour: &'static str) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    std::thread::Builder::new().name(format!("demo-{colour}")).spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
        if let Ok(runtime) = runtime {
            runtime.block_on(async move {
                let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::task::spawn_local(async move {
                        let page = service_fn(move |request| async move { page(colour, &request) });
                        let _ = hyper::server::conn::http1::Builder::new()
                            .serve_connection(TokioIo::new(stream), page)
                            .await;
                    });
                }
            });
        }
    })?;
    Ok(address)
}

fn page(colour: &'static str, request: &Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().replace('&', "&amp;").replace('<', "&lt;");
    let body = format!(
        "<!doctype html><title>{colour}</title><body style=\"font:2em sans-serif;background:{colour};color:white;\
         text-align:center;padding-top:20vh\"><p>This is the <b>{colour}</b> backend.<p><small>{path}</small>\n"
    );
    let mut response = Response::new(Full::new(Bytes::from(body)));
    let html = hyper::header::HeaderValue::from_static("text/html; charset=utf-8");
    response.headers_mut().insert(hyper::header::CONTENT_TYPE, html);
    Ok(response)
}
