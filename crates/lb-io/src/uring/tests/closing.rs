//! The end of streams and of workers: output that was taken still goes out, but not for ever.

use std::io::{Read, Write};
use std::task::Poll;
use std::time::{Duration, Instant};

use super::super::faults::RingFault;
use super::super::release::{LINGER, MAX_LINGERING};
use super::rig::{
    Mode, PATIENCE, Rig, closing, connection, fill, freed, once, pattern, read_all, reading, take_all, turns,
    until, with,
};
use crate::pipe::Pipe;

#[test]
#[cfg_attr(not(has_io_uring), ignore = "this machine has no io_uring")]
fn a_dropped_stream_still_sends_what_it_had_taken() {
    let rig = Rig::new();
    for mode in Mode::rings() {
        for size in [1, 3000, 4 << 20] {
            rig.run(mode, move || async move {
                let (mut stream, plain) = connection(if size > 4096 { 4096 } else { 0 });
                let bytes = pattern(size, 1);
                let taken = if size > 4096 {
                    fill(&mut stream, &bytes).await
                } else {
                    let Poll::Ready(n) = once(|cx| stream.poll_send(cx, &bytes)) else { panic!() };
                    n.unwrap()
                };
                drop(stream);
                let (got, is_whole) = reading(plain).await;
                assert!(got == bytes[..taken] && is_whole, "{} of {taken} bytes, {is_whole}", got.len());
            });
        }
    }
}

/// Its peer never reads: what the kernel had taken of a flight before it was cancelled must not make the rest fly again.
#[test]
#[cfg_attr(not(has_io_uring), ignore = "this machine has no io_uring")]
fn a_reset_stream_is_gone_at_once() {
    let rig = Rig::new();
    for mode in Mode::rings() {
        rig.run(mode, || async {
            let (mut stream, plain) = connection(4096);
            let bytes = pattern(4 << 20, 2);
            fill(&mut stream, &bytes).await;
            turns().await;
            // Makes room for a part of the flight.
            let reading = tokio::task::spawn_blocking(move || {
                let mut start = vec![0; 20_000];
                (&plain).read_exact(&mut start).map(|()| (start, plain))
            });
            let (start, plain) = reading.await.unwrap().unwrap();
            turns().await;
            stream.reset_on_close();
            drop(stream);
            freed().await;
            let (got, is_whole) = read_all(&plain);
            assert!(bytes.starts_with(&[start, got].concat()) && !is_whole);
        });
    }
}

#[test]
#[cfg_attr(not(has_io_uring), ignore = "this machine has no io_uring")]
fn a_peer_that_never_reads_holds_a_closed_stream_only_so_long() {
    let rig = Rig::new();
    for mode in Mode::rings() {
        rig.run(mode, || async {
            let (mut stream, plain) = connection(4096);
            let bytes = pattern(4 << 20, 3);
            fill(&mut stream, &bytes).await;
            turns().await;
            let before = Instant::now();
            drop(stream);
            turns().await;
            with(|state| state.expire(before + LINGER - Duration::from_millis(1)));
            turns().await;
            assert_eq!(closing(), 1, "cut off too soon");
            with(|state| state.expire(Instant::now() + LINGER));
            freed().await;
            let (got, is_whole) = read_all(&plain);
            assert!(bytes.starts_with(&got) && !is_whole);
        });
    }
}

#[test]
#[cfg_attr(not(has_io_uring), ignore = "this machine has no io_uring")]
fn closed_streams_whose_peers_never_read_are_not_more_than_so_many() {
    let rig = Rig::new();
    for mode in Mode::rings() {
        rig.run(mode, || async {
            let bytes = pattern(4 << 20, 4);
            let mut plains = Vec::new();
            for _ in 0..2 * MAX_LINGERING + 1 {
                let (mut stream, plain) = connection(4096);
                let taken = fill(&mut stream, &bytes).await;
                plains.push((plain, taken));
                drop(stream);
            }
            until("the oldest are cut off", || closing() <= MAX_LINGERING).await;
            let cut_off = plains.len() - MAX_LINGERING;
            let ends =
                plains.into_iter().map(|(plain, taken)| (tokio::task::spawn_local(reading(plain)), taken));
            for (i, (end, taken)) in ends.collect::<Vec<_>>().into_iter().enumerate() {
                let (got, is_whole) = end.await.unwrap();
                assert_eq!((got == bytes[..taken], is_whole), (i >= cut_off, i >= cut_off), "stream {i}");
            }
        });
    }
}

/// A stream is dropped while it receives, waits to splice in both directions and for a hangup.
#[test]
#[cfg_attr(not(has_io_uring), ignore = "this machine has no io_uring")]
fn nothing_is_left_of_what_a_dropped_stream_was_waiting_for() {
    let rig = Rig::new();
    for mode in Mode::rings() {
        rig.run(mode, || async {
            let mut pipe = Pipe::new().unwrap();
            let (mut full, _unread) = connection(4096);
            // Filled from a pipe alone, so that nothing of it waits in the worker.
            pipe.put(&pattern(60_000, 5)).unwrap();
            while once(|cx| full.poll_splice_out(cx, &mut pipe)).is_ready() {
                let _ = pipe.put(&pattern(60_000, 5));
            }
            let mut other = Pipe::new().unwrap();
            assert!(once(|cx| full.poll_splice_in(cx, &mut other, 1000)).is_pending());
            let (receives, _plain) = connection(0);
            assert!(once(|cx| receives.poll_readable(cx)).is_pending());
            assert!(once(|cx| full.poll_hangup(cx)).is_pending());
            turns().await;
            drop((full, receives));
        });
    }
}

#[test]
#[cfg_attr(not(has_io_uring), ignore = "this machine has no io_uring")]
fn what_a_worker_had_taken_goes_out_when_it_ends() {
    let rig = Rig::new();
    for mode in Mode::rings() {
        let (plains, taken) = rig.run_to_its_end(mode, || async {
            let (mut small, first) = connection(0);
            assert!(matches!(once(|cx| small.poll_send(cx, b"small")), Poll::Ready(Ok(5))));
            let (mut large, second) = connection(4096);
            let taken = fill(&mut large, &pattern(4 << 20, 6)).await;
            // One ends with its task, which ends with the worker.
            tokio::task::spawn_local(async move {
                let _large = large;
                std::future::pending::<()>().await;
            });
            turns().await;
            let slow = std::thread::spawn(move || read_all(&second));
            ((first, slow), taken)
        });
        let (first, slow) = plains;
        assert_eq!(read_all(&first), (b"small".to_vec(), true));
        let (got, is_whole) = slow.join().unwrap();
        assert!(got == pattern(4 << 20, 6)[..taken] && is_whole, "{} of {taken}", got.len());
    }
}

#[test]
#[cfg_attr(not(has_io_uring), ignore = "this machine has no io_uring")]
fn output_that_a_worker_cannot_be_rid_of_ends_with_a_reset() {
    let rig = Rig::new();
    for mode in Mode::rings() {
        let (plain, other) = rig.run_to_its_end(mode, || async {
            let (mut stuck, plain) = connection(4096);
            fill(&mut stuck, &pattern(4 << 20, 7)).await;
            let (mut quick, other) = connection(0);
            assert!(matches!(once(|cx| quick.poll_send(cx, b"quick")), Poll::Ready(Ok(5))));
            (plain, other)
        });
        let (got, is_whole) = read_all(&plain);
        assert!(
            pattern(4 << 20, 7).starts_with(&got) && !is_whole,
            "{} bytes as if they were all",
            got.len()
        );
        assert_eq!(read_all(&other), (b"quick".to_vec(), true));
    }
}

/// The end of a stream is told to the peer at once, not when something else happens.
#[test]
#[cfg_attr(not(has_io_uring), ignore = "this machine has no io_uring")]
fn the_peer_of_a_dropped_stream_sees_the_end() {
    let rig = Rig::new();
    for mode in Mode::rings() {
        rig.run(mode, || async {
            let (stream, mut plain) = connection(0);
            assert!(once(|cx| stream.poll_readable(cx)).is_pending());
            turns().await;
            drop(stream);
            plain.set_read_timeout(Some(PATIENCE)).unwrap();
            let end = tokio::task::spawn_blocking(move || plain.read(&mut [0u8; 8]).map(|n| (n, plain)));
            let (n, mut plain) = end.await.unwrap().unwrap();
            assert_eq!(n, 0);
            let _ = plain.write_all(b"late");
        });
    }
}

/// The kernel says that it has lost completions: nobody knows whose, and whoever waits for one would wait for ever.
#[test]
#[cfg_attr(not(has_io_uring), ignore = "this machine has no io_uring")]
fn a_worker_whose_ring_fails_ends() {
    let rig = Rig::new();
    for mode in Mode::rings() {
        let (tell, plain) = std::sync::mpsc::channel();
        rig.run_until_lost(mode, move || async move {
            let (mut stream, plain) = connection(0);
            tell.send(plain).unwrap();
            with(|state| state.ring.faults().arm(RingFault::Enter, libc::EBADR));
            take_all(&mut stream).await.unwrap();
        });
        // Its connections are closed, and not left hanging.
        read_all(&plain.recv().unwrap());
    }
}
