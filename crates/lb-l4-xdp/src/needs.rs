//! What the programs need of the machine, asked before anything is loaded.

use rustix::net::{AddressFamily, SocketType, netdevice, socket};

use crate::error::XdpError;

/// The oldest kernel that the programs are for: the first whose verifier takes them, with links and maps as they use them.
const OLDEST: (u32, u32) = (5, 15);

/// Which capabilities the process has for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capabilities {
    /// CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON. Without the last the kernel takes no program that reads a packet at a place that it has computed, where headers of different length
    /// need it.
    BpfAndNetAdmin,
    /// CAP_SYS_ADMIN, which stands for all of them.
    SysAdmin,
}

impl Capabilities {
    /// As logs show them.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BpfAndNetAdmin => "cap_bpf+cap_net_admin+cap_perfmon",
            Self::SysAdmin => "cap_sys_admin",
        }
    }
}

/// Refuses a kernel that is too old, and a process that may not load programs.
pub fn check_needs() -> Result<Capabilities, XdpError> {
    let release = kernel();
    if version(&release).is_none_or(|version| version < OLDEST) {
        return Err(XdpError::OldKernel(release));
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    capabilities(&status).ok_or(XdpError::NoCapabilities)
}

/// Whether the programs can answer SYNs with cookies that the kernel takes for its own: since Linux 6.0.
pub fn has_syn_cookies() -> bool {
    version(&kernel()).is_some_and(|version| version >= (6, 0))
}

/// The index of an interface.
pub fn interface_index(name: &str) -> Result<u32, XdpError> {
    let failed =
        |error: rustix::io::Errno| XdpError::NoInterface { name: name.to_owned(), error: error.into() };
    let any = socket(AddressFamily::INET, SocketType::DGRAM, None).map_err(failed)?;
    netdevice::name_to_index(&any, name).map_err(failed)
}

/// The release of the kernel, as uname(1) shows it.
pub(crate) fn kernel() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned()
}

pub(crate) fn version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// From the effective set that proc(5) shows.
fn capabilities(status: &str) -> Option<Capabilities> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    let set = u64::from_str_radix(line.trim(), 16).ok()?;
    let has = |bit: u32| set >> bit & 1 != 0;
    if has(CAP_BPF) && has(CAP_NET_ADMIN) && has(CAP_PERFMON) {
        Some(Capabilities::BpfAndNetAdmin)
    } else {
        has(CAP_SYS_ADMIN).then_some(Capabilities::SysAdmin)
    }
}

/// linux/capability.h
const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_and_capabilities_are_read_as_they_are_shown() {
        assert_eq!(version("6.18.3-cloud"), Some((6, 18)));
        assert_eq!(version("5.4.0"), Some((5, 4)));
        assert!(version("5.9.0").unwrap() < OLDEST && version("5.15.0").unwrap() >= OLDEST);
        assert_eq!(version("unknown"), None);
        let of = |set: u64| capabilities(&format!("Name:\tx\nCapEff:\t{set:016x}\nCapBnd:\t0\n"));
        let three = 1 << CAP_BPF | 1 << CAP_NET_ADMIN | 1 << CAP_PERFMON;
        assert_eq!(of(three), Some(Capabilities::BpfAndNetAdmin));
        assert_eq!(of(1 << CAP_BPF | 1 << CAP_NET_ADMIN), None);
        assert_eq!(of(1 << CAP_SYS_ADMIN), Some(Capabilities::SysAdmin));
        assert_eq!(of(1 << CAP_BPF), None);
        assert_eq!(capabilities(""), None);
    }
}
