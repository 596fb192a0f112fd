//! What is known of a network card before the programs are given to it.
//!
//! Drivers refuse native XDP with an error number, and say why in the log of the kernel at best; some take it and lose packets. What is known of them is asked first, so that the error
//! has a name and says what to do.

use std::os::fd::AsRawFd as _;

use rustix::net::{AddressFamily, SocketType, socket};

use crate::error::XdpError;
use crate::needs::{kernel, version};

/// A network interface and its driver.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Nic {
    /// The driver; empty if it does not tell.
    pub driver: String,
    /// Its version, or that of the kernel that it came with.
    pub driver_version: String,
    /// The version of the card's firmware; empty if the driver does not tell.
    pub firmware: String,
    /// The largest IP packet.
    pub mtu: u32,
    /// Its queues; none if the driver does not tell.
    pub channels: Option<NicChannels>,
}

/// Queues of a card, each of which one core empties.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NicChannels {
    /// Those in use.
    pub combined: u32,
    /// Those that it could have.
    pub most: u32,
}

/// Why a driver is not asked to run the programs itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NicLimit {
    /// The driver needs a queue of its own for what each channel sends by XDP.
    #[error(
        "the ena driver runs XDP programs with at most half of its channels, {} of {most}, and {combined} are in use: ethtool -L INTERFACE combined {}",
        .most / 2, .most / 2
    )]
    Channels {
        /// Those in use.
        combined: u32,
        /// Those that it could have.
        most: u32,
    },
    /// The driver wants each packet in one page.
    #[error(
        "the ena driver runs XDP programs up to an MTU of {ENA_MTU}, and it is {mtu}: ip link set INTERFACE mtu {ENA_MTU}"
    )]
    Mtu {
        /// What is set.
        mtu: u32,
    },
    /// Known to lose packets or to hang.
    #[error("{driver} {found} is known not to run XDP programs well: it needs {least} or later")]
    TooOld {
        /// Which, and what of it.
        driver: &'static str,
        /// What is there.
        found: String,
        /// What is needed.
        least: &'static str,
    },
}

impl Nic {
    /// What the kernel tells of an interface.
    ///
    /// # Errors
    /// There is no such interface. What its driver does not tell is left empty.
    pub fn of(interface: &str) -> Result<Self, XdpError> {
        let failed = |error| XdpError::NoInterface { name: interface.to_owned(), error };
        let any =
            socket(AddressFamily::INET, SocketType::DGRAM, None).map_err(|error| failed(error.into()))?;
        let mut request = Request { socket: any.as_raw_fd(), interface };
        let mtu = request.mtu().map_err(failed)?;
        let mut info = DriverInfo { command: ETHTOOL_GDRVINFO, ..DriverInfo::default() };
        // Interfaces without a driver of their own tell nothing.
        let _ = request.ethtool(&mut info);
        let mut channels = Channels { command: ETHTOOL_GCHANNELS, ..Channels::default() };
        let has_channels = request.ethtool(&mut channels).is_ok();
        Ok(Self {
            driver: text(&info.driver),
            driver_version: text(&info.version),
            firmware: text(&info.firmware),
            mtu,
            // Cards with queues for one direction alone have no combined ones.
            channels: (has_channels && channels.combined > 0)
                .then_some(NicChannels { combined: channels.combined, most: channels.most_combined }),
        })
    }

    /// Whether the driver should run the programs.
    ///
    /// # Errors
    /// What speaks against it, and what to do.
    pub fn native_limit(&self) -> Result<(), NicLimit> {
        self.limit(version(&kernel()))
    }

    fn limit(&self, kernel: Option<(u32, u32)>) -> Result<(), NicLimit> {
        let older = |found: &str, least: &[u32]| {
            let parts = parts(found);
            !parts.is_empty() && parts.as_slice() < least
        };
        let too_old =
            |driver, found: &str, least| Err(NicLimit::TooOld { driver, found: found.to_owned(), least });
        match self.driver.as_str() {
            "ena" => {
                if let Some(NicChannels { combined, most }) = self.channels
                    && combined > most / 2
                {
                    return Err(NicLimit::Channels { combined, most });
                }
                if self.mtu > ENA_MTU {
                    return Err(NicLimit::Mtu { mtu: self.mtu });
                }
                // The driver of the kernel has the kernel's version, and one that came by itself its own.
                let parts = parts(&self.driver_version);
                let is_of_kernel = parts.get(..2).is_none_or(|of| kernel.is_some_and(|(a, b)| of == [a, b]));
                if is_of_kernel {
                    if kernel.is_some_and(|kernel| kernel < (6, 7)) {
                        return too_old("the ena driver of Linux", &self.driver_version, "6.7");
                    }
                } else if older(&self.driver_version, &[2, 10, 0]) {
                    return too_old("the ena driver", &self.driver_version, "2.10.0");
                }
                Ok(())
            }
            "mlx5_core" if older(&self.firmware, &[16, 32, 1010]) => {
                too_old("the firmware of mlx5_core", &self.firmware, "16.32.1010")
            }
            "ice" if older(&self.firmware, &[4, 11]) => {
                too_old("the firmware of ice", &self.firmware, "4.11")
            }
            _ => Ok(()),
        }
    }
}

/// The numbers at the beginning of a version.
fn parts(version: &str) -> Vec<u32> {
    let head = version.split(|c: char| !(c.is_ascii_digit() || c == '.')).next().unwrap_or_default();
    head.split('.').map_while(|part| part.parse().ok()).collect()
}

/// Octets up to the first zero.
fn text(octets: &[u8; 32]) -> String {
    let end = octets.iter().position(|octet| *octet == 0).unwrap_or(octets.len());
    String::from_utf8_lossy(octets.get(..end).unwrap_or_default()).into_owned()
}

/// Questions about an interface.
struct Request<'a> {
    socket: std::os::fd::RawFd,
    interface: &'a str,
}

impl Request<'_> {
    fn mtu(&mut self) -> std::io::Result<u32> {
        let mut request = self.named();
        // SAFETY: the kernel reads the name and writes the MTU, both within the request.
        #[expect(unsafe_code, reason = "no crate offers SIOCGIFMTU")]
        let result = unsafe { libc::ioctl(self.socket, libc::SIOCGIFMTU as _, &raw mut request) };
        if result != 0 {
            return Err(std::io::Error::last_os_error());
        }
        // SAFETY: the kernel has written this variant.
        #[expect(unsafe_code, reason = "a union of the kernel")]
        let mtu = unsafe { request.ifr_ifru.ifru_mtu };
        Ok(u32::try_from(mtu).unwrap_or_default())
    }

    /// `value` begins with its command, as all structures of linux/ethtool.h do.
    fn ethtool<T: Ethtool>(&mut self, value: &mut T) -> std::io::Result<()> {
        let mut request = self.named();
        request.ifr_ifru.ifru_data = std::ptr::from_mut(value).cast();
        // SAFETY: request and value live longer than the call, and the value has the layout of the structure that its command names (`Ethtool`).
        #[expect(unsafe_code, reason = "no crate offers SIOCETHTOOL")]
        let result = unsafe { libc::ioctl(self.socket, libc::SIOCETHTOOL as _, &raw mut request) };
        if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
    }

    fn named(&self) -> libc::ifreq {
        // SAFETY: zeros are a value of the structure.
        #[expect(unsafe_code, reason = "a structure of the kernel with a union")]
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        // The last octet stays zero.
        let room = request.ifr_name.len().saturating_sub(1);
        for (to, from) in request.ifr_name.iter_mut().take(room).zip(self.interface.bytes()) {
            *to = from.cast_signed() as libc::c_char;
        }
        request
    }
}

/// A structure of linux/ethtool.h, whose size is asserted below.
trait Ethtool {}

/// `struct ethtool_drvinfo`.
#[repr(C)]
#[derive(Default)]
struct DriverInfo {
    command: u32,
    driver: [u8; 32],
    version: [u8; 32],
    firmware: [u8; 32],
    bus: [u8; 32],
    rom: [u8; 32],
    reserved: [u8; 12],
    counts: [u32; 5],
}

/// `struct ethtool_channels`.
#[repr(C)]
#[derive(Default)]
struct Channels {
    command: u32,
    most_receive: u32,
    most_send: u32,
    most_other: u32,
    most_combined: u32,
    receive: u32,
    send: u32,
    other: u32,
    combined: u32,
}

impl Ethtool for DriverInfo {}
impl Ethtool for Channels {}

const _: () = assert!(size_of::<DriverInfo>() == 196 && size_of::<Channels>() == 36);

/// linux/ethtool.h
const ETHTOOL_GDRVINFO: u32 = 0x03;
const ETHTOOL_GCHANNELS: u32 = 0x3c;

/// What is left of a page beside headroom and the kernel's notes.
const ENA_MTU: u32 = 3498;

#[cfg(test)]
mod tests {
    use super::*;

    fn nic(driver: &str, version: &str, firmware: &str, mtu: u32, channels: Option<(u32, u32)>) -> Nic {
        Nic {
            driver: driver.to_owned(),
            driver_version: version.to_owned(),
            firmware: firmware.to_owned(),
            mtu,
            channels: channels.map(|(combined, most)| NicChannels { combined, most }),
        }
    }

    #[test]
    fn ena_has_limits_and_names_them() {
        let kernel = Some((6, 12));
        let of = |mtu, channels| nic("ena", "6.12.3-cloud", "", mtu, channels).limit(kernel);
        assert_eq!(of(3498, Some((4, 8))), Ok(()));
        assert_eq!(of(9001, Some((4, 8))), Err(NicLimit::Mtu { mtu: 9001 }));
        let channels = of(1500, Some((8, 8))).unwrap_err();
        assert_eq!(
            channels.to_string(),
            "the ena driver runs XDP programs with at most half of its channels, 4 of 8, and 8 are in use: ethtool -L INTERFACE combined 4"
        );
        assert!(
            of(9001, None).unwrap_err().to_string().ends_with("it is 9001: ip link set INTERFACE mtu 3498")
        );
        // Of the kernel, or by itself.
        let old = |version: &str, kernel| nic("ena", version, "", 1500, None).limit(Some(kernel)).is_err();
        assert!(old("6.1.0-13-amd64", (6, 1)) && !old("6.7.1", (6, 7)));
        assert!(old("2.9.1g", (6, 1)) && !old("2.10.0g", (6, 1)) && !old("2.13.0g", (5, 15)));
        assert!(old("", (6, 1)) && !old("", (6, 7)));
    }

    #[test]
    fn firmware_that_is_known_to_fail_is_not_asked() {
        let of = |driver: &str, firmware: &str| {
            nic(driver, "6.1.0", firmware, 9000, Some((8, 8))).limit(Some((6, 1)))
        };
        assert!(of("mlx5_core", "16.31.1014 (MT_0000000008)").is_err());
        assert_eq!(of("mlx5_core", "16.32.1010 (MT_0000000008)"), Ok(()));
        assert!(of("ice", "4.10 0x8001 1.3").is_err());
        assert_eq!(of("ice", "4.11 0x8001 1.3"), Ok(()));
        // What does not tell is taken at its word.
        for driver in ["mlx5_core", "ice", "veth", ""] {
            assert_eq!(of(driver, ""), Ok(()));
        }
    }

    #[test]
    fn an_interface_is_asked() {
        let own = Nic::of("lo").unwrap();
        assert!(own.mtu >= 1280, "{own:?}");
        assert_eq!(own.native_limit(), Ok(()));
        assert!(Nic::of("no-such-one").is_err());
    }
}
