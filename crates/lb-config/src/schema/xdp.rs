//! `[xdp]`.

use super::key::{BYTES, MS, U32};
use super::{Block, Key, On, Text};
use crate::config::{XdpAtShutdown, XdpForward, XdpProtocol};

/// A week: differences of the programs' clock are told from one another up to 26 days.
const WEEK_MS: u64 = 7 * 86_400_000;

pub(super) static XDP: Block = Block {
    path: "xdp",
    doc: "Balancing of TCP and UDP in the kernel, before it has made a packet of what arrives. Switched on by `runtime.xdp_enabled`; whatever is for no \
          service goes to the kernel as if there were no XDP.",
    on: On::EVERYWHERE,
    keys: &[
        Key::text("pin_dir", Text::Path).or_else("`/sys/fs/bpf/expressgateway`").restart(
            "Directory on a BPF file system (`mount -t bpf bpf /sys/fs/bpf`) for tables and attachments. They outlive the process, so that packets are \
             forwarded while it restarts, and no flow is lost. Gateways on one machine have one each.",
        ),
        Key::texts("interfaces", Text::NotBlank).or_else("none").restart(
            "Interfaces besides `runtime.xdp_interface`: those by which packets go to backends, and by which replies come in mode `nat`. A packet leaves \
             by no others.",
        ),
        Key::integer("max_flows_v4", 1024, 16_777_216, "flows").or(1_000_000).restart(
            "Flows over IPv4 that are remembered; beyond it the oldest is forgotten. A flow in mode `nat` counts twice. Each takes about 100 bytes, from the \
             start on. Another number than that of the tables that are pinned is refused: `expressgateway xdp detach` removes these.",
        ),
        Key::integer("max_flows_v6", 1024, 16_777_216, "flows")
            .or(512_000)
            .restart("The same over IPv6, with about 150 bytes each."),
        Key::word("at_shutdown", XdpAtShutdown::WORDS).or_word("keep").live(
            "What becomes of programs and flows when the process ends: with `keep` packets are forwarded on, to the backends that were well by then, until the next \
             start or `expressgateway xdp detach`; with `detach` they are taken away at the end of the drain.",
        ),
        Key::text("source_v4", Text::Ip).or_else("none").live(
            "The gateway's own address over IPv4 towards backends: the source of packets in mode `nat`, whose replies must come back to it, and of tunnels.",
        ),
        Key::text("source_v6", Text::Ip).or_else("none").live("The same over IPv6."),
        Key::integer("nat_port_first", 1, 65_535, "").or(10_240).live(
            "First source port of flows in mode `nat`. The ports should be none of those that the kernel gives out itself (`net.ipv4.ip_local_port_range`) \
             where `source_v4` or `source_v6` is an address that the machine uses too.",
        ),
        Key::integer("nat_port_last", 1, 65_535, "").or(32_767).live(
            "Last source port of flows in mode `nat`. So many flows as there are ports may each backend have.",
        ),
        Key::integer("tunnel_spread_bits", 0, 16, "bits").or(0).live(
            "How many of the last bits of a tunnel's source address differ from flow to flow, so that the receive queues of a backend share the load. \
             Whoever is on the way must let these addresses pass.",
        ),
        Key::integer("new_flow_cap_per_sec_per_source", 0, U32, "flows").or(0).live(
            "New flows that one source (an IPv4 address, or a /64 of IPv6) may begin in a second, beyond which they are dropped. 0 = no cap.",
        ),
        Key::integer("syn_cookies_above_per_sec_per_cpu", 0, U32, "SYNs").or(0).live(
            "SYNs of a second that one core lets through to each TCP listener of this gateway which has the IP address of one host. It answers more of them itself with a \
             cookie (RFC 4987), before the kernel sees them, and drops what comes back without one. Needs Linux 6.0 and `net.ipv4.tcp_syncookies = 2`: the kernel takes cookies only where it \
             makes them too. Connections that begin so have no window scaling and no selective acknowledgments. 0 = none.",
        ),
        Key::integer("icmp_cap_per_sec_per_cpu", 0, U32, "packets").or(1000).live(
            "ICMP errors that one core forwards to backends in a second, and as many answers of its own that a packet is too big.",
        ),
        Key::integer("tcp_idle_timeout_ms", 1000, WEEK_MS, MS)
            .or(3_600_000)
            .live("How long a TCP flow may be silent before it is forgotten."),
        Key::integer("tcp_closing_timeout_ms", 1000, WEEK_MS, MS)
            .or(30_000)
            .live("The same after its end was seen (FIN)."),
        Key::integer("udp_idle_timeout_ms", 1000, WEEK_MS, MS)
            .or(30_000)
            .live("How long a UDP flow may be silent before it is forgotten."),
        Key::texts("deny", Text::Network)
            .or_else("none")
            .live("Sources whose packets to services are dropped. Of several networks that have an address, the smallest decides."),
        Key::texts("allow", Text::Network).or_else("none").live(
            "Sources that are let in although `deny` has a larger network, and to which `new_flow_cap_per_sec_per_source` does not apply.",
        ),
        Key::blocks("services", &SERVICES),
    ],
};

static SERVICES: Block = Block {
    path: "xdp.services",
    doc: "A virtual address that is balanced in the kernel. The backend of a new flow is chosen by a Maglev table over its addresses and ports, by weight, \
          whatever the `policy` of the pool; all gateways with the same backends choose alike. Weights, health checks, drains and discovery are those of the pool.",
    on: On::EVERYWHERE,
    keys: &[
        Key::text("name", Text::RouteName).required().live("What it is called in logs, metrics and `expressgateway xdp`."),
        Key::text("address", Text::Ip).required().live("The virtual address."),
        Key::integer("port", 0, 65_535, "").or(0).live("The port. 0 = all ports that have no service of their own."),
        Key::word("protocol", XdpProtocol::WORDS).required().live("What is balanced. Two services may differ in it alone."),
        Key::word("mode", XdpForward::WORDS).required().live(
            "How packets get to a backend. `nat`: with the gateway's address and the backend's, both ways, so that backends need no set-up. The others \
             leave the packet whole, and the backend, which has the virtual address itself, answers the client directly: `dsr-l2` sends to its MAC address, so it must be on a common \
             network; `dsr-ipip` wraps in another IP packet (RFC 2003, RFC 2473), `dsr-gue` in a UDP packet to the backend's port.",
        ),
        Key::flag("by_source", false).live("Whether all flows of one client address go to one backend."),
        Key::text("pool", Text::NotBlank)
            .or_else("the service's own `[[xdp.services.backends]]`")
            .live("The name of the `[pools.NAME]` where packets go. Not together with `[[xdp.services.backends]]`."),
        Key::blocks("backends", &BACKENDS),
        Key::block("quic_lb", &QUIC_LB),
    ],
};

static QUIC_LB: Block = Block {
    path: "xdp.services.quic_lb",
    doc: "How servers of a UDP service make QUIC connection IDs that name them in the clear (draft-ietf-quic-load-balancers-21; `quic.server_id` of a listener). A connection stays at the server that \
          its ID names when the address of its client changes, and what has no such ID goes by addresses and ports. The kernel has no key: a client can choose its backend.",
    on: On::EVERYWHERE,
    keys: &[
        Key::integer("config_id", 0, 6, "").or(0).live("The config rotation bits: what the first three bits of such an ID are."),
        Key::integer("nonce_length", 4, 18, BYTES)
            .required()
            .live("The bytes of the nonce. Server ID and nonce have at most 19 together. 16 for listeners with `quic.server_id`."),
        Key::texts("servers", Text::QuicServer).required().live(
            "Each server ID, in hex digits, with the address of its backend as the pool has it: `\"0a1b=10.0.0.10:443\"`. One that the pool does not have leads nowhere.",
        ),
    ],
};

static BACKENDS: Block = Block {
    path: "xdp.services.backends",
    doc: "A backend of the service alone, without health checks: these are a matter of pools.",
    on: On::EVERYWHERE,
    keys: &[
        Key::text("address", Text::HostPort).required().live(
            "Where it is. The port counts in mode `nat`, unless the service has all ports, and in `dsr-gue`, where it is that of the tunnel.",
        ),
        Key::integer("weight", 0, U32, "").or(1).live("Its share of new flows. 0 = none."),
    ],
};
