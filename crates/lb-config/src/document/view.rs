//! Typed access to a block that may be absent: what the file does not set comes from the schema's defaults.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::{Entry, Node, Value};
use crate::config::{HostPort, SocketName};
use crate::schema::{Block, Default, Kind, On};

/// A block, present or not.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    pub(crate) block: &'static Block,
    pub(crate) node: Option<&'a Node>,
}

impl<'a> View<'a> {
    /// The whole file.
    pub(crate) fn root(node: &'a Node) -> Self {
        Self { block: node.block, node: Some(node) }
    }

    /// The value of `name` in the file.
    pub(crate) fn entry(self, name: &str) -> Option<&'a Entry> {
        debug_assert!(self.block.key(name).is_some(), "{} has no key {name}", self.block.header());
        self.node?.entries.get(name)
    }

    /// The block under `name`, present or not.
    pub(crate) fn block(self, name: &str) -> Self {
        let node = match self.entry(name).map(|entry| &entry.value) {
            Some(Value::Block(node)) => Some(node),
            _ => None,
        };
        let block = match self.block.key(name).map(|key| &key.kind) {
            Some(Kind::Block(block)) => block,
            _ => &NOTHING,
        };
        View { block, node }
    }

    /// The block under `name` if it is there.
    pub(crate) fn present(self, name: &str) -> Option<Self> {
        Some(self.block(name)).filter(|view| view.node.is_some())
    }

    /// The block under `name`, read by `read`, if it is there. None when it is there and `read` finds none.
    pub(crate) fn optional<T>(self, name: &str, read: impl FnOnce(Self) -> Option<T>) -> Option<Option<T>> {
        match self.present(name) {
            Some(view) => read(view).map(Some),
            None => Some(None),
        }
    }

    /// The blocks under `name`.
    pub(crate) fn blocks(self, name: &str) -> Vec<Self> {
        match self.entry(name).map(|entry| &entry.value) {
            Some(Value::Blocks(nodes)) => nodes.iter().map(View::root).collect(),
            _ => Vec::new(),
        }
    }

    /// The blocks under `name` with the names that the file gives them, in the order of these.
    pub(crate) fn named(self, name: &str) -> impl Iterator<Item = (&'a str, Self)> {
        let nodes = match self.entry(name).map(|entry| &entry.value) {
            Some(Value::Named(nodes)) => Some(nodes),
            _ => None,
        };
        nodes.into_iter().flatten().map(|(name, node)| (name.as_str(), View::root(node)))
    }

    /// The arrays of blocks under `name` with the names that the file gives them, in the order of these.
    pub(crate) fn named_arrays(self, name: &str) -> impl Iterator<Item = (&'a str, Vec<Self>)> {
        let arrays = match self.entry(name).map(|entry| &entry.value) {
            Some(Value::NamedArrays(arrays)) => Some(arrays),
            _ => None,
        };
        let views = |nodes: &'a Vec<Node>| nodes.iter().map(View::root).collect();
        arrays.into_iter().flatten().map(move |(name, nodes)| (name.as_str(), views(nodes)))
    }

    pub(crate) fn flag(self, name: &str) -> bool {
        match self.entry(name).map(|entry| &entry.value) {
            Some(Value::Flag(flag)) => *flag,
            _ => self.default(name) == Some(Default::Flag(true)),
        }
    }

    /// The number that is set, or the default if there is one.
    pub(crate) fn optional_integer(self, name: &str) -> Option<u64> {
        match self.entry(name).map(|entry| &entry.value) {
            Some(Value::Integer(number)) => Some(*number),
            _ => match self.default(name) {
                Some(Default::Integer(number)) => Some(number),
                _ => None,
            },
        }
    }

    pub(crate) fn integer(self, name: &str) -> u64 {
        let number = self.optional_integer(name);
        debug_assert!(number.is_some(), "{name} in {} has no default", self.block.header());
        number.unwrap_or_default()
    }

    pub(crate) fn int32(self, name: &str) -> u32 {
        self.integer(name).try_into().unwrap_or(u32::MAX)
    }

    /// A duration in which 0 means none.
    pub(crate) fn nonzero32(self, name: &str) -> Option<u32> {
        Some(self.int32(name)).filter(|number| *number > 0)
    }

    pub(crate) fn size(self, name: &str) -> usize {
        self.integer(name).try_into().unwrap_or(usize::MAX)
    }

    pub(crate) fn optional_millis(self, name: &str) -> Option<Duration> {
        self.optional_integer(name).map(|number| Duration::from_millis(number).min(FOR_EVER))
    }

    pub(crate) fn millis(self, name: &str) -> Duration {
        Duration::from_millis(self.integer(name)).min(FOR_EVER)
    }

    /// A duration in which 0 means never.
    pub(crate) fn nonzero_millis(self, name: &str) -> Option<Duration> {
        Some(self.millis(name)).filter(|duration| !duration.is_zero())
    }

    pub(crate) fn seconds(self, name: &str) -> Duration {
        Duration::from_secs(self.integer(name)).min(FOR_EVER)
    }

    pub(crate) fn word(self, name: &str) -> Option<&'static str> {
        match self.entry(name).map(|entry| &entry.value) {
            Some(Value::Word(word)) => Some(word),
            _ => match self.default(name) {
                Some(Default::Word(word)) => Some(word),
                _ => None,
            },
        }
    }

    pub(crate) fn text(self, name: &str) -> Option<&'a str> {
        match &self.entry(name)?.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn texts(self, name: &str) -> Vec<String> {
        match self.entry(name).map(|entry| &entry.value) {
            Some(Value::List(values)) => values.iter().filter_map(Value::text).map(str::to_owned).collect(),
            _ => Vec::new(),
        }
    }

    pub(crate) fn path(self, name: &str) -> Option<PathBuf> {
        self.text(name).map(PathBuf::from)
    }

    pub(crate) fn host_port(self, name: &str) -> Option<&'a HostPort> {
        match &self.entry(name)?.value {
            Value::HostPort(address) => Some(address),
            _ => None,
        }
    }

    /// The address, and how it is written.
    pub(crate) fn socket_name(self, name: &str) -> Option<(&'a SocketName, &'a str)> {
        match &self.entry(name)?.value {
            Value::SocketName(address, written) => Some((address, written)),
            _ => None,
        }
    }

    pub(crate) fn socket_addr(self, name: &str) -> Option<SocketAddr> {
        self.entry(name)?.value.socket_addr()
    }

    pub(crate) fn socket_addrs(self, name: &str) -> Vec<SocketAddr> {
        match self.entry(name).map(|entry| &entry.value) {
            Some(Value::List(values)) => values.iter().filter_map(Value::socket_addr).collect(),
            _ => Vec::new(),
        }
    }

    pub(crate) fn digest(self, name: &str) -> Option<[u8; 32]> {
        match self.entry(name)?.value {
            Value::Digest(digest) => Some(digest),
            _ => None,
        }
    }

    fn default(self, name: &str) -> Option<Default> {
        self.block.key(name).map(|key| key.default)
    }
}

impl Value {
    fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    fn socket_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::SocketAddr(address) => Some(*address),
            _ => None,
        }
    }
}

/// Beyond a century a timeout is never seen to run out, and adding it to a clock must not overflow.
const FOR_EVER: Duration = Duration::from_secs(100 * 366 * 86_400);

static NOTHING: Block = Block { path: "", doc: "", on: On::EVERYWHERE, keys: &[] };
