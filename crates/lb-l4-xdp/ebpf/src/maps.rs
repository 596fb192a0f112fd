//! The maps that the programs share with user space, and those that they share with each other.

use aya_ebpf::{
    btf_maps::{Array, ArrayOfMaps, DevMapHash, HashMap, LpmTrie, LruHashMap, PerCpuArray, ProgramArray},
    macros::btf_map,
};
use lb_l4_xdp_layout::{
    ADDRESS_WORDS, Backend, BackendCounters, EVENTS, Flow4, Flow6, FlowKey4, FlowKey6, FragmentKey4,
    FragmentKey6, FragmentPorts, Hop4, Hop6, MAX_BACKENDS, MAX_HOPS, MAX_SERVERS, MAX_SERVICES,
    MAX_SOURCE_RATES, PacketNote, RING_SLOTS, Rate, ServerKey, Service, Settings, SynState, VipKey4, VipKey6,
    stage,
};

use crate::syn::Headers;

/// Index 0: what holds for all services.
#[btf_map]
pub static SETTINGS: Array<Settings, 1> = Array::new();

/// A bit for each address that services and translations have.
#[btf_map]
pub static ADDRESSES: Array<u64, { ADDRESS_WORDS as usize }> = Array::new();

/// The index of the service at an address, a port and a protocol.
#[btf_map]
pub static VIPS4: HashMap<VipKey4, u32, 4096> = HashMap::new();
#[btf_map]
pub static VIPS6: HashMap<VipKey6, u32, 4096> = HashMap::new();

#[btf_map]
pub static SERVICES: Array<Service, { MAX_SERVICES as usize }> = Array::new();

/// The index of the backend that has a server ID.
#[btf_map]
pub static SERVERS: HashMap<ServerKey, u32, { MAX_SERVERS as usize }> = HashMap::new();

#[btf_map]
pub static BACKENDS: Array<Backend, { MAX_BACKENDS as usize }> = Array::new();

/// The ring of each service: the index of the backend of each slot. Replaced whole.
#[btf_map]
pub static RINGS: ArrayOfMaps<Array<u32, { RING_SLOTS as usize }>, { MAX_SERVICES as usize }> =
    ArrayOfMaps::new();

/// All flows, of translated ones both directions. The number of entries is set by the loader.
#[btf_map]
pub static FLOWS4: LruHashMap<FlowKey4, Flow4, 1_048_576> = LruHashMap::new();
#[btf_map]
pub static FLOWS6: LruHashMap<FlowKey6, Flow6, 524_288> = LruHashMap::new();

#[btf_map]
pub static FRAGMENTS4: LruHashMap<FragmentKey4, FragmentPorts, 16_384> = LruHashMap::new();
#[btf_map]
pub static FRAGMENTS6: LruHashMap<FragmentKey6, FragmentPorts, 16_384> = LruHashMap::new();

/// Sources that are denied or allowed: an `AclRule` for each prefix.
#[btf_map]
pub static SOURCES4: LpmTrie<u32, u32, 100_000> = LpmTrie::new();
#[btf_map]
pub static SOURCES6: LpmTrie<[u32; 4], u32, 100_000> = LpmTrie::new();

/// What each core has counted, by `Event`.
#[btf_map]
pub static EVENT_COUNTS: PerCpuArray<u64, { EVENTS }> = PerCpuArray::new();

/// What each core has counted for each backend.
#[btf_map]
pub static BACKEND_COUNTS: PerCpuArray<BackendCounters, { MAX_BACKENDS as usize }> = PerCpuArray::new();

/// The interfaces that packets may leave by, by index.
#[btf_map]
pub static DEVICES: DevMapHash<64> = DevMapHash::new();

#[btf_map]
pub static STAGES: ProgramArray<{ stage::COUNT as usize }> = ProgramArray::new();

/// The packet that one program leaves to the next on this core.
#[btf_map]
pub static NOTE: PerCpuArray<PacketNote, 1> = PerCpuArray::new();

#[btf_map]
pub static HOPS4: PerCpuArray<Hop4, { MAX_HOPS as usize }> = PerCpuArray::new();
#[btf_map]
pub static HOPS6: PerCpuArray<Hop6, { MAX_HOPS as usize }> = PerCpuArray::new();

/// New flows of the core in a window; ICMP errors that it forwarded; answers of its own.
#[btf_map]
pub static CORE_RATES: PerCpuArray<Rate, 3> = PerCpuArray::new();

/// New flows by source, in buckets: a flood of spoofed sources can neither fill nor empty it.
#[btf_map]
pub static SOURCE_RATES: Array<Rate, { MAX_SOURCE_RATES as usize }> = Array::new();

/// The SYNs of each listener of this machine on a core.
#[btf_map]
pub static SYN_STATES: PerCpuArray<SynState, { MAX_SERVICES as usize }> = PerCpuArray::new();

/// The headers of the packet that is looked at, for helpers of the kernel that want them in one piece.
#[btf_map]
pub static HEADERS: PerCpuArray<Headers, 1> = PerCpuArray::new();
