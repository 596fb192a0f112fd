//! Any wanted tables after any others, step by step.

use std::net::SocketAddr;

use lb_l4_xdp_layout::Mode;
use proptest::prelude::*;

use super::*;
use crate::wanted::{IdFormat, WantedMember, server_id_words};

fn member(at: u8, standing: Standing) -> WantedMember {
    WantedMember {
        address: SocketAddr::from(([10, 0, 0, at], 80)),
        identity: u64::from(at) * 77,
        standing,
        weight: 1 + u32::from(at) % 3,
        tunnel_source: None,
        spread_bits: 0,
        server_ids: vec![server_id_words(&[at])],
    }
}

fn service(port: u16, mode: Mode, members: Vec<WantedMember>) -> WantedService {
    WantedService {
        vip: Vip { address: "203.0.113.1".parse().unwrap(), protocol: 6, port },
        mode,
        by_source: false,
        has_listener: false,
        nat_source: (mode == Mode::Nat).then(|| "10.0.0.9".parse().unwrap()),
        nat_ports: (10_000, 1000),
        ids: Some(IdFormat { rotation: 1, server_id: 1, length: 9 }),
        syns_per_core: 0,
        members,
    }
}

fn wanted(services: Vec<WantedService>) -> Wanted {
    Wanted {
        settings: Settings { layout_version: 2, ..Settings::default() },
        services,
        rules: BTreeMap::new(),
    }
}

fn apply(tables: &mut Tables, wanted: &Wanted) -> Vec<Operation> {
    let operations = tables.plan(wanted).unwrap();
    operations.iter().for_each(|operation| tables.done(operation));
    operations
}

#[test]
fn a_standing_is_known_before_the_ring_without_it() {
    let mut tables = Tables::default();
    let live = |at| member(at, Standing::Live);
    apply(&mut tables, &wanted(vec![service(80, Mode::Nat, vec![live(1), live(2)])]));
    let drained = wanted(vec![service(80, Mode::Nat, vec![live(1), member(2, Standing::Draining)])]);
    match apply(&mut tables, &drained).as_slice() {
        [Operation::Backend(1, backend), Operation::Ring(0, seats)] => {
            assert_eq!(backend.standing, Standing::Draining as u8);
            assert_eq!(seats.iter().map(|seat| seat.at).collect::<Vec<_>>(), [0]);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(tables.plan(&drained).unwrap(), []);
    // Its flows are known again when it is back.
    let back = wanted(vec![service(80, Mode::Nat, vec![live(1), live(2)])]);
    assert!(matches!(apply(&mut tables, &back)[0], Operation::Backend(1, Backend { generation: 1, .. })));
}

#[test]
fn another_mode_is_another_service_and_the_address_moves_in_one_step() {
    let mut tables = Tables::default();
    apply(&mut tables, &wanted(vec![service(80, Mode::Nat, vec![member(1, Standing::Live)])]));
    let operations =
        apply(&mut tables, &wanted(vec![service(80, Mode::Link, vec![member(1, Standing::Live)])]));
    let place = |wanted: &dyn Fn(&Operation) -> bool| operations.iter().position(wanted).unwrap();
    let ring = place(&|one| matches!(one, Operation::Ring(1, _)));
    let vip = place(&|one| matches!(one, Operation::Vip(_, 1)));
    let retired = place(&|one| matches!(one, Operation::Service(0, Service { present: 0, .. })));
    assert!(ring < vip && vip < retired, "{operations:?}");
    assert!(!operations.iter().any(|one| matches!(one, Operation::NoVip { .. })));
}

#[test]
fn a_place_that_is_given_away_has_another_generation() {
    let mut tables = Tables::default();
    for at in 0..MAX_BACKENDS {
        let [high, low] = u16::try_from(at).unwrap().to_be_bytes();
        let mut one = member(1, Standing::Live);
        one.address = SocketAddr::from(([10, 1, high, low], 80));
        apply(&mut tables, &wanted(vec![service(80, Mode::Nat, vec![one])]));
    }
    apply(&mut tables, &wanted(vec![service(80, Mode::Nat, vec![member(9, Standing::Live)])]));
    let again: Vec<_> = tables.backends.values().filter(|backend| backend.generation == 2).collect();
    assert_eq!(again.len(), 1);
}

#[test]
fn more_than_there_is_room_for_is_refused_whole() {
    let services = |count: u16| (1..=count).map(|port| service(port, Mode::Link, Vec::new())).collect();
    let mut tables = Tables::default();
    assert_eq!(tables.plan(&wanted(services(513))), Err(TooMany::Services));
    apply(&mut tables, &wanted(services(512)));
    assert_eq!(tables.vips.len(), 512);
    apply(&mut tables, &wanted(Vec::new()));
    assert_eq!((tables.vips.len(), tables.vips().count()), (0, 0));
}

fn any_service() -> impl Strategy<Value = WantedService> {
    let standing = prop_oneof![Just(Standing::Live), Just(Standing::Draining), Just(Standing::Absent)];
    let mode = prop_oneof![Just(Mode::Nat), Just(Mode::Link), Just(Mode::Ipip)];
    let members = proptest::collection::btree_map(1u8..9, standing, 0..6);
    (1u16..6, mode, members).prop_map(|(port, mode, members)| {
        service(port, mode, members.into_iter().map(|(at, standing)| member(at, standing)).collect())
    })
}

fn any_wanted() -> impl Strategy<Value = Wanted> {
    proptest::collection::vec(any_service(), 0..5).prop_map(|mut services| {
        services.sort_by_key(|service| service.vip);
        services.dedup_by_key(|service| service.vip);
        wanted(services)
    })
}

proptest! {
    #[test]
    fn every_step_leaves_tables_that_can_be_forwarded_by(history in proptest::collection::vec(any_wanted(), 1..8)) {
        let mut tables = Tables::default();
        for wanted in &history {
            let before = tables.clone();
            for operation in tables.plan(wanted).unwrap() {
                if let Operation::Ring(_, seats) = &operation {
                    for seat in seats {
                        prop_assert_eq!(tables.backends[&seat.at].standing, Standing::Live as u8);
                    }
                }
                tables.done(&operation);
                for index in tables.vips.values() {
                    prop_assert!(tables.services[index].present == 1 && tables.rings.contains_key(index));
                }
                for (key, at) in &tables.servers {
                    let backend = &tables.backends[at];
                    prop_assert_eq!(u32::from(backend.service), key.service);
                    let [.., last] = backend.address[0].to_ne_bytes();
                    prop_assert_eq!(key.id, server_id_words(&[last]), "an ID never leads to another's place");
                }
                let indices: BTreeSet<_> = tables.vips.values().collect();
                prop_assert_eq!(indices.len(), tables.vips.len());
            }
            prop_assert_eq!(tables.plan(wanted).unwrap(), vec![]);
            prop_assert_eq!(tables.vips.len(), wanted.services.len());
            for key in tables.servers.keys() {
                prop_assert!(tables.vips.values().any(|index| *index == key.service), "{key:?} of no service");
            }
            for service in &wanted.services {
                let index = tables.vips[&service.vip];
                let live: BTreeSet<_> = tables.rings[&index].iter().map(|seat| tables.backends[&seat.at].address).collect();
                let expected: BTreeSet<_> = service
                    .members
                    .iter()
                    .filter(|member| member.standing == Standing::Live)
                    .map(|member| member.entry(0, service).address)
                    .collect();
                prop_assert_eq!(live, expected);
                for member in service.members.iter().filter(|member| member.standing != Standing::Absent) {
                    let at = tables.servers[&ServerKey { service: index, id: member.server_ids[0] }];
                    prop_assert_eq!(tables.backends[&at].address, member.entry(0, service).address);
                }
                // Flows of a backend that stays are still known.
                for (at, old) in before.backends_of(index) {
                    let new = &tables.backends[&at];
                    if before.vips.get(&service.vip) == Some(&index) && new.standing != Standing::Absent as u8 {
                        prop_assert_eq!((old.address, old.generation), (new.address, new.generation));
                    }
                }
            }
        }
    }
}
