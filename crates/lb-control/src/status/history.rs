//! What reloads have changed, the newest first.

use std::collections::VecDeque;
use std::time::{SystemTime, UNIX_EPOCH};

use lb_config::Plan;

use super::json::{self, Object};

/// Passes that are remembered.
const MOST_PASSES: usize = 20;

/// Lines that are remembered of a pass.
const MOST_LINES: usize = 50;

/// Characters of a line.
const MOST_CHARACTERS: usize = 400;

/// How a reload went.
#[derive(Clone, Debug)]
pub(crate) enum Pass {
    /// What the file says is in force, but for what needs a restart.
    Applied(Plan),
    /// Nothing is in force of it, for these reasons, a line each.
    Rejected(String),
}

/// The passes of this process.
#[derive(Debug, Default)]
pub(super) struct History(VecDeque<String>);

impl History {
    pub(super) fn add(&mut self, pass: &Pass, version: u64, at: SystemTime) {
        self.0.truncate(MOST_PASSES.saturating_sub(1));
        self.0.push_front(row(pass, version, at));
    }

    /// The newest pass.
    pub(super) fn newest(&self) -> &str {
        self.0.front().map_or("null", String::as_str)
    }

    pub(super) fn json(&self) -> String {
        json::list(self.0.iter().cloned())
    }
}

fn row(pass: &Pass, version: u64, at: SystemTime) -> String {
    let time = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let (outcome, live, restart, errors) = match pass {
        Pass::Applied(plan) => {
            let scopes = |changes: &[lb_config::KeyChange]| {
                changes.iter().map(|change| change.scope.clone()).collect::<Vec<_>>()
            };
            let outcome = if plan.is_empty() { "unchanged" } else { "applied" };
            (outcome, scopes(&plan.live), scopes(&plan.restart), Vec::new())
        }
        Pass::Rejected(error) => {
            ("rejected", Vec::new(), Vec::new(), error.lines().map(str::to_owned).collect())
        }
    };
    let left = |lines: &[String]| lines.len().saturating_sub(MOST_LINES);
    let left_off = left(&live).saturating_add(left(&restart)).saturating_add(left(&errors));
    let [live, restart, errors] = [live, restart, errors].map(cut);
    Object::new()
        .number("time_ms", i128::try_from(time).unwrap_or_default())
        .text("outcome", outcome)
        .number("version", version)
        .texts("live", live.iter().map(String::as_str))
        .texts("restart", restart.iter().map(String::as_str))
        .texts("errors", errors.iter().map(String::as_str))
        .number("left_off", i128::try_from(left_off).unwrap_or_default())
        .end()
}

fn cut(lines: Vec<String>) -> Vec<String> {
    let line = |line: String| match line.char_indices().nth(MOST_CHARACTERS) {
        Some((at, _)) => format!("{}…", line.get(..at).unwrap_or_default()),
        None => line,
    };
    lines.into_iter().take(MOST_LINES).map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_are_bounded_in_number_and_size() {
        let mut history = History::default();
        assert_eq!((history.newest(), history.json().as_str()), ("null", "[]"));
        let error = "ä".repeat(1000) + "\n" + &"line\n".repeat(100);
        for version in 0..50 {
            history.add(&Pass::Rejected(error.clone()), version, UNIX_EPOCH);
        }
        history.add(&Pass::Applied(Plan::default()), 51, UNIX_EPOCH);
        let passes: serde_json::Value = serde_json::from_str(&history.json()).unwrap();
        let passes = passes.as_array().unwrap();
        assert_eq!(passes.len(), MOST_PASSES);
        assert_eq!((&passes[0]["outcome"], &passes[0]["version"]), (&"unchanged".into(), &51.into()));
        assert_eq!(passes[1]["errors"].as_array().unwrap().len(), MOST_LINES);
        assert_eq!(passes[1]["left_off"], 101 - MOST_LINES);
        assert_eq!(passes[1]["errors"][0].as_str().unwrap().chars().count(), MOST_CHARACTERS + 1);
        assert_eq!(passes[1]["version"], 49);
    }
}
