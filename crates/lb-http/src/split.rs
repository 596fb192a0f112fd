//! Which branch of a split a request takes.

use lb_config::{Split, SplitKey, SplitSticky};
use lb_core::forwarded::RequestOrigin;
use lb_core::head::RequestHead;
use lb_core::rng::SplitMix64;
use lb_core::split::SplitPlace;

use crate::affinity;

/// The branch that a request takes, and the cookie that its client gets.
#[derive(Debug)]
pub(crate) struct Drawn {
    /// The position of the branch.
    pub(crate) branch: u32,
    /// The value of a `Set-Cookie`.
    pub(crate) cookie: Option<Box<[u8]>>,
}

/// Draws the branch of a request; `None` where all weights are 0.
pub(crate) fn draw(
    split: &Split,
    head: &RequestHead,
    origin: &RequestOrigin,
    rng: &mut SplitMix64,
) -> Option<Drawn> {
    let weights = split.branches.iter().map(|branch| branch.weight);
    let at = |place: SplitPlace| place.branch(weights.clone()).and_then(|at| u32::try_from(at).ok());
    let mut by_chance = || SplitPlace::of_chance(rng.next_u64());
    let Some(sticky) = &split.sticky else {
        return at(by_chance()).map(|branch| Drawn { branch, cookie: None });
    };
    let place = match &sticky.by {
        SplitKey::ClientIp => match origin.client.ip() {
            Some(ip) => SplitPlace::of_key(ip.to_canonical().to_string().as_bytes()),
            // All clients of a Unix socket are one.
            None => SplitPlace::of_key(b"unknown"),
        },
        SplitKey::Header(name) => match head.fields.value_of(name.as_bytes()) {
            Some(value) => SplitPlace::of_key(value),
            None => by_chance(),
        },
        SplitKey::Cookie => return by_cookie(split, sticky, head, origin, by_chance),
    };
    at(place).map(|branch| Drawn { branch, cookie: None })
}

fn by_cookie(
    split: &Split,
    sticky: &SplitSticky,
    head: &RequestHead,
    origin: &RequestOrigin,
    mut by_chance: impl FnMut() -> SplitPlace,
) -> Option<Drawn> {
    let sent = affinity::cookie(head, sticky.cookie.as_bytes());
    let weights = split.branches.iter().map(|branch| branch.weight);
    let (at, value) = if sticky.follows_pool {
        let is_it =
            |branch: &lb_config::Branch| branch.weight > 0 && Some(branch.pool.name().as_bytes()) == sent;
        match split.branches.iter().position(is_it) {
            Some(at) => (at, None),
            None => {
                let at = by_chance().branch(weights)?;
                (at, Some(split.branches.get(at)?.pool.name().to_owned()))
            }
        }
    } else {
        match sent.and_then(SplitPlace::parse) {
            Some(place) => (place.branch(weights)?, None),
            None => {
                let place = by_chance();
                (place.branch(weights)?, Some(place.digits()))
            }
        }
    };
    let cookie = value.map(|value| line(sticky, &value, origin).into_bytes().into());
    Some(Drawn { branch: u32::try_from(at).ok()?, cookie })
}

fn line(sticky: &SplitSticky, value: &str, origin: &RequestOrigin) -> String {
    let mut line = format!("{}={value}; Path=/; HttpOnly; SameSite=Lax", sticky.cookie);
    if let Some(ttl) = sticky.ttl {
        line += &format!("; Max-Age={}", ttl.as_secs());
    }
    if origin.scheme == lb_core::route::Scheme::Https {
        line += "; Secure";
    }
    line
}
