//! The code spans of a Markdown document, and the tables in which they stand.

/// Text between backticks, outside fenced blocks.
#[derive(Debug)]
pub(crate) struct Span {
    /// Line of the document, counted from 1.
    pub(crate) line: usize,
    /// The text, on one line.
    pub(crate) text: String,
    /// Where it stands, if that is a table.
    pub(crate) cell: Option<Cell>,
}

/// A cell of a table.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    /// The heading of its column.
    pub(crate) heading: String,
    /// What stands in the column `Level` of its row; empty where there is none.
    pub(crate) level: String,
}

/// All code spans of a document.
pub(crate) fn spans(text: &str) -> Vec<Span> {
    let mut spans = Vec::new();
    let mut headings: Option<Vec<String>> = None;
    let mut paragraph = String::new();
    let mut begins = 1;
    let mut fenced = false;
    for (index, line) in text.lines().chain([""]).enumerate() {
        let is_fence = line.trim_start().starts_with("```");
        fenced ^= is_fence;
        let is_row = line.starts_with('|');
        if fenced || is_fence || is_row || line.trim().is_empty() {
            collect(&paragraph, begins, None, &mut spans);
            paragraph.clear();
            begins = index + 2;
        } else {
            if paragraph.is_empty() {
                begins = index + 1;
            }
            paragraph.push_str(line);
            paragraph.push('\n');
        }
        if !is_row || fenced {
            headings = None;
            continue;
        }
        let cells = cells(line);
        let Some(headings) = &headings else {
            headings = Some(cells);
            continue;
        };
        let level = headings.iter().position(|heading| heading == "Level").and_then(|at| cells.get(at));
        for (heading, cell) in headings.iter().zip(&cells) {
            let place = Cell { heading: heading.clone(), level: level.cloned().unwrap_or_default() };
            collect(cell, index + 1, Some(&place), &mut spans);
        }
    }
    spans
}

fn cells(row: &str) -> Vec<String> {
    row.trim().trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()
}

fn collect(text: &str, line: usize, cell: Option<&Cell>, into: &mut Vec<Span>) {
    let mut line = line;
    for (index, piece) in text.split('`').enumerate() {
        if index % 2 == 1 {
            let words: Vec<&str> = piece.split_whitespace().collect();
            into.push(Span { line, text: words.join(" "), cell: cell.cloned() });
        }
        line += piece.matches('\n').count();
    }
}

#[test]
fn spans_know_line_and_column() {
    let text = "One `a\nb` two\n\n| Line | Level |\n|---|---|\n| `c d`, `e` | warn |\n\n```sh\n`no`\n```\nEnd `f`.\n";
    let found: Vec<_> = spans(text)
        .into_iter()
        .map(|span| (span.line, span.text, span.cell.map(|cell| (cell.heading, cell.level))))
        .collect();
    let cell = |text: &str| Some((text.to_owned(), "warn".to_owned()));
    let expected = [(1, "a b", None), (6, "c d", cell("Line")), (6, "e", cell("Line")), (11, "f", None)];
    assert_eq!(found, expected.map(|(line, text, cell)| (line, text.to_owned(), cell)));
}
