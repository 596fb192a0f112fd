//! Which pool takes a request.
//!
//! A listener has one route today, and it matches everything. Callers already ask with the whole head, so that matches on
//! host, path, method and fields change this file and no other.

use crate::head::RequestHead;

/// A match and where it leads: `P` is a pool, as the caller has it.
#[derive(Clone, Debug)]
pub struct Route<P> {
    /// Label in metrics and logs; empty for the route of a listener's own backends.
    pub name: String,
    /// The pool that takes what matches.
    pub pool: P,
}

/// The routes of a listener, in order of precedence.
#[derive(Clone, Debug)]
pub struct RouteTable<P> {
    fallback: Route<P>,
}

impl<P> RouteTable<P> {
    /// A table that sends everything to one pool.
    pub fn single(pool: P) -> Self {
        Self { fallback: Route { name: String::new(), pool } }
    }

    /// The route of a request, or `None` when nothing matches.
    #[inline]
    pub fn find(&self, _head: &RequestHead) -> Option<&Route<P>> {
        Some(&self.fallback)
    }

    /// The route of what bears no request that could be matched.
    pub fn fallback(&self) -> &Route<P> {
        &self.fallback
    }
}
