//! Input: every byte once and in order, whoever reads it and however, and its end as soon as that can be known.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::task::Poll;

use super::super::slot::Slot;
use super::rig::{Mode, Rig, connection, once, pattern, take, take_all, turns, until, with};
use crate::Scratch;
use crate::pipe::Pipe;

/// Moves up to `limit` bytes through a pipe and shows them.
async fn splice(stream: &mut crate::ByteStream, limit: usize) -> Vec<u8> {
    let mut pipe = Pipe::new().unwrap();
    std::future::poll_fn(|cx| stream.poll_splice_in(cx, &mut pipe, limit)).await.unwrap();
    let (out, mut read) = std::os::unix::net::UnixStream::pair().unwrap();
    let mut bytes = vec![0; pipe.held()];
    pipe.drain_to(&out).unwrap();
    read.read_exact(&mut bytes).unwrap();
    bytes
}

#[test]
#[cfg_attr(not(has_io_uring), ignore = "this machine has no io_uring")]
fn taking_a_receive_back_loses_nothing() {
    let rig = Rig::new();
    for mode in Mode::rings() {
        rig.run(mode, || async {
            let bytes = pattern(120_000, 1);
            // Bytes that came before the receive was asked for, while it was armed, and after it was taken back.
            for (before, armed, after) in
                [(0, 0, 10), (0, 10, 0), (10, 5000, 10), (3000, 70_000, 3000), (0, 33_000, 40_000), (0, 0, 0)]
            {
                let (mut stream, mut plain) = connection(0);
                plain.write_all(&bytes[..before]).unwrap();
                let _ = once(|cx| stream.poll_readable(cx));
                turns().await;
                plain.write_all(&bytes[before..before + armed]).unwrap();
                let mut pipe = Pipe::new().unwrap();
                let mut got = Vec::new();
                if let Poll::Ready(n) = once(|cx| stream.poll_splice_in(cx, &mut pipe, 100)) {
                    // The first of them are here already, and come by the pipe.
                    let (out, mut read) = std::os::unix::net::UnixStream::pair().unwrap();
                    pipe.drain_to(&out).unwrap();
                    got = vec![0; n.unwrap()];
                    read.read_exact(&mut got).unwrap();
                }
                let all = before + armed + after;
                plain.write_all(&bytes[before + armed..all]).unwrap();
                for i in 0.. {
                    if got.len() == all {
                        break;
                    }
                    let next = if i % 3 == 0 {
                        take(&mut stream, 777).await.unwrap()
                    } else {
                        splice(&mut stream, 5000).await
                    };
                    assert!(!next.is_empty());
                    got.extend_from_slice(&next);
                }
                assert!(got == bytes[..all], "{before} {armed} {after}");
                plain.shutdown(Shutdown::Write).unwrap();
                assert!(splice(&mut stream, 10).await.is_empty());
                assert!(take(&mut stream, 10).await.unwrap().is_empty());
            }
        });
    }
}

#[test]
#[cfg_attr(not(has_io_uring), ignore = "this machine has no io_uring")]
fn a_hangup_is_noticed_behind_unread_bytes() {
    let rig = Rig::new();
    for mode in Mode::rings() {
        // Nothing, less than is received ahead, and more.
        for size in [0, 10, 5000, 100_000] {
            rig.run(mode, move || async move {
                let (mut stream, mut plain) = connection(0);
                let bytes = pattern(size, 2);
                plain.write_all(&bytes).unwrap();
                for _ in 0..20 {
                    assert!(once(|cx| stream.poll_hangup(cx)).is_pending(), "bytes are taken for an end");
                    turns().await;
                }
                plain.shutdown(Shutdown::Write).unwrap();
                std::future::poll_fn(|cx| stream.poll_hangup(cx)).await;
                assert!(!stream.is_quiet());
                assert!(take_all(&mut stream).await.unwrap() == bytes);
                assert!(once(|cx| stream.poll_hangup(cx)).is_ready());
            });
        }
    }
}

#[test]
#[cfg_attr(not(has_io_uring), ignore = "this machine has no io_uring")]
fn a_hangup_is_noticed_while_bytes_wait_in_the_kernel_for_a_splice() {
    let rig = Rig::new();
    for mode in Mode::rings() {
        rig.run(mode, || async {
            let (mut stream, mut plain) = connection(0);
            let bytes = pattern(50_000, 3);
            plain.write_all(&bytes).unwrap();
            let mut got = splice(&mut stream, 1000).await;
            assert!(once(|cx| stream.poll_hangup(cx)).is_pending());
            plain.shutdown(Shutdown::Write).unwrap();
            std::future::poll_fn(|cx| stream.poll_hangup(cx)).await;
            while got.len() < bytes.len() {
                got.extend_from_slice(&splice(&mut stream, 7000).await);
            }
            assert!(got == bytes && splice(&mut stream, 10).await.is_empty());
        });
    }
}

#[test]
#[cfg_attr(not(has_io_uring), ignore = "this machine has no io_uring")]
fn a_reset_is_an_error_behind_nothing() {
    let rig = Rig::new();
    for mode in Mode::rings() {
        rig.run(mode, || async {
            let (mut stream, plain) = connection(0);
            assert!(once(|cx| stream.poll_readable(cx)).is_pending());
            turns().await;
            socket2::SockRef::from(&plain).set_linger(Some(std::time::Duration::ZERO)).unwrap();
            drop(plain);
            let error = take(&mut stream, 10).await.unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::ECONNRESET));
            assert!(once(|cx| stream.poll_hangup(cx)).is_ready());
            assert!(!stream.is_quiet());
        });
    }
}

#[test]
#[cfg_attr(not(has_io_uring), ignore = "this machine has no io_uring")]
fn an_idle_connection_is_quiet_until_something_comes() {
    let rig = Rig::new();
    for mode in Mode::rings() {
        for asked_before in [false, true] {
            for says_something in [false, true] {
                rig.run(mode, move || async move {
                    let (mut stream, mut plain) = connection(0);
                    if asked_before {
                        for _ in 0..3 {
                            assert!(stream.is_quiet());
                            turns().await;
                        }
                    }
                    match says_something {
                        true => plain.write_all(b"x").unwrap(),
                        false => plain.shutdown(Shutdown::Write).unwrap(),
                    }
                    // Asked for the first time, the kernel knows; afterwards it is known when the driver has had its turn.
                    if asked_before {
                        until("it is no longer quiet", || !stream.is_quiet()).await;
                    }
                    assert!(!stream.is_quiet());
                    let expected: &[u8] = if says_something { b"x" } else { b"" };
                    assert_eq!(take(&mut stream, 10).await.unwrap(), expected);
                    assert_eq!(stream.is_quiet(), says_something, "an answer that was read leaves it quiet");
                });
            }
        }
    }
}

#[test]
#[cfg_attr(not(has_io_uring), ignore = "this machine has no io_uring")]
fn asking_for_no_bytes_is_no_end() {
    let rig = Rig::new();
    for mode in [Mode::Epoll].into_iter().chain(Mode::rings()) {
        rig.run(mode, || async {
            let (mut stream, mut plain) = connection(0);
            let bytes = pattern(100_000, 4);
            plain.write_all(&bytes).unwrap();
            let mut got = Vec::new();
            while got.len() < bytes.len() {
                got.extend_from_slice(&take(&mut stream, 30_000).await.unwrap());
                for _ in 0..3 {
                    let _ = once(|cx| stream.poll_recv(cx, &mut []).map_ok(<[u8]>::len));
                    let _ = once(|cx| stream.poll_take(cx, &mut Scratch::new(), 0).map_ok(<[u8]>::len));
                }
            }
            assert!(got == bytes);
            plain.write_all(b"more").unwrap();
            assert_eq!(take(&mut stream, 10).await.unwrap(), b"more");
        });
    }
}

/// What is read ahead of a stream that nobody reads has a bound.
#[test]
#[cfg_attr(not(has_io_uring), ignore = "this machine has no io_uring")]
fn no_more_is_received_than_so_much_ahead() {
    let rig = Rig::new();
    for mode in Mode::rings() {
        rig.run(mode, || async {
            let (mut stream, mut plain) = connection(0);
            let bytes = pattern(120_000, 5);
            plain.write_all(&bytes).unwrap();
            let bound = 2 * super::super::ring::RECEIVE_AHEAD as usize;
            for _ in 0..30 {
                let _ = stream.is_quiet();
                let _ = once(|cx| stream.poll_readable(cx));
                let _ = once(|cx| stream.poll_hangup(cx));
                turns().await;
                let held = with(|state| {
                    let held =
                        |slot: &Slot| matches!(slot, Slot::Socket(socket) if socket.inbox.len() > bound);
                    state.slots.iter().any(|(_, slot)| held(slot))
                });
                assert!(!held, "more than {bound} bytes are held");
            }
            plain.shutdown(Shutdown::Write).unwrap();
            assert!(take_all(&mut stream).await.unwrap() == bytes);
        });
    }
}

/// Messages of several buffers are read by one call each, when the kernel says that one is there; small ones come in its buffers again.
#[test]
#[cfg_attr(not(has_io_uring), ignore = "this machine has no io_uring")]
fn how_much_comes_at_a_time_decides_how_it_is_read() {
    let rig = Rig::new();
    rig.run(Mode::Ring, || async {
        let (mut stream, mut plain) = connection(0);
        for (size, count, directly) in
            [(100, 4, false), (10_240, 6, true), (100, 4, false), (10_240, 6, true)]
        {
            for seed in 0..count {
                let message = pattern(size, seed);
                plain.write_all(&message).unwrap();
                let mut got = Vec::new();
                while got.len() < size {
                    got.extend(take(&mut stream, usize::MAX).await.unwrap());
                }
                assert!(got == message, "{size} bytes, {seed}");
                // Between messages the connection rests, as in a pool.
                assert!(stream.is_quiet());
            }
            let pending = with(|state| {
                state.slots.iter().find_map(|(_, slot)| match slot {
                    Slot::Socket(socket) => Some(socket.pending),
                    _ => None,
                })
            });
            let pending = pending.unwrap();
            assert_eq!((pending.readable, pending.receive), (directly, !directly), "{size} bytes");
        }
        plain.write_all(b"unasked").unwrap();
        until("it is noticed", || !stream.is_quiet()).await;
    });
}

/// Buffers lie on pages of one region, which goes back as a whole.
#[test]
#[cfg_attr(not(has_io_uring), ignore = "this machine has no io_uring")]
fn unread_bytes_do_not_keep_all_buffers_in_memory() {
    let rig = Rig::new();
    for mode in Mode::rings() {
        rig.run(mode, || async {
            let (mut busy, mut plain) = connection(0);
            let bytes = pattern(1500, 8);
            for _ in 0..400 {
                plain.write_all(&bytes[..10]).unwrap();
                take(&mut busy, 10).await.unwrap();
            }
            let mut stalled: Vec<_> = (0..20).map(|_| connection(0)).collect();
            for (stream, plain) in &mut stalled {
                let _ = once(|cx| stream.poll_readable(cx));
                plain.write_all(&bytes).unwrap();
            }
            until("all are held", || with(|state| state.ring.buffers().leased() >= 20)).await;
            with(|state| state.rest());
            assert!(with(|state| state.ring.buffers().leased()) >= 20, "much was received of late");
            turns().await;
            with(|state| state.rest());
            assert!(
                with(|state| state.ring.buffers().leased() == 0 && state.ring.buffers().are_given_back())
            );
            for (stream, _plain) in &mut stalled {
                let mut got = Vec::new();
                while got.len() < bytes.len() {
                    got.extend(take(stream, 700).await.unwrap());
                }
                assert!(got == bytes);
            }
        });
    }
}
