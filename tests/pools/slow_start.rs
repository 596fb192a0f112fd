//! Slow start: who comes back gets little at first. The window is an hour, so that a test sees its beginning however slow the machine is.

use std::sync::atomic::Ordering::SeqCst;

use testkit::{Backend, Gateway};

use crate::health::Patient;
use crate::health_rig::{Pool, wait_health};
use crate::outlier::changeable;
use crate::rig::{gateway, one_worker};

const HOUR_MS: i64 = 3_600_000;

/// With and without slow start, and how many of [`ASKED`] requests the one of two backends gets that has come back. An even share is 200,
/// the least that a slow start gives is a thirty-third.
const CASES: [(i64, std::ops::RangeInclusive<usize>); 2] = [(HOUR_MS, 1..=60), (0, 120..=280)];

const ASKED: usize = 400;

/// How many requests reach `backend` that is named so.
fn share(gateway: &Gateway, name: &str) -> usize {
    let mut client = gateway.client();
    let mut get = || client.get("/").map(|response| (response.status, response.text())).unwrap();
    (0..ASKED).map(|_| get()).filter(|answer| *answer == (200, name.to_owned())).count()
}

pub(crate) fn who_passes_its_checks_again_gets_little_at_first() {
    for policy in ["round_robin", "random", "p2c"] {
        for (slow_start_ms, expected) in CASES {
            let (sick, well) = (Patient::new("sick"), Patient::new("well"));
            let pool = Pool::probed("http", "path = \"/health\"")
                .key("policy", policy)
                .key("slow_start_ms", slow_start_ms)
                .h1(sick.server.address)
                .h1(well.server.address);
            let config = pool.config().runtime("workers", 1).runtime("max_keepalive_requests", 0);
            let gateway = Gateway::start(config);
            wait_health(&gateway, sick.server.address, true);
            wait_health(&gateway, well.server.address, true);
            let first = share(&gateway, "sick");
            assert!((120..=280).contains(&first), "{policy}: nobody has come back yet: {first}");
            sick.status.store(500, SeqCst);
            wait_health(&gateway, sick.server.address, false);
            sick.status.store(200, SeqCst);
            wait_health(&gateway, sick.server.address, true);
            let later = share(&gateway, "sick");
            assert!(expected.contains(&later), "{policy}, {slow_start_ms} ms: {later}");
        }
    }
}

pub(crate) fn who_was_ejected_gets_little_at_first() {
    for (slow_start_ms, expected) in CASES {
        let (good, _) = changeable("good", 200);
        let (bad, status) = changeable("bad", 503);
        let backends: [&Backend; 2] = [&good, &bad];
        let gateway = gateway("round_robin", &backends, |config| {
            one_worker(config)
                .runtime("max_keepalive_requests", 0)
                .block("pools.p", "slow_start_ms", slow_start_ms)
                .block("pools.p.outlier", "consecutive_5xx", 3)
                .block("pools.p.outlier", "base_ejection_ms", 3000)
                .block("pools.p.outlier", "max_ejection_ms", 3000)
        });
        share(&gateway, "bad");
        status.store(200, SeqCst);
        let back = || gateway.process.stderr.count("backend back from ejection, on probation");
        let earlier = back();
        testkit::eventually("it is back", testkit::seconds(30), || back() > earlier);
        let later = share(&gateway, "bad");
        assert!(expected.contains(&later), "{slow_start_ms} ms: {later}");
    }
}
