//! What systemd is told, where it listens: readiness, reloads, how they went, and that the workers answer.

use std::env;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};

use crate::orders::Order;

/// The longest status text.
const MAX_STATUS: usize = 512;

/// Tells systemd, where it listens. Never waits: what listens there may have stopped reading.
pub(crate) fn notify(states: &[NotifyState<'_>]) {
    let Some(address) = env::var_os("NOTIFY_SOCKET") else { return };
    let lines: Vec<String> = states.iter().map(ToString::to_string).collect();
    if let Err(error) = send(address.as_bytes(), lines.join("\n").as_bytes()) {
        tracing::debug!(%error, "systemd could not be notified");
    }
}

fn send(address: &[u8], message: &[u8]) -> io::Result<()> {
    let address = match address.split_first() {
        Some((b'@', name)) => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(address))?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.send_to_addr(message, &address)?;
    Ok(())
}

/// A reload has begun.
pub(crate) fn reloading() {
    notify(&[
        NotifyState::Reloading,
        NotifyState::monotonic_usec_now().unwrap_or(NotifyState::Reloading),
        NotifyState::Status("reading the configuration again"),
    ]);
}

/// The service takes traffic; `status` is shown by `systemctl status`.
pub(crate) fn ready(status: &str) {
    notify(&[NotifyState::Ready, NotifyState::Status(&line(status))]);
}

/// Another process has taken over, and is the main one from now on.
pub(crate) fn handed_over(pid: u32) {
    notify(&[NotifyState::MainPid(pid), NotifyState::Ready]);
}

/// A drain has begun.
pub(crate) fn stopping() {
    notify(&[NotifyState::Stopping, NotifyState::Status("draining")]);
}

/// One line of bounded length: a status is one, whatever an error message holds.
fn line(status: &str) -> String {
    let line: String = status.chars().map(|char| if char.is_control() { ' ' } else { char }).collect();
    match line.char_indices().nth(MAX_STATUS) {
        Some((end, _)) => line.get(..end).unwrap_or_default().to_owned(),
        None => line,
    }
}

/// Pings the watchdog for as long as all workers answer, where systemd asks for pings of this process. A worker that has ended is not
/// asked: its end is dealt with elsewhere.
pub(crate) async fn watch(workers: Vec<mpsc::UnboundedSender<Order>>) {
    let Some(within) = sd_notify::watchdog_enabled() else { return };
    // A wait for answers and a rest until the next question both fit in, with as much again to spare.
    let share = (within / 3).max(Duration::from_millis(1));
    let mut was_silent = None;
    loop {
        let silent = silent(&workers, share).await;
        match silent {
            None => notify(&[NotifyState::Watchdog]),
            Some(worker) if was_silent.is_none() => {
                tracing::error!(
                    worker,
                    "a worker does not answer — the watchdog is not told that all is well"
                );
            }
            Some(_) => {}
        }
        was_silent = silent;
        sleep(share).await;
    }
}

/// The first worker that does not answer `within` that time.
async fn silent(workers: &[mpsc::UnboundedSender<Order>], within: Duration) -> Option<usize> {
    let answers: Vec<(usize, oneshot::Receiver<()>)> = workers
        .iter()
        .enumerate()
        .filter_map(|(id, orders)| {
            let (answer, answered) = oneshot::channel();
            orders.send(Order::Answer(answer)).ok().map(|()| (id, answered))
        })
        .collect();
    let mut asked = None;
    let all = async {
        for (id, answered) in answers {
            asked = Some(id);
            // A worker that ends meanwhile answers nothing any more.
            let _ = answered.await;
        }
    };
    let is_over = timeout(within, all).await.is_err();
    asked.filter(|_| is_over)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_one_short_line() {
        assert_eq!(line("a\nREADY=1\u{7f}b"), "a READY=1 b");
        assert_eq!(line(&"ü".repeat(1000)).chars().count(), MAX_STATUS);
    }

    #[tokio::test]
    async fn a_worker_that_hangs_is_found_and_one_that_has_ended_is_not_asked() {
        let (answers, mut orders) = mpsc::unbounded_channel();
        tokio::task::LocalSet::new()
            .run_until(async {
                tokio::task::spawn_local(async move {
                    while let Some(Order::Answer(answer)) = orders.recv().await {
                        answer.send(()).unwrap();
                    }
                });
                let (hangs, held) = mpsc::unbounded_channel();
                let (ended, _) = mpsc::unbounded_channel();
                let within = Duration::from_millis(200);
                assert_eq!(silent(&[answers.clone(), ended.clone()], within).await, None);
                assert_eq!(silent(&[answers.clone(), ended, hangs.clone()], within).await, Some(2));
                drop(held);
                assert_eq!(silent(&[answers, hangs], within).await, None);
            })
            .await;
    }

    #[test]
    fn nobody_waits_for_a_supervisor_that_does_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let _unread = UnixDatagram::bind(&path).unwrap();
        let full = (0..10_000).find_map(|_| send(path.as_os_str().as_bytes(), b"WATCHDOG=1").err());
        assert_eq!(full.expect("the queue has a bound").kind(), io::ErrorKind::WouldBlock);
    }
}
