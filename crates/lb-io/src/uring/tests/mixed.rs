//! Any mixture of ways to read and to write, on every driver.

use std::io::Write;
use std::net::{Shutdown, TcpStream as Plain};
use std::thread::JoinHandle;

use proptest::prelude::*;

use super::pump::{Step, relay};
use super::rig::{Mode, Rig, connection, pattern, read_all};

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let size = || prop_oneof![1usize..64, 1000usize..5000, 16_000usize..70_000];
    let step =
        prop_oneof![size().prop_map(Step::Take), size().prop_map(Step::Recv), size().prop_map(Step::Splice),];
    prop::collection::vec(step, 1..8)
}

/// What one end says: how many bytes, in pieces of which size.
fn speech() -> impl Strategy<Value = (usize, usize)> {
    (prop_oneof![0usize..10, 1000usize..5000, 30_000usize..200_000], 500usize..60_000)
}

/// Says `bytes` while it listens; what it has heard.
fn talk(plain: Plain, bytes: Vec<u8>, piece: usize) -> JoinHandle<(Vec<u8>, bool)> {
    std::thread::spawn(move || {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                bytes.chunks(piece).for_each(|piece| (&plain).write_all(piece).unwrap());
                plain.shutdown(Shutdown::Write).unwrap();
            });
            read_all(&plain)
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
#[cfg_attr(not(has_io_uring), ignore = "this machine has no io_uring")]
    fn a_relay_moves_every_byte_once_and_in_order(
        up in steps(),
        down in steps(),
        request in speech(),
        response in speech(),
        room in prop_oneof![Just(0usize), Just(4096usize)],
    ) {
        let rig = Rig::new();
        for mode in [Mode::Epoll].into_iter().chain(Mode::rings()) {
            let (up, down) = (up.clone(), down.clone());
            let (client, backend) = rig.run(mode, move || async move {
                let (to_client, client) = connection(room);
                let (to_backend, backend) = connection(room);
                let client = talk(client, pattern(request.0, 1), request.1);
                let backend = talk(backend, pattern(response.0, 2), response.1);
                relay(to_client, to_backend, &up, &down).await.unwrap();
                (client, backend)
            });
            let (client, backend) = (client.join().unwrap(), backend.join().unwrap());
            prop_assert!(backend == (pattern(request.0, 1), true), "{mode:?}: {} of the request's bytes, {}", backend.0.len(), backend.1);
            prop_assert!(client == (pattern(response.0, 2), true), "{mode:?}: {} of the response's bytes, {}", client.0.len(), client.1);
        }
    }
}
