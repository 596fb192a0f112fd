use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

fn key(number: u32) -> FlowKey {
    let port = u16::try_from(number % 60_000).unwrap();
    FlowKey::new(([10, 0, 0, u8::try_from(number / 60_000).unwrap()], port).into(), None)
}

fn table(most: usize, idle_ms: u64, now: Instant) -> FlowTable<u32> {
    FlowTable::new(most, Duration::from_millis(idle_ms), 7, now)
}

fn add(table: &mut FlowTable<u32>, number: u32, now: Instant) -> Result<u32, TableFull> {
    table.insert(key(number), now, |_| Ok(number))
}

#[test]
fn flows_differ_by_each_of_their_addresses() {
    let keys: BTreeSet<_> = [
        ("192.0.2.1:1", None),
        ("192.0.2.1:2", None),
        ("192.0.2.2:1", None),
        ("192.0.2.1:1", Some("192.0.2.9")),
        ("192.0.2.1:1", Some("192.0.2.8")),
        ("[fe80::1%1]:1", None),
        ("[fe80::1%2]:1", None),
    ]
    .into_iter()
    .map(|(client, local)| {
        let key = FlowKey::new(client.parse().unwrap(), local.map(|local: &str| local.parse().unwrap()));
        FlowHash::new(1).hash_one(key)
    })
    .collect();
    assert_eq!(keys.len(), 7);
    use std::hash::BuildHasher;
    assert_ne!(FlowHash::new(1).hash_one(key(1)), FlowHash::new(2).hash_one(key(1)));
}

#[test]
fn hashes_of_neighbours_fill_a_table_evenly() {
    use std::hash::BuildHasher;
    for shift in [0, 57] {
        let mut counts = [0u32; 128];
        for number in 0..128 * 64 {
            let hash = FlowHash::new(99).hash_one(key(number)) >> shift;
            counts[usize::try_from(hash % 128).unwrap()] += 1;
        }
        let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
        assert!(*least > 30 && *most < 110, "{least}..{most} where 64 are expected");
    }
}

#[test]
fn a_full_table_takes_no_flow_and_loses_none() {
    let now = Instant::now();
    let mut flows = table(2, 1000, now);
    let first = add(&mut flows, 1, now).unwrap();
    assert!(add(&mut flows, 2, now).is_ok());
    assert_eq!(add(&mut flows, 3, now), Err(TableFull));
    assert_eq!((flows.len(), flows.get(first)), (2, Some(&1)));
    assert_eq!(flows.remove(first), Some(1));
    assert_eq!((flows.get(first), flows.find(&key(1))), (None, None));
    assert!(add(&mut flows, 3, now).is_ok());
    flows.set_limits(1, Duration::from_secs(1), now);
    assert!(!flows.has_room() && flows.len() == 2);
}

#[test]
fn a_flow_that_cannot_be_made_takes_no_place() {
    let now = Instant::now();
    let mut flows = table(1, 1000, now);
    let failed: Result<u32, Option<TableFull>> = flows.insert(key(1), now, |_| Err(None));
    assert_eq!((failed, flows.len(), flows.due()), (Err(None), 0, None));
    assert_eq!(add(&mut flows, 1, now), Ok(0));
}

#[test]
fn a_shorter_timeout_holds_for_flows_that_are_there() {
    let now = Instant::now();
    let mut flows = table(9, 60_000, now);
    add(&mut flows, 1, now).unwrap();
    let later = now + Duration::from_secs(10);
    assert_eq!(flows.expire(later), None);
    flows.set_limits(9, Duration::from_secs(5), later);
    let due = flows.due().unwrap();
    assert!(due <= later + Duration::from_secs(1), "{:?}", due - later);
    assert_eq!(flows.expire(due), Some(1));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// No flow ends before its timeout, every flow ends soon after it, and each look-up finds what was put in.
    #[test]
    fn flows_end_when_they_have_been_silent(
        idle in 1u64..5_000,
        steps in prop::collection::vec((0u8..8, 0u32..12, 0u64..2_000), 1..300),
    ) {
        let begun = Instant::now();
        let (mut flows, mut now) = (table(8, idle, begun), begun);
        let idle = Duration::from_millis(idle);
        let mut model: BTreeMap<u32, (u32, Instant)> = BTreeMap::new();
        for (step, number, millis) in steps {
            match step {
                0..=2 => match (model.get_mut(&number), flows.find(&key(number))) {
                    (Some((flow, active)), found) => {
                        prop_assert_eq!(found, Some(*flow));
                        prop_assert_eq!(flows.touch(*flow, now).copied(), Some(number));
                        *active = now;
                    }
                    (None, found) => {
                        prop_assert_eq!(found, None);
                        let added = add(&mut flows, number, now);
                        prop_assert_eq!(added.is_ok(), model.len() < 8);
                        if let Ok(flow) = added {
                            model.insert(number, (flow, now));
                        }
                    }
                },
                3 => {
                    if let Some((flow, _)) = model.remove(&number) {
                        prop_assert_eq!(flows.remove(flow), Some(number));
                    }
                }
                _ => now += Duration::from_millis(millis),
            }
            prop_assert_eq!(flows.len(), model.len());
            prop_assert_eq!(flows.due().is_some(), !model.is_empty());
            while let Some(number) = flows.expire(now) {
                let (_, active) = model.remove(&number).unwrap();
                prop_assert!(now - active >= idle, "{:?} after {:?}", now - active, idle);
            }
            for (number, (_, active)) in &model {
                let late = step_of(idle) * 2;
                prop_assert!(now - *active < idle + late, "{number} is {:?} old", now - *active);
            }
        }
    }
}

fn step_of(idle: Duration) -> Duration {
    super::step(idle)
}
