use proptest::prelude::*;

use super::*;

const IDLE: Duration = Duration::from_secs(60);

fn client(port: u16) -> ClientKey {
    ClientKey { from: ([192, 0, 2, 1], port).into(), to: None }
}

fn backend(number: u8) -> SocketAddr {
    ([10, 0, 0, number], 443).into()
}

fn insert(paths: &mut Paths<u32>, port: u16, to: u8, now: Instant) -> PathId {
    paths.insert((client(port), backend(to)), Proof::Began, 0, now, Some(IDLE))
}

#[test]
fn an_unproven_client_gets_three_times_what_it_sent_and_a_proven_one_all() {
    let now = Instant::now();
    let mut paths = Paths::new(7);
    let id = insert(&mut paths, 1, 1, now);
    let path = paths.get(id).unwrap();
    assert!(!path.send(1, now), "nothing was received");
    path.receive(1200, now);
    assert!([1200, 1200, 1200].into_iter().all(|bytes| path.send(bytes, now)));
    assert!(!path.send(1, now));
    path.receive(10, now);
    assert!(path.send(30, now) && !path.send(1, now));
    path.prove();
    assert!((0..100).all(|_| path.send(60_000, now)));
}

#[test]
fn a_client_has_a_path_to_each_backend_and_the_last_one_used_comes_first() {
    let now = Instant::now();
    let mut paths = Paths::new(7);
    let ids: Vec<_> = (1..=3).map(|to| insert(&mut paths, 7, to, now)).collect();
    assert_eq!(paths.of_client(&client(7)), Some(ids[2]));
    assert_eq!(paths.to_backend(&client(7), backend(1)), Some(ids[0]));
    assert_eq!(paths.of_client(&client(7)), Some(ids[0]));
    assert_eq!(paths.to_backend(&client(7), backend(4)), None);
    assert_eq!(paths.room_of_client(&client(7)), MOST_OF_CLIENT - 3);
    assert_eq!(paths.room_of_client(&client(8)), MOST_OF_CLIENT);
    paths.remove(ids[0]).unwrap();
    assert!(paths.get(ids[0]).is_none() && paths.remove(ids[0]).is_none());
    assert!(
        paths.to_backend(&client(7), backend(2)).is_some()
            && paths.to_backend(&client(7), backend(3)).is_some()
    );
    let again = insert(&mut paths, 9, 1, now);
    assert_ne!(again, ids[0], "the place is used again under another number");
}

#[test]
fn silent_paths_expire_and_others_do_not() {
    let start = Instant::now();
    let mut paths = Paths::new(7);
    let busy = insert(&mut paths, 1, 1, start);
    insert(&mut paths, 2, 1, start);
    paths.get(busy).unwrap().receive(1, start + IDLE / 2);
    assert!(paths.expire(start + IDLE / 2, Some(IDLE)).is_none());
    assert_eq!(paths.expire(start + IDLE, Some(IDLE)).unwrap().client, client(2));
    assert!(paths.expire(start + IDLE, Some(IDLE)).is_none());
    assert_eq!(paths.next_due(), Some(start + IDLE / 2 + IDLE));
    assert!(paths.expire(start + 2 * IDLE, Some(IDLE)).is_some());
    assert!(paths.is_empty() && paths.by_client.is_empty());
}

#[test]
fn room_is_made_by_the_oldest_unproven_path_and_never_by_a_proven_one() {
    let start = Instant::now();
    let age = Duration::from_secs(1);
    let mut paths = Paths::new(7);
    let first = insert(&mut paths, 1, 1, start);
    insert(&mut paths, 2, 1, start);
    paths.get(first).unwrap().prove();
    assert!(paths.displace(start, age).is_none(), "it had no time yet to prove itself");
    assert_eq!(paths.displace(start + age, age).unwrap().client, client(2));
    assert!(paths.displace(start + age, age).is_none());
    assert!(paths.get(first).is_some());
}

#[test]
fn the_order_of_unproven_paths_does_not_outgrow_them() {
    let now = Instant::now();
    let mut paths = Paths::new(7);
    insert(&mut paths, 1, 1, now);
    for _ in 0..10_000 {
        let id = insert(&mut paths, 2, 1, now);
        paths.get(id).unwrap().prove();
        paths.remove(id);
        paths.tidy();
    }
    assert!(paths.unproven.len() < 200, "{}", paths.unproven.len());
    assert!(paths.slots.len() < 10);
}

proptest! {
    /// Against a list of all paths.
    #[test]
    fn every_path_is_found_by_its_place_and_by_its_client(
        steps in prop::collection::vec((0u8..5, 0u16..4, 0u8..4, 0u64..50), 0..200),
    ) {
        let mut now = Instant::now();
        let mut paths: Paths<u32> = Paths::new(7);
        let mut model: Vec<(PathId, u16, u8, Instant)> = Vec::new();
        for (step, port, to, seconds) in steps {
            now += Duration::from_secs(seconds);
            while paths.expire(now, Some(IDLE)).is_some() {}
            model.retain(|(.., seen)| *seen + IDLE > now);
            let at = model.iter().position(|path| (path.1, path.2) == (port, to));
            match (step, at) {
                (0 | 1, None) => model.push((insert(&mut paths, port, to, now), port, to, now)),
                (2, Some(at)) => {
                    let (id, ..) = model.swap_remove(at);
                    prop_assert_eq!(paths.remove(id).unwrap().backend, backend(to));
                }
                (_, at) => {
                    let found = paths.to_backend(&client(port), backend(to));
                    prop_assert_eq!(found, at.map(|at| model[at].0));
                    if let (Some(at), Some(id)) = (at, found) {
                        paths.get(id).unwrap().receive(1, now);
                        model[at].3 = now;
                        prop_assert_eq!(paths.of_client(&client(port)), Some(id));
                    }
                }
            }
            prop_assert_eq!(paths.len(), model.len());
            for (id, port, to, _) in &model {
                let path = paths.get(*id).unwrap();
                prop_assert_eq!((path.client, path.backend), (client(*port), backend(*to)));
            }
            for port in 0..4 {
                let any = model.iter().any(|path| path.1 == port);
                prop_assert_eq!(paths.of_client(&client(port)).is_some(), any);
            }
        }
    }
}
