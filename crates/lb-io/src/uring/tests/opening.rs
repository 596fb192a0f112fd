//! Connections that begin, fail to, or are given up meanwhile.

use std::net::{SocketAddr, TcpStream as Plain};
use std::pin::pin;
use std::time::Duration;

use super::super::faults::RingFault;
use super::super::slot::Slot;
use super::rig::{Mode, PATIENCE, Rig, once, send_all, take, turns, until, with};
use crate::connect;
use crate::listener::{WorkerListener, bind};

fn listening() -> (WorkerListener, SocketAddr) {
    let listener = bind("127.0.0.1:0".parse().unwrap(), Default::default()).unwrap();
    let address = listener.address().socket_addr().unwrap();
    (WorkerListener::new(listener).unwrap(), address)
}

#[test]
#[cfg_attr(not(has_io_uring), ignore = "this machine has no io_uring")]
fn a_connection_given_up_while_it_is_made_leaves_nothing() {
    let rig = Rig::new();
    for mode in Mode::rings() {
        rig.run(mode, || async {
            let full = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
            full.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
            full.listen(0).unwrap();
            let address = full.local_addr().unwrap().as_socket().unwrap();
            // Nobody accepts: the first are connected, the others wait for room.
            let mut connecting: Vec<_> =
                (0..8).map(|_| Box::pin(connect(address.into(), PATIENCE))).collect();
            for round in 0..3 {
                connecting.retain_mut(|connect| once(|cx| connect.as_mut().poll(cx)).is_pending());
                // One is given up before the kernel has heard of it.
                if round == 0 {
                    connecting.pop();
                }
                turns().await;
            }
            assert!(!connecting.is_empty(), "all were connected");
        });
    }
}

#[test]
#[cfg_attr(not(has_io_uring), ignore = "this machine has no io_uring")]
fn the_time_to_connect_is_bounded() {
    let rig = Rig::new();
    for mode in Mode::rings() {
        rig.run(mode, || async {
            let (listener, address) = listening();
            let error = connect(address.into(), Duration::ZERO).await.err();
            // Either may be first.
            assert!(error.is_none_or(|error| error.kind() == std::io::ErrorKind::TimedOut));
            drop(listener);
            let refused = connect(address.into(), PATIENCE).await.unwrap_err();
            assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
        });
    }
}

#[test]
#[cfg_attr(not(has_io_uring), ignore = "this machine has no io_uring")]
fn accepting_given_up_loses_no_connection() {
    let rig = Rig::new();
    for mode in Mode::rings() {
        rig.run(mode, || async {
            let (listener, address) = listening();
            {
                let mut accepting = pin!(listener.accept());
                assert!(once(|cx| accepting.as_mut().poll(cx)).is_pending());
            }
            turns().await;
            let plains: Vec<_> = (0..3).map(|_| Plain::connect(address).unwrap()).collect();
            turns().await;
            for plain in &plains {
                let (_stream, peer) = listener.accept().await.unwrap();
                assert_eq!(peer, plain.local_addr().unwrap().into());
            }
            // These were taken from the kernel, and go with the listener.
            let late = Plain::connect(address).unwrap();
            turns().await;
            drop(listener);
            tokio::task::spawn_blocking(move || super::rig::read_all(&late)).await.unwrap();
        });
    }
}

#[test]
#[cfg_attr(not(has_io_uring), ignore = "this machine has no io_uring")]
fn closing_a_listener_takes_every_connection_that_is_there() {
    let rig = Rig::new();
    for mode in Mode::rings() {
        for was_accepting in [false, true] {
            rig.run(mode, move || async move {
                let (listener, address) = listening();
                if was_accepting {
                    let mut accepting = pin!(listener.accept());
                    assert!(once(|cx| accepting.as_mut().poll(cx)).is_pending());
                    turns().await;
                }
                let early: Vec<_> = (0..5).map(|_| Plain::connect(address).unwrap()).collect();
                turns().await;
                let late: Vec<_> = (0..5).map(|_| Plain::connect(address).unwrap()).collect();
                let mut taken = Vec::new();
                listener.close(|stream, peer| taken.push((stream, peer)));
                let expected: Vec<_> =
                    early.iter().chain(&late).map(|plain| plain.local_addr().unwrap().into()).collect();
                let mut peers: Vec<_> = taken.iter().map(|(_, peer)| *peer).collect();
                peers.sort_by_key(|peer| expected.iter().position(|one| one == peer));
                assert_eq!(peers, expected);
                send_all(&mut taken[0].0, b"hello").await.unwrap();
                assert!(Plain::connect(address).is_err());
            });
        }
    }
}

/// Taking connections ahead stops at a bound and goes on when they were asked for.
#[test]
#[cfg_attr(not(has_io_uring), ignore = "this machine has no io_uring")]
fn every_one_of_many_connections_is_accepted() {
    let rig = Rig::new();
    for mode in Mode::rings() {
        rig.run(mode, || async {
            let (listener, address) = listening();
            {
                let mut accepting = pin!(listener.accept());
                assert!(once(|cx| accepting.as_mut().poll(cx)).is_pending());
            }
            turns().await;
            let mut plains = Vec::new();
            for _ in 0..7 {
                plains.extend((0..50).map(|_| Plain::connect(address).unwrap()));
                turns().await;
            }
            let mut streams = Vec::new();
            for _ in 0..plains.len() {
                streams.push(listener.accept().await.unwrap());
            }
            let mut accepting = pin!(listener.accept());
            assert!(once(|cx| accepting.as_mut().poll(cx)).is_pending());
        });
    }
}

#[test]
#[cfg_attr(not(has_io_uring), ignore = "this machine has no io_uring")]
fn a_listener_goes_on_after_accepting_has_failed() {
    let rig = Rig::new();
    for mode in Mode::rings() {
        for fault in [RingFault::Submission(0), RingFault::Completion(0)] {
            for code in [libc::EMFILE, libc::ECONNABORTED, libc::ENOMEM] {
                rig.run(mode, move || async move {
                    let (listener, address) = listening();
                    with(|state| state.ring.faults().arm(fault, code));
                    let plain = Plain::connect(address).unwrap();
                    let error = listener.accept().await.unwrap_err();
                    assert_eq!(error.raw_os_error(), Some(code));
                    // Lost with the completion, still waiting if there was no accept.
                    if fault == RingFault::Submission(0) {
                        assert_eq!(listener.accept().await.unwrap().1, plain.local_addr().unwrap().into());
                    }
                    let next = Plain::connect(address).unwrap();
                    let (mut stream, peer) = listener.accept().await.unwrap();
                    assert_eq!(peer, next.local_addr().unwrap().into());
                    std::io::Write::write_all(&mut &next, b"hello").unwrap();
                    assert_eq!(take(&mut stream, 10).await.unwrap(), b"hello");
                    until("the fault", || with(|state| state.ring.faults().has_happened())).await;
                });
            }
        }
    }
}

/// An accept without a descriptor to give fails at once, although nobody asks to be connected: the kernel is asked for that first.
#[test]
#[cfg_attr(not(has_io_uring), ignore = "this machine has no io_uring")]
fn a_listener_without_descriptors_fails_only_when_somebody_connects() {
    let rig = Rig::new();
    for mode in Mode::rings() {
        rig.run(mode, || async {
            let (listener, address) = listening();
            with(|state| state.ring.faults().arm(RingFault::Submission(0), libc::EMFILE));
            assert_eq!(listener.accept().await.unwrap_err().raw_os_error(), Some(libc::EMFILE));
            {
                let mut accepting = pin!(listener.accept());
                assert!(once(|cx| accepting.as_mut().poll(cx)).is_pending());
                turns().await;
                assert!(!is_accepting());
                let plain = Plain::connect(address).unwrap();
                assert_eq!(accepting.await.unwrap().1, plain.local_addr().unwrap().into());
            }
            assert!(is_accepting());
            // Dropped while it waits to be told.
            drop(listener);
            let (listener, _) = listening();
            with(|state| state.ring.faults().arm(RingFault::Submission(0), libc::ENFILE));
            assert_eq!(listener.accept().await.unwrap_err().raw_os_error(), Some(libc::ENFILE));
            let mut accepting = pin!(listener.accept());
            assert!(once(|cx| accepting.as_mut().poll(cx)).is_pending());
        });
    }
}

/// Whether the kernel takes connections for a listener.
fn is_accepting() -> bool {
    with(|state| state.slots.iter().any(|(_, slot)| matches!(slot, Slot::Listening(one) if one.is_accepting)))
}
