//! Routes of HTTP listeners.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::{RouteLimits, Split};
use lb_core::filter::{AccessList, Chain, ErrorPage, FilterKind};
use lb_core::fraction::Fraction;
use lb_core::identity::PoolId;
use lb_core::route::location::Redirect;
use lb_core::route::{HostPattern, RouteDestination, RouteSpec, RouteTable};

/// A route: when a request is its own, and what becomes of it.
#[derive(Clone, PartialEq, Debug)]
pub struct Route {
    /// When a request is its own.
    pub spec: RouteSpec,
    /// Where it goes.
    pub target: RouteTarget,
    /// What happens to requests and responses on their way, by the route itself and by its policies; None = nothing.
    pub chain: Option<Arc<Chain>>,
    /// The kinds of filters of virtual host and listener that do not hold for it.
    pub without: Vec<FilterKind>,
    /// The pools that get copies of its requests.
    pub mirrors: Vec<Mirror>,
    /// Times and tries that are its own; None = none.
    pub limits: Option<Box<RouteLimits>>,
    /// Whether its requests may become tunnels, where those of its listener may.
    pub websocket: bool,
    /// Its connections pass inside TLS, on a listener that ends TLS otherwise.
    pub tls_passthrough: bool,
}

impl Route {
    /// The pools that it leads to, mirrors included.
    pub fn pools(&self) -> impl Iterator<Item = &PoolId> {
        self.target.pools().chain(self.mirrors.iter().map(|mirror| &mirror.pool))
    }
}

/// A pool that gets copies of requests, whose answers nobody hears.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mirror {
    /// The pool.
    pub pool: PoolId,
    /// How many of the requests.
    pub fraction: Fraction,
    /// How many bytes of a request's body may wait for it; one that is further behind is dropped.
    pub max_body_bytes: usize,
    /// From its beginning to the end of its response.
    pub timeout: Duration,
}

/// What becomes of the requests of a route.
#[derive(Clone, PartialEq, Debug)]
pub enum RouteTarget {
    /// A backend of this pool answers.
    Pool(PoolId),
    /// A backend of one of these pools answers.
    Split(Split),
    /// The client is sent elsewhere.
    Redirect(Redirect),
    /// The gateway answers.
    Respond(FixedAnswer),
}

impl RouteTarget {
    /// The pools that it leads to.
    pub fn pools(&self) -> impl Iterator<Item = &PoolId> {
        let (pool, branches) = match self {
            Self::Pool(id) => (Some(id), &[][..]),
            Self::Split(split) => (None, split.branches.as_slice()),
            Self::Redirect(_) | Self::Respond(_) => (None, &[][..]),
        };
        pool.into_iter().chain(branches.iter().map(|branch| &branch.pool))
    }
}

/// An answer that stands in the file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FixedAnswer {
    /// Its status, which is final.
    pub status: u16,
    /// Its body, unless it stands in a file.
    pub body: String,
    /// The file that its body stands in.
    pub body_file: Option<PathBuf>,
    /// The type of the body.
    pub content_type: String,
}

/// A virtual host of a listener.
#[derive(Clone, PartialEq, Debug)]
pub struct VirtualHost {
    /// Its hosts.
    pub hosts: Vec<HostPattern>,
    /// The names of its tables.
    pub tables: Vec<String>,
    /// The filters of its policies; None = nothing.
    pub chain: Option<Arc<Chain>>,
    /// Where requests go that no route takes. None = nowhere.
    pub pool: Option<PoolId>,
}

/// What the file says of a listener's routes, beside the tables that others share.
#[derive(Clone, PartialEq, Debug)]
pub struct OwnRoutes {
    /// Its own routes.
    pub routes: Vec<Arc<Route>>,
    /// The names of its tables.
    pub tables: Vec<String>,
    /// The filters of its policies; None = nothing.
    pub chain: Option<Arc<Chain>>,
    /// Its virtual hosts.
    pub virtual_hosts: Vec<VirtualHost>,
}

/// How a listener finds the target of a request.
#[derive(PartialEq, Debug)]
pub struct Routing {
    /// What stands in the listener.
    pub own: OwnRoutes,
    /// The routes by their positions in the table; one stands there once for each scope that it is looked up in.
    pub routes: Vec<Arc<Route>>,
    /// Which of them takes a request.
    pub table: Arc<RouteTable>,
    /// Where requests go that no route takes, by scope. None = nowhere.
    pub fallbacks: Vec<Option<PoolId>>,
    /// The filters of each route by its position: those of the listener, of the virtual host, and its own.
    pub chains: Vec<Option<Arc<Chain>>>,
    /// The filters of what no route takes, by scope.
    pub scope_chains: Vec<Option<Arc<Chain>>>,
    /// Whether fields pass by which backends read another request than was matched.
    pub keeps_override_fields: bool,
}

impl Routing {
    /// The filters of a request that goes there.
    #[inline]
    pub fn chain(&self, destination: RouteDestination) -> Option<&Chain> {
        let (chains, at) = match destination {
            RouteDestination::Route(position) => (&self.chains, position),
            RouteDestination::Fallback(scope) | RouteDestination::Nowhere(scope) => {
                (&self.scope_chains, scope)
            }
        };
        chains.get(at as usize)?.as_deref()
    }

    /// The filters of all routes and scopes; a chain stands there once for each that has it.
    pub fn all_chains(&self) -> impl Iterator<Item = &Chain> {
        self.chains.iter().chain(&self.scope_chains).flatten().map(|chain| &**chain)
    }

    /// The access lists of all routes and scopes; a list stands there once for each that has it.
    pub fn access_lists(&self) -> impl Iterator<Item = &Arc<AccessList>> {
        self.all_chains().flat_map(|chain| &chain.access)
    }

    /// Every error page that a request may be answered with.
    pub fn error_pages(&self) -> impl Iterator<Item = &ErrorPage> {
        let chains = self.chains.iter().chain(&self.scope_chains).flatten();
        chains.filter_map(|chain| chain.errors.as_deref()).flat_map(|errors| &errors.pages)
    }

    /// The same with other weights of splits, of which `of` has those that differ, by the names of route and pool; `None` where none does.
    pub fn with_weights(&self, of: impl Fn(&str, &str) -> Option<u32>) -> Option<Self> {
        let mut is_other = false;
        let mut changed = |route: &Arc<Route>| {
            let RouteTarget::Split(split) = &route.target else { return Arc::clone(route) };
            let mut split = split.clone();
            let mut differs = false;
            for branch in &mut split.branches {
                if let Some(weight) = of(&route.spec.name, branch.pool.name()) {
                    differs |= branch.weight != weight;
                    branch.weight = weight;
                }
            }
            is_other |= differs;
            if differs {
                Arc::new(Route { target: RouteTarget::Split(split), ..Route::clone(route) })
            } else {
                Arc::clone(route)
            }
        };
        let routes = self.routes.iter().map(&mut changed).collect();
        is_other.then(|| Self {
            own: self.own.clone(),
            routes,
            table: Arc::clone(&self.table),
            fallbacks: self.fallbacks.clone(),
            chains: self.chains.clone(),
            scope_chains: self.scope_chains.clone(),
            keeps_override_fields: self.keeps_override_fields,
        })
    }
}
