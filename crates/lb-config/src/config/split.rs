//! Splits of routes.

use std::time::Duration;

use lb_core::filter::Chain;
use lb_core::identity::PoolId;

use super::is_token;

/// Pools among which requests are split.
#[derive(Clone, PartialEq, Debug)]
pub struct Split {
    /// The branches.
    pub branches: Vec<Branch>,
    /// How clients stay on theirs; None = each request goes by chance.
    pub sticky: Option<SplitSticky>,
}

/// A branch of a split.
#[derive(Clone, PartialEq, Debug)]
pub struct Branch {
    /// Its pool.
    pub pool: PoolId,
    /// Its share, relative to the others.
    pub weight: u32,
    /// What happens to requests and responses of this branch, after what happens to those of the route; None = nothing.
    pub chain: Option<Box<Chain>>,
}

/// How clients stay on their branch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SplitSticky {
    /// What a client is known by.
    pub by: SplitKey,
    /// The name of the cookie.
    pub cookie: String,
    /// How long a browser keeps it. None = for its session.
    pub ttl: Option<Duration>,
    /// The cookie names the pool, and not a place on the line of weights.
    pub follows_pool: bool,
}

/// What a client is known by.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SplitKey {
    /// A cookie of the gateway.
    Cookie,
    /// Its address.
    ClientIp,
    /// The value of this field.
    Header(String),
}

impl SplitKey {
    /// Reads the key as the file spells it.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text {
            "cookie" => Some(Self::Cookie),
            "client_ip" => Some(Self::ClientIp),
            _ => text
                .strip_prefix("header:")
                .filter(|name| is_token(name))
                .map(|name| Self::Header(name.into())),
        }
    }
}
