//! Attaching to interfaces.

use aya::programs::XdpMode;
use aya::programs::links::FdLink;

use crate::error::XdpError;
use crate::nic::Nic;
use crate::plane::Plane;

/// How an interface is to run the programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpAttach {
    /// In the driver, or else in the kernel behind it.
    Auto,
    /// In the driver.
    Native,
    /// In the kernel behind the driver, for each packet that it has made.
    Skb,
    /// On the card.
    Hardware,
}

/// How an interface runs the programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpAttached {
    /// In the driver.
    Native,
    /// In the kernel behind the driver.
    Skb,
    /// On the card.
    Hardware,
    /// As an earlier process had them, whose programs were exchanged for these in one step.
    Replaced,
}

impl XdpAttach {
    /// What is tried, in this order.
    fn ladder(self) -> &'static [(XdpMode, XdpAttached)] {
        const NATIVE: (XdpMode, XdpAttached) = (XdpMode::Driver, XdpAttached::Native);
        const SKB: (XdpMode, XdpAttached) = (XdpMode::Skb, XdpAttached::Skb);
        match self {
            Self::Auto => &[NATIVE, SKB],
            Self::Native => &[NATIVE],
            Self::Skb => &[SKB],
            Self::Hardware => &[(XdpMode::Hardware, XdpAttached::Hardware)],
        }
    }
}

impl Plane {
    /// Attaches the programs to an interface. With [pins](Self::load_pinned) the attachment outlives the process, and one that an earlier process has left is taken over.
    pub fn attach(&mut self, interface: &str, wanted: XdpAttach) -> Result<XdpAttached, XdpError> {
        if let Some(link) = self.pins().and_then(|pins| pins.attached(interface)) {
            // One whose interface is gone leads nowhere, and is made anew.
            if let Ok(id) = self.entry()?.attach_to_link(link) {
                let link = self.entry()?.take_link(id)?;
                self.hold(FdLink::try_from(link)?);
                return Ok(XdpAttached::Replaced);
            }
        }
        let limit = Nic::of(interface)?.native_limit().err();
        let mut refused = None;
        for &(mode, attached) in wanted.ladder() {
            if let Some(limit) = limit.clone().filter(|_| attached == XdpAttached::Native) {
                refused = Some(XdpError::Driver { name: interface.to_owned(), limit });
                continue;
            }
            match self.entry()?.attach(interface, mode) {
                Ok(id) => {
                    if let Some(pins) = self.pins() {
                        let link = self.entry()?.take_link(id)?;
                        pins.keep(interface, FdLink::try_from(link)?)?;
                    }
                    return Ok(attached);
                }
                Err(error) => refused = Some(XdpError::Program(error)),
            }
        }
        Err(refused.unwrap_or(XdpError::OutOfBounds))
    }
}
