//! The signals that the process obeys.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Signals whose handlers are installed. One that comes while it is not waited for is kept.
#[derive(Debug)]
pub struct Signals {
    pub(crate) hangup: Signal,
    pub(crate) user1: Signal,
    pub(crate) user2: Signal,
    pub(crate) terminal: Terminal,
}

/// Those that end the process.
#[derive(Debug)]
pub(crate) struct Terminal {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
}

impl Signals {
    /// Installs the handlers.
    ///
    /// # Errors
    /// When the kernel refuses one.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            user1: signal(SignalKind::user_defined1())?,
            user2: signal(SignalKind::user_defined2())?,
            terminal: Terminal {
                terminate: signal(SignalKind::terminate())?,
                interrupt: signal(SignalKind::interrupt())?,
                quit: signal(SignalKind::quit())?,
            },
        })
    }

    /// Waits for a signal that ends the process; its name.
    pub async fn terminated(&mut self) -> &'static str {
        self.terminal.recv().await
    }
}

impl Terminal {
    pub(crate) async fn recv(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.quit.recv() => "SIGQUIT",
        }
    }
}
