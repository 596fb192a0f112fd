//! The settings of a file, key by key and as the file spells them, so that the report of a reload can quote them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use crate::config::{Listener, ListenerId};
use crate::document::{Node, Value, View, join, shorten};
use crate::schema::{Block, Default, Key, Kind};

/// The settings of a whole configuration.
#[derive(Clone, Debug)]
pub(crate) struct Written {
    /// The settings outside listeners and pools.
    pub(crate) process: WrittenKeys,
    /// Those of each listener, by its identity.
    pub(crate) listeners: HashMap<ListenerId, WrittenKeys>,
    /// Those of each pool with a name.
    pub(crate) pools: HashMap<String, WrittenKeys>,
}

impl Written {
    /// The settings of a listener.
    pub(crate) fn of_listener(&self, listener: &Listener) -> &WrittenKeys {
        self.listeners.get(&listener.id()).unwrap_or(&NOTHING)
    }

    /// The settings of a pool with a name.
    pub(crate) fn of_pool(&self, name: &str) -> &WrittenKeys {
        self.pools.get(name).unwrap_or(&NOTHING)
    }
}

static NOTHING: WrittenKeys = WrittenKeys { block: &crate::schema::ROOT, values: BTreeMap::new() };

/// How a setting is written is no part of what it means.
impl PartialEq for Written {
    fn eq(&self, _other: &Self) -> bool {
        true
    }
}

/// The keys that are set in a block and in the blocks inside it, such as `http.header_timeout_ms`. Backends are not among them: they
/// are told one from the other by their addresses.
#[derive(Clone)]
pub(crate) struct WrittenKeys {
    block: &'static Block,
    values: BTreeMap<String, Text>,
}

/// A value as a message shows it.
#[derive(Clone, PartialEq, Debug)]
enum Text {
    Shown(String),
    /// It differs from others, but no message shows how.
    Secret([u8; 32]),
    /// An element of an array of blocks, whose keys have entries of their own.
    Element,
}

impl fmt::Debug for WrittenKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(&self.values).finish()
    }
}

impl WrittenKeys {
    /// The settings of a block that may be absent.
    pub(crate) fn of(view: View<'_>) -> Self {
        let mut values = BTreeMap::new();
        if let Some(node) = view.node {
            collect(node, "", &mut values);
        }
        Self { block: view.block, values }
    }

    /// Whether a block is under `name`, and not a value.
    pub(crate) fn is_block(&self, name: &str) -> bool {
        self.key(name).is_some_and(|key| matches!(key.kind, Kind::Block(_)))
    }

    /// What differs in the key or block `name`, one line for each key.
    pub(crate) fn changes(&self, new: &Self, name: &str) -> Vec<String> {
        let both = self.values.keys().chain(new.values.keys());
        let keys: BTreeSet<&String> = both.filter(|key| is_within(key, name)).collect();
        keys.into_iter().filter_map(|key| self.change(new, key)).collect()
    }

    fn change(&self, new: &Self, key: &str) -> Option<String> {
        let (before, after) = (self.values.get(key), new.values.get(key));
        if before == after || !(self.has_parents(key) && new.has_parents(key)) {
            return None;
        }
        match (before, after) {
            (None, Some(Text::Element)) => Some(format!("{key}: added")),
            (Some(Text::Element), None) => Some(format!("{key}: removed")),
            (Some(Text::Secret(_)), _) | (_, Some(Text::Secret(_))) => Some(format!("{key}: changed")),
            _ => {
                let (before, after) = (self.shown(key), new.shown(key));
                (before != after).then(|| format!("{key}: {} -> {}", shorten(&before), shorten(&after)))
            }
        }
    }

    /// Whether every array element that the key stands in is there.
    fn has_parents(&self, key: &str) -> bool {
        let mut elements = key.match_indices("].").filter_map(|(at, _)| key.get(..=at));
        elements.all(|element| self.values.contains_key(element))
    }

    /// What is set, or what holds because nothing is.
    fn shown(&self, key: &str) -> String {
        match (self.values.get(key), self.key(key).map(|key| key.default)) {
            (Some(Text::Shown(text)), _) => text.clone(),
            (_, Some(Default::Flag(flag))) => flag.to_string(),
            (_, Some(Default::Integer(number))) => number.to_string(),
            (_, Some(Default::Word(word))) => quoted(word),
            _ => "unset".to_owned(),
        }
    }

    fn key(&self, path: &str) -> Option<&'static Key> {
        let mut block = self.block;
        let mut names = path.split('.').map(|name| name.split('[').next().unwrap_or(name)).peekable();
        loop {
            let key = block.key(names.next()?)?;
            if names.peek().is_none() {
                return Some(key);
            }
            match key.kind {
                Kind::Block(inner) | Kind::Blocks(inner) => block = inner,
                Kind::NamedArrays(inner) => {
                    names.next();
                    block = inner;
                }
                _ => return None,
            }
        }
    }

    /// Takes over the spelling in `running` of the key or block `name`.
    pub(crate) fn keep(&mut self, running: &Self, name: &str) {
        self.values.retain(|key, _| !is_within(key, name));
        let kept = running.values.iter().filter(|(key, _)| is_within(key, name));
        self.values.extend(kept.map(|(key, text)| (key.clone(), text.clone())));
    }
}

/// Whether a key is `name`, or stands in the block of that name.
fn is_within(key: &str, name: &str) -> bool {
    key.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

fn collect(node: &Node, prefix: &str, into: &mut BTreeMap<String, Text>) {
    for (name, entry) in &node.entries {
        let path = join(prefix, name);
        match &entry.value {
            Value::Block(inner) => collect(inner, &path, into),
            // Those of a service in the kernel are few.
            Value::Blocks(_) if matches!(*name, "listeners" | "backends") && !prefix.starts_with("xdp.") => {}
            Value::Blocks(elements) => collect_elements(elements, &path, into),
            Value::NamedArrays(arrays) => {
                for (name, elements) in arrays {
                    collect_elements(elements, &join(&path, name), into);
                }
            }
            Value::Named(_) => {}
            Value::Digest(digest) => {
                into.insert(path, Text::Secret(*digest));
            }
            value => {
                into.insert(path, Text::Shown(show(value)));
            }
        }
    }
}

fn collect_elements(elements: &[Node], path: &str, into: &mut BTreeMap<String, Text>) {
    for (index, element) in elements.iter().enumerate() {
        let path = format!("{path}[{index}]");
        collect(element, &path, into);
        into.insert(path, Text::Element);
    }
}

/// A value as it could stand in the file.
fn show(value: &Value) -> String {
    match value {
        Value::Flag(flag) => flag.to_string(),
        Value::Integer(number) => number.to_string(),
        Value::Word(word) => quoted(word),
        Value::Text(text) | Value::SocketName(_, text) => quoted(text),
        Value::HostPort(address) => quoted(&address.to_string()),
        Value::SocketAddr(address) => quoted(&address.to_string()),
        Value::List(values) => {
            format!("[{}]", values.iter().map(show).collect::<Vec<_>>().join(", "))
        }
        Value::Digest(_) | Value::Block(_) | Value::Blocks(_) | Value::Named(_) | Value::NamedArrays(_) => {
            String::new()
        }
    }
}

fn quoted(text: &str) -> String {
    format!("\"{text}\"")
}
