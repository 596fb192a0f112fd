//! Processes that take over from a gateway (SIGUSR2).

use crate::gateway::Gateway;
use crate::process::{Process, SIGKILL, SIGUSR2, signal_process};
use crate::seconds;

/// A process that a gateway has started. It is killed when this is dropped.
#[derive(Debug)]
pub struct Successor(i32);

impl Successor {
    /// The one that a line of the log from number `from` on tells of.
    #[track_caller]
    pub fn of(gateway: &Gateway, from: usize) -> Self {
        Self::started_by(&gateway.process, from)
    }

    #[track_caller]
    fn started_by(process: &Process, from: usize) -> Self {
        let told = |line: &str| line.contains("upgrade: new process started");
        let line = process.stderr.wait_from(from, seconds(10), told).expect("a process is started");
        let digits: String =
            line.split("\"pid\":").nth(1).unwrap().chars().take_while(char::is_ascii_digit).collect();
        Self(digits.parse().unwrap())
    }

    /// Has a new process take over, and waits until it serves.
    #[track_caller]
    pub fn takes_over(gateway: &Gateway) -> Self {
        Self::takes_over_from(&gateway.process)
    }

    /// The same, of a process by itself.
    #[track_caller]
    pub fn takes_over_from(process: &Process) -> Self {
        let from = process.stderr.len();
        process.signal(SIGUSR2);
        let successor = Self::started_by(process, from);
        let serves = |line: &str| line.contains("upgrade: the new process serves");
        let told = process.stderr.wait_from(from, seconds(20), serves);
        assert!(told.is_some(), "the new process does not serve: {}", process.tail(20));
        successor
    }

    /// Its number.
    pub fn pid(&self) -> i32 {
        self.0
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: i32) {
        signal_process(self.0, signal);
    }

    /// Whether it runs.
    pub fn is_alive(&self) -> bool {
        let state = std::fs::read_to_string(format!("/proc/{}/stat", self.0)).unwrap_or_default();
        state.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.trim_start().starts_with('Z'))
    }
}

impl Drop for Successor {
    fn drop(&mut self) {
        if self.is_alive() {
            self.signal(SIGKILL);
        }
    }
}
