//! `expressgateway`: composition of the rooms into one process. What is decided is decided elsewhere.

mod acceptor;
mod admin_client;
mod boot;
mod check;
mod cli;
mod demo;
mod explain;
mod gateway;
mod generate;
mod import;
mod plan;
mod simulate;
mod tap;
mod top;
mod worker;
mod xdp;

use std::process::ExitCode;

fn main() -> ExitCode {
    // Before anything else: a signal that comes earlier than its handler would end the process.
    lb_io::signals::hold();
    // Before the process opens a descriptor of its own.
    let inherited = lb_io::inherited::Inherited::take();
    cli::run(inherited)
}
