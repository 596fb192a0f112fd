//! The client's side of an exchange.

use std::net::SocketAddr;
use std::rc::Rc;

use lb_core::address::ClientAddress;
use lb_core::filter::request_id;
use lb_core::forwarded::RequestOrigin;
use lb_core::head::{RequestHead, Version};
use lb_core::proxy_protocol::{ProxyClient, ProxySends, ProxyTls};
use lb_core::route::Scheme;
use lb_io::WorkerIo;

use super::stall::Stall;
use crate::message::FrontCapabilities;
use crate::rules::Hop;
use crate::service::{ClientCertificates, Settings};
use crate::session::Session;
use crate::upstream::{Endpoint, ToldClient, Whose};

/// What a connection tells of its client.
#[derive(Debug)]
pub struct Client {
    /// Its address.
    pub address: ClientAddress,
    /// What its requests are given on their way.
    pub hop: Hop,
    /// What TLS has settled, if it came inside it.
    pub session: Option<Rc<Session>>,
    /// What backends are told of it, where they may be, and its connections to those.
    pub told: Option<Rc<ToldClient>>,
}

impl Client {
    /// The client at the other end of a connection that was accepted under `settings`. `version` is what its requests will be of, as far as
    /// is known.
    pub fn new(
        address: ClientAddress,
        version: Version,
        session: Option<Rc<Session>>,
        settings: &Settings,
    ) -> Self {
        let scheme = if session.is_some() { "https" } else { "http" };
        let mut hop = Hop::new(address, scheme, version);
        let certificate = session.as_ref().and_then(|session| session.certificate());
        match settings.client_certificates {
            ClientCertificates::Off => {}
            ClientCertificates::Checked => hop.tell_certificate(None),
            ClientCertificates::Told => hop.tell_certificate(certificate),
        }
        Self { address, hop, session, told: None }
    }

    /// The client, of whom backends may be told; where it has connected to, if that is known.
    #[must_use]
    pub fn told(mut self, asked: Option<SocketAddr>) -> Self {
        self.told = Some(ToldClient::new(asked));
        self
    }

    /// Whom a request is from that came over the connection.
    #[inline]
    pub(super) fn origin(&self, head: &RequestHead, settings: &Settings) -> RequestOrigin {
        let scheme = if self.session.is_some() { Scheme::Https } else { Scheme::Http };
        match &settings.client_address {
            None => RequestOrigin::of_connection(self.address, scheme),
            Some(policy) => policy.origin(&head.fields, self.address, scheme),
        }
    }
}

/// The client of one exchange: its identity, and what has passed between it and the gateway.
#[derive(Debug)]
pub(crate) struct ClientSide {
    /// Where it is, behind whatever proxies are trusted.
    pub(super) address: ClientAddress,
    pub(super) session: Option<Rc<Session>>,
    told: Option<Rc<ToldClient>>,
    /// What its protocol can do.
    pub(super) can: FrontCapabilities,
    /// It takes no more at the moment.
    pub(super) stall: Stall,
    /// Bytes received from it.
    pub(super) received: u64,
    /// Bytes sent to it.
    pub(super) sent: u64,
}

impl ClientSide {
    pub(super) fn new(address: ClientAddress, client: &Client, can: FrontCapabilities) -> Self {
        Self {
            address,
            session: client.session.clone(),
            told: client.told.clone(),
            can,
            stall: Stall::default(),
            received: 0,
            sent: 0,
        }
    }

    /// The client of an exchange that is made on behalf of this one's, by a front that can do so much.
    pub(super) fn again(&self, can: FrontCapabilities) -> Self {
        Self {
            address: self.address,
            session: self.session.clone(),
            told: self.told.clone(),
            can,
            stall: Stall::default(),
            received: 0,
            sent: 0,
        }
    }

    /// Which connections to a backend that is told of it are its own; none where its connection keeps none.
    pub(crate) fn whose<'a>(&'a self, endpoint: &'a Rc<Endpoint>, sends: ProxySends) -> Option<Whose<'a>> {
        let told = self.told.as_ref()?;
        Some(Whose { told, endpoint, client: self.address, sends })
    }

    /// What a backend is told of it at the beginning of a connection.
    pub(crate) fn header(&self, sends: ProxySends, io: &WorkerIo) -> Vec<u8> {
        let session = self.session.as_deref();
        let record = session.map(Session::record);
        let certificate = session.and_then(Session::certificate);
        sends.header(&ProxyClient {
            from: self.address,
            to: self.told.as_ref().and_then(|told| told.asked),
            authority: record.as_ref().and_then(|record| record.server_name),
            alpn: record.as_ref().and_then(|record| record.alpn),
            tls: record.as_ref().map(|record| ProxyTls {
                version: record.version,
                certificate: certificate.map(|certificate| certificate.common_name.as_str()),
            }),
            unique_id: &request_id::new(&mut io.rng.borrow_mut()),
        })
    }
}
