//! One state of the status: tables of rows and single sections, each of which is JSON text, so that two states can be compared.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use lb_observe::admin::{StatusPart, StatusState};

use super::json::{self, Object};

/// Everything that is shown at one moment.
#[derive(Debug)]
pub(super) struct Tables {
    pub(super) time_ms: i128,
    /// By name, each a JSON value.
    pub(super) sections: Vec<(&'static str, String)>,
    /// By name, each a list of rows.
    pub(super) tables: Vec<(&'static str, Vec<Shown>)>,
}

/// A row: what tells it from all others of its table, and its JSON.
#[derive(Debug)]
pub(super) struct Shown {
    pub(super) id: String,
    pub(super) json: String,
}

impl Tables {
    /// The state with this number, which follows `before`.
    pub(super) fn into_state(self: Rc<Self>, number: u64, before: Option<Rc<Self>>) -> Rc<StatusState> {
        StatusState::new(number, move |part, text| {
            let json = match (part, &before) {
                (StatusPart::Change, Some(before)) => self.since(before, number),
                _ => self.whole(number),
            };
            text.extend_from_slice(json.as_bytes());
        })
    }

    fn begin(&self, number: u64) -> Object {
        Object::new().number("number", number).number("time_ms", self.time_ms)
    }

    fn whole(&self, number: u64) -> String {
        let sections = self.sections.iter();
        let object = sections.fold(self.begin(number), |object, (name, json)| object.raw(name, json));
        let tables = self.tables.iter();
        let object = tables.fold(object, |object, (name, rows)| {
            object.raw(name, &json::list(rows.iter().map(|row| row.json.clone())))
        });
        object.end()
    }

    /// Sections and rows that are other than in `before`, and the rows that are gone.
    fn since(&self, before: &Self, number: u64) -> String {
        let sections = self.sections.iter().zip(&before.sections).filter(|(now, then)| now != then);
        let object = sections.fold(self.begin(number), |object, ((name, json), _)| object.raw(name, json));
        let (mut rows, mut gone) = (Object::new(), Object::new());
        for ((name, now), (_, then)) in self.tables.iter().zip(&before.tables) {
            let known: HashMap<&str, &str> =
                then.iter().map(|row| (row.id.as_str(), row.json.as_str())).collect();
            let differs = |row: &&Shown| known.get(row.id.as_str()) != Some(&row.json.as_str());
            let changed: Vec<String> = now.iter().filter(differs).map(|row| row.json.clone()).collect();
            if !changed.is_empty() {
                rows = rows.raw(name, &json::list(changed));
            }
            let there: HashSet<&str> = now.iter().map(|row| row.id.as_str()).collect();
            let mut left = then.iter().map(|row| row.id.as_str()).filter(|id| !there.contains(id)).peekable();
            if left.peek().is_some() {
                gone = gone.texts(name, left);
            }
        }
        object.raw("rows", &rows.end()).raw("gone", &gone.end()).end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tables(process: u32, rows: &[(&str, u32)]) -> Tables {
        let row = |(id, n): &(&str, u32)| Shown {
            id: (*id).to_owned(),
            json: Object::new().text("id", id).number("n", *n).end(),
        };
        Tables {
            time_ms: 5,
            sections: vec![("process", process.to_string()), ("other", "1".to_owned())],
            tables: vec![("pools", rows.iter().map(row).collect()), ("routes", Vec::new())],
        }
    }

    #[test]
    fn a_change_has_what_differs_and_nothing_else() {
        let before = tables(1, &[("a", 1), ("b", 1), ("c", 1)]);
        let now = tables(2, &[("a", 1), ("c", 2), ("d", 1)]);
        let read = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!(
            read(&now.since(&before, 8)),
            serde_json::json!({
                "number": 8, "time_ms": 5, "process": 2,
                "rows": { "pools": [{ "id": "c", "n": 2 }, { "id": "d", "n": 1 }] },
                "gone": { "pools": ["b"] },
            })
        );
        assert_eq!(
            read(&before.whole(7)),
            serde_json::json!({
                "number": 7, "time_ms": 5, "process": 1, "other": 1, "routes": [],
                "pools": [{ "id": "a", "n": 1 }, { "id": "b", "n": 1 }, { "id": "c", "n": 1 }],
            })
        );
    }
}
