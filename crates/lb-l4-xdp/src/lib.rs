//! The XDP data plane: programs that balance TCP and UDP in the kernel, before it has made a packet of what arrives.
//!
//! The programs are built apart from the workspace, by `scripts/build-xdp.sh`, and come with it as an object. Here is what loads them and what
//! feeds their tables. What they share with user space is `lb-l4-xdp-layout`.

mod attach;
mod census;
mod entries;
mod error;
pub mod fuzz;
mod needs;
mod nic;
mod object;
mod pins;
mod plane;
mod present;
mod reconcile;
mod value;
mod wanted;

pub use attach::{XdpAttach, XdpAttached};
pub use census::{Census, FlowCount, FlowUse, KnownFlow};
pub use error::XdpError;
pub use lb_l4_xdp_layout as layout;
pub use needs::{Capabilities, check_needs, has_syn_cookies, interface_index};
pub use nic::{Nic, NicChannels, NicLimit};
pub use object::{object, sources};
pub use pins::Pins;
pub use plane::{Capacity, Plane, words4, words6};
pub use reconcile::{Operation, Tables, TooMany};
pub use wanted::{IdFormat, Vip, Wanted, WantedMember, WantedService, address, server_id_words};
