//! What goes wrong between user space and the kernel.

use aya::EbpfError;
use aya::maps::MapError;
use aya::maps::xdp::XdpMapError;
use aya::pin::PinError;
use aya::programs::ProgramError;
use aya::programs::links::LinkError;
use std::path::PathBuf;

/// Why the data plane could not be loaded or changed.
#[derive(Debug, thiserror::Error)]
pub enum XdpError {
    /// The tree was built without the object.
    #[error("this build has no XDP programs: scripts/build-xdp.sh makes them")]
    NoObject,
    /// The kernel is older than the programs are for.
    #[error("XDP needs Linux 5.15 or later, and this is {0}")]
    OldKernel(String),
    /// The process may not load programs.
    #[error(
        "XDP needs the capabilities CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON, or CAP_SYS_ADMIN, and the process lacks them"
    )]
    NoCapabilities,
    /// There is no interface of the name.
    #[error("{name}: no such network interface")]
    NoInterface {
        /// The name.
        name: String,
        /// What the system said.
        #[source]
        error: std::io::Error,
    },
    /// The driver of an interface is known not to run the programs as it is.
    #[error("{name}: the driver cannot run the XDP programs")]
    Driver {
        /// The interface.
        name: String,
        /// What speaks against it.
        #[source]
        limit: crate::nic::NicLimit,
    },
    /// The object lacks what it should have: it is of other sources.
    #[error("the XDP object has no {0}")]
    Missing(&'static str),
    /// The kernel or the parser refused the object.
    #[error("the XDP object could not be loaded")]
    Load(#[from] EbpfError),
    /// The kernel refused a program.
    #[error("an XDP program could not be loaded or attached")]
    Program(#[from] ProgramError),
    /// The kernel refused to change a table.
    #[error("a table of the XDP programs could not be changed")]
    Map(#[from] MapError),
    /// The kernel refused to tell what is in a table.
    #[error("a table of the XDP programs could not be read")]
    Read(#[source] std::io::Error),
    /// The kernel refused an interface in the table of those that packets may leave by.
    #[error("an interface could not be made known to the XDP programs")]
    Device(#[from] XdpMapError),
    /// No process has left anything in the directory of pins, or it was taken away.
    #[error("{0}: nothing is pinned here")]
    NothingPinned(PathBuf),
    /// A file on the BPF file system could not be made, read or removed.
    #[error("{path}: cannot be used for pins")]
    Pins {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        error: std::io::Error,
    },
    /// The directory of pins is on another file system.
    #[error("{0}: not on a BPF file system (mount -t bpf bpf /sys/fs/bpf)")]
    NoBpfFileSystem(PathBuf),
    /// The pinned tables are of another version of the programs, or of another size.
    #[error(
        "{0}: pinned by programs of another layout or with tables of another size; `detach` removes them, and all flows with them"
    )]
    OtherLayout(PathBuf),
    /// The kernel refused to pin.
    #[error("the XDP programs could not be pinned")]
    Pin(#[from] PinError),
    /// The kernel refused an attachment.
    #[error("an attachment of the XDP programs could not be used")]
    Link(#[from] LinkError),
    /// A ring has another number of slots, or an index is out of bounds.
    #[error("a table of the XDP programs has no such place")]
    OutOfBounds,
}
