use std::collections::{HashMap, HashSet};
use std::future::poll_fn;

use proptest::prelude::*;

use super::*;
use crate::listener::bind_udp;
use crate::udp::UdpSocket;

fn backend(text: &str) -> UdpSocket {
    UdpSocket::listening(bind_udp(text.parse().unwrap()).unwrap()).unwrap()
}

async fn received(socket: &UdpSocket) -> Vec<(SocketAddr, Vec<u8>)> {
    let mut batch = ReceiveBatch::default();
    poll_fn(|cx| socket.poll_receive(cx, &mut batch)).await.unwrap();
    batch.iter_mut().map(|received| (received.from, received.bytes.to_vec())).collect()
}

async fn event(uplinks: &mut Uplinks, batch: &mut ReceiveBatch) -> UplinkEvent {
    poll_fn(|cx| uplinks.poll_event(cx, batch)).await.unwrap()
}

#[tokio::test]
async fn flows_to_different_backends_share_a_socket_and_those_to_one_do_not() {
    let now = Instant::now();
    for any in ["127.0.0.1:0", "[::1]:0"] {
        let (one, other) = (backend(any), backend(any));
        let mut uplinks = Uplinks::new(2).unwrap();
        let first = uplinks.take(one.local(), 1, now).unwrap();
        let second = uplinks.take(other.local(), 2, now).unwrap();
        let third = uplinks.take(one.local(), 3, now).unwrap();
        assert!(first.shares_socket(&second) && !first.shares_socket(&third));
        assert_eq!(uplinks.sockets(), 2);
        assert!(matches!(uplinks.take(one.local(), 4, now), Err(NoUplink::Full)));

        let (mut outgoing, mut batch) = (SendBatch::default(), ReceiveBatch::default());
        for (uplink, text) in [(&first, b"a"), (&second, b"b"), (&third, b"c")] {
            outgoing.push(uplink.backend(), None, text);
            assert!(uplinks.send(uplink, &mut outgoing).0);
        }
        let mut answers = HashMap::new();
        for (socket, count) in [(&one, 2), (&other, 1)] {
            let mut seen = 0;
            while seen < count {
                for (from, bytes) in received(socket).await {
                    outgoing.push(from, None, &bytes);
                    seen += 1;
                }
            }
            poll_fn(|cx| socket.poll_send(cx, &mut outgoing)).await;
        }
        while answers.len() < 3 {
            let UplinkEvent::Received(socket) = event(&mut uplinks, &mut batch).await else { panic!() };
            for received in batch.iter_mut() {
                answers.insert(uplinks.flow(socket, received.from).unwrap(), received.bytes[0]);
            }
        }
        assert_eq!(answers, [(1, b'a'), (2, b'b'), (3, b'c')].into());
    }
}

#[tokio::test]
async fn a_backend_where_nothing_listens_is_told_with_its_flow() {
    for any in ["127.0.0.1:0", "[::1]:0"] {
        let (alive, dead) = (backend(any), backend(any).local());
        let now = Instant::now();
        let mut uplinks = Uplinks::new(1).unwrap();
        let (good, bad) = (uplinks.take(alive.local(), 7, now).unwrap(), uplinks.take(dead, 8, now).unwrap());
        let (mut outgoing, mut batch) = (SendBatch::default(), ReceiveBatch::default());
        outgoing.push(dead, None, b"x");
        uplinks.send(&bad, &mut outgoing);
        // The error stands at the socket by now, and must not cost the other flow its datagram.
        outgoing.push(alive.local(), None, b"y");
        let (all, outcome) = uplinks.send(&good, &mut outgoing);
        assert_eq!((all, outcome.sent, outcome.refused), (true, 1, 0));
        assert_eq!(received(&alive).await[0].1, b"y");
        assert_eq!(event(&mut uplinks, &mut batch).await, UplinkEvent::Unreachable(8));
    }
}

#[tokio::test]
async fn a_pair_rests_before_another_flow_gets_it() {
    let (now, to) = (Instant::now(), "127.0.0.1:9".parse().unwrap());
    let mut uplinks = Uplinks::new(1).unwrap();
    let first = uplinks.take(to, 1, now).unwrap();
    uplinks.give_back(first, UplinkRest::Long, now);
    let soon = now + LONG_REST - Duration::from_millis(1);
    assert!(matches!(uplinks.take(to, 2, soon), Err(NoUplink::Full)));
    let second = uplinks.take(to, 2, now + LONG_REST).unwrap();
    // Where nothing is on its way, the rest gives way to need.
    uplinks.give_back(second, UplinkRest::Short, now);
    assert!(uplinks.take(to, 3, now).is_ok());
}

#[tokio::test]
async fn sockets_that_are_not_needed_are_closed() {
    let (now, to) = (Instant::now(), "127.0.0.1:9".parse().unwrap());
    let mut uplinks = Uplinks::new(100).unwrap();
    let mut taken: Vec<_> = (0..50).map(|flow| uplinks.take(to, flow, now).unwrap()).collect();
    for uplink in taken.drain(10..) {
        uplinks.give_back(uplink, UplinkRest::Long, now);
    }
    uplinks.rest(now);
    uplinks.rest(now);
    assert_eq!(uplinks.sockets(), 50, "pairs rest");
    uplinks.rest(now + LONG_REST);
    assert_eq!(uplinks.sockets(), 10);
    let again = uplinks.take(to, 60, now + LONG_REST).unwrap();
    assert_eq!(uplinks.sockets(), 11);
    assert!(taken.iter().all(|uplink| !uplink.shares_socket(&again)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// However pairs come and go, no two flows are on one, and no number of flows needs more sockets than the busiest backend has flows,
    /// resting ones included.
    #[test]
    fn no_pair_is_taken_twice(steps in prop::collection::vec((0u8..4, 0u16..4, 0u64..3_000), 1..200)) {
        let (mut pairs, mut count) = (Pairs::default(), 0usize);
        let mut now = Instant::now();
        let (mut live, mut next) = (Vec::new(), 0);
        for (step, port, millis) in steps {
            now += Duration::from_millis(millis);
            let backend = SocketAddr::from(([127, 0, 0, 1], 1000 + port));
            match step {
                0 | 1 => {
                    let socket = match pairs.take(backend, count, now) {
                        Taken::Pair(socket) => socket,
                        Taken::NeedsSocket => {
                            count += 1;
                            let Taken::Pair(socket) = pairs.take(backend, count, now) else { panic!() };
                            socket
                        }
                    };
                    pairs.assign(socket, backend, next);
                    live.push((socket, backend, next));
                    next += 1;
                }
                2 if !live.is_empty() => {
                    let (socket, backend, _) = live.swap_remove(usize::from(port) % live.len());
                    pairs.give_back(socket, backend, UplinkRest::Long, now + LONG_REST);
                    prop_assert_eq!(pairs.flow(socket, backend), None);
                }
                3 => count = pairs.rest(now, count),
                _ => {}
            }
            let distinct: HashSet<_> = live.iter().map(|(socket, backend, _)| (socket, backend)).collect();
            prop_assert_eq!(distinct.len(), live.len());
            for (socket, backend, flow) in &live {
                prop_assert!(at_most(*socket, count));
                prop_assert_eq!(pairs.flow(*socket, *backend), Some(*flow));
            }
        }
    }
}

fn at_most(socket: u32, count: usize) -> bool {
    usize::try_from(socket).unwrap() < count
}
