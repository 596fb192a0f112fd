//! `expressgateway`: composition of the rooms into one process. What is decided is decided elsewhere.

mod acceptor;
mod api;
mod boot;
mod check;
mod cli;
mod control;
mod demo;
mod discovery;
mod drain;
mod gateway;
mod handshakes;
mod names;
mod overlay;
mod pools;
mod probe;
mod refused;
mod reload;
mod sticky;
mod tls;
mod together;
mod worker;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run()
}
