//! The thread that writes the log.
//!
//! Nothing else waits for standard error, which may be a pipe that nobody reads, a socket or a file on a disk that does not answer. The
//! descriptor is shared with other processes, so it stays as blocking as it is.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use super::queue::Queue;

/// Writes what `queue` holds to `output`, for as long as the process lives.
pub(super) fn run(queue: &Arc<Queue>, output: &impl AsFd) {
    let mut batch = Vec::new();
    let mut is_read = true;
    loop {
        if batch.capacity() > KEPT_BYTES {
            batch = Vec::new();
        }
        batch.clear();
        queue.take(&mut batch);
        // Now there is room, and the line comes after those that were there before it. Without a reader there is no point in a report.
        if is_read {
            tell_of_drops(queue);
        }
        let (mut written, mut lost) = (0u64, 0u64);
        for piece in pieces(&batch) {
            match write_all(output, piece) {
                Ok(()) => written = written.saturating_add(1),
                Err(_) => lost = lost.saturating_add(lines(piece)),
            }
        }
        is_read = written > 0;
        queue.done(lost);
    }
}

fn tell_of_drops(queue: &Queue) {
    let lines = queue.take_untold();
    if lines > 0 {
        tracing::warn!(lines, "log lines were dropped — standard error was not read in time");
    }
}

/// Whole lines, as many as one write to a pipe keeps together (POSIX: PIPE_BUF). A longer line stands alone.
fn pieces(batch: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = batch;
    std::iter::from_fn(move || {
        let window = rest.get(..ATOMIC_BYTES).unwrap_or(rest);
        let end_in = |bytes: &[u8]| bytes.iter().rposition(|byte| *byte == b'\n');
        let first_end = || rest.iter().position(|byte| *byte == b'\n');
        let length = match end_in(window) {
            Some(end) if rest.len() > window.len() => end.saturating_add(1),
            None if rest.len() > window.len() => first_end().map_or(rest.len(), |end| end.saturating_add(1)),
            _ => rest.len(),
        };
        let (piece, after) = rest.split_at_checked(length)?;
        rest = after;
        (!piece.is_empty()).then_some(piece)
    })
}

fn lines(piece: &[u8]) -> u64 {
    let ends = piece.iter().filter(|byte| **byte == b'\n').count();
    u64::try_from(ends).unwrap_or(u64::MAX)
}

pub(super) fn write_all(output: &impl AsFd, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(output, bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            // Another process that has the descriptor too may have made it so.
            Err(Errno::AGAIN) => {
                let mut ready = [PollFd::new(output, PollFlags::OUT)];
                match poll(&mut ready, None) {
                    Ok(_) | Err(Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

const ATOMIC_BYTES: usize = 4096;

/// The room that a quiet writer keeps.
const KEPT_BYTES: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::fd::OwnedFd;
    use std::time::Duration;

    use rustix::fs::{OFlags, fcntl_setfl};
    use rustix::pipe::pipe;

    use super::*;

    fn started(output: OwnedFd) -> Arc<Queue> {
        let queue = Arc::new(Queue::default());
        let of_writer = Arc::clone(&queue);
        std::thread::spawn(move || run(&of_writer, &output));
        queue
    }

    #[test]
    fn pieces_are_whole_lines_and_all_of_them() {
        let long = [&[b'l'; 5000][..], b"\n"].concat();
        let short = b"0123456789abcde\n".repeat(300);
        let all = [&short[..], &long, &short, b"the end\n"].concat();
        let found: Vec<&[u8]> = pieces(&all).collect();
        assert_eq!(found.concat(), all);
        assert!(found.iter().all(|piece| piece.ends_with(b"\n")));
        assert!(found.iter().all(|piece| piece.len() <= ATOMIC_BYTES || lines(piece) == 1));
        assert!(found.len() <= 6, "{}", found.len());
        assert_eq!(pieces(b"").count(), 0);
        assert_eq!(pieces(b"no end").collect::<Vec<_>>(), [b"no end"]);
    }

    #[test]
    fn a_reader_that_stalls_holds_up_nobody_and_gets_the_oldest_lines_later() {
        for nonblocking in [false, true] {
            let (reader, writer) = pipe().unwrap();
            if nonblocking {
                fcntl_setfl(&writer, OFlags::NONBLOCK).unwrap();
            }
            let queue = started(writer);
            let count = 200_000;
            for number in 0..count {
                queue.push(format!("line {number:010}\n").as_bytes(), false);
            }
            let dropped = queue.dropped();
            assert!(dropped > 0 && !queue.flush(Duration::from_millis(10)));
            let expected = (count - dropped) * 16;
            let reading = std::thread::spawn(move || {
                let mut text = String::new();
                std::fs::File::from(reader).take(expected).read_to_string(&mut text).unwrap();
                text
            });
            assert!(queue.flush(Duration::from_secs(30)));
            assert!(reading.join().unwrap().starts_with("line 0000000000\nline 0000000001\n"));
            assert_eq!(queue.dropped(), dropped);
        }
    }

    #[test]
    fn what_cannot_be_written_is_counted() {
        let (reader, writer) = pipe().unwrap();
        let queue = started(writer);
        drop(reader);
        queue.push(b"one\ntwo\n", true);
        assert!(queue.flush(Duration::from_secs(10)));
        assert_eq!(queue.dropped(), 2);
    }
}
