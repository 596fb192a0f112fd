//! `expressgateway tap`: requests of a running gateway as they end.

use std::fmt::Write as _;
use std::io::Write;

use clap::Args;
use http_body_util::BodyExt;
use lb_control::ProcessOutcome;
use serde_json::Value;
use tokio::task::LocalSet;

use crate::admin_client::{AdminArgs, AdminClient, printable, runtime};

/// Bytes of a line that has not ended; the gateway's are shorter.
const MOST_LINE: usize = 256 * 1024;

/// Which requests are shown, and how. They are chosen in the gateway.
#[derive(Debug, Args)]
pub(crate) struct TapArgs {
    #[command(flatten)]
    admin: AdminArgs,
    /// Only requests that the route of this name took
    #[arg(long, value_name = "NAME")]
    route: Option<String>,
    /// Only requests with this status: 404, 5xx, 500-503, or none where no response was sent
    #[arg(long, value_name = "STATUS")]
    status: Option<String>,
    /// Only requests of clients in this network, such as 10.0.0.0/8
    #[arg(long, value_name = "CIDR")]
    client: Option<String>,
    /// Only requests at this listener
    #[arg(long, value_name = "ADDRESS")]
    listener: Option<String>,
    /// Only requests that this backend answered, or was tried last for
    #[arg(long, value_name = "NAME")]
    backend: Option<String>,
    /// Only requests that ended for this reason, by its code
    #[arg(long, value_name = "CODE")]
    reason: Option<String>,
    /// Only requests with this method
    #[arg(long, value_name = "METHOD")]
    method: Option<String>,
    /// Only requests that took so many milliseconds or longer
    #[arg(long, value_name = "MILLISECONDS")]
    slower_than: Option<u64>,
    /// Show the fields of the request too, secrets masked
    #[arg(long)]
    fields: bool,
    /// Requests a second that are shown, 1 to 1000; of more than that one in so many
    #[arg(long, value_name = "COUNT")]
    per_second: Option<u64>,
    /// End after so many requests
    #[arg(long, value_name = "NUMBER")]
    count: Option<u64>,
    /// Write each request as the line of JSON that the gateway sent
    #[arg(long)]
    json: bool,
}

/// Shows requests until it is told to end, or as many as were asked for.
pub(crate) fn run(args: &TapArgs) -> anyhow::Result<ProcessOutcome> {
    let client = AdminClient::of(&args.admin)?;
    LocalSet::new().block_on(&runtime()?, follow(args, &client))?;
    Ok(ProcessOutcome::Clean)
}

async fn follow(args: &TapArgs, client: &AdminClient) -> anyhow::Result<()> {
    let mut body = client.get(&format!("/tap?{}", args.query())).await?.into_body();
    let mut shown = Shown { left: args.count, json: args.json, missed: 0 };
    let mut pending = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        for piece in data.split_inclusive(|byte| *byte == b'\n') {
            pending.extend_from_slice(piece);
            if pending.ends_with(b"\n") {
                if shown.line(&pending)? {
                    return Ok(());
                }
                pending.clear();
            } else if pending.len() > MOST_LINE {
                anyhow::bail!("the gateway sends a line without an end");
            }
        }
    }
    anyhow::bail!("the gateway has closed the tap")
}

impl TapArgs {
    /// The conditions, as the admin port takes them.
    fn query(&self) -> String {
        let slower = self.slower_than.map(|millis| millis.to_string());
        let per_second = self.per_second.map(|count| count.to_string());
        let fields = self.fields.then(|| "1".to_owned());
        let conditions = [
            ("route", &self.route),
            ("status", &self.status),
            ("client", &self.client),
            ("listener", &self.listener),
            ("backend", &self.backend),
            ("reason", &self.reason),
            ("method", &self.method),
            ("slower_than_ms", &slower),
            ("per_second", &per_second),
            ("fields", &fields),
        ];
        let given = conditions.iter().filter_map(|(name, value)| Some((name, value.as_ref()?)));
        given.map(|(name, value)| format!("{name}={}", encoded(value))).collect::<Vec<_>>().join("&")
    }
}

/// A value in percent encoding (RFC 3986 §2.1).
fn encoded(value: &str) -> String {
    let mut text = String::new();
    for byte in value.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                text.push(char::from(byte));
            }
            _ => {
                let _ = write!(text, "%{byte:02X}");
            }
        }
    }
    text
}

/// What was written so far.
struct Shown {
    /// Requests until the end, where there is one.
    left: Option<u64>,
    json: bool,
    missed: u64,
}

impl Shown {
    /// Writes a line of the gateway; whether it was the last.
    fn line(&mut self, line: &[u8]) -> anyhow::Result<bool> {
        let value: Value = serde_json::from_slice(line)?;
        if let Some(counts) = value.get("tap") {
            let count = |name: &str| counts[name].as_u64().unwrap_or_default();
            let missed = count("matched").saturating_sub(count("shown"));
            if missed > self.missed {
                let more = missed.saturating_sub(self.missed);
                writeln!(std::io::stderr(), "… {more} more were not shown")?;
                self.missed = missed;
            }
            return Ok(false);
        }
        let mut out = std::io::stdout().lock();
        if self.json {
            out.write_all(line)?;
        } else {
            out.write_all(human(&value).as_bytes())?;
        }
        out.flush()?;
        self.left = self.left.map(|left| left.saturating_sub(1));
        Ok(self.left == Some(0))
    }
}

/// A request in a line, and its fields below it.
fn human(record: &Value) -> String {
    let text = |key: &str| printable(record[key].as_str().unwrap_or_default());
    let or_dash = |text: String| if text.is_empty() { "-".to_owned() } else { text };
    let status = record["status"].as_u64().map_or("---".to_owned(), |status| status.to_string());
    let millis = record["duration_seconds"].as_f64().unwrap_or_default() * 1e3;
    let mut line = format!(
        "{} {status} {:>8.1}ms {} {}{} from {} route {} backend {}",
        text("time"),
        millis,
        text("method"),
        text("host"),
        text("target"),
        text("client"),
        or_dash(text("route")),
        or_dash(text("backend")),
    );
    let reason = text("reason");
    if !reason.is_empty() {
        let _ = write!(line, " reason {reason}");
    }
    line.push('\n');
    for field in record["fields"].as_array().into_iter().flatten() {
        let part = |at: usize| printable(field[at].as_str().unwrap_or_default());
        let _ = writeln!(line, "    {}: {}", part(0), part(1));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_one_line_whatever_it_holds() {
        let record = serde_json::json!({
            "time": "2026-11-30T00:00:00.000Z", "status": 503, "duration_seconds": 0.0123, "method": "GET", "host": "a.example",
            "target": "/x\n\u{1b}[2J", "client": "192.0.2.1:4000", "route": "", "backend": null, "reason": "no_backend",
            "fields": [["cookie", "***"]],
        });
        assert_eq!(
            human(&record),
            "2026-11-30T00:00:00.000Z 503     12.3ms GET a.example/x\u{fffd}\u{fffd}[2J from 192.0.2.1:4000 route - backend - \
             reason no_backend\n    cookie: ***\n"
        );
        assert_eq!(encoded("10.0.0.0/8 ä&="), "10.0.0.0%2F8%20%C3%A4%26%3D");
    }
}
