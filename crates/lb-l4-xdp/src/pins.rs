//! Tables and attachments that outlive the process: pinned on a BPF file system.
//!
//! A process that starts where another one was takes its tables over, with all flows, and exchanges the program on each interface in one
//! step: packets are forwarded by the old programs or by the new ones, and never by none. Tables of another layout are refused, since their
//! bytes would be read as something else.

use std::mem::size_of;
use std::path::{Path, PathBuf};

use aya::maps::{Array, Map, MapData, MapInfo};
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::xdp::XdpLink;
use lb_l4_xdp_layout::{
    Backend, BackendCounters, Flow4, Flow6, FlowKey4, FlowKey6, FragmentKey4, FragmentKey6, FragmentPorts,
    LAYOUT_VERSION, ServerKey, Service, Settings, VipKey4, VipKey6,
};

use crate::error::XdpError;
use crate::value::Value;

/// The tables that outlive the process, with the sizes of keys and values. The others are of one load of the programs.
pub(crate) const PINNED: &[(&str, usize, usize)] = &[
    ("SETTINGS", 4, size_of::<Settings>()),
    ("ADDRESSES", 4, 8),
    ("VIPS4", size_of::<VipKey4>(), 4),
    ("VIPS6", size_of::<VipKey6>(), 4),
    ("SERVICES", 4, size_of::<Service>()),
    ("BACKENDS", 4, size_of::<Backend>()),
    ("SERVERS", size_of::<ServerKey>(), 4),
    ("RINGS", 4, 4),
    ("FLOWS4", size_of::<FlowKey4>(), size_of::<Flow4>()),
    ("FLOWS6", size_of::<FlowKey6>(), size_of::<Flow6>()),
    ("FRAGMENTS4", size_of::<FragmentKey4>(), size_of::<FragmentPorts>()),
    ("FRAGMENTS6", size_of::<FragmentKey6>(), size_of::<FragmentPorts>()),
    ("SOURCES4", 8, 4),
    ("SOURCES6", 20, 4),
    ("EVENT_COUNTS", 4, 8),
    ("BACKEND_COUNTS", 4, size_of::<BackendCounters>()),
    ("DEVICES", 4, 8),
];

/// A directory of a BPF file system, for one gateway.
#[derive(Clone, Debug)]
pub struct Pins {
    pub(crate) directory: PathBuf,
}

impl Pins {
    /// Makes the directory if it is not there. It must be on a BPF file system (`mount -t bpf bpf /sys/fs/bpf`).
    pub fn new(directory: &Path) -> Result<Self, XdpError> {
        let failed = |error| XdpError::Pins { path: directory.to_owned(), error };
        std::fs::create_dir_all(directory).map_err(failed)?;
        let at = rustix::fs::statfs(directory).map_err(|error| failed(error.into()))?;
        if at.f_type as u64 & 0xffff_ffff != BPF_FS_MAGIC {
            return Err(XdpError::NoBpfFileSystem(directory.to_owned()));
        }
        Ok(Self { directory: directory.to_owned() })
    }

    /// Those that are there already.
    pub fn existing(directory: &Path) -> Result<Self, XdpError> {
        let pins = Self { directory: directory.to_owned() };
        pins.entries()?;
        Ok(pins)
    }

    /// The interfaces whose attachment is pinned.
    pub fn interfaces(&self) -> Result<Vec<String>, XdpError> {
        let entries = self.entries()?;
        let names = entries.iter().filter_map(|path| file_name(path).strip_prefix(LINK).map(str::to_owned));
        let mut names: Vec<String> = names.collect();
        names.sort();
        Ok(names)
    }

    /// Takes the attachment of an interface away.
    pub fn detach_from(&self, interface: &str) -> Result<(), XdpError> {
        self.remove(&self.link(interface))
    }

    /// Where a table is.
    pub(crate) fn table(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Where the attachment to an interface is.
    fn link(&self, interface: &str) -> PathBuf {
        self.directory.join(format!("{LINK}{interface}"))
    }

    /// Refuses tables that are there and of another layout. `flows` are the entries of the tables of flows that are wanted.
    pub(crate) fn check(&self, flows: [(&str, u32); 2]) -> Result<(), XdpError> {
        for &(name, key, value) in PINNED {
            let path = self.table(name);
            if !path.exists() {
                continue;
            }
            let info: MapInfo = MapData::from_pin(&path)?.info()?;
            let sizes = (info.key_size() as usize, info.value_size() as usize);
            let entries =
                flows.iter().find(|(of, _)| *of == name).map_or(info.max_entries(), |&(_, most)| most);
            if sizes != (key, value) || info.max_entries() != entries {
                return Err(XdpError::OtherLayout(path));
            }
        }
        let path = self.table("SETTINGS");
        if path.exists() {
            let map = Map::Array(MapData::from_pin(&path)?);
            let table: Array<_, Value<Settings>> = (&map).try_into()?;
            let Value(settings) = table.get(&0, 0)?;
            // 0 before a process has said anything.
            if settings.layout_version != LAYOUT_VERSION && settings.layout_version != 0 {
                return Err(XdpError::OtherLayout(path));
            }
        }
        Ok(())
    }

    /// A place for the table of tail calls of one load of the programs: while it is pinned, its programs stay.
    pub(crate) fn stages(&self) -> PathBuf {
        let mut at = 0u32;
        loop {
            let path = self.directory.join(format!("{STAGES}{at}"));
            if !path.exists() {
                return path;
            }
            at = at.wrapping_add(1);
        }
    }

    /// Takes away the tables of tail calls of other loads, once no interface has their entry any more.
    pub(crate) fn forget_stages_but(&self, kept: &Path) -> Result<(), XdpError> {
        for path in self.entries()? {
            if file_name(&path).starts_with(STAGES) && path != kept {
                self.remove(&path)?;
            }
        }
        Ok(())
    }

    /// The attachment to an interface that an earlier process has left.
    pub(crate) fn attached(&self, interface: &str) -> Option<XdpLink> {
        let link = PinnedLink::from_pin(self.link(interface)).ok()?;
        XdpLink::try_from(FdLink::from(link)).ok()
    }

    /// Lets an attachment outlive the process, in place of one that led nowhere.
    pub(crate) fn keep(&self, interface: &str, link: FdLink) -> Result<PinnedLink, XdpError> {
        let path = self.link(interface);
        if path.exists() {
            self.remove(&path)?;
        }
        Ok(link.pin(path)?)
    }

    /// Takes everything away: programs leave their interfaces, and flows are forgotten. The interfaces that had one.
    pub fn detach(&self) -> Result<Vec<String>, XdpError> {
        let mut interfaces = Vec::new();
        for path in self.entries()? {
            interfaces.extend(file_name(&path).strip_prefix(LINK).map(str::to_owned));
            self.remove(&path)?;
        }
        Ok(interfaces)
    }

    fn entries(&self) -> Result<Vec<PathBuf>, XdpError> {
        let failed = |error| XdpError::Pins { path: self.directory.clone(), error };
        let entries = std::fs::read_dir(&self.directory).map_err(failed)?;
        entries.map(|entry| Ok(entry.map_err(failed)?.path())).collect()
    }

    fn remove(&self, path: &Path) -> Result<(), XdpError> {
        std::fs::remove_file(path).map_err(|error| XdpError::Pins { path: path.to_owned(), error })
    }
}

fn file_name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

const LINK: &str = "link_";

/// What the names of tables of tail calls begin with.
const STAGES: &str = "STAGES_";

/// `BPF_FS_MAGIC` of linux/magic.h.
const BPF_FS_MAGIC: u64 = 0xcafe_4a11;
