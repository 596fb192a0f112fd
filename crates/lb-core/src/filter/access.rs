//! Access lists: which clients are let in, by their addresses and certificates.
//!
//! The networks of a list stand in the configuration, in files, or in both. What the files hold is read elsewhere, and put in force by
//! [`AccessFiles::bind`] and [`LiveNetworks::replace`] while requests are served: each look-up sees one state of both files.

mod file;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;

pub use file::{AccessFileFault, parse_access_file};

use crate::address::ClientAddress;
use crate::network::NetworkMap;
use crate::reason::Reason;
use crate::route::IpNetwork;

/// `access` of a policy.
#[derive(PartialEq, Debug)]
pub struct AccessList {
    /// The name of the policy.
    pub policy: Box<str>,
    /// Which addresses are let in.
    pub networks: AccessNetworks,
    /// Whether clients must have shown a certificate that was verified, or must not have; None = either.
    pub client_certificate: Option<bool>,
    /// Whether nobody is refused, only counted.
    pub dry_run: bool,
}

/// Which addresses a list lets in.
#[derive(PartialEq, Debug)]
pub enum AccessNetworks {
    /// As the configuration says.
    Fixed(AccessMap),
    /// As files say as well.
    Files(AccessFiles),
}

/// Networks that are let in, and others that are not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AccessMap {
    networks: NetworkMap<bool>,
    /// Whether clients that no network has are let in.
    lets_others_in: bool,
}

/// Files with networks, and the networks that the configuration has beside them.
#[derive(Debug)]
pub struct AccessFiles {
    /// Networks that are let in.
    pub allow: Vec<IpNetwork>,
    /// Networks that are not.
    pub deny: Vec<IpNetwork>,
    /// The file of further networks that are let in.
    pub allow_file: Option<PathBuf>,
    /// The file of further networks that are not.
    pub deny_file: Option<PathBuf>,
    live: OnceLock<Arc<LiveNetworks>>,
}

/// What the files of a list say at the moment.
#[derive(Debug)]
pub struct LiveNetworks(ArcSwap<AccessMap>);

/// What the lists of a request say.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct AccessVerdict {
    /// Why the client is not let in, if it is not.
    pub refused: Option<Reason>,
    /// How many lists would have refused its address that only count.
    pub dry_addresses: u8,
    /// How many would have refused it for its certificate.
    pub dry_certificates: u8,
}

impl AccessMap {
    /// The longest prefix decides; of equal ones, that of `deny`. Where no network has a client, it is refused if there is an `allow` list, though
    /// it be empty.
    pub fn new(
        allow: Option<impl IntoIterator<Item = IpNetwork>>,
        deny: impl IntoIterator<Item = IpNetwork>,
    ) -> Self {
        let lets_others_in = allow.is_none();
        let allow = allow.into_iter().flatten().map(|network| (network, true));
        // Of two entries of one network the later one holds.
        let networks = NetworkMap::new(allow.chain(deny.into_iter().map(|network| (network, false))));
        Self { networks, lets_others_in }
    }

    /// Whether a client is let in. One without an address is in no network.
    #[inline]
    pub fn lets_in(&self, client: ClientAddress) -> bool {
        let found = client.ip().and_then(|ip| self.networks.get(ip));
        found.unwrap_or(self.lets_others_in)
    }
}

impl AccessFiles {
    /// A list whose files have not been read: it lets nobody in before [`Self::bind`].
    pub fn new(
        (allow, allow_file): (Vec<IpNetwork>, Option<PathBuf>),
        (deny, deny_file): (Vec<IpNetwork>, Option<PathBuf>),
    ) -> Self {
        Self { allow, deny, allow_file, deny_file, live: OnceLock::new() }
    }

    /// The files.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.allow_file.iter().chain(&self.deny_file).map(PathBuf::as_path)
    }

    /// The networks of the list, where the files hold these.
    pub fn map(&self, allowed: Vec<IpNetwork>, denied: Vec<IpNetwork>) -> AccessMap {
        let has_allow = self.allow_file.is_some() || !self.allow.is_empty();
        let allow = has_allow.then(|| self.allow.iter().copied().chain(allowed));
        AccessMap::new(allow, self.deny.iter().copied().chain(denied))
    }

    /// Has the list say what `live` says from now on. The first call holds.
    pub fn bind(&self, live: &Arc<LiveNetworks>) {
        let _ = self.live.set(Arc::clone(live));
    }
}

/// What the files say is no part of it.
impl PartialEq for AccessFiles {
    fn eq(&self, other: &Self) -> bool {
        (&self.allow, &self.deny, &self.allow_file, &self.deny_file)
            == (&other.allow, &other.deny, &other.allow_file, &other.deny_file)
    }
}

impl LiveNetworks {
    /// Files that say so.
    pub fn new(map: AccessMap) -> Arc<Self> {
        Arc::new(Self(ArcSwap::from_pointee(map)))
    }

    /// Files that say something else from now on, to all lists that are bound to them.
    pub fn replace(&self, map: AccessMap) {
        self.0.store(Arc::new(map));
    }
}

impl AccessList {
    /// The list of the policy of this name that lets these networks in.
    pub fn fixed(policy: &str, map: AccessMap) -> Self {
        let networks = AccessNetworks::Fixed(map);
        Self { policy: policy.into(), networks, client_certificate: None, dry_run: false }
    }

    /// Its files, if it has some.
    pub fn files(&self) -> Option<&AccessFiles> {
        match &self.networks {
            AccessNetworks::Files(files) => Some(files),
            AccessNetworks::Fixed(_) => None,
        }
    }

    /// Why a client is not let in.
    #[inline]
    fn refuses(&self, client: ClientAddress, has_certificate: bool) -> Option<Reason> {
        let lets_in = match &self.networks {
            AccessNetworks::Fixed(map) => map.lets_in(client),
            AccessNetworks::Files(files) => {
                files.live.get().is_some_and(|live| live.0.load().lets_in(client))
            }
        };
        if !lets_in {
            return Some(Reason::Access);
        }
        let fits = self.client_certificate.is_none_or(|wanted| wanted == has_certificate);
        (!fits).then_some(Reason::ClientCertificate)
    }
}

impl AccessVerdict {
    /// What these lists say of a client that has shown a certificate that was verified, or has not.
    #[inline]
    pub fn of(lists: &[Arc<AccessList>], client: ClientAddress, has_certificate: bool) -> Self {
        let mut verdict = Self::default();
        for list in lists {
            match list.refuses(client, has_certificate) {
                None => {}
                Some(Reason::ClientCertificate) if list.dry_run => {
                    verdict.dry_certificates = verdict.dry_certificates.saturating_add(1);
                }
                Some(_) if list.dry_run => verdict.dry_addresses = verdict.dry_addresses.saturating_add(1),
                refused => {
                    verdict.refused = refused;
                    break;
                }
            }
        }
        verdict
    }

    /// Whether the client is let in.
    pub fn lets_in(&self) -> bool {
        self.refused.is_none()
    }
}
