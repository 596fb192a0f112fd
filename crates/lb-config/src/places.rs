//! Where in the file a path or an address stands, so that an error found later can name file, line and key.

use std::sync::Arc;

use lb_core::filter::ErrorPage;

use crate::config::{PoolId, XdpProtocol, XdpService};
use crate::document::{Source, Value, View};
use crate::error::ConfigError;
use crate::schema::{Kind, Text};

/// A key that names something outside the file.
#[derive(Debug)]
struct SettingPlace {
    /// Whose it is: a pool's, a listener's, or, without one, the process's.
    owner: Option<PoolId>,
    key: &'static str,
    value: String,
    /// With everything but what is wrong.
    error: ConfigError,
}

/// All such keys of a file.
#[derive(Clone, Debug)]
pub(crate) struct Places(Arc<Vec<SettingPlace>>);

/// Where a setting stands is no part of what it means.
impl PartialEq for Places {
    fn eq(&self, _other: &Self) -> bool {
        true
    }
}

impl Places {
    /// The places of a whole file. `listeners` are the owners of its listeners, in their order.
    pub(crate) fn of(root: View<'_>, listeners: &[PoolId], source: &Source<'_>) -> Self {
        let mut places = Vec::new();
        for (view, owner) in root.blocks("listeners").into_iter().zip(listeners) {
            collect(view, Some(owner), source, &mut places);
        }
        if let (Some(view), Some(owner)) =
            (root.present("passthrough"), listeners.get(root.blocks("listeners").len()))
        {
            collect(view, Some(owner), source, &mut places);
        }
        for view in root.block("xdp").blocks("services") {
            let protocol = view.word("protocol").and_then(XdpProtocol::from_word);
            let Some((name, protocol)) = view.text("name").zip(protocol) else { continue };
            collect(view, Some(&XdpService::own_pool(name, protocol)), source, &mut places);
        }
        for (name, view) in root.named("pools") {
            collect(view, Some(&PoolId::from(name)), source, &mut places);
        }
        collect(root, None, source, &mut places);
        Self(Arc::new(places))
    }

    /// One error for each place of `owner` at which `value` stands under one of `keys`.
    pub(crate) fn faults(
        &self,
        owner: Option<&PoolId>,
        keys: &[&str],
        value: &str,
        problem: &str,
    ) -> Vec<ConfigError> {
        self.select(problem, |place| {
            place.owner.as_ref() == owner && keys.contains(&place.key) && place.value == value
        })
    }

    /// One error for each place at which `value` stands.
    pub(crate) fn faults_wherever(&self, value: &str, problem: &str) -> Vec<ConfigError> {
        self.select(problem, |place| place.value == value)
    }

    fn select(&self, problem: &str, is_meant: impl Fn(&SettingPlace) -> bool) -> Vec<ConfigError> {
        let found = self.0.iter().filter(|place| is_meant(place));
        found.map(|place| ConfigError { problem: problem.to_owned(), ..place.error.clone() }).collect()
    }
}

fn collect(view: View<'_>, owner: Option<&PoolId>, source: &Source<'_>, into: &mut Vec<SettingPlace>) {
    let Some(node) = view.node else { return };
    for (name, entry) in &node.entries {
        let value = match &entry.value {
            Value::Block(inner) => {
                collect(View::root(inner), owner, source, into);
                continue;
            }
            // Listeners and pools are owners of their own.
            Value::Blocks(inner) if *name != "listeners" => {
                inner.iter().for_each(|inner| collect(View::root(inner), owner, source, into));
                continue;
            }
            // So are pools.
            Value::Named(inner) if *name == "policies" => {
                inner.iter().for_each(|(_, inner)| collect(View::root(inner), owner, source, into));
                continue;
            }
            Value::NamedArrays(inner) => {
                let all = inner.values().flatten();
                all.for_each(|inner| collect(View::root(inner), owner, source, into));
                continue;
            }
            Value::List(_) if names_files(view, name) => {
                for page in view.texts(name).iter().filter_map(|text| ErrorPage::parse(text)) {
                    let (value, error) =
                        (page.file.display().to_string(), source.error_about(view, name, ""));
                    into.push(SettingPlace { owner: owner.cloned(), key: name, value, error });
                }
                continue;
            }
            Value::SocketName(_, written) => written.clone(),
            Value::HostPort(address) => address.to_string(),
            Value::SocketAddr(address) => address.to_string(),
            Value::Text(text) if names_a_file(view, name) => text.clone(),
            _ => continue,
        };
        let error = source.error_about(view, name, "");
        into.push(SettingPlace { owner: owner.cloned(), key: name, value, error });
    }
}

fn names_files(view: View<'_>, name: &str) -> bool {
    view.block.key(name).is_some_and(|key| matches!(key.kind, Kind::Texts(Text::ErrorPage)))
}

fn names_a_file(view: View<'_>, name: &str) -> bool {
    view.block.key(name).is_some_and(|key| matches!(key.kind, Kind::Text(Text::Path)))
}
