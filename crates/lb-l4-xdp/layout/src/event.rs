//! What is counted, for each core: what became of packets, and why.

macro_rules! events {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// What became of a packet, or what happened on its way.
        #[repr(u32)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Event {
            $($(#[$doc])* $name,)*
        }

        /// The names of all events, by number.
        pub const EVENT_NAMES: &[&str] = &[$($text),*];

        impl Event {
            /// All events, by number.
            pub const ALL: &[Self] = &[$(Self::$name),*];
        }
    };
}

events! {
    /// Passed: neither IPv4 nor IPv6.
    PassNotIp = "pass_not_ip",
    /// Passed: no service has its destination.
    PassNotOurs = "pass_not_ours",
    /// Passed: a fragment whose first one was not seen, so that nobody can tell whose it is.
    PassFragment = "pass_fragment",
    /// Passed: ICMP to the address of a service that is about no flow.
    PassIcmp = "pass_icmp",
    /// Passed: no settings, or settings of another layout.
    PassNoSettings = "pass_no_settings",
    /// Dropped: ends before its headers do, or before its own length says.
    DropTruncated = "drop_truncated",
    /// Dropped: a header that contradicts itself, or a chain of extension headers past the bound.
    DropBadHeader = "drop_bad_header",
    /// Dropped: the source is denied.
    DropDenied = "drop_denied",
    /// Dropped: its time to live ends here.
    DropTtl = "drop_ttl",
    /// Dropped: it has its own destination or the source of our tunnels as its source.
    DropLoop = "drop_loop",
    /// Dropped: the service has no backend.
    DropNoBackend = "drop_no_backend",
    /// Dropped: the kernel has no route to the next hop.
    DropNoRoute = "drop_no_route",
    /// Dropped: the kernel does not know the MAC address of the next hop yet.
    DropNoNeighbour = "drop_no_neighbour",
    /// Dropped: the interface does not forward (`net.ipv4.ip_forward`, `net.ipv6.conf.all.forwarding`).
    DropNotForwarding = "drop_not_forwarding",
    /// Dropped: the next hop is on an interface that is not ours.
    DropNoDevice = "drop_no_device",
    /// Dropped: the driver leaves no room for another header.
    DropNoRoom = "drop_no_room",
    /// Dropped: larger than the next hop takes, and answered.
    DropTooBigAnswered = "drop_too_big_answered",
    /// Dropped: larger than the next hop takes, past the cap on answers.
    DropTooBig = "drop_too_big",
    /// Dropped: over the cap of its source.
    DropSourceCap = "drop_source_cap",
    /// Dropped: over the cap of the core, in a mode that forwards nothing without an entry.
    DropCoreCap = "drop_core_cap",
    /// Dropped: no port is free towards the backend.
    DropNoPort = "drop_no_port",
    /// Dropped: TCP of no known flow that is no SYN, in mode `nat`.
    DropUnknownFlow = "drop_unknown_flow",
    /// Dropped: an ICMP error past the cap of the core.
    DropIcmpCap = "drop_icmp_cap",
    /// Dropped: a program is missing.
    DropNoProgram = "drop_no_program",
    /// A flow without an entry, since the core is over its cap: forwarded by the ring alone.
    NewFlowNotKept = "new_flow_not_kept",
    /// A flow without an entry, since the table refused it: forwarded by the ring alone.
    TableRefused = "table_refused",
    /// An ICMP error that followed its flow.
    IcmpForwarded = "icmp_forwarded",
    /// A later fragment that followed its first.
    FragmentForwarded = "fragment_forwarded",
    /// An entry whose backend is gone, or that was idle too long.
    FlowStale = "flow_stale",
    /// Passed: it leads to no backend here, and a listener of this machine serves the same address.
    PassToListener = "pass_to_listener",
    /// A flow that the connection ID of QUIC has led to its backend, and not the ring.
    FlowByConnectionId = "flow_by_connection_id",
    /// Answered: a SYN past the threshold of its listener, with a cookie.
    SynCookieSent = "syn_cookie_sent",
    /// Passed to a listener: what completes a connection with a cookie.
    SynCookieTaken = "syn_cookie_taken",
    /// Dropped: a SYN past the threshold of its listener that cannot be answered, since there are options of IP before it.
    DropSyn = "drop_syn",
    /// Dropped: TCP of no connection to a listener whose SYNs are past its threshold, and without a cookie of this machine.
    DropBadCookie = "drop_bad_cookie",
}

/// Number of events.
pub const EVENTS: usize = EVENT_NAMES.len();
