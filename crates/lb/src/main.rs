//! `expressgateway`: composition of the rooms into one process. What is decided is decided elsewhere.

mod acceptor;
mod boot;
mod check;
mod cli;
mod control;
mod demo;
mod drain;
mod gateway;
mod names;
mod pools;
mod reload;
mod sticky;
mod tls;
mod worker;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run()
}
