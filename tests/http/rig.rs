//! A gateway in front of the backends of a test.

use testkit::{Backend, Config, Gateway, Listener};

/// One HTTP/1.1 listener with these backends.
#[track_caller]
pub(crate) fn gateway(backends: &[&Backend]) -> Gateway {
    gateway_with(backends, |config| config, |listener| listener)
}

/// The same with more configuration.
#[track_caller]
pub(crate) fn gateway_with(
    backends: &[&Backend],
    config: impl FnOnce(Config) -> Config,
    listener: impl FnOnce(Listener) -> Listener,
) -> Gateway {
    let mut block = listener(Listener::h1());
    for backend in backends {
        block = block.backend(backend.address);
    }
    Gateway::start(config(Config::new()).listener(block))
}

/// The same with keys of `[listeners.http]`.
#[track_caller]
pub(crate) fn gateway_http(backends: &[&Backend], keys: &[(&str, u64)]) -> Gateway {
    gateway_with(
        backends,
        |config| config,
        |listener| keys.iter().fold(listener, |listener, (key, value)| listener.http(key, *value)),
    )
}
