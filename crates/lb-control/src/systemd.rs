//! What systemd is told, where it listens: readiness, reloads, how they went, and that the workers answer.

use std::env;
use std::ffi::OsString;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use crate::orders::{Order, ask};

/// How long systemd is given to read that another process is the main one.
const TOLD_WITHIN: Duration = Duration::from_secs(10);

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

/// Another process has taken over, and is the main one from now on: without this, systemd takes the end of this process for that of the
/// service. So it waits where systemd is slow to read, but not for ever.
///
/// # Errors
/// When systemd has not read for that long; what it was told last still holds then.
pub(crate) async fn handed_over(pid: u32) -> Result<(), String> {
    let Some(address) = env::var_os("NOTIFY_SOCKET") else { return Ok(()) };
    let message = format!("{}\n{}", NotifyState::MainPid(pid), NotifyState::Ready);
    let until = Instant::now() + TOLD_WITHIN;
    loop {
        match send(address.as_bytes(), message.as_bytes()) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < until => {
                sleep(Duration::from_millis(50)).await;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(
                    "systemd does not read what it is told, which is that another process is the main one"
                        .to_owned(),
                );
            }
            Err(error) => {
                tracing::debug!(%error, "systemd could not be notified");
                return Ok(());
            }
            Ok(()) => return Ok(()),
        }
    }
}

/// Why this process cannot hand over to another one, if it cannot: its end would be the end of the other one.
pub(crate) fn is_bound_to_this_process() -> Option<&'static str> {
    let own = std::process::id();
    is_bound(own, |name| env::var_os(name))
}

fn is_bound(own: u32, variable: impl Fn(&str) -> Option<OsString>) -> Option<&'static str> {
    if own == 1 {
        return Some("it is process 1, and the container ends with it — start another container instead");
    }
    // Set since systemd 248 for what it starts itself.
    let is_started_by_systemd =
        variable("SYSTEMD_EXEC_PID").and_then(|pid| pid.to_str()?.parse().ok()) == Some(own);
    (is_started_by_systemd && variable("NOTIFY_SOCKET").is_none())
        .then_some("systemd ends the service when this process ends — the unit needs Type=notify")
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
        let silent = ask(&workers, |answer| Some(Order::Answer(answer))).within(share).await;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_one_short_line() {
        assert_eq!(line("a\nREADY=1\u{7f}b"), "a READY=1 b");
        assert_eq!(line(&"ü".repeat(1000)).chars().count(), MAX_STATUS);
    }

    #[test]
    fn a_process_whose_end_ends_its_successor_does_not_hand_over() {
        let variables = |pairs: &'static [(&str, &str)]| {
            move |name: &str| pairs.iter().find(|pair| pair.0 == name).map(|pair| pair.1.into())
        };
        assert!(is_bound(1, variables(&[])).is_some_and(|reason| reason.contains("process 1")));
        let simple = is_bound(7, variables(&[("SYSTEMD_EXEC_PID", "7")]));
        assert!(simple.is_some_and(|reason| reason.contains("Type=notify")));
        let notified = [("SYSTEMD_EXEC_PID", "7"), ("NOTIFY_SOCKET", "/run/n")];
        assert_eq!(
            is_bound(7, |name| notified.iter().find(|pair| pair.0 == name).map(|pair| pair.1.into())),
            None
        );
        // A shell that a service has started, and what that starts.
        assert_eq!(is_bound(8, variables(&[("SYSTEMD_EXEC_PID", "7")])), None);
        assert_eq!(is_bound(8, variables(&[("SYSTEMD_EXEC_PID", "x")])), None);
        assert_eq!(is_bound(8, variables(&[])), None);
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
