//! What an operator can see of the gateway: metric families, logs, the access log and the admin server.
//!
//! Nothing here runs on the path of a request except the counters of [`metrics`], which are plain loads and
//! stores in memory that one worker owns, the hand-over of a finished line of the [`access_log`] or of an open
//! [`tap`], and that of a request that is traced ([`traces`]).

pub mod access_log;
pub mod admin;
mod escape;
pub mod logs;
pub mod metrics;
pub mod tap;
pub mod traces;
