//! `expressgateway plan`: asks a process that runs what a new file would change.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use lb_control::Source;
use serde_json::{Value, json};
use tokio::task::LocalSet;

use crate::admin_client::{AdminClient, runtime};
use crate::cli::PlanArgs;

/// What the command ends with where something would change.
const CHANGES: u8 = 2;

/// Asks about the file that the arguments name.
pub(crate) fn run(args: &PlanArgs) -> anyhow::Result<ExitCode> {
    let text = Source::File(args.file.clone()).read()?;
    let files = text.files().map(|(name, text)| json!({ "name": name, "text": text }));
    let body = json!({ "files": files.collect::<Vec<_>>() }).to_string();
    let client = AdminClient::of_file(&args.admin, Some(&args.file))?;
    let answer = LocalSet::new().block_on(&runtime()?, client.ask("/plan", body))?;
    let mut out = std::io::stdout().lock();
    let plan: Value = serde_json::from_slice(&answer).context("the answer is not JSON")?;
    if args.json {
        out.write_all(&answer)?;
    } else {
        write(&mut out, &plan, &args.file)?;
    }
    let changes = ["changes", "backends", "routes"].into_iter().any(|list| !list_of(&plan, list).is_empty());
    Ok(if changes { ExitCode::from(CHANGES) } else { ExitCode::SUCCESS })
}

/// What is told to people: one line a change.
fn write(out: &mut impl Write, plan: &Value, file: &Path) -> std::io::Result<()> {
    for warning in list_of(plan, "warnings") {
        writeln!(out, "warning: {}", warning.as_str().unwrap_or_default())?;
    }
    let (changes, backends, routes) =
        (list_of(plan, "changes"), list_of(plan, "backends"), list_of(plan, "routes"));
    if changes.is_empty() && backends.is_empty() && routes.is_empty() {
        let version = plan.get("version").and_then(Value::as_u64).unwrap_or(0);
        return writeln!(out, "{}: changes nothing of version {version}, which runs", file.display());
    }
    for change in changes {
        let effect = match text(change, "effect") {
            "connections_end" => "live, connections end",
            effect => effect,
        };
        writeln!(out, "{effect}: {} ({})", text(change, "what"), open(change))?;
    }
    for one in backends {
        let (pool, backend, change) = (text(one, "pool"), text(one, "backend"), text(one, "change"));
        let keys: Vec<&str> = list_of(one, "keys").iter().filter_map(Value::as_str).collect();
        let keys = if keys.is_empty() { String::new() } else { format!(": {}", keys.join(", ")) };
        let requests = counted(number(one, "requests"), "request");
        writeln!(out, "backend {backend} of pool {pool} {change}{keys} ({}, {requests})", open(one))?;
    }
    for one in routes {
        let (listener, route, change) = (text(one, "listener"), text(one, "route"), text(one, "change"));
        writeln!(out, "route {route} of listener {listener} {change} ({})", open(one))?;
    }
    Ok(())
}

fn list_of<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn number(value: &Value, key: &str) -> u64 {
    value.get(key).and_then(Value::as_u64).unwrap_or(0)
}

fn open(value: &Value) -> String {
    counted(number(value, "connections"), "connection")
}

fn counted(number: u64, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}
