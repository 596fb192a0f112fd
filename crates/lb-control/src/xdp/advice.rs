//! What the operator should know of the interfaces that run the programs.

use lb_l4_xdp::{Nic, NicChannels};

/// What is probably not meant with these interfaces, of which the first is that of clients. `overhead` octets are added to each packet on its way to a
/// backend, and `cores` empty their queues.
pub(super) fn advice(nics: &[(&str, Nic)], overhead: u32, cores: usize) -> Vec<String> {
    let mut told = Vec::new();
    let Some(((clients, first), others)) = nics.split_first() else { return told };
    for (name, nic) in nics {
        if nic.driver == "veth" {
            told.push(format!(
                "{name} is a virtual interface, and programs see packets before the kernel completes their checksums: ethtool -K … tx off on its other end"
            ));
        }
        if let Some(NicChannels { combined, most }) = nic.channels
            && nic.driver != "veth"
            && (combined as usize) < cores
            && combined < most
        {
            told.push(format!(
                "{name} has {combined} channels of {most}, and so many of {cores} cores do its work: ethtool -L {name} combined …"
            ));
        }
    }
    let least = others.iter().map(|(name, nic)| (nic.mtu, *name)).min().unwrap_or((first.mtu, clients));
    if first.mtu.saturating_add(overhead) > least.0 {
        told.push(format!(
            "packets of {} octets from {clients} are too big for {} with its MTU of {}{}: they are answered so, which clients behind filters never hear",
            first.mtu,
            least.1,
            least.0,
            if overhead == 0 { String::new() } else { format!(" and {overhead} octets of a tunnel") }
        ));
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nic(driver: &str, mtu: u32, channels: Option<(u32, u32)>) -> Nic {
        Nic {
            driver: driver.to_owned(),
            mtu,
            channels: channels.map(|(combined, most)| NicChannels { combined, most }),
            ..Nic::default()
        }
    }

    #[test]
    fn what_fits_is_not_talked_about() {
        let nics = [("eth0", nic("ice", 1500, Some((8, 64)))), ("eth1", nic("ice", 9000, Some((8, 64))))];
        assert_eq!(advice(&nics, 48, 8), [""; 0]);
        assert_eq!(advice(&nics[..1], 0, 8), [""; 0]);
        assert_eq!(advice(&[], 0, 8), [""; 0]);
    }

    #[test]
    fn tunnels_need_room_and_cores_need_channels() {
        let nics = [("eth0", nic("ice", 1500, Some((4, 64)))), ("eth1", nic("veth", 1500, Some((1, 1))))];
        let told = advice(&nics, 20, 8);
        assert_eq!(told.len(), 3, "{told:#?}");
        assert!(told[0].starts_with("eth0 has 4 channels of 64, and so many of 8 cores"), "{told:#?}");
        assert!(told[1].starts_with("eth1 is a virtual interface"), "{told:#?}");
        assert!(told[2].contains("eth1 with its MTU of 1500 and 20 octets of a tunnel"), "{told:#?}");
        // One interface both ways.
        assert_eq!(advice(&[("eth0", nic("ice", 1500, None))], 40, 8).len(), 1);
    }
}
