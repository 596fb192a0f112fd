//! `expressgateway`: composition of the rooms into one process. What is decided is decided elsewhere.

mod acceptor;
mod alone;
mod api;
mod boot;
mod check;
mod cli;
mod control;
mod demo;
mod descriptors;
mod discovery;
mod drain;
mod faults;
mod gateway;
mod handshakes;
mod named_files;
mod names;
mod overlay;
mod pools;
mod probe;
mod refused;
mod reload;
mod sticky;
mod systemd;
mod tls;
mod together;
mod worker;

use std::process::ExitCode;

fn main() -> ExitCode {
    // Before anything else: a signal that comes earlier than its handler would end the process.
    lb_io::signals::hold();
    cli::run()
}
