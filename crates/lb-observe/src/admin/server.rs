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

use super::answer::answer;
use super::peer::Peer;
use super::{Admin, Served};

/// Answers on `listener` until `stop` is ready, then finishes the requests that run, for one second at most.
///
/// Must run inside a tokio `LocalSet`. At most 256 connections are open at a time, each for a minute at most
/// unless an answer streams, and a request head must arrive within ten seconds.
pub async fn serve(listener: TcpListener, admin: Admin, stop: impl Future<Output = ()>) {
    let address = listener.local_addr().map(|address| address.to_string()).unwrap_or_default();
    tracing::info!(
        address,
        bearer_auth = admin.token_hash.is_some(),
        "admin http listener started (/metrics, /status, /backends, /livez, /readyz, /startupz, /healthz)"
    );
    let served = Rc::new(Served::new(admin));
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
            Ok((stream, address)) if connections.len() < MAX_CONNECTIONS => {
                // What a peer does not read waits in the kernel as well.
                let _ = rustix::net::sockopt::set_socket_send_buffer_size(&stream, SEND_BUFFER);
                let peer = Rc::new(Peer::new(address));
                connections.spawn_local(converse(stream, peer, Rc::clone(&served), closing.subscribe()));
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

async fn converse(stream: TcpStream, peer: Rc<Peer>, served: Rc<Served>, mut closing: watch::Receiver<bool>) {
    let service = service_fn(|request| {
        let (served, peer) = (Rc::clone(&served), Rc::clone(&peer));
        async move { Ok::<_, Infallible>(answer(&served, &peer, request).await) }
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
        () = peer.is_cut() => return,
        () = until_old(&peer) => {}
        _ = closing.wait_for(|closing| *closing) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = timeout(LAST_WORDS, connection).await;
}

/// Ready when the connection has lived as long as it may. What streams is bounded by its reader instead.
async fn until_old(peer: &Peer) {
    sleep(LIFETIME).await;
    while peer.streams() {
        sleep(LIFETIME).await;
    }
}

/// Bytes that wait in the kernel for a slow reader.
const SEND_BUFFER: usize = 256 * 1024;

const MAX_CONNECTIONS: usize = 256;
const MAX_HEAD_BYTES: usize = 16 * 1024;
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
const LIFETIME: Duration = Duration::from_secs(60);
const LAST_WORDS: Duration = Duration::from_secs(1);
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
