//! The alerts and the dashboard ask for metrics, labels and label values that there are.

use std::collections::{BTreeMap, BTreeSet};

use crate::text;

const ALERTS: &str = "packaging/prometheus/alerts.yml";
const DASHBOARD: &str = "packaging/grafana/expressgateway.json";

/// Labels that Prometheus gives to every series.
const OF_THE_SCRAPE: &[&str] = &["job", "instance"];

/// Words of PromQL that are neither metrics nor functions.
const WORDS: &[&str] = &["and", "or", "unless", "bool", "by", "without", "on", "ignoring"];

/// A label, and its values where METRICS.md lists them.
type Labels = BTreeMap<String, BTreeSet<String>>;

/// The families of METRICS.md with their labels. A histogram stands under the names of its series, too.
fn families() -> BTreeMap<String, Labels> {
    let mut found = BTreeMap::from([("up".to_owned(), Labels::new())]);
    for line in text("METRICS.md").lines().filter(|line| line.starts_with("| `")) {
        let columns: Vec<_> = line.split(" | ").collect();
        let [name, kind, labels, ..] = columns.as_slice() else { continue };
        let name = name.trim_start_matches("| ").trim_matches('`');
        let mut of_family: Labels = labels
            .split(';')
            .filter_map(|label| label.trim().strip_prefix('`')?.split_once('`'))
            .map(|(label, values)| {
                let values =
                    values.trim().trim_start_matches('=').split(',').map(|value| value.trim().to_owned());
                (label.to_owned(), values.filter(|value| !value.is_empty()).collect())
            })
            .collect();
        if *kind == "histogram" {
            of_family.insert("le".to_owned(), BTreeSet::new());
            for suffix in ["bucket", "sum", "count"] {
                found.insert(format!("{name}_{suffix}"), of_family.clone());
            }
        }
        found.insert(name.to_owned(), of_family);
    }
    found
}

/// Reads one identifier from the front of `text`.
fn identifier(text: &str) -> &str {
    let end = text.find(|char: char| !char.is_ascii_alphanumeric() && char != '_').unwrap_or(text.len());
    &text[..end]
}

/// Checks the metrics, labels and values of `expression`; the labels that its result has, if it names them by `by (…)`.
fn check(expression: &str, families: &BTreeMap<String, Labels>, place: &str) -> Option<BTreeSet<String>> {
    let mut rest = expression;
    let (mut known, mut grouped) =
        (OF_THE_SCRAPE.iter().map(|label| (*label).to_owned()).collect::<BTreeSet<_>>(), None);
    let mut groups: Vec<String> = Vec::new();
    let mut metrics = 0;
    while let Some(start) = rest.find(|char: char| char.is_ascii_alphabetic() || char == '"' || char == '[') {
        rest = &rest[start..];
        if rest.starts_with('"') {
            rest = rest[1..].split_once('"').unwrap().1;
            continue;
        }
        if rest.starts_with('[') {
            rest = rest.split_once(']').unwrap().1;
            continue;
        }
        let word = identifier(rest);
        rest = &rest[word.len()..];
        if ["by", "on", "ignoring"].contains(&word) {
            let (list, after) = rest.trim_start().trim_start_matches('(').split_once(')').unwrap();
            groups.extend(list.split(',').map(|label| label.trim().to_owned()));
            rest = after;
        } else if !WORDS.contains(&word) && !rest.starts_with('(') && !rest.starts_with(" by ") {
            let labels =
                families.get(word).unwrap_or_else(|| panic!("{place}: no metric {word} in METRICS.md"));
            metrics += 1;
            known.extend(labels.keys().cloned());
            if let Some(selector) = rest.strip_prefix('{') {
                let (selector, after) = selector.split_once('}').unwrap();
                check_selector(selector, labels, &format!("{place}: {word}"));
                rest = after;
            }
        }
    }
    assert!(metrics > 0, "{place}: no metric in {expression}");
    for label in groups {
        assert!(known.contains(&label), "{place}: no metric of it has the label {label}");
        grouped.get_or_insert_with(BTreeSet::new).insert(label);
    }
    Some(grouped.unwrap_or(known))
}

fn check_selector(selector: &str, labels: &Labels, place: &str) {
    for condition in selector.split(',') {
        let label = identifier(condition);
        let value = condition.split('"').nth(1).unwrap_or_else(|| panic!("{place}: {condition}"));
        if OF_THE_SCRAPE.contains(&label) {
            continue;
        }
        let values = labels.get(label).unwrap_or_else(|| panic!("{place} has no label {label}"));
        let is_listed = |value: &str| values.is_empty() || value.starts_with('$') || values.contains(value);
        assert!(value.split('|').all(is_listed), "{place}: {label} is never {value}");
    }
}

/// The alerts: name, expression, and all text that is shown.
fn alerts() -> Vec<(String, String, String)> {
    let text = text(ALERTS);
    text.split("- alert: ")
        .skip(1)
        .map(|alert| {
            let (name, rest) = alert.split_once('\n').unwrap();
            let (_, rest) = rest.split_once("expr:").unwrap();
            let end = rest.find("        for:").or_else(|| rest.find("        labels:")).unwrap();
            (name.to_owned(), rest[..end].trim_start_matches(" |").to_owned(), rest[end..].to_owned())
        })
        .collect()
}

#[test]
fn alerts_ask_for_what_there_is_and_show_labels_that_they_have() {
    let families = families();
    assert!(families.len() > 90, "{} families were read", families.len());
    let alerts = alerts();
    assert!(alerts.len() >= 30, "{} alerts were read", alerts.len());
    let runbook = text("RUNBOOK.md");
    for (name, expression, shown) in alerts {
        let labels = check(&expression, &families, &name).unwrap();
        for label in shown.split("$labels.").skip(1).map(identifier) {
            assert!(labels.contains(label), "{name} shows {label}, which its expression does not keep");
        }
        assert!(runbook.contains(&format!("| `{name}` |")), "RUNBOOK.md does not say what {name} means");
    }
}

#[test]
fn the_dashboard_asks_for_what_there_is() {
    let families = families();
    let dashboard: serde_json::Value = serde_json::from_str(&text(DASHBOARD)).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let mut queries = 0;
    for panel in panels {
        let title = panel["title"].as_str().unwrap();
        for target in panel["targets"].as_array().into_iter().flatten() {
            let labels = check(target["expr"].as_str().unwrap(), &families, title).unwrap();
            for label in target["legendFormat"].as_str().unwrap().split("{{").skip(1).map(identifier) {
                assert!(labels.contains(label), "{title} shows {label}, which its query does not keep");
            }
            queries += 1;
        }
        if panel["type"] != "row" {
            assert!(panel["description"].as_str().is_some_and(|text| text.ends_with('.')), "{title}");
        }
    }
    assert!(queries > 40, "{queries} queries were read");
    for variable in dashboard["templating"]["list"].as_array().unwrap() {
        if let Some(query) = variable["query"]["query"].as_str() {
            let (series, label) = query.strip_prefix("label_values(").unwrap().rsplit_once(", ").unwrap();
            let labels = check(series, &families, query).unwrap();
            assert!(labels.contains(label.trim_end_matches(')')), "{query}");
        }
    }
}

#[test]
fn what_there_is_not_is_found() {
    let families = families();
    let fails = |expression: &str| std::panic::catch_unwind(|| check(expression, &families, "it")).is_err();
    assert!(!fails("sum by (listener) (rate(http_requests_total{status_class=\"5xx\"}[5m])) > 1"));
    assert!(fails("sum(rate(http_request_total[5m]))"), "an unknown metric");
    assert!(fails("http_requests_total{status=\"500\"}"), "an unknown label");
    assert!(fails("http_requests_total{status_class=\"5xx|6xx\"}"), "an unknown value");
    assert!(fails("sum by (pool) (http_requests_total)"), "a label that the metric has not");
}
