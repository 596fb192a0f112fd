//! The text of `top`: tables of fixed width, made of the status alone.

use std::cmp::Ordering;
use std::fmt::Write;

use serde_json::Value;

use super::Sort;
use crate::admin_client::printable;

/// What is shown, and how.
#[derive(Clone, Copy, Debug)]
pub(super) struct View<'a> {
    pub(super) sort: Sort,
    /// Only the backends of this pool.
    pub(super) pool: Option<&'a str>,
    /// Rows of each table at most.
    pub(super) rows: usize,
    /// Columns of the terminal; as many as are needed where there is none.
    pub(super) width: Option<usize>,
}

/// What stands on the screen.
#[derive(Debug)]
pub(super) struct Screen {
    head: Vec<String>,
    /// A title, the heads of the columns, and rows.
    tables: Vec<(String, Vec<String>)>,
    width: usize,
}

/// Names take so much room, at most.
const MOST_NAME: usize = 44;

impl Screen {
    pub(super) fn of(status: &Value, view: &View<'_>) -> Self {
        let process = &status["process"];
        let per_second = |key: &str| rate(&process[key]);
        let head = vec![
            format!(
                "ExpressGateway {}  {}  up {}  configuration {}  {}",
                text(&process["version"]),
                text(&process["state"]),
                span(process["uptime_seconds"].as_u64().unwrap_or_default()),
                process["config_version"],
                text(&process["config"]),
            ),
            format!(
                "requests/s {}  errors/s {}  p50 {}  p90 {}  p99 {}  connections {}  new/s {}",
                per_second("requests_per_second"),
                per_second("errors_per_second"),
                millis(&process["p50_ms"]),
                millis(&process["p90_ms"]),
                millis(&process["p99_ms"]),
                process["connections"],
                per_second("connections_per_second"),
            ),
            workers(status),
        ];
        let rows = |name: &str| status[name].as_array().map(Vec::as_slice).unwrap_or_default();
        let mut tables = vec![
            table("POOLS", rows("pools"), view, &POOL_COLUMNS),
            table("BACKENDS", &of_pool(rows("backends"), view.pool), view, &BACKEND_COLUMNS),
            table("ROUTES", rows("routes"), view, &ROUTE_COLUMNS),
            table("LISTENERS", rows("listeners"), view, &LISTENER_COLUMNS),
            table("ERRORS BY REASON", rows("reasons"), view, &REASON_COLUMNS),
            table("CERTIFICATES", rows("certificates"), view, &CERTIFICATE_COLUMNS),
        ];
        tables.retain(|(_, rows)| rows.len() > 1);
        Self { head, tables, width: view.width.unwrap_or(usize::MAX) }
    }

    /// All of it.
    pub(super) fn text(&self) -> String {
        self.with_rows(usize::MAX)
    }

    /// As much of each table as there is room for on so many lines.
    pub(super) fn fitted(&self, height: usize) -> String {
        let mut most = height;
        loop {
            let text = self.with_rows(most);
            if text.lines().count() < height || most <= 1 {
                let lines: Vec<&str> = text.lines().take(height.saturating_sub(1)).collect();
                return lines.join("\n") + "\n";
            }
            most = most.saturating_sub(1);
        }
    }

    fn with_rows(&self, most: usize) -> String {
        let mut out = String::new();
        let mut line = |line: &str| {
            let cut: String = line.trim_end().chars().take(self.width).collect();
            let _ = writeln!(out, "{cut}");
        };
        self.head.iter().for_each(|text| line(text));
        for (title, rows) in &self.tables {
            line("");
            let count = rows.len().saturating_sub(1);
            let shown = count.min(most);
            line(&if shown < count { format!("{title}  {shown} of {count}") } else { title.clone() });
            rows.iter().take(shown.saturating_add(1)).for_each(|row| line(row));
        }
        out
    }
}

/// A column: its head, and its cell.
type Column = (&'static str, fn(&Value) -> String);

const REQUESTS: Column = ("REQ/S", |row| rate(&row["requests_per_second"]));
const ERRORS: Column = ("ERR/S", |row| rate(&row["errors_per_second"]));
const P50: Column = ("P50", |row| millis(&row["p50_ms"]));
const P90: Column = ("P90", |row| millis(&row["p90_ms"]));
const P99: Column = ("P99", |row| millis(&row["p99_ms"]));
const INFLIGHT: Column = ("INFLIGHT", |row| number(&row["inflight"]));
const CONNECTIONS: Column = ("CONNS", |row| number(&row["connections"]));

const POOL_COLUMNS: [Column; 9] = [
    ("POOL", |row| text(&row["name"])),
    ("STATE", |row| if row["panic"] == true { "panic".to_owned() } else { String::new() }),
    ("FIT", |row| format!("{}/{}", row["fit"], row["backends"])),
    REQUESTS,
    ERRORS,
    P50,
    P90,
    P99,
    INFLIGHT,
];
const BACKEND_COLUMNS: [Column; 11] = [
    ("BACKEND", |row| text(&row["backend"])),
    ("POOL", |row| text(&row["pool"])),
    ("STATE", |row| text(&row["state"])),
    ("WEIGHT", |row| number(&row["weight"])),
    REQUESTS,
    ("FAIL/S", |row| rate(&row["failures_per_second"])),
    P50,
    P99,
    INFLIGHT,
    CONNECTIONS,
    ("WHY", why),
];
const ROUTE_COLUMNS: [Column; 8] = [
    ("ROUTE", |row| text(&row["name"])),
    ("HOSTS", |row| list(&row["hosts"])),
    ("GOES TO", |row| text(&row["target"])),
    REQUESTS,
    ERRORS,
    P50,
    P90,
    P99,
];
const LISTENER_COLUMNS: [Column; 8] = [
    ("LISTENER", |row| text(&row["name"])),
    ("PROTOCOL", |row| text(&row["protocol"])),
    CONNECTIONS,
    REQUESTS,
    ERRORS,
    P50,
    P90,
    P99,
];
const REASON_COLUMNS: [Column; 4] = [
    ("REASON", |row| text(&row["reason"])),
    ("METRIC", |row| text(&row["metric"])),
    ("PER SECOND", |row| rate(&row["per_second"])),
    ("TOTAL", |row| number(&row["total"])),
];
const CERTIFICATE_COLUMNS: [Column; 3] = [
    ("CERTIFICATE", |row| text(&row["file"])),
    ("LISTENER", |row| text(&row["listener"])),
    ("DAYS LEFT", |row| number(&row["days_left"])),
];

fn of_pool(rows: &[Value], pool: Option<&str>) -> Vec<Value> {
    rows.iter().filter(|row| pool.is_none_or(|pool| row["pool"] == pool)).cloned().collect()
}

fn table(title: &str, rows: &[Value], view: &View<'_>, columns: &[Column]) -> (String, Vec<String>) {
    let mut sorted: Vec<&Value> = rows.iter().collect();
    sorted.sort_by(|one, other| order(one, other, view.sort));
    let heads = columns.iter().map(|(head, _)| (*head).to_owned()).collect();
    let mut cells: Vec<Vec<String>> = vec![heads];
    let rows = sorted.into_iter().take(view.rows);
    cells.extend(rows.map(|row| columns.iter().map(|(_, cell)| cut(cell(row))).collect()));
    let width = |at: usize| cells.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns.len()).map(|at| width(at).unwrap_or_default()).collect();
    let lines = cells.iter().map(|row| {
        let padded = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        padded.collect::<Vec<_>>().join("  ")
    });
    (title.to_owned(), lines.collect())
}

fn order(one: &Value, other: &Value, sort: Sort) -> Ordering {
    let by = |key: &str| {
        let value = |row: &Value| row[key].as_f64().unwrap_or(-1.0);
        value(other).total_cmp(&value(one))
    };
    let failures =
        || by("errors_per_second").then_with(|| by("failures_per_second")).then_with(|| by("per_second"));
    let requests = || by("requests_per_second").then_with(|| by("total"));
    match sort {
        Sort::State => gravity(other).cmp(&gravity(one)).then_with(requests),
        Sort::Requests => requests(),
        Sort::Errors => failures().then_with(requests),
        Sort::Latency => by("p99_ms").then_with(requests),
        Sort::Name => Ordering::Equal,
    }
}

/// How much is wrong with a row.
fn gravity(row: &Value) -> u8 {
    match row["state"].as_str() {
        Some("ejected" | "down" | "resting") => 3,
        Some("draining" | "no weight") => 2,
        Some("probation") => 1,
        _ => u8::from(row["fit"].as_u64() < row["backends"].as_u64()),
    }
}

fn workers(status: &Value) -> String {
    let workers = status["workers"].as_array().map(Vec::as_slice).unwrap_or_default();
    let loads = workers.iter().map(|worker| match worker["load"].as_f64() {
        Some(load) => format!("{:.0}%", load * 100.0),
        None => "-".to_owned(),
    });
    format!("workers {}", loads.collect::<Vec<_>>().join(" "))
}

fn why(row: &Value) -> String {
    let why = text(&row["why"]).replace('_', " ");
    match row["over_in_seconds"].as_u64() {
        Some(seconds) => format!("{why}, over in {}", span(seconds)),
        None => why,
    }
}

fn text(value: &Value) -> String {
    printable(value.as_str().unwrap_or_default())
}

fn list(value: &Value) -> String {
    let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
    items.iter().map(text).collect::<Vec<_>>().join(",")
}

fn number(value: &Value) -> String {
    if value.is_number() { value.to_string() } else { "-".to_owned() }
}

fn rate(value: &Value) -> String {
    match value.as_f64() {
        Some(rate) if rate > 0.0 && rate < 10.0 => format!("{rate:.1}"),
        Some(rate) => format!("{rate:.0}"),
        None => "-".to_owned(),
    }
}

fn millis(value: &Value) -> String {
    match value.as_f64() {
        Some(millis) if millis >= 1000.0 => format!("{:.1}s", millis / 1000.0),
        Some(millis) if millis >= 10.0 => format!("{millis:.0}ms"),
        Some(millis) => format!("{millis:.1}ms"),
        None => "-".to_owned(),
    }
}

fn span(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h{:02}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

fn cut(text: String) -> String {
    if text.chars().count() <= MOST_NAME {
        return text;
    }
    text.chars().take(MOST_NAME.saturating_sub(1)).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn status() -> Value {
        let backend = |name: &str, state: &str, rate: f64| {
            json!({ "backend": name, "pool": "web", "state": state, "weight": 1, "requests_per_second": rate,
                    "failures_per_second": 0.0, "p50_ms": 1.25, "p99_ms": 1500.0, "inflight": 2, "connections": 3,
                    "why": "consecutive_5xx", "over_in_seconds": if state == "ejected" { json!(61) } else { json!(null) } })
        };
        json!({
            "process": { "version": "1", "state": "ok", "uptime_seconds": 3700, "config_version": 2, "config": "lb.toml",
                         "requests_per_second": 1234.5, "errors_per_second": 0.25, "p50_ms": null, "connections": 9 },
            "workers": [{ "load": 0.421 }, { "load": null }],
            "backends": [backend("10.0.0.1:80", "up", 5.0), backend("10.0.0.2:80", "ejected", 0.0),
                         backend("evil\u{1b}[2J", "up", 50.0)],
            "routes": [],
        })
    }

    fn screen(sort: Sort, width: Option<usize>) -> Screen {
        Screen::of(&status(), &View { sort, pool: Some("web"), rows: 10, width })
    }

    #[test]
    fn what_is_wrong_comes_first_and_nothing_moves_the_cursor() {
        let text = screen(Sort::State, None).text();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "ExpressGateway 1  ok  up 1h01m  configuration 2  lb.toml");
        assert!(lines[1].starts_with("requests/s 1234  errors/s 0.2  p50 -"), "{text}");
        assert_eq!(lines[2], "workers 42% -");
        assert_eq!(
            &lines[4..6],
            [
                "BACKENDS",
                "BACKEND      POOL  STATE    WEIGHT  REQ/S  FAIL/S  P50    P99   INFLIGHT  CONNS  WHY"
            ]
        );
        assert_eq!(
            lines[6],
            "10.0.0.2:80  web   ejected  1       0      0       1.2ms  1.5s  2         3      consecutive 5xx, over in 1m01s"
        );
        assert!(lines[7].starts_with("evil\u{fffd}[2J"), "{text}");
        assert_eq!(lines.len(), 9);
        assert!(!text.contains('\u{1b}'));
        let other = screen(Sort::Name, None).text();
        assert!(other.lines().nth(6).unwrap().starts_with("10.0.0.1:80"));
    }

    #[test]
    fn a_screen_fits_its_terminal() {
        let screen = screen(Sort::State, Some(30));
        for height in 1..20 {
            let text = screen.fitted(height);
            assert!(text.lines().count() <= height, "{height}: {text}");
            assert!(text.lines().all(|line| line.chars().count() <= 30));
        }
        assert!(screen.fitted(9).contains("BACKENDS  2 of 3"), "{}", screen.fitted(9));
    }
}
