//! Which pool takes a request.
//!
//! A listener has one route today, and it matches everything. Callers already ask with the whole head, so that matches on
//! host, path, method and fields change this file and no other.

use crate::head::RequestHead;

/// Position of a pool in its snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolIndex(pub usize);

/// A match and where it leads.
#[derive(Clone, Debug)]
pub struct Route {
    /// Label in metrics and logs; empty for the route of a listener's own backends.
    pub name: String,
    /// The pool that takes what matches.
    pub pool: PoolIndex,
}

/// The routes of a listener, in order of precedence.
#[derive(Clone, Debug)]
pub struct RouteTable {
    fallback: Route,
}

impl RouteTable {
    /// A table that sends everything to one pool.
    pub fn single(pool: PoolIndex) -> Self {
        Self { fallback: Route { name: String::new(), pool } }
    }

    /// The route of a request, or `None` when nothing matches.
    #[inline]
    pub fn find(&self, _head: &RequestHead) -> Option<&Route> {
        Some(&self.fallback)
    }

    /// The route of a connection that carries no requests (TCP).
    pub fn connection(&self) -> &Route {
        &self.fallback
    }
}
