//! The process as a whole.

/// Keeps private keys out of core dumps (attack T-10).
pub(crate) fn forbid_core_dumps() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    if let Err(error) = setrlimit(Resource::Core, none) {
        tracing::warn!(%error, "core dumps could not be switched off");
    }
}

/// A number that tells this process from `earlier` ones whose connections may live.
pub(crate) fn epoch(earlier: &[u16]) -> u16 {
    loop {
        let epoch = u16::try_from(seed() & u64::from(u16::MAX)).unwrap_or_default();
        if !earlier.contains(&epoch) {
            return epoch;
        }
    }
}

/// A number that differs from process to process and from call to call.
pub(crate) fn seed() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish()
}
