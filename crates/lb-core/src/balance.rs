//! Which member of a pool takes the next request or connection.

mod smooth;

pub use smooth::SmoothRoundRobin;
