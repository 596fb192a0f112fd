//! Reason codes: RUNBOOK.md has the table that METRICS.md is generated with.

use crate::text;

/// The lines of the table of reasons in a document.
fn table(document: &str) -> Vec<String> {
    let text = text(document);
    let lines = text.lines().skip_while(|line| !line.starts_with("| `reason` | Status"));
    lines.take_while(|line| line.starts_with('|')).map(str::to_owned).collect()
}

#[test]
fn runbook_lists_the_reasons_of_metrics() {
    let generated = table("METRICS.md");
    assert!(generated.len() > 50);
    assert_eq!(table("RUNBOOK.md"), generated, "copy the table of METRICS.md into RUNBOOK.md");
}
