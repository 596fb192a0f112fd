//! What operators ask of files alone, without a process: [`simulate`] replays a recorded access log against a configuration, [`import`] reads those of
//! other proxies as ours.
//!
//! Nothing here opens a file or a socket, or looks at a clock: the caller hands in texts, and writes down what comes out.

pub mod import;
pub mod simulate;
