//! A file that has the shape of the schema: every key is in the schema, of the right type and in range.

mod environment;
mod outline;
mod source;
mod typo;
mod view;
mod walk;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Range;

pub(crate) use environment::Lookup;
pub(crate) use source::{Source, join, shorten};
pub(crate) use typo::near;
pub(crate) use view::View;
pub(crate) use walk::{check_size, parse, parse_as};

use crate::config::{HostPort, SocketName};
use crate::schema::Block;

/// A block of the file.
pub(crate) struct Node {
    pub(crate) block: &'static Block,
    /// Such as `listeners[0].http`.
    pub(crate) path: String,
    /// Where its header, or its opening brace, begins.
    pub(crate) at: usize,
    pub(crate) entries: BTreeMap<&'static str, Entry>,
}

/// A key with its value.
pub(crate) struct Entry {
    /// Where the key begins.
    pub(crate) at: usize,
    /// The value as written, or what stands for it in a message.
    pub(crate) written: Written,
    pub(crate) value: Value,
}

/// How a message shows a value.
#[derive(Clone)]
pub(crate) enum Written {
    /// As it stands in the file.
    Span(Range<usize>),
    /// By this in its place.
    As(&'static str),
    /// As what holds because nothing is written.
    Default(u64),
}

/// A value after its check.
pub(crate) enum Value {
    Flag(bool),
    Integer(u64),
    Word(&'static str),
    Text(String),
    HostPort(HostPort),
    SocketName(SocketName, String),
    SocketAddr(SocketAddr),
    Digest([u8; 32]),
    List(Vec<Value>),
    Block(Node),
    Blocks(Vec<Node>),
    Named(BTreeMap<String, Node>),
    NamedArrays(BTreeMap<String, Vec<Node>>),
}
