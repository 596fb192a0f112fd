//! Edits of fields, for all requests of a frontend.

use super::super::ledger::{DirectiveId, Ledger};
use super::super::output::{Block, texts};
use super::syntax::Line;

/// The edits, by the key of a route.
#[derive(Debug, Default)]
pub(super) struct Edits(Vec<(&'static str, Vec<(String, DirectiveId)>)>);

impl Edits {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Gives them to a route.
    pub(super) fn dress(&self, route: &mut Block) {
        for (key, edits) in &self.0 {
            let values: Vec<_> = edits.iter().map(|(value, _)| value).collect();
            let ids: Vec<_> = edits.iter().map(|(_, id)| *id).collect();
            route.key(key, texts(&values), &ids);
        }
    }

    fn add(&mut self, key: &'static str, value: String, id: DirectiveId) {
        match self.0.iter_mut().find(|(known, _)| *known == key) {
            Some((_, edits)) => edits.push((value, id)),
            None => self.0.push((key, vec![(value, id)])),
        }
    }
}

/// The edits among lines that have no condition.
pub(super) fn of(lines: &[Line], ledger: &mut Ledger) -> Edits {
    let mut edits = Edits::default();
    for line in lines {
        let keys = match line.word(0) {
            "http-request" => ["request_headers.set", "request_headers.add", "request_headers.remove"],
            "http-response" => ["response_headers.set", "response_headers.add", "response_headers.remove"],
            _ => continue,
        };
        let key = match (line.word(1), keys) {
            ("set-header", [set, ..]) => set,
            ("add-header", [_, add, _]) => add,
            ("del-header", [.., remove]) => remove,
            _ => continue,
        };
        let id = line.id;
        // The scheme is told by itself, under whatever condition.
        if line.word(2).to_ascii_lowercase().starts_with("x-forwarded-") {
            ledger.needless(id, "the gateway tells backends the client by itself");
            continue;
        }
        if line.words.iter().any(|word| word == "if" || word == "unless") {
            ledger.lost(id, "an edit under a condition stands in a route of its own, with the condition");
            continue;
        }
        if key.ends_with("remove") {
            edits.add(key, line.word(2).to_owned(), id);
            ledger.carried(id);
            continue;
        }
        match template(line.word(3)) {
            Some(value) => {
                edits.add(key, format!("{}: {value}", line.word(2)), id);
                ledger.carried(id);
            }
            None => ledger.lost(id, "write it in `request_headers` or `response_headers`; the value has an expression without counterpart"),
        }
    }
    edits
}

/// A value with HAProxy's expressions as one with ours.
fn template(value: &str) -> Option<String> {
    let mut out = String::new();
    let mut rest = value;
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before);
        let (name, after) = match after.strip_prefix('[') {
            Some(inner) => inner.split_once(']')?,
            None if after.starts_with("ci") => ("src", after.get(2..)?),
            None => return None,
        };
        out.push_str(match name {
            "src" => "${client_ip}",
            "path" => "${path}",
            "method" => "${method}",
            "query" => "${query}",
            "ssl_fc_sni" => "${server_name}",
            "ssl_fc_protocol" => "${tls_version}",
            "req.hdr(host)" | "hdr(host)" | "req.hdr(Host)" | "hdr(Host)" => "${host}",
            _ => return None,
        });
        rest = after;
    }
    out.push_str(rest);
    Some(out)
}
