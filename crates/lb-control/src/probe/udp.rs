//! A question in a datagram, and its answer.

use std::io;
use std::time::Duration;

use lb_config::UdpProbe;
use lb_core::health::ProbeOutcome;
use lb_io::shortage_of;
use tokio::net::UdpSocket;

use super::plan::Plan;

/// Datagrams get lost: the question is sent as many times, evenly over the time that a probe has.
const SENDS: u32 = 3;

/// The most of an answer that is looked at.
const ANSWER: usize = 2048;

/// Whether the backend answers with what is expected.
pub(super) async fn check(plan: &Plan, probe: &UdpProbe) -> Result<(), ProbeOutcome> {
    let fits = |answer: &[u8]| answer.starts_with(&probe.expect).then_some(());
    ask(plan, &probe.send, fits).await
}

/// Asks until `read` takes a datagram for the answer. The caller bounds the time.
pub(super) async fn ask<T>(
    plan: &Plan,
    question: &[u8],
    read: impl Fn(&[u8]) -> Option<T>,
) -> Result<T, ProbeOutcome> {
    // A configuration does not ask a Unix socket.
    let Some(address) = plan.address.socket_addr() else { return Err(ProbeOutcome::Connect) };
    let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).await.map_err(|error| match shortage_of(&error) {
        Some(_) => ProbeOutcome::NotAsked,
        None => ProbeOutcome::Connect,
    })?;
    socket.connect(address).await.map_err(|_| ProbeOutcome::Connect)?;
    let mut answer = [0; ANSWER];
    loop {
        // An error is what the peer's host has said of the last datagram: nothing listens there, or nothing gets there.
        socket.send(question).await.map_err(|_| ProbeOutcome::Connect)?;
        let wait = (plan.timeout / SENDS).max(Duration::from_millis(1));
        let received = tokio::time::timeout(wait, async {
            loop {
                let count = socket.recv(&mut answer).await?;
                if let Some(answer) = read(answer.get(..count).unwrap_or(&[])) {
                    return io::Result::Ok(answer);
                }
            }
        });
        match received.await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(_)) => return Err(ProbeOutcome::Connect),
            Err(_) => {}
        }
    }
}
