//! Files of networks: one on each line.

use std::fmt;

use crate::route::IpNetwork;

/// The most networks that a file may have.
const MOST_ENTRIES: usize = 1_000_000;

/// What is wrong with a file of networks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AccessFileFault {
    /// Nothing at all is in it: it may have been cut off while it was written.
    Empty,
    /// A line holds something else than a network.
    Line {
        /// The number of the line, from 1 on.
        number: usize,
        /// What stands in it, cut to 64 characters.
        value: String,
    },
    /// It has more networks than a list may have.
    TooMany,
}

/// The networks of a file: one on each line, in CIDR form or a single address; `#` begins a comment. A file without any network has a comment at least.
///
/// # Errors
/// The first fault.
pub fn parse_access_file(text: &str) -> Result<Vec<IpNetwork>, AccessFileFault> {
    if text.trim().is_empty() {
        return Err(AccessFileFault::Empty);
    }
    let mut networks = Vec::new();
    for (line, number) in text.lines().zip(1..) {
        let value = line.split_once('#').map_or(line, |(value, _)| value).trim();
        if value.is_empty() {
            continue;
        }
        let fault = || AccessFileFault::Line { number, value: value.chars().take(64).collect() };
        networks.push(IpNetwork::parse(value).ok_or_else(fault)?);
        if networks.len() > MOST_ENTRIES {
            return Err(AccessFileFault::TooMany);
        }
    }
    Ok(networks)
}

impl fmt::Display for AccessFileFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => {
                f.write_str("is empty; a list without networks has a comment, which begins with #")
            }
            Self::Line { number, value } => {
                write!(
                    f,
                    "line {number}: {value:?} is no network: such as 10.0.0.0/8, 192.0.2.1 or 2001:db8::/32"
                )
            }
            Self::TooMany => write!(f, "has more than {MOST_ENTRIES} networks"),
        }
    }
}

impl std::error::Error for AccessFileFault {}
