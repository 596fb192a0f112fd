//! Attack C-17: whichever operation on the way of a request fails, nothing is kept, and nobody gets a wrong byte or takes a part for
//! the whole.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener as PlainListener, TcpStream as Plain};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use super::super::faults::RingFault;
use super::pump::{Step, relay};
use super::rig::{Mode, PATIENCE, Rig, freed, pattern, with};
use crate::connect;
use crate::listener::{WorkerListener, bind};

/// What one end says, and after how many bytes from the other end it says the next.
struct Script {
    says: Vec<Vec<u8>>,
    hears: Vec<u8>,
    /// Bytes heard before each of `says`.
    after: Vec<usize>,
}

fn client_script() -> Script {
    Script {
        says: vec![pattern(300, 1), pattern(200, 2)],
        hears: [pattern(300, 3), pattern(100 << 10, 4), pattern(100, 5)].concat(),
        after: vec![0, 300, 300 + (100 << 10)],
    }
}

fn backend_script() -> Script {
    Script {
        says: vec![pattern(300, 3), pattern(100 << 10, 4), pattern(100, 5)],
        hears: [pattern(300, 1), pattern(200, 2)].concat(),
        // The last word follows the end of the request.
        after: vec![300, 500, 501],
    }
}

/// What became of a script.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Whole,
    Nothing,
    Cut,
}

/// Plays one end. What it hears must be what it should, as far as it goes, and all of it if it ends as if it were.
fn play(plain: &mut Plain, script: &Script) -> Outcome {
    plain.set_read_timeout(Some(PATIENCE)).unwrap();
    plain.set_nodelay(true).unwrap();
    let (mut heard, mut said, mut is_closed, mut is_told) = (Vec::new(), 0, false, false);
    let is_clean = loop {
        if !is_closed && script.after.get(said).is_none_or(|after| heard.len() >= *after) {
            let result = match script.says.get(said) {
                Some(bytes) => plain.write_all(bytes),
                None => {
                    is_closed = true;
                    plain.shutdown(Shutdown::Write)
                }
            };
            said += 1;
            if result.is_ok() {
                continue;
            }
            // An error is told once; reading ends as if cleanly then.
            (is_closed, is_told) = (true, true);
        }
        let mut buffer = [0; 4096];
        match plain.read(&mut buffer) {
            Ok(0)
                if !is_closed && script.after.get(said).is_some_and(|after| *after > script.hears.len()) =>
            {
                if heard != script.hears {
                    break true;
                }
                let result = script.says[said..].iter().try_for_each(|bytes| plain.write_all(bytes));
                break result.is_ok();
            }
            Ok(0) => break true,
            Ok(n) => heard.extend_from_slice(&buffer[..n]),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => break false,
            Err(error) => panic!("the relay hangs: {error}"),
        }
    };
    let is_clean = is_clean && !is_told;
    assert!(script.hears.starts_with(&heard), "wrong bytes");
    match heard.len() {
        n if is_clean && n == script.hears.len() => Outcome::Whole,
        // Of a connection that failed before it was served.
        0 => Outcome::Nothing,
        n => {
            assert!(!is_clean, "{n} of {} bytes as if they were all", script.hears.len());
            Outcome::Cut
        }
    }
}

/// A backend; it ends when it is told so.
fn backend() -> (SocketAddr, Arc<AtomicBool>, JoinHandle<()>) {
    let listener = PlainListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let is_over = Arc::new(AtomicBool::new(false));
    let ends = Arc::clone(&is_over);
    let thread = std::thread::spawn(move || {
        for plain in listener.incoming() {
            if ends.load(Ordering::SeqCst) {
                break;
            }
            play(&mut plain.unwrap(), &backend_script());
        }
    });
    (address, is_over, thread)
}

/// Two clients one after the other, of whom one may suffer from `fault`. Whether that has happened.
async fn serve(backend: SocketAddr, fault: RingFault, code: i32) -> bool {
    let listener = bind("127.0.0.1:0".parse().unwrap(), Default::default()).unwrap();
    let address = listener.address().socket_addr().unwrap();
    let listener = WorkerListener::new(listener).unwrap();
    with(|state| state.ring.faults().arm(fault, code));
    let (done, mut clients) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let client = |_| play(&mut Plain::connect(address).unwrap(), &client_script());
        let _ = done.send([1, 2].map(client));
    });
    let up = [Step::Take(usize::MAX), Step::Recv(1000)];
    let down = [Step::Take(usize::MAX), Step::Recv(1000), Step::Splice(1 << 20)];
    let clients = loop {
        let accepted = tokio::select! {
            clients = &mut clients => break clients.expect("a client has failed"),
            accepted = listener.accept() => accepted,
        };
        // Failures are for the ends to judge.
        let Ok((mut stream, _)) = accepted else { continue };
        match connect(backend.into(), PATIENCE).await {
            Ok(backend) => drop(relay(stream, backend, &up, &down).await),
            Err(_) => stream.reset_on_close(),
        }
    };
    let has_happened = with(|state| state.ring.faults().has_happened());
    let served = clients.iter().filter(|outcome| **outcome == Outcome::Whole).count();
    assert!(served >= if has_happened { 1 } else { 2 }, "one failure has harmed both: {clients:?}");
    has_happened
}

/// Has every operation fail in turn, with each of a few errors. After each nothing must be left.
fn every(fault: fn(usize) -> RingFault) {
    let rig = Rig::new();
    for mode in Mode::rings() {
        let (backend, is_over, thread) = backend();
        rig.run(mode, move || async move {
            for code in [libc::ECONNRESET, libc::ENOMEM, libc::EINVAL] {
                let mut n = 0;
                while serve(backend, fault(n), code).await {
                    freed().await;
                    n += 1;
                }
                freed().await;
                assert!(n > 5, "only {n} operations were needed");
            }
        });
        is_over.store(true, Ordering::SeqCst);
        drop(Plain::connect(backend));
        thread.join().unwrap();
    }
}

#[test]
#[cfg_attr(not(has_io_uring), ignore = "this machine has no io_uring")]
fn any_operation_may_be_refused() {
    every(RingFault::Submission);
}

#[test]
#[cfg_attr(not(has_io_uring), ignore = "this machine has no io_uring")]
fn any_operation_may_fail() {
    every(RingFault::Completion);
}
