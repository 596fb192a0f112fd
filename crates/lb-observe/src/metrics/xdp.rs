//! What the programs in the kernel count, as it was read last. Whoever keeps their tables reads it, and never a worker.

use std::sync::{Mutex, PoisonError};

use super::families;
use super::scrape::Scrape;
use super::values::SharedCounter;

/// The two families of addresses, as tables of flows have them.
const FAMILIES: [&str; 2] = ["v4", "v6"];

/// The families of XDP. They have series only where it is in use.
#[derive(Debug, Default)]
pub struct XdpMetrics {
    /// `xdp_sampler_errors_total`.
    pub sampler_errors: SharedCounter,
    /// `xdp_table_errors_total`.
    pub table_errors: SharedCounter,
    /// `xdp_conntrack_full_total`: over IPv4 and IPv6.
    pub conntrack_full: [SharedCounter; 2],
    /// `xdp_attach_probe_failed_total`.
    pub attach_probe_failed: SharedCounter,
    /// `xdp_detach_total`: interfaces that were given back, and those that could not be.
    pub detached: [SharedCounter; 2],
    reading: Mutex<Option<XdpReading>>,
}

/// Counts of the kernel at one moment.
#[derive(Clone, Debug, Default)]
pub struct XdpReading {
    /// Packets by what became of them.
    pub actions: Vec<(&'static str, u64)>,
    /// How many interfaces run the programs in each mode.
    pub attached: Vec<(&'static str, usize)>,
    /// Entries that the tables of flows have room for: over IPv4 and IPv6.
    pub capacity: [u32; 2],
    /// Entries that packets follow, over IPv4 and IPv6; none before they have been counted once.
    pub live: Option<[u32; 2]>,
    /// Each backend of each service.
    pub backends: Vec<XdpBackend>,
}

/// Counts of a backend of a service.
#[derive(Clone, Debug, Default)]
pub struct XdpBackend {
    /// The name of the service.
    pub service: String,
    /// Its address.
    pub backend: String,
    /// Flows that were begun.
    pub flows: u64,
    /// Flows that go on; none before they have been counted once.
    pub live: Option<u32>,
    /// Packets: to the backend and back.
    pub packets: [u64; 2],
    /// Their bytes from the IP header on.
    pub bytes: [u64; 2],
}

const DIRECTIONS: [&str; 2] = ["to_backend", "to_client"];

impl XdpMetrics {
    /// Shows these counts from now on.
    pub fn show(&self, reading: XdpReading) {
        *self.reading.lock().unwrap_or_else(PoisonError::into_inner) = Some(reading);
    }

    pub(super) fn scrape(&self, scrape: &mut Scrape) {
        let reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(reading) = reading.as_ref() else { return };
        scrape.counter(&families::XDP_SAMPLER_ERRORS, &[], self.sampler_errors.value());
        scrape.counter(&families::XDP_TABLE_ERRORS, &[], self.table_errors.value());
        for (action, count) in &reading.actions {
            scrape.counter(&families::XDP_PACKETS, &[action], *count);
        }
        for (mode, interfaces) in &reading.attached {
            scrape.gauge(&families::XDP_ATTACHED_MODE, &[mode], *interfaces as f64);
        }
        for (family, room) in FAMILIES.iter().zip(reading.capacity) {
            scrape.gauge(&families::XDP_CONNTRACK_CAPACITY, &[family], f64::from(room));
        }
        for (family, live) in FAMILIES.iter().zip(reading.live.into_iter().flatten()) {
            scrape.gauge(&families::XDP_CONNTRACK_ENTRIES, &[family], f64::from(live));
        }
        for (family, full) in FAMILIES.iter().zip(&self.conntrack_full) {
            scrape.counter(&families::XDP_CONNTRACK_FULL, &[family], full.value());
        }
        scrape.counter(&families::XDP_ATTACH_PROBE_FAILED, &[], self.attach_probe_failed.value());
        for (result, count) in ["ok", "failed"].iter().zip(&self.detached) {
            scrape.counter(&families::XDP_DETACH, &[result], count.value());
        }
        let mut bytes = [0u64; 2];
        for one in &reading.backends {
            let (service, backend) = (one.service.as_str(), one.backend.as_str());
            scrape.counter(&families::XDP_BACKEND_FLOWS, &[service, backend], one.flows);
            if let Some(live) = one.live {
                scrape.gauge(&families::XDP_BACKEND_FLOWS_CURRENT, &[service, backend], f64::from(live));
            }
            for (at, direction) in DIRECTIONS.iter().enumerate() {
                let of = |counts: &[u64; 2]| counts.get(at).copied().unwrap_or(0);
                scrape.counter(
                    &families::XDP_BACKEND_PACKETS,
                    &[service, backend, direction],
                    of(&one.packets),
                );
                scrape.counter(&families::XDP_BACKEND_BYTES, &[service, backend, direction], of(&one.bytes));
            }
            for (sum, count) in bytes.iter_mut().zip(one.bytes) {
                *sum = sum.saturating_add(count);
            }
        }
        for (direction, bytes) in DIRECTIONS.iter().zip(bytes) {
            scrape.counter(&families::XDP_BYTES, &[direction], bytes);
        }
    }
}
