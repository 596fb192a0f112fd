//! A drain under traffic: two GOAWAYs, and no request lost between them (RFC 9113 §6.8).

use crate::rig::{BOTH, config, listener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use testkit::h2::code;
use testkit::process::SIGTERM;
use testkit::{Gateway, H2Client, Origin, eventually, ms, seconds};

/// One request after the other until the gateway says that the end is near; how many of them the gateway has taken and not answered.
fn requests(mut client: H2Client, served: &AtomicU64) -> usize {
    let mut lost = 0;
    while client.goaways.is_empty() && client.gone.is_none() {
        let Ok(stream) = client.open("GET", "/", &[], true) else { break };
        match client.over(stream) {
            Ok(answer) if answer.status() == 200 => drop(served.fetch_add(1, Relaxed)),
            // Not processed, so says the last GOAWAY: it may be sent again elsewhere.
            _ if client.goaways.last().is_some_and(|last| last.last < stream) => {}
            _ => lost += 1,
        }
        client.read_for(ms(3));
    }
    // The end is a peaceful one, and names the last stream.
    client.closed(seconds(10)).unwrap();
    let end = client.goaways.last().expect("a GOAWAY");
    assert_eq!(end.code, code::NO_ERROR, "{end:?}");
    assert!(end.last < 1 << 30, "{end:?}: no last stream");
    lost
}

pub(crate) fn busy_connections_lose_nothing_in_a_drain() {
    for back in BOTH {
        for jitter in [0, 800] {
            let origin = Origin::standard(back, "one");
            let config = config().runtime("drain_timeout_ms", 6000).runtime("drain_jitter_ms", jitter);
            let mut gateway = Gateway::start(config.listener(listener(&origin)));
            let served = Arc::new(AtomicU64::new(0));
            let clients: Vec<_> = (0..6)
                .map(|_| {
                    let (client, served) = (H2Client::connect(gateway.front()).unwrap(), Arc::clone(&served));
                    std::thread::spawn(move || requests(client, &served))
                })
                .collect();
            eventually("traffic", seconds(10), || served.load(Relaxed) > 100);
            gateway.process.signal(SIGTERM);
            let lost: usize = clients.into_iter().map(|client| client.join().unwrap()).sum();
            assert_eq!(lost, 0, "{back:?}, jitter {jitter}");
            assert_eq!(gateway.process.wait_exit(seconds(10)), Some(0), "{back:?}");
            origin.assert_clean();
        }
    }
}
