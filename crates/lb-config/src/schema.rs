//! The one table of every key: parsing, messages, defaults and CONFIG.md are all read from it.

mod client;
mod filter;
mod http;
mod key;
mod limits;
mod listener;
mod mirror;
mod passthrough;
mod pool;
mod process;
mod rate;
mod route;
mod split;
mod text;
mod tracing;
mod xdp;

pub(crate) use key::{Default, Key, Kind, Reload, U64};
pub(crate) use limits::DEFAULT_REPLAY_BYTES;
pub(crate) use listener::LISTENERS;
pub(crate) use pool::{LIST, POOLS};
pub(crate) use text::{Text, read_header_line, read_mode, read_payload, read_statuses, read_value_condition};

use crate::config::Protocol;

/// A `[block]` of the file.
pub(crate) struct Block {
    /// As in a table header, such as `listeners.http`; empty for the file itself. `NAME` stands for what the file chooses.
    pub(crate) path: &'static str,
    /// What it is for.
    pub(crate) doc: &'static str,
    /// Which listeners may have, use or need it. All of them for blocks outside a listener.
    pub(crate) on: On,
    /// What stands in it.
    pub(crate) keys: &'static [Key],
}

/// On which listeners a block may stand. An empty list means every protocol, except in `required`.
pub(crate) struct On {
    /// Anywhere else it is an error.
    pub(crate) allowed: &'static [Protocol],
    /// Anywhere else it does nothing, which is worth a warning.
    pub(crate) used: &'static [Protocol],
    /// Here its absence is an error.
    pub(crate) required: &'static [Protocol],
}

impl On {
    pub(crate) const EVERYWHERE: Self = Self { allowed: &[], used: &[], required: &[] };

    const fn only(protocols: &'static [Protocol]) -> Self {
        Self { allowed: protocols, used: &[], required: &[] }
    }

    const fn exactly(protocols: &'static [Protocol]) -> Self {
        Self { allowed: protocols, used: &[], required: protocols }
    }

    const fn used(protocols: &'static [Protocol]) -> Self {
        Self { allowed: &[], used: protocols, required: &[] }
    }
}

impl Block {
    /// The key of that name.
    pub(crate) fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }

    /// The header that opens it, for messages and headings.
    pub(crate) fn header(&self) -> String {
        match self.path {
            "" => "the top level".to_owned(),
            path if REPEATED.contains(&path) => format!("[[{path}]]"),
            path => format!("[{path}]"),
        }
    }
}

/// Every block, the file itself first, in the order of the documentation.
pub(crate) fn blocks() -> Vec<&'static Block> {
    fn collect(block: &'static Block, into: &mut Vec<&'static Block>) {
        if into.iter().any(|known| std::ptr::eq(*known, block)) {
            return;
        }
        into.push(block);
        for key in block.keys {
            if let Kind::Block(inner) | Kind::Blocks(inner) | Kind::Named(inner) | Kind::NamedArrays(inner) =
                &key.kind
            {
                collect(inner, into);
            }
        }
    }
    let mut all = Vec::new();
    collect(&ROOT, &mut all);
    all
}

const REPEATED: &[&str] = &[
    "listeners",
    "listeners.tls.certificates",
    "listeners.backends",
    "listeners.routes",
    "listeners.routes.matches",
    "listeners.routes.split",
    "listeners.routes.mirror",
    "listeners.virtual_hosts",
    "routes.NAME",
    "pools.NAME.backends",
    "backends",
    "passthrough.routes",
    "passthrough.quic_lb",
    "xdp.services",
    "xdp.services.backends",
];

/// The file.
pub(crate) static ROOT: Block = Block {
    path: "",
    doc: "A file needs at least one `[[listeners]]`, a `[passthrough]` block or one `[[xdp.services]]`; all else is optional.",
    on: On::EVERYWHERE,
    keys: &[
        Key::texts("include", Text::Path).live(
            "Further files that are read as if they stood here: paths from the directory of this file, with `*`, `?` and `[…]`.",
        ),
        Key::blocks("listeners", &listener::LISTENERS),
        Key::named("pools", &POOLS),
        Key::named_arrays("routes", &route::TABLES),
        Key::named("policies", &filter::POLICIES),
        Key::later("caches", "caches"),
        Key::later("stores", "stores for limits of a fleet"),
        Key::block("runtime", &process::RUNTIME),
        Key::block("pool", &process::POOL),
        Key::block("dns", &process::DNS),
        Key::block("observability", &process::OBSERVABILITY),
        Key::block("tracing", &tracing::TRACING),
        Key::block("admin", &process::ADMIN),
        Key::block("security", &process::SECURITY),
        Key::block("passthrough", &passthrough::PASSTHROUGH),
        Key::block("xdp", &xdp::XDP),
    ],
};
