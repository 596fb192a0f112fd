//! `expressgateway top`: how a running gateway stands, in a terminal.

mod screen;

use std::io::{IsTerminal, Write};
use std::time::Duration;

use anyhow::Context;
use clap::{Args, ValueEnum};
use lb_control::ProcessOutcome;
use serde_json::Value;
use tokio::task::LocalSet;

use crate::admin_client::{AdminArgs, AdminClient, runtime};
use screen::{Screen, View};

/// How a running gateway is looked at.
#[derive(Debug, Args)]
pub(crate) struct TopArgs {
    #[command(flatten)]
    admin: AdminArgs,
    /// Write it once and end, as it is done where standard output is no terminal
    #[arg(long)]
    once: bool,
    /// Write the JSON of the admin port, once
    #[arg(long)]
    json: bool,
    /// What comes first
    #[arg(long, value_enum, default_value = "state")]
    sort: Sort,
    /// Only the backends of this pool
    #[arg(long, value_name = "NAME")]
    pool: Option<String>,
    /// Rows of each table; without it as many as there is room for
    #[arg(long, value_name = "COUNT")]
    rows: Option<usize>,
    /// Seconds from one look to the next
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = clap::value_parser!(u64).range(1..=3600))]
    interval: u64,
}

/// What comes first in the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Sort {
    /// What is wrong, then what has most requests
    State,
    /// What has most requests
    Requests,
    /// What fails most
    Errors,
    /// What is slowest
    Latency,
    /// By name
    Name,
}

/// Looks until it is told to end.
pub(crate) fn run(args: &TopArgs) -> anyhow::Result<ProcessOutcome> {
    let client = AdminClient::of(&args.admin)?;
    LocalSet::new().block_on(&runtime()?, look(args, &client))?;
    Ok(ProcessOutcome::Clean)
}

async fn look(args: &TopArgs, client: &AdminClient) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    let is_once = args.once || args.json || !out.is_terminal();
    let interval = Duration::from_secs(args.interval);
    if is_once {
        // Rates are taken over the time since the look before.
        client.text("/status").await?;
        tokio::time::sleep(interval).await;
        let text = client.text("/status").await?;
        if args.json {
            out.write_all(&text)?;
            return Ok(());
        }
        let view = View {
            sort: args.sort,
            pool: args.pool.as_deref(),
            rows: args.rows.unwrap_or(usize::MAX),
            width: None,
        };
        return Ok(out.write_all(Screen::of(&read(&text)?, &view).text().as_bytes())?);
    }
    loop {
        let status = read(&client.text("/status").await?)?;
        let (width, height) = size();
        let view = View {
            sort: args.sort,
            pool: args.pool.as_deref(),
            rows: args.rows.unwrap_or(height),
            width: Some(width),
        };
        let text = Screen::of(&status, &view).fitted(height);
        // Each line is cleared to its end, and what is below the last: nothing flickers.
        out.write_all(format!("\x1b[H{}\x1b[J", text.replace('\n', "\x1b[K\r\n")).as_bytes())?;
        out.flush()?;
        tokio::time::sleep(interval).await;
    }
}

fn read(text: &[u8]) -> anyhow::Result<Value> {
    serde_json::from_slice(text).context("the admin port does not answer as this version does")
}

/// Columns and lines of the terminal.
fn size() -> (usize, usize) {
    match rustix::termios::tcgetwinsize(std::io::stdout()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col.into(), size.ws_row.into()),
        _ => (80, 24),
    }
}
