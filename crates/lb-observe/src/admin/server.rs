//! Connections of the admin server, and what bounds them.

use std::convert::Infallible;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::{Admin, answer::answer};

/// Answers on `listener` until `stop` is ready, then finishes the requests that run, for one second at most.
///
/// Must run inside a tokio `LocalSet`. At most 256 connections are open at a time, each for a minute at most,
/// and a request head must arrive within ten seconds.
pub async fn serve(listener: TcpListener, admin: Admin, stop: impl Future<Output = ()>) {
    let address = listener.local_addr().map(|address| address.to_string()).unwrap_or_default();
    tracing::info!(
        address,
        bearer_auth = admin.token_hash.is_some(),
        "admin http listener started (/metrics, /backends, /livez, /readyz, /startupz, /healthz)"
    );
    let admin = Rc::new(admin);
    let (closing, _) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut stop = pin!(stop);
    loop {
        let accepted = tokio::select! {
            // In this order, so that connections which ended make room before the next is counted.
            biased;
            () = &mut stop => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            // Dropped, and so closed, when there are too many.
            Ok((stream, _)) if connections.len() < MAX_CONNECTIONS => {
                connections.spawn_local(converse(stream, Rc::clone(&admin), closing.subscribe()));
            }
            Ok(_) => {}
            Err(error) => {
                tracing::debug!(%error, "admin accept failed");
                // Descriptors may be short for a while.
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    closing.send_replace(true);
    let _ = timeout(LAST_WORDS, async { while connections.join_next().await.is_some() {} }).await;
}

async fn converse(stream: TcpStream, admin: Rc<Admin>, mut closing: watch::Receiver<bool>) {
    let service = service_fn(|request| {
        let admin = Rc::clone(&admin);
        async move { Ok::<_, Infallible>(answer(&admin, request).await) }
    });
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .max_buf_size(MAX_HEAD_BYTES)
            .serve_connection(TokioIo::new(stream), service)
    );
    // Errors are the client's business: a bad head was answered, and a gone client wants nothing.
    tokio::select! {
        _ = &mut connection => return,
        () = sleep(LIFETIME) => {}
        _ = closing.wait_for(|closing| *closing) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = timeout(LAST_WORDS, connection).await;
}

const MAX_CONNECTIONS: usize = 256;
const MAX_HEAD_BYTES: usize = 16 * 1024;
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
const LIFETIME: Duration = Duration::from_secs(60);
const LAST_WORDS: Duration = Duration::from_secs(1);
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
