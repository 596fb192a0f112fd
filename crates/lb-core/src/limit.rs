//! Limits on how often requests come, and on how many run at once: by key, in tables of fixed size that all workers share.
//!
//! A [`RequestRate`] decides by one number for each key, the time until which the key owes (GCRA, the generic cell rate algorithm of ITU-T I.371): no
//! timer runs, and nothing is swept. A [`RateTable`] has these numbers in memory that is taken once, whatever keys clients make up (attack R-18).
//! What a key is made of says [`LimitKey`]. A
//! [`PlaceTable`] counts requests that run, and an [`AdaptiveLimit`] finds out how many should. The time is an argument everywhere.

pub mod adaptive;
pub mod gcra;
pub mod key;
pub mod places;
pub mod registry;
pub mod table;

#[cfg(test)]
mod tests;

pub use adaptive::{AdaptiveBounds, AdaptiveLimit};
pub use gcra::{RateStanding, RequestRate};
pub use key::{KeyPart, LimitKey, LimitRequest, MissingKey, OnMissing};
pub use places::{PlaceTable, PlaceTaken};
pub use registry::{LimitRegistry, LimitTables};
pub use table::{RateTable, Taken};
