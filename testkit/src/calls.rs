//! System calls that pass by the test before the kernel gets them, so that it can make one of them fail (seccomp_unotify(2)).

use crate::process::Process;
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// Where the program holds what the test takes over from it: a number that nothing else in it gets so soon.
const PLACE: i32 = 990;

/// A system call by its number, as in `libc::SYS_accept4`.
pub type Number = libc::c_long;

/// Has `command`'s calls of these numbers wait for [`Calls`], from its start on.
pub fn watch(command: &mut Command, numbers: &[Number]) {
    let step = |code: u32, jt: usize, jf, k| libc::sock_filter {
        code: u16::try_from(code).unwrap(),
        jt: u8::try_from(jt).unwrap(),
        jf,
        k,
    };
    let mut filter = vec![step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0)];
    for (i, number) in numbers.iter().enumerate() {
        let number = u32::try_from(*number).unwrap();
        filter.push(step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, numbers.len() - i, 0, number));
    }
    filter.push(step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW));
    filter.push(step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_USER_NOTIF));
    let length = u16::try_from(filter.len()).unwrap();
    let install = move || {
        let program = libc::sock_fprog { len: length, filter: filter.as_mut_ptr() };
        // SAFETY: these calls only read their arguments, and the program and its steps outlive them.
        let listener = unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
            let (mode, flags) = (libc::SECCOMP_SET_MODE_FILTER, libc::SECCOMP_FILTER_FLAG_NEW_LISTENER);
            libc::syscall(libc::SYS_seccomp, mode, flags, &raw const program)
        };
        // Not closed by exec, unlike the listener itself.
        // SAFETY: a bare system call on numbers.
        let held =
            listener >= 0 && unsafe { libc::dup2(i32::try_from(listener).unwrap_or(-1), PLACE) } == PLACE;
        if held { Ok(()) } else { Err(io::Error::last_os_error()) }
    };
    // SAFETY: between fork and exec, `install` makes a few system calls and allocates nothing.
    unsafe { command.pre_exec(install) };
}

/// Whether this machine lets a test watch a program's calls.
pub fn are_possible() -> bool {
    let mut command = Command::new("true");
    // A call that the program does not make, so that this process has none to answer.
    watch(&mut command, &[libc::SYS_splice]);
    command.status().is_ok_and(|status| status.success())
}

/// Which call is to fail: the n-th of a worker from 0, with the code that is chosen for it, if there is one.
struct Plan {
    left: usize,
    code: Box<dyn Fn(Number) -> Option<i32> + Send>,
}

#[derive(Default)]
struct Shared {
    plan: Option<Plan>,
    /// The call that has failed last.
    failed: Option<(Number, i32)>,
}

/// The watched calls of a running program. They are let through, unless [`Self::fail`] makes them fail.
pub struct Calls {
    shared: Arc<Mutex<Shared>>,
    thread: Option<JoinHandle<()>>,
}

impl Calls {
    /// The calls of a program that was started with [`watch`].
    pub fn of(process: &Process) -> Calls {
        let (program, listener) =
            take_over(process.pid()).unwrap_or_else(|e| panic!("the calls cannot be watched: {e}"));
        let shared = Arc::<Mutex<Shared>>::default();
        let seen = Arc::clone(&shared);
        let thread = std::thread::spawn(move || supervise(&program, &listener, &seen));
        Calls { shared, thread: Some(thread) }
    }

    /// Has the `n`-th call of a worker from now on, from 0, fail with what `code` says of it; without a code it is not counted. Where
    /// that is ECONNRESET or ENOTCONN the connection is shut down too, as those codes say.
    pub fn fail(&self, n: usize, code: impl Fn(Number) -> Option<i32> + Send + 'static) {
        let plan = Plan { left: n, code: Box::new(code) };
        *self.shared.lock().unwrap() = Shared { plan: Some(plan), failed: None };
    }

    /// Lets every call through from now on.
    pub fn let_pass(&self) {
        self.shared.lock().unwrap().plan = None;
    }

    /// The call that has failed since then, and how.
    pub fn failed(&self) -> Option<(Number, i32)> {
        self.shared.lock().unwrap().failed
    }
}

impl Drop for Calls {
    /// Waits for the end of the program, which must come first.
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take().filter(|_| !std::thread::panicking()) {
            thread.join().unwrap();
        }
    }
}

/// The program `pid`, and the listener out of it.
fn take_over(pid: u32) -> io::Result<(OwnedFd, OwnedFd)> {
    // SAFETY: a bare system call on numbers.
    let program = owned(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    let listener = fetch(&program, PLACE)?;
    Ok((program, listener))
}

/// A descriptor that is also one of `program`'s.
fn fetch(program: &OwnedFd, number: i32) -> io::Result<OwnedFd> {
    // SAFETY: a bare system call on numbers.
    owned(unsafe { libc::syscall(libc::SYS_pidfd_getfd, program.as_raw_fd(), number, 0) })
}

fn owned(result: libc::c_long) -> io::Result<OwnedFd> {
    match i32::try_from(result) {
        // SAFETY: the kernel has just made this descriptor for us.
        Ok(number) if number >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(number) }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Answers for each call, until the program is gone.
fn supervise(program: &OwnedFd, listener: &OwnedFd, shared: &Mutex<Shared>) {
    let mut workers = HashMap::new();
    loop {
        let mut waits = libc::pollfd { fd: listener.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one pollfd, exclusively borrowed.
        unsafe { libc::poll(&raw mut waits, 1, -1) };
        if waits.revents & libc::POLLIN == 0 {
            return;
        }
        // SAFETY: plain data, for which zeros are a value.
        let mut call: libc::seccomp_notif = unsafe { std::mem::zeroed() };
        // SAFETY: the kernel fills exactly this struct.
        if unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut call) } != 0 {
            // Its thread was interrupted meanwhile.
            continue;
        }
        let is_worker = *workers.entry(call.pid).or_insert_with(|| is_worker(call.pid));
        let code = if is_worker { shared.lock().unwrap().verdict(call.data.nr.into()) } else { None };
        if matches!(code, Some(libc::ECONNRESET | libc::ENOTCONN)) {
            sever(program, call.data.args[0]);
        }
        let go_on = libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32;
        let (error, flags) = code.map_or((0, go_on), |code| (-code, 0));
        let mut answer = libc::seccomp_notif_resp { id: call.id, val: 0, error, flags };
        // SAFETY: the kernel reads exactly this struct. It fails only for a call that is not waited for any more.
        unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw mut answer) };
    }
}

impl Shared {
    fn verdict(&mut self, number: Number) -> Option<i32> {
        let plan = self.plan.as_mut()?;
        let code = (plan.code)(number)?;
        if plan.left > 0 {
            plan.left -= 1;
            return None;
        }
        self.plan = None;
        self.failed = Some((number, code));
        Some(code)
    }
}

/// Shuts a socket down whose call was failed with a code that means a reset.
fn sever(program: &OwnedFd, number: u64) {
    if let Ok(socket) = fetch(program, i32::try_from(number).unwrap()) {
        // SAFETY: a bare system call on numbers.
        unsafe { libc::shutdown(socket.as_raw_fd(), libc::SHUT_RDWR) };
    }
}

/// Whether a thread moves the clients' bytes, and not logs or the admin port's.
fn is_worker(thread: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{thread}/comm")).is_ok_and(|name| name.starts_with("worker-"))
}
