//! More than there is room for: of buffers, and in the queues between the worker and the kernel.

use std::future::poll_fn;
use std::io::Write;
use std::net::Shutdown;

use super::super::buffers::BUFFER_COUNT;
use super::super::faults::RingFault;
use super::super::ring::Prepared;
use super::super::slot::{Slot, Socket};
use super::rig::{Mode, Rig, connection, once, pattern, send_all, take, take_all, turns, until, with};
use crate::{Runtime, Scratch};

fn sockets(mut look: impl FnMut(&Socket) -> bool) -> usize {
    with(|state| {
        let mut is_one = |slot: &Slot| matches!(slot, Slot::Socket(socket) if look(socket));
        state.slots.iter().map(|(_, slot)| slot).filter(|slot| is_one(slot)).count()
    })
}

/// More buffers are held by readers than there are at first, and then more arrives than the others can hold while nobody reads.
#[test]
#[cfg_attr(not(has_io_uring), ignore = "this machine has no io_uring")]
fn no_byte_is_lost_for_want_of_buffers() {
    let rig = Rig::new();
    for mode in Mode::rings() {
        rig.run(mode, move || async move {
            let first = with(|state| state.ring.buffers().count());
            let mut all: Vec<_> = (0..first + 50).map(|_| connection(0)).collect();
            let mut holders: Vec<_> = all.iter().map(|_| Scratch::with_size(64)).collect();
            for (i, (_, plain)) in all.iter_mut().enumerate() {
                plain.write_all(&pattern(24_010, i as u32)[..10]).unwrap();
            }
            for (i, ((stream, _), scratch)) in all.iter_mut().zip(&mut holders).enumerate() {
                let bytes = poll_fn(|cx| stream.poll_take(cx, scratch, usize::MAX).map_ok(<[u8]>::to_vec))
                    .await
                    .unwrap();
                assert!(bytes == pattern(24_010, i as u32)[..10]);
            }
            for (i, (stream, plain)) in all.iter_mut().enumerate() {
                assert!(once(|cx| stream.poll_readable(cx)).is_pending());
                plain.write_all(&pattern(24_010, i as u32)[10..]).unwrap();
                plain.shutdown(Shutdown::Write).unwrap();
            }
            until("all have something", || sockets(|socket| socket.inbox.is_empty()) == 0).await;
            let count = with(|state| state.ring.buffers().count());
            assert!(count <= BUFFER_COUNT);
            // The kernel takes few messages in at a time: one buffer for each of them may do.
            assert!(count > first || mode == Mode::Single, "{count} buffers were enough");
            let made_room = sockets(|socket| !socket.inbox.holds_buffers()) > 0;
            assert!(made_room || mode == Mode::Single, "nothing has made room");
            for (i, (stream, _)) in all.iter_mut().enumerate() {
                assert!(take_all(stream).await.unwrap() == pattern(24_010, i as u32)[10..], "stream {i}");
            }
        });
    }
}

#[test]
#[cfg_attr(not(has_io_uring), ignore = "this machine has no io_uring")]
fn a_receive_that_found_no_buffer_is_asked_for_again() {
    let rig = Rig::new();
    for mode in Mode::rings() {
        rig.run(mode, || async {
            let first = with(|state| state.ring.buffers().count());
            let (mut stream, mut plain) = connection(0);
            with(|state| state.ring.faults().arm(RingFault::Submission(0), libc::ENOBUFS));
            assert!(once(|cx| stream.poll_readable(cx)).is_pending());
            turns().await;
            assert_eq!(with(|state| state.ring.buffers().count()), 2 * first);
            plain.write_all(b"hello").unwrap();
            until("it is received", || sockets(|socket| socket.inbox.len() == 5) == 1).await;
            assert_eq!(take(&mut stream, 10).await.unwrap(), b"hello");
            // Nobody waits for this one any more.
            let (other, _plain) = connection(0);
            with(|state| state.ring.faults().arm(RingFault::Submission(0), libc::ENOBUFS));
            assert!(once(|cx| other.poll_readable(cx)).is_pending());
            drop(other);
        });
    }
}

/// The completion queue has room for 16, the submission queue for 8, and 60 streams are busy at a time.
#[test]
#[cfg_attr(not(has_io_uring), ignore = "this machine has no io_uring")]
fn short_queues_lose_nothing() {
    let rig = Rig::new();
    for mode in Mode::rings() {
        let runtime = Runtime::on(Prepared::with_queues(mode == Mode::Ring, 8, 16).unwrap());
        rig.run_on(&runtime, || async {
            let mut all: Vec<_> = (0..60).map(|_| connection(0)).collect();
            for (stream, _) in &all {
                assert!(once(|cx| stream.poll_readable(cx)).is_pending());
            }
            turns().await;
            for (i, (_, plain)) in all.iter_mut().enumerate() {
                plain.write_all(&pattern(24_000, i as u32)).unwrap();
                plain.shutdown(Shutdown::Write).unwrap();
            }
            let has_overflown = with(|state| {
                (0..8).any(|_| {
                    state.ring.enter(None).unwrap();
                    state.ring.has_overflown()
                })
            });
            assert!(has_overflown, "there was room for all");
            let mut tasks = Vec::new();
            for (i, (mut stream, plain)) in all.into_iter().enumerate() {
                tasks.push(tokio::task::spawn_local(async move {
                    let bytes = take_all(&mut stream).await.unwrap();
                    assert!(bytes == pattern(24_000, i as u32), "stream {i}");
                    send_all(&mut stream, &bytes[..500]).await.unwrap();
                    drop(stream);
                    let (got, is_whole) = super::rig::reading(plain).await;
                    assert!(got == bytes[..500] && is_whole, "{} bytes, {is_whole}", got.len());
                }));
            }
            for task in tasks {
                task.await.unwrap();
            }
        });
    }
}
