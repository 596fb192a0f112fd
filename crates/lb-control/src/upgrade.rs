//! SIGUSR2: another process takes over, that of the binary which stands where this one was started from.
//!
//! It is given the listening sockets, reads the configuration by itself, and says on a pipe when it serves. Until then this process serves as if
//! nothing had happened. From then on both accept from the same sockets, and this one drains: so no connection is refused and none is lost in
//! a queue. Where the new process ends before it serves, or takes too long, this one goes on and says why.

use std::ffi::OsString;
use std::io;
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::Duration;

use lb_io::inherited::HandOver;
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::time::{Instant, sleep_until};

use crate::control::Control;
use crate::systemd;

/// How long a new process may take until it serves.
const PATIENCE: Duration = Duration::from_secs(90);

/// What a process says when it serves.
pub(crate) const SERVES: &[u8] = b"1";

impl Control {
    /// Starts the process that is to take over.
    pub(crate) fn begin_upgrade(&mut self) {
        tracing::info!(signal = "SIGUSR2", "lifecycle signal received");
        if let Some(upgrade) = &self.upgrade {
            tracing::warn!(pid = upgrade.pid(), "upgrade: a new process is starting already");
            return;
        }
        let sockets = self.listeners.sockets().chain(self.admin_port.socket());
        match Upgrade::begin(&self.program, sockets) {
            Ok(upgrade) => {
                tracing::info!(
                    pid = upgrade.pid(),
                    "upgrade: new process started — this one serves until that one does"
                );
                self.upgrade = Some(upgrade);
            }
            Err(error) => {
                let program = self.program.path.display();
                tracing::error!(%error, %program, "upgrade failed — this process goes on");
            }
        }
    }

    /// Whether this process is to drain now that the new one has said `served`.
    pub(crate) fn end_upgrade(&mut self, served: Result<(), String>) -> bool {
        let Some(upgrade) = self.upgrade.take() else { return false };
        let pid = upgrade.pid();
        match served {
            Ok(()) => {
                tracing::info!(pid, "upgrade: the new process serves — this one drains");
                upgrade.release();
                systemd::handed_over(pid);
                true
            }
            Err(reason) => {
                tracing::error!(pid, reason, "upgrade failed — this process goes on");
                false
            }
        }
    }
}

/// How this process was started.
#[derive(Clone, Debug)]
pub struct Program {
    /// Where the binary stands.
    pub path: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
}

/// A new process that does not serve yet. It is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Upgrade {
    child: Option<Child>,
    pipe: Receiver,
    deadline: Instant,
}

impl Drop for Upgrade {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Upgrade {
    /// Starts the new process with these sockets.
    pub(crate) fn begin<'a>(
        program: &Program,
        sockets: impl IntoIterator<Item = &'a TcpListener>,
    ) -> io::Result<Self> {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
        let pipe = Receiver::from_owned_fd(reader)?;
        let handed = HandOver::new(writer.as_fd(), sockets)?;
        let (name, value) = handed.variable();
        let child = Command::new(&program.path)
            .args(&program.arguments)
            .env(name, value)
            // These are for this process alone; the watchdog of systemd goes on with whichever is the main process.
            .env_remove("WATCHDOG_PID")
            .env_remove("LISTEN_PID")
            .env_remove("LISTEN_FDS")
            .env_remove("LISTEN_FDNAMES")
            .spawn()?;
        Ok(Self { child: Some(child), pipe, deadline: Instant::now() + PATIENCE })
    }

    /// The new process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    /// Lets the process live on by itself.
    fn release(mut self) {
        self.child = None;
    }

    /// Waits until the new process serves; otherwise says why it does not. To be called again when it is dropped half-way.
    pub(crate) async fn serves(&mut self) -> Result<(), String> {
        let mut said = [0; 1];
        let read = tokio::select! {
            read = self.pipe.read(&mut said) => read,
            () = sleep_until(self.deadline) => return Err(format!("it does not serve after {} s", PATIENCE.as_secs())),
        };
        match read {
            Ok(1) => Ok(()),
            Ok(_) => Err(self.ended().await),
            Err(error) => Err(error.to_string()),
        }
    }

    /// How the process ended that has closed its end of the pipe.
    async fn ended(&mut self) -> String {
        let until = Instant::now() + Duration::from_secs(5);
        while let Some(child) = &mut self.child {
            match child.try_wait() {
                Ok(Some(status)) => {
                    self.child = None;
                    return format!("it ended before it served: {status}");
                }
                Ok(None) if Instant::now() < until => tokio::time::sleep(Duration::from_millis(10)).await,
                _ => break,
            }
        }
        "it has closed the pipe on which it was to say that it serves".to_owned()
    }
}
