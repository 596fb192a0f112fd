//! A child process: its logs, signals, exit, memory and descriptors.

use crate::logs::Logs;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::fd::AsRawFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

pub use libc::{SIGHUP, SIGINT, SIGKILL, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};

type Job = (Command, Sender<std::io::Result<Child>>);

/// Starts `command` so that the kernel kills it when this test process dies, in whatever way.
///
/// The kernel ties that promise to the *thread* that forks, so one thread that never ends does all the forking.
pub fn spawn_tied(mut command: Command) -> std::io::Result<Child> {
    static SPAWNER: OnceLock<Mutex<Sender<Job>>> = OnceLock::new();
    // SAFETY: prctl is a bare system call, which is allowed between fork and exec.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        });
    }
    let jobs = SPAWNER.get_or_init(|| {
        let (sender, receiver) = channel::<Job>();
        std::thread::spawn(move || {
            for (mut command, reply) in receiver {
                // Between fork and exec the child holds a copy of every socket, also of one that probes a port.
                let child = crate::ports::undisturbed(|| command.spawn());
                reply.send(child).ok();
            }
        });
        Mutex::new(sender)
    });
    let (reply, answer) = channel();
    jobs.lock().unwrap().send((command, reply)).unwrap();
    answer.recv().unwrap()
}

/// A system call that a filter can forbid.
#[derive(Clone, Copy, Debug)]
pub enum Call {
    /// io_uring_setup(2)
    RingSetup,
    /// io_uring_register(2)
    RingRegister,
    /// io_uring_enter(2)
    RingEnter,
}

/// Has the kernel refuse a system call to the program with the error `code`, as a container's filter would.
pub fn forbid_call(command: &mut Command, call: Call, code: i32) {
    let number = match call {
        Call::RingSetup => libc::SYS_io_uring_setup,
        Call::RingRegister => libc::SYS_io_uring_register,
        Call::RingEnter => libc::SYS_io_uring_enter,
    };
    let number = u32::try_from(number).unwrap();
    let refusal = libc::SECCOMP_RET_ERRNO | (code.unsigned_abs() & 0xffff);
    let step = |code: u32, jt, jf, k| libc::sock_filter { code: u16::try_from(code).unwrap(), jt, jf, k };
    let filter = [
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, number),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, refusal),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let install = move || {
        let mut filter = filter;
        let program = libc::sock_fprog { len: 4, filter: filter.as_mut_ptr() };
        // SAFETY: both calls only read their arguments, and the program and its steps outlive the second one.
        let done = unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
                && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) == 0
        };
        if done { Ok(()) } else { Err(std::io::Error::last_os_error()) }
    };
    // SAFETY: between fork and exec, `install` makes two system calls and allocates nothing.
    unsafe { command.pre_exec(install) };
}

/// Takes the right to bind ports below 1024 from `command`, which root has otherwise.
pub fn forbid_low_ports(command: &mut Command) {
    /// `CAP_NET_BIND_SERVICE` of linux/capability.h.
    const NET_BIND_SERVICE: libc::c_ulong = 10;
    // SAFETY: prctl is a bare system call, which is allowed between fork and exec.
    unsafe {
        command.pre_exec(|| match libc::prctl(libc::PR_CAPBSET_DROP, NET_BIND_SERVICE, 0, 0, 0) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        });
    }
}

/// Sends a signal to a process that may be no child of this one.
pub fn signal_process(pid: i32, signal: i32) {
    // SAFETY: kill(2) takes any number.
    unsafe { libc::kill(pid, signal) };
}

/// Passes listening sockets on to a command from descriptor 3 on, as systemd does.
pub fn pass_sockets(command: &mut Command, sockets: &[impl AsRawFd]) {
    let mut numbers: Vec<i32> = sockets.iter().map(AsRawFd::as_raw_fd).collect();
    // SAFETY: fcntl(2), dup2(2) and close(2) may be called between fork and exec, and nothing is allocated there. What is written to are numbers
    // that the child uses for nothing else: the descriptors are first moved above them.
    unsafe {
        command.pre_exec(move || {
            for number in &mut numbers {
                *number = libc::fcntl(*number, libc::F_DUPFD, 100);
            }
            for (number, to) in numbers.iter().zip(3..) {
                libc::dup2(*number, to);
                libc::close(*number);
            }
            Ok(())
        });
    }
}

/// Lets `command` hold at most `count` descriptors.
pub fn limit_descriptors(command: &mut Command, count: u64) {
    let limit = libc::rlimit { rlim_cur: count, rlim_max: count };
    // SAFETY: setrlimit is a bare system call on a value that the closure owns, which is allowed between fork and exec.
    unsafe {
        command.pre_exec(move || match libc::setrlimit(libc::RLIMIT_NOFILE, &limit) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        });
    }
}

/// Fills a pipe, so that the next write to it waits.
pub fn fill(pipe: &impl AsRawFd) {
    let fd = pipe.as_raw_fd();
    let junk = [b'\n'; 4096];
    // SAFETY: fcntl changes flags of a descriptor that outlives the calls, and write only reads from the buffer.
    unsafe {
        let flags = libc::fcntl(fd, libc::F_GETFL);
        assert!(flags >= 0 && libc::fcntl(fd, libc::F_SETFL, flags | libc::O_NONBLOCK) == 0);
        for size in [junk.len(), 1] {
            while libc::write(fd, junk.as_ptr().cast(), size) > 0 {}
        }
        assert_eq!(libc::fcntl(fd, libc::F_SETFL, flags), 0);
    }
}

/// A running child, killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    exit: Option<ExitStatus>,
    /// What it wrote to stderr.
    pub stderr: Arc<Logs>,
    /// What it wrote to stdout.
    pub stdout: Arc<Logs>,
}

impl Process {
    /// Starts `command` with both outputs collected.
    pub fn spawn(mut command: Command) -> Process {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let shown = format!("{command:?}");
        let mut child = spawn_tied(command).unwrap_or_else(|e| panic!("{shown}: {e}"));
        let stderr = Logs::collect(child.stderr.take().unwrap());
        let stdout = Logs::collect(child.stdout.take().unwrap());
        Process { child, exit: None, stderr, stdout }
    }

    /// Starts `command` with a standard error of the caller's, of which nothing is collected.
    pub fn spawn_with_stderr(mut command: Command, stderr: impl Into<Stdio>) -> Process {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr);
        let shown = format!("{command:?}");
        let mut child = spawn_tied(command).unwrap_or_else(|e| panic!("{shown}: {e}"));
        let stdout = Logs::collect(child.stdout.take().unwrap());
        Process { child, exit: None, stderr: Logs::collect(std::io::empty()), stdout }
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: i32) {
        if self.exit.is_none() {
            // SAFETY: the child was not waited for, so its id is not used again yet.
            unsafe { libc::kill(self.child.id() as i32, signal) };
        }
    }

    /// Holds all its threads: what happens meanwhile comes to it at once.
    #[track_caller]
    pub fn hold(&self) {
        self.signal(libc::SIGSTOP);
        let held = |stat: String| stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'));
        crate::eventually("it stands still", crate::seconds(10), || {
            let tasks = std::fs::read_dir(self.proc("task")).unwrap();
            tasks
                .map(|task| std::fs::read_to_string(task.unwrap().path().join("stat")).unwrap_or_default())
                .all(held)
        });
    }

    /// Whether one of its threads waits for a file system or a device.
    pub fn waits_for_files(&self) -> bool {
        let tasks = std::fs::read_dir(self.proc("task")).into_iter().flatten();
        let stats = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("stat")).ok());
        let mut states = stats.filter_map(|stat| Some(stat.rsplit_once(") ")?.1.starts_with('D')));
        states.any(|waits| waits)
    }

    /// Lets it go on.
    pub fn resume(&self) {
        self.signal(libc::SIGCONT);
    }

    /// The exit status, if it has ended.
    pub fn exit(&mut self) -> Option<ExitStatus> {
        if self.exit.is_none() {
            self.exit = self.child.try_wait().unwrap();
        }
        self.exit
    }

    /// Waits for the end; the exit code, or minus the signal that ended it.
    pub fn wait_exit(&mut self, limit: Duration) -> Option<i32> {
        let status = crate::poll(limit, || self.exit())?;
        // The readers may still be at the last lines; another process may hold the other end for longer.
        crate::poll(crate::seconds(2), || (self.stderr.ended() && self.stdout.ended()).then_some(()));
        Some(status.code().unwrap_or_else(|| -status.signal().unwrap_or(0)))
    }

    /// Resident memory.
    pub fn rss_kib(&self) -> u64 {
        let status = std::fs::read_to_string(self.proc("status")).unwrap_or_default();
        let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap_or("");
        line.split_whitespace().nth(1).and_then(|v| v.parse().ok()).unwrap_or(0)
    }

    /// Processor time used so far, in clock ticks.
    pub fn cpu_ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(self.proc("stat")).unwrap_or_default();
        let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let field = |n: usize| after_name.split_whitespace().nth(n).and_then(|v| v.parse::<u64>().ok());
        field(11).unwrap_or(0) + field(12).unwrap_or(0)
    }

    /// How often each of its threads has run so far, by name and number of the thread.
    pub fn context_switches(&self) -> BTreeMap<String, u64> {
        let tasks = std::fs::read_dir(self.proc("task")).into_iter().flatten().flatten();
        tasks
            .filter_map(|task| {
                let status = std::fs::read_to_string(task.path().join("status")).ok()?;
                let field =
                    |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
                let count = |name: &str| field(name)?.parse::<u64>().ok();
                let thread = format!("{} {}", field("Name:")?, field("Pid:")?);
                Some((thread, count("voluntary_ctxt_switches:")? + count("nonvoluntary_ctxt_switches:")?))
            })
            .collect()
    }

    /// How many descriptors it holds.
    pub fn open_fds(&self) -> usize {
        std::fs::read_dir(self.proc("fd")).map_or(0, |dir| dir.count())
    }

    fn proc(&self, file: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{file}", self.child.id()))
    }

    /// The last lines of both outputs.
    pub fn tail(&self, count: usize) -> String {
        let stderr = self.stderr.lines();
        let stdout = self.stdout.lines();
        let last = |lines: &[String]| lines[lines.len().saturating_sub(count)..].join("\n");
        format!("--- stderr\n{}\n--- stdout\n{}", last(&stderr), last(&stdout))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.exit().is_none() {
            self.child.kill().ok();
            self.child.wait().ok();
        }
    }
}

/// What a command that ran to its end left behind.
#[derive(Debug)]
pub struct Finished {
    /// Exit code, or minus the signal.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// Runs a program to its end, at most for `limit`.
pub fn run(
    program: impl AsRef<OsStr>,
    args: impl IntoIterator<Item = impl AsRef<OsStr>>,
    limit: Duration,
) -> Finished {
    let mut command = Command::new(program);
    command.args(args);
    run_command(command, limit)
}

/// Runs a prepared command to its end, at most for `limit`.
pub fn run_command(command: Command, limit: Duration) -> Finished {
    let shown = format!("{command:?}");
    let mut process = Process::spawn(command);
    let code = process.wait_exit(limit);
    let text = |logs: &Logs| logs.lines().join("\n");
    let (stdout, stderr) = (text(&process.stdout), text(&process.stderr));
    match code {
        Some(code) => Finished { code, stdout, stderr },
        None => panic!("{shown} did not end within {limit:?}\n{stdout}\n{stderr}"),
    }
}
