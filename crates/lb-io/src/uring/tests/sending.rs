//! Output: in order, all of it, and no peer takes a cut message for a whole one.

use std::io::{IoSlice, Write};
use std::task::Poll;

use super::super::faults::RingFault;
use super::rig::{Mode, Rig, connection, fill, once, pattern, reading, send_all, take, turns, until, with};

#[test]
#[cfg_attr(not(has_io_uring), ignore = "this machine has no io_uring")]
fn everything_goes_to_a_peer_that_reads_slowly() {
    let rig = Rig::new();
    for mode in Mode::rings() {
        rig.run(mode, || async {
            let (mut stream, plain) = connection(0);
            let bytes = pattern(8 << 20, 1);
            let taken = fill(&mut stream, &bytes).await;
            let reading = tokio::task::spawn_local(reading(plain));
            // Sizes on either side of what is copied and of what waits behind a flight.
            let mut rest = &bytes[taken..];
            for size in [1, 100, 4096, 4097, 16 * 1024, 20_000, 65_536].into_iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (now, later) = rest.split_at(size.min(rest.len()));
                send_all(&mut stream, now).await.unwrap();
                rest = later;
            }
            drop(stream);
            let (got, is_whole) = reading.await.unwrap();
            assert!(got == bytes && is_whole, "{} of {} bytes, {is_whole}", got.len(), bytes.len());
        });
    }
}

#[test]
#[cfg_attr(not(has_io_uring), ignore = "this machine has no io_uring")]
fn what_waits_goes_before_what_comes_later() {
    let rig = Rig::new();
    for mode in Mode::rings() {
        rig.run(mode, || async {
            let (mut stream, plain) = connection(0);
            let bytes = pattern(200_000, 2);
            let mut sent = 0;
            // Small ones are queued; a large one goes at once, with what was queued before it.
            for size in [10, 300, 5000, 4000, 96, 1, 30_000] {
                let mut slices =
                    bytes[sent..sent + size].chunks(size.div_ceil(10)).map(IoSlice::new).collect::<Vec<_>>();
                slices.push(IoSlice::new(&[]));
                let Poll::Ready(n) = once(|cx| stream.poll_send_vectored(cx, &slices)) else { panic!() };
                sent += n.unwrap();
            }
            stream.shutdown_write().unwrap();
            let (got, is_whole) = reading(plain).await;
            assert!(got == bytes[..sent] && is_whole);
            drop(stream);
        });
    }
}

#[test]
#[cfg_attr(not(has_io_uring), ignore = "this machine has no io_uring")]
fn the_end_follows_what_waits_and_the_peer_may_still_answer() {
    let rig = Rig::new();
    for mode in Mode::rings() {
        rig.run(mode, || async {
            let (mut stream, plain) = connection(4096);
            let bytes = pattern(4 << 20, 3);
            let taken = fill(&mut stream, &bytes).await;
            stream.shutdown_write().unwrap();
            let Poll::Ready(Err(error)) = once(|cx| stream.poll_send(cx, b"more")) else { panic!() };
            assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
            let (got, is_whole) = reading(plain.try_clone().unwrap()).await;
            assert!(got == bytes[..taken] && is_whole, "{} of {taken}", got.len());
            (&plain).write_all(b"answer").unwrap();
            assert_eq!(take(&mut stream, 100).await.unwrap(), b"answer");
        });
    }
}

#[test]
#[cfg_attr(not(has_io_uring), ignore = "this machine has no io_uring")]
fn a_failure_shows_with_the_next_call() {
    let rig = Rig::new();
    for mode in Mode::rings() {
        rig.run(mode, || async {
            let (mut stream, plain) = connection(4096);
            fill(&mut stream, &pattern(4 << 20, 4)).await;
            socket2::SockRef::from(&plain).set_linger(Some(std::time::Duration::ZERO)).unwrap();
            drop(plain);
            let is_told = || matches!(once(|cx| stream.poll_send(cx, b"x")), Poll::Ready(Err(_)));
            until("sending fails", is_told).await;
            assert!(stream.shutdown_write().is_err(), "nobody learns that output was lost");
        });
    }
}

/// The peer of a stream whose output was taken, then lost, must not see an end as if that had been all.
#[test]
#[cfg_attr(not(has_io_uring), ignore = "this machine has no io_uring")]
fn a_failure_after_the_last_call_resets_the_connection() {
    let rig = Rig::new();
    for mode in Mode::rings() {
        for code in [libc::ENOMEM, libc::ECONNRESET, libc::EINVAL] {
            for shuts in [false, true] {
                let (got, is_whole) = rig.run(mode, move || async move {
                    let (mut stream, plain) = connection(4096);
                    let bytes = pattern(4 << 20, 5);
                    fill(&mut stream, &bytes).await;
                    with(|state| state.ring.faults().arm(RingFault::Completion(0), code));
                    if shuts {
                        stream.shutdown_write().unwrap();
                    }
                    drop(stream);
                    let (got, is_whole) = reading(plain).await;
                    assert!(bytes.starts_with(&got));
                    assert!(with(|state| state.ring.faults().has_happened()));
                    (got, is_whole)
                });
                assert!(!is_whole, "{} bytes as if they were all, {mode:?} {code}", got.len());
            }
        }
    }
}

#[test]
#[cfg_attr(not(has_io_uring), ignore = "this machine has no io_uring")]
fn the_end_does_not_follow_output_that_was_lost() {
    let rig = Rig::new();
    for mode in Mode::rings() {
        rig.run(mode, || async {
            let (mut stream, plain) = connection(4096);
            fill(&mut stream, &pattern(4 << 20, 6)).await;
            with(|state| state.ring.faults().arm(RingFault::Completion(0), libc::ENOMEM));
            let reading = tokio::task::spawn_local(reading(plain));
            until("the failure", || with(|state| state.ring.faults().has_happened())).await;
            turns().await;
            assert!(stream.shutdown_write().is_err());
            drop(stream);
            assert!(!reading.await.unwrap().1);
        });
    }
}
