//! Settings that are valid but that this build cannot honour yet.
//!
//! They are refused rather than ignored. The change that builds a feature deletes its entry.

use crate::document::{Source, Value, View};
use crate::error::ConfigError;
use crate::schema::{Kind, blocks};

/// Everything in a configuration that is refused, in the order of the file.
pub(crate) fn find(root: View<'_>, source: &Source<'_>) -> Vec<ConfigError> {
    let mut found: Vec<ConfigError> = Vec::new();
    visit(root, &mut |view| {
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
    blocks().into_iter().filter(|block| block.path != "routes.NAME").flat_map(|block| {
        block.keys.iter().filter_map(move |key| match key.kind {
            Kind::Later(what) if block.path.is_empty() => Some(format!("`{}`: {what}", key.name)),
            Kind::Later(what) => Some(format!("`{}.{}`: {what}", block.path, key.name)),
            _ => None,
        })
    })
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
