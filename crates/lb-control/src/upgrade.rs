//! SIGUSR2: another process takes over, that of the binary which stands where this one was started from.
//!
//! It is given the listening sockets, reads the configuration by itself, and says on a pipe when it serves. Until then this process serves as if
//! nothing had happened. From then on both accept from the same sockets, and this one drains: so no connection is refused and none is lost in
//! a queue. Where the new process ends before it serves, or takes too long, this one goes on and says why.

use std::ffi::OsString;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use lb_io::inherited::HandOver;
use lb_io::listener::ListeningSocket;
use lb_io::udp::Steering;
use lb_io::udp::hand_over::{self, Told};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, sleep_until};

use crate::control::Control;
use crate::systemd;

/// How long a new process may take until it serves.
const PATIENCE: Duration = Duration::from_secs(90);

/// How long a process that was told to end may take for it, where it does not serve.
const END: Duration = Duration::from_secs(5);

/// How often an ending process is looked at.
const LOOK: Duration = Duration::from_millis(10);

/// What a process says when it serves.
pub(crate) const SERVES: &[u8] = b"1";

impl Control {
    /// Starts the process that is to take over.
    pub(crate) async fn begin_upgrade(&mut self) {
        tracing::info!(signal = "SIGUSR2", "lifecycle signal received");
        if let Some(upgrade) = &self.upgrade {
            tracing::warn!(pid = upgrade.successor.pid(), "upgrade: a new process is starting already");
            return;
        }
        let program = self.program.path.display();
        if let Some(reason) = systemd::is_bound_to_this_process() {
            tracing::error!(reason, "upgrade failed — this process goes on");
            return;
        }
        let sockets = self.listeners.sockets().chain(self.admin_port.socket());
        // It may read sockets before it says that it serves.
        self.steering.set_shared(true);
        match Upgrade::begin(&self.program, sockets, &self.steering).await {
            Ok(upgrade) => {
                tracing::info!(
                    pid = upgrade.successor.pid(),
                    %program,
                    "upgrade: new process started — this one serves until that one does"
                );
                self.upgrade = Some(upgrade);
                // Two that write the same tables would not know of each other.
                self.xdp.iter().for_each(|xdp| xdp.pause(true));
            }
            Err(error) => {
                self.steering.set_shared(false);
                tracing::error!(%error, %program, "upgrade failed — this process goes on");
            }
        }
    }

    /// The process that serves in place of this one from now on, if there is one now that the new process has `served` or not.
    pub(crate) async fn end_upgrade(&mut self, served: Result<(), String>) -> Option<Upgrade> {
        let pid = self.upgrade.as_ref()?.successor.pid();
        let told = match &served {
            Ok(()) => systemd::handed_over(pid).await,
            Err(_) => Ok(()),
        };
        let upgrade = self.upgrade.take()?;
        match served.and_then(|()| told.inspect_err(|_| upgrade.terminate())) {
            Ok(()) => {
                tracing::info!(pid, "upgrade: the new process serves — this one drains");
                Some(upgrade)
            }
            Err(reason) => {
                self.steering.set_shared(false);
                self.xdp.iter().for_each(|xdp| xdp.pause(false));
                tracing::error!(pid, reason, "upgrade failed — this process goes on");
                None
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

/// A new process that is to take over.
#[derive(Debug)]
pub(crate) struct Upgrade {
    successor: Successor,
    pipe: Receiver,
    /// What the new process says of UDP.
    told: hand_over::Successor,
    /// Where that process reads the UDP sockets.
    reads: Vec<SocketAddr>,
    steering: Arc<Steering>,
    deadline: Instant,
    /// SIGHUP and SIGUSR1 that came while it was starting: it may have read files before they changed.
    owed: [bool; 2],
}

impl Upgrade {
    /// Starts the new process with these sockets. That is done on a thread of its own: the file system of the binary may not answer.
    async fn begin<'a>(
        program: &Program,
        sockets: impl IntoIterator<Item = &'a ListeningSocket>,
        steering: &Arc<Steering>,
    ) -> io::Result<Self> {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
        let pipe = Receiver::from_owned_fd(reader)?;
        let (channel, told) = hand_over::pair()?;
        let handed = HandOver::new(writer.as_fd(), (channel.as_fd(), steering.epochs()), sockets)?;
        let program = program.clone();
        let successor =
            spawn_blocking(move || spawn(&program, &handed, writer)).await.map_err(io::Error::other)??;
        let (deadline, steering) = (Instant::now() + PATIENCE, Arc::clone(steering));
        Ok(Self { successor, pipe, told, reads: Vec::new(), steering, deadline, owed: [false; 2] })
    }

    /// The new process reads its configuration again when it serves.
    pub(crate) fn owes_hangup(&mut self) {
        self.owed[0] = true;
    }

    /// The new process reads its certificates again when it serves.
    pub(crate) fn owes_user1(&mut self) {
        self.owed[1] = true;
    }

    /// Waits until the new process serves; otherwise says why it does not. To be called again when it is dropped half-way.
    pub(crate) async fn serves(&mut self) -> Result<(), String> {
        let mut said = [0; 1];
        let (told, reads, steering) = (&mut self.told, &mut self.reads, &self.steering);
        let read = tokio::select! {
            biased;
            read = self.pipe.read(&mut said) => read,
            () = listen(told, |address| reads.push(address), steering) => self.pipe.read(&mut said).await,
            () = sleep_until(self.deadline) => return Err(format!("it does not serve after {} s", PATIENCE.as_secs())),
        };
        match read {
            Ok(1) => {
                self.successor.serves = true;
                // Said before that.
                let (told, reads, steering) = (&mut self.told, &mut self.reads, &self.steering);
                let mut reads = |address| reads.push(address);
                poll_fn(|cx| Poll::Ready(hear(told, &mut reads, steering, cx).is_ready())).await;
                Ok(())
            }
            Ok(_) => Err(self.why_not().await),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Where the new process reads the UDP sockets.
    pub(crate) fn reads(&self) -> &[SocketAddr] {
        &self.reads
    }

    /// Leaves the new process, which serves, to itself, with the signals that are owed to it and those that `came` after these. What that
    /// process passes on is taken from here on.
    pub(crate) fn pass_on(self, came: [bool; 2]) {
        for (signal, is_due) in [Signal::HUP, Signal::USR1].into_iter().zip(self.owed.into_iter().zip(came)) {
            if is_due.0 || is_due.1 {
                self.successor.signal(signal);
            }
        }
        let Self { mut told, steering, .. } = self;
        tokio::task::spawn_local(async move { listen(&mut told, |_| (), &steering).await });
    }

    /// Tells the new process to end. One that serves already drains.
    pub(crate) fn terminate(&self) {
        self.successor.signal(Signal::TERM);
    }

    /// Waits until the new process, which was told to end, has ended or drains.
    pub(crate) async fn ended(mut self) {
        let until = Instant::now() + END;
        while !self.successor.has_ended() && Instant::now() < until {
            let mut said = [0; 1];
            if let Ok(1) = self.pipe.try_read(&mut said) {
                self.successor.serves = true;
            }
            if self.successor.serves {
                return;
            }
            sleep(LOOK).await;
        }
    }

    /// How the process ended that has closed its end of the pipe.
    async fn why_not(&mut self) -> String {
        let until = Instant::now() + END;
        loop {
            match self.successor.child.as_mut().map(Child::try_wait) {
                Some(Ok(Some(status))) => {
                    self.successor.child = None;
                    return format!("it ended before it served: {status}");
                }
                Some(Ok(None)) if Instant::now() < until => sleep(LOOK).await,
                _ => return "it has closed the pipe on which it was to say that it serves".to_owned(),
            }
        }
    }
}

/// Hears what the new process says, until that ends.
async fn listen(told: &mut hand_over::Successor, mut reads: impl FnMut(SocketAddr), steering: &Steering) {
    poll_fn(|cx| hear(told, &mut reads, steering, cx)).await;
}

/// Hears what it has said. Ready when the process has ended.
fn hear(
    told: &mut hand_over::Successor,
    reads: &mut impl FnMut(SocketAddr),
    steering: &Steering,
    cx: &mut Context<'_>,
) -> Poll<()> {
    loop {
        match ready!(told.poll_told(cx)) {
            Some(Told::Packet { table, from, to, bytes }) => {
                steering.pass_on(table, from, to, bytes);
            }
            Some(Told::Reads(address)) => reads(address),
            None => return Poll::Ready(()),
        }
    }
}

fn spawn(program: &Program, handed: &HandOver, writer: OwnedFd) -> io::Result<Successor> {
    let child = Command::new(&program.path)
        .args(&program.arguments)
        .envs(handed.variables())
        // These are for this process alone; the watchdog of systemd goes on with whichever is the main process.
        .env_remove("WATCHDOG_PID")
        .env_remove("LISTEN_PID")
        .env_remove("LISTEN_FDS")
        .env_remove("LISTEN_FDNAMES")
        .spawn()?;
    // From here on the pipe ends with the new process.
    drop(writer);
    Ok(Successor { child: Some(child), serves: false })
}

/// The new process. When this is dropped it is killed, unless it serves.
#[derive(Debug)]
struct Successor {
    /// `None` when it has ended and is waited for.
    child: Option<Child>,
    serves: bool,
}

impl Successor {
    fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    fn signal(&self, signal: Signal) {
        if let Some(child) = &self.child {
            // It may have ended.
            let _ = kill_process(Pid::from_child(child), signal);
        }
    }

    fn has_ended(&mut self) -> bool {
        let has_ended =
            self.child.as_mut().is_none_or(|child| child.try_wait().is_ok_and(|status| status.is_some()));
        if has_ended {
            self.child = None;
        }
        has_ended
    }
}

impl Drop for Successor {
    fn drop(&mut self) {
        if self.has_ended() {
            return;
        }
        if !self.serves {
            self.signal(Signal::KILL);
        }
        if let Some(mut child) = self.child.take() {
            // It is waited for as long as this process lives: nothing else would, and a killed process may take its time.
            let waits = std::thread::Builder::new().name("successor".to_owned());
            let _ = waits.spawn(move || child.wait());
        }
    }
}
