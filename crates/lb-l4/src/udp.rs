//! UDP forwarding.
//!
//! One task for each listener and worker moves all its datagrams: it receives what has arrived at the listening sockets, finds the flow of each
//! datagram in a table ([`lb_core::flows`]), and sends it by the flow's uplink ([`lb_io::udp::Uplinks`]); what arrives at the uplinks goes back
//! to the clients, from the address that each has asked. A flow has no task, no timer and no buffer. Where the kernel has no room for a
//! datagram, it is lost, as on the network, and counted.

mod flow;
mod forward;
mod refusal;
mod reply;
mod service;
mod settings;
mod state;

pub use service::UdpService;
pub use settings::UdpSettings;
