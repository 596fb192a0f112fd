//! Whether the caps of a configuration fit into what the process may open.

use lb_config::Config;

/// Warns when the caps of a configuration promise more connections than the process may open, unless those of the configuration `before` it
/// promised as many.
pub(crate) fn warn_of_limit(config: &Config, before: Option<&Config>, workers: usize) {
    use rustix::process::{Resource, getrlimit};
    let Some(nofile) = getrlimit(Resource::Nofile).current else { return };
    let wanted_before = before.map(|before| wanted(before, workers));
    let wanted = wanted(config, workers);
    if wanted > nofile && wanted_before != Some(wanted) {
        tracing::warn!(
            nofile,
            wanted,
            "runtime.max_inflight_connections of all listeners and pool.total_max of all workers exceed the limit on open files"
        );
    }
}

/// The connections that the caps allow: of clients, by listener, and idle ones to backends, by worker.
fn wanted(config: &Config, workers: usize) -> u64 {
    let number = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    let listeners = config.listeners.iter().filter(|listener| listener.starts()).count();
    let clients = u64::from(config.runtime.max_inflight_connections).saturating_mul(number(listeners));
    clients.saturating_add(number(workers).saturating_mul(number(config.pool.total_max)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caps_count_for_each_listener_that_starts_and_each_worker() {
        let listener = |port: u16, backend: &str| {
            format!("[[listeners]]\naddress = \"127.0.0.1:{port}\"\nprotocol = \"tcp\"\n{backend}")
        };
        let backend = "[[listeners.backends]]\naddress = \"127.0.0.1:1\"\n";
        let text = format!(
            "{}{}{}[runtime]\nmax_inflight_connections = 1000\n[pool]\ntotal_max = 30\n",
            listener(1, backend),
            listener(2, backend),
            listener(3, ""),
        );
        let config = Config::parse(&text, "lb.toml").unwrap();
        assert_eq!(wanted(&config, 4), 2 * 1000 + 4 * 30);
    }
}
