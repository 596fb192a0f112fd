//! HTTP: the exchange, its codecs, and the proxy that drives it.
//!
//! A front codec turns what a client sends into an exchange, a back codec turns it into what a backend understands, and
//! [`proxy`] moves one exchange between the two. Rules that hold for every pair of protocols stand in [`rules`] and [`proxy`], and
//! nowhere else.

mod affinity;
pub mod answer;
mod back;
mod budget;
mod concurrency;
mod dry_run;
mod errand;
mod filter;
pub mod fuzz;
pub mod grpc;
pub mod h1;
pub mod h2;
pub mod h3;
mod limits;
pub mod message;
pub mod proxy;
mod record;
mod routes;
pub mod rules;
mod section;
mod serve;
pub mod service;
mod session;
mod split;
pub mod upstream;

pub use concurrency::AdaptiveLimits;
pub use routes::{AnswerBodies, SharedParts};
pub use serve::{Serving, serve};
pub use session::Session;
mod sticky;
pub mod websocket;
