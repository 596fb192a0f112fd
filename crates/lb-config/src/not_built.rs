//! Settings that are valid but that this build cannot honour yet.
//!
//! They are refused rather than ignored. The change that builds a feature deletes its entry.

use crate::document::{Source, Value, View};
use crate::error::ConfigError;
use crate::schema::{Kind, blocks};

/// A setting that is refused where it is `true`.
struct Missing {
    block: &'static str,
    key: &'static str,
    what: &'static str,
}

const NOT_BUILT: &[Missing] =
    &[missing("listeners", "xdp", "XDP in front of a listener: [[xdp.services]] balances in the kernel")];

const fn missing(block: &'static str, key: &'static str, what: &'static str) -> Missing {
    Missing { block, key, what }
}

/// Everything in a configuration that is refused, in the order of the file.
pub(crate) fn find(root: View<'_>, source: &Source<'_>) -> Vec<ConfigError> {
    let mut found: Vec<ConfigError> = Vec::new();
    visit(root, &mut |view| {
        let block = if view.block.path == "backends" { "pools.NAME.backends" } else { view.block.path };
        let has = |missing: &&Missing| missing.block == block && view.block.key(missing.key).is_some();
        for missing in NOT_BUILT.iter().filter(has).filter(|missing| view.flag(missing.key)) {
            let problem = format!("not built yet: {}", missing.what);
            found.push(source.error_about(view, missing.key, problem));
        }
        for key in view.block.keys {
            if let (Kind::Later(what), Some(_)) = (&key.kind, view.entry(key.name)) {
                found.push(source.error_about(view, key.name, format!("not built yet: {what}")));
            }
        }
    });
    found.sort_by_key(ConfigError::line);
    // One reason to refuse a key is enough.
    found.dedup_by(|next, first| next.path() == first.path());
    found
}

/// One line for each entry, for CONFIG.md.
pub(crate) fn lines() -> impl Iterator<Item = String> {
    let later = blocks().into_iter().filter(|block| block.path != "routes.NAME").flat_map(|block| {
        block.keys.iter().filter_map(move |key| match key.kind {
            Kind::Later(what) if block.path.is_empty() => Some(format!("`{}`: {what}", key.name)),
            Kind::Later(what) => Some(format!("`{}.{}`: {what}", block.path, key.name)),
            _ => None,
        })
    });
    let built = NOT_BUILT.iter().map(|Missing { block, key, what }| {
        let path = if block.is_empty() { (*key).to_owned() } else { format!("{block}.{key}") };
        format!("`{path} = true`: {what}")
    });
    built.chain(later)
}

/// Calls `act` on every block that is there.
fn visit<'a>(view: View<'a>, act: &mut impl FnMut(View<'a>)) {
    act(view);
    let Some(node) = view.node else { return };
    for entry in node.entries.values() {
        match &entry.value {
            Value::Block(inner) => visit(View::root(inner), act),
            Value::Blocks(inner) => inner.iter().for_each(|inner| visit(View::root(inner), act)),
            Value::NamedArrays(inner) => {
                inner.values().flatten().for_each(|inner| visit(View::root(inner), act));
            }
            Value::Named(inner) => inner.iter().for_each(|(_, inner)| visit(View::root(inner), act)),
            _ => {}
        }
    }
}
