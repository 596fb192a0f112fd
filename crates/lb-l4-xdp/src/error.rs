//! What goes wrong between user space and the kernel.

use aya::EbpfError;
use aya::maps::MapError;
use aya::maps::xdp::XdpMapError;
use aya::programs::ProgramError;

/// Why the data plane could not be loaded or changed.
#[derive(Debug, thiserror::Error)]
pub enum XdpError {
    /// The tree was built without the object.
    #[error("this build has no XDP programs: scripts/build-xdp.sh makes them")]
    NoObject,
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
    /// The kernel refused an interface in the table of those that packets may leave by.
    #[error("an interface could not be made known to the XDP programs")]
    Device(#[from] XdpMapError),
    /// A ring has another number of slots, or an index is out of bounds.
    #[error("a table of the XDP programs has no such place")]
    OutOfBounds,
}
