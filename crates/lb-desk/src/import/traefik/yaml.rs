//! YAML as a tree whose leaves are directives with their lines.
//!
//! The events come from `saphyr-parser`. Aliases are copies of their anchors, and what all of them come to is bounded.

use std::collections::HashMap;
use std::sync::Arc;

use saphyr_parser::{Event, Parser};

use super::super::ledger::{DirectiveId, Ledger};

/// How deep a tree may be.
const MOST_DEPTH: usize = 32;

/// How many nodes are read, copies included.
const MOST_NODES: usize = 200_000;

/// A node.
#[derive(Clone, Debug)]
pub(super) enum Node {
    /// A value.
    Leaf(String, DirectiveId),
    /// Values or nodes in a row.
    List(Vec<Node>, DirectiveId),
    /// Nodes by their keys, in the order of the file.
    Map(Vec<(String, Node)>, DirectiveId),
}

impl Node {
    pub(super) fn id(&self) -> DirectiveId {
        match self {
            Self::Leaf(_, id) | Self::List(_, id) | Self::Map(_, id) => *id,
        }
    }

    /// The node under a key; letter case does not count, as there.
    pub(super) fn get(&self, key: &str) -> Option<&Node> {
        match self {
            Self::Map(entries, _) => {
                entries.iter().find(|(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, node)| node)
            }
            _ => None,
        }
    }

    /// The node at a path of keys with dots between.
    pub(super) fn at(&self, path: &str) -> Option<&Node> {
        path.split('.').try_fold(self, |node, key| node.get(key))
    }

    pub(super) fn entries(&self) -> &[(String, Node)] {
        if let Self::Map(entries, _) = self { entries } else { &[] }
    }

    pub(super) fn items(&self) -> &[Node] {
        if let Self::List(items, _) = self { items } else { &[] }
    }

    pub(super) fn text(&self) -> Option<&str> {
        if let Self::Leaf(text, _) = self { Some(text) } else { None }
    }

    /// The texts of a list, or the one text.
    pub(super) fn texts(&self) -> Vec<&str> {
        self.items().iter().chain(std::slice::from_ref(self)).filter_map(Node::text).collect()
    }

    /// This node and all below it.
    pub(super) fn each(&self, visit: &mut dyn FnMut(DirectiveId)) {
        visit(self.id());
        match self {
            Self::Leaf(..) => {}
            Self::List(items, _) => items.iter().for_each(|item| item.each(visit)),
            Self::Map(entries, _) => entries.iter().for_each(|(_, node)| node.each(visit)),
        }
    }
}

/// Reads a file; several documents are one after the other.
pub(super) fn read(name: &str, text: &str, ledger: &mut Ledger) -> Result<Vec<Node>, String> {
    let mut reader = Reader {
        file: Arc::from(name),
        parser: Parser::new_from_str(text),
        anchors: HashMap::new(),
        nodes: 0,
        ledger,
    };
    let mut documents = Vec::new();
    loop {
        let (event, line) = reader.next()?;
        match event {
            Event::StreamEnd => return Ok(documents),
            Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd | Event::Nothing => {}
            event => documents.push(reader.node(event, line, "", 0)?),
        }
    }
}

struct Reader<'a, 'l> {
    file: Arc<str>,
    parser: Parser<'a, saphyr_parser::StrInput<'a>>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
    ledger: &'l mut Ledger,
}

impl<'a> Reader<'a, '_> {
    fn next(&mut self) -> Result<(Event<'a>, usize), String> {
        match self.parser.next_event() {
            Some(Ok((event, span))) => Ok((event, span.start.line())),
            Some(Err(error)) => Err(format!("{}:{}: {}", self.file, error.marker().line(), error.info())),
            None => Ok((Event::StreamEnd, 0)),
        }
    }

    fn node(&mut self, event: Event<'a>, line: usize, path: &str, depth: usize) -> Result<Node, String> {
        self.nodes = self.nodes.saturating_add(1);
        if depth > MOST_DEPTH || self.nodes > MOST_NODES {
            return Err(format!("{}:{line}: too deep or too much", self.file));
        }
        let anchor = match &event {
            Event::Scalar(_, _, anchor, _)
            | Event::SequenceStart(anchor, _)
            | Event::MappingStart(anchor, _) => *anchor,
            _ => 0,
        };
        let node = match event {
            Event::Scalar(text, ..) => {
                let shown = if path.is_empty() { text.to_string() } else { format!("{path}: {text}") };
                Node::Leaf(text.into_owned(), self.ledger.add(&self.file, line, &shown))
            }
            Event::Alias(anchor) => {
                let Some(node) = self.anchors.get(&anchor).cloned() else {
                    return Err(format!("{}:{line}: an alias of nothing", self.file));
                };
                let mut count = 0_usize;
                node.each(&mut |_| count = count.saturating_add(1));
                self.nodes = self.nodes.saturating_add(count);
                return Ok(node);
            }
            Event::SequenceStart(..) => {
                let id = self.ledger.add(&self.file, line, path);
                let mut items = Vec::new();
                loop {
                    let (event, line) = self.next()?;
                    if matches!(event, Event::SequenceEnd | Event::StreamEnd) {
                        break;
                    }
                    let path = format!("{path}[{}]", items.len());
                    items.push(self.node(event, line, &path, depth.saturating_add(1))?);
                }
                Node::List(items, id)
            }
            Event::MappingStart(..) => {
                let id = self.ledger.add(&self.file, line, path);
                Node::Map(self.map(path, depth)?, id)
            }
            _ => return Err(format!("{}:{line}: something else was expected", self.file)),
        };
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn map(&mut self, path: &str, depth: usize) -> Result<Vec<(String, Node)>, String> {
        let mut entries: Vec<(String, Node)> = Vec::new();
        loop {
            let (key, line) = match self.next()? {
                (Event::MappingEnd | Event::StreamEnd, _) => return Ok(entries),
                (Event::Scalar(key, ..), line) => (key.into_owned(), line),
                (_, line) => return Err(format!("{}:{line}: a key must be a text", self.file)),
            };
            let (event, _) = self.next()?;
            let inner = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            let node = self.node(event, line, &inner, depth.saturating_add(1))?;
            match node {
                // `<<` takes the entries of another map over, as far as there are none.
                Node::Map(merged, _) if key == "<<" => {
                    for (key, node) in merged {
                        if !entries.iter().any(|(known, _)| *known == key) {
                            entries.push((key, node));
                        }
                    }
                }
                node => entries.push((key, node)),
            }
        }
    }
}
