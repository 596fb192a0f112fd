//! Certificates and sessions that change while HTTP clients come and go.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use testkit::certificates::write;
use testkit::gateway::Reload;
use testkit::load::Load;
use testkit::process::{Finished, run};
use testkit::tls::{Bridge, TlsClient};
use testkit::tools::Tool;
use testkit::{Gateway, ms, seconds};

use crate::rig::renew;
use crate::site::{Site, ask};

/// Runs `again` until told to stop; how often it ran.
fn until_told(stop: &Arc<AtomicBool>, mut again: impl FnMut() + Send + 'static) -> JoinHandle<usize> {
    let stop = Arc::clone(stop);
    std::thread::spawn(move || {
        let mut count = 0;
        while !stop.load(Ordering::SeqCst) {
            again();
            count += 1;
        }
        count
    })
}

#[track_caller]
fn assert_all_served(said: &Finished, requests: usize) {
    let expected = format!("{requests} succeeded, 0 failed, 0 errored, 0 timeout");
    assert!(said.stdout.contains(&expected), "{}{}", said.stdout, said.stderr);
    assert!(said.stdout.contains(&format!("status codes: {requests} 2xx")), "{}", said.stdout);
}

/// New certificates and a new file every 200 ms, under connections of both versions that stay and that come and go.
pub(crate) fn rotation_under_load_drops_no_request() {
    const ROUNDS: u32 = 20;
    let site = Site::new();
    let config = site.config("").runtime("max_keepalive_requests", 0);
    let mut gateway = Gateway::start(config.clone());
    let front = gateway.front();
    let url = format!("https://{front}/");
    let stop = Arc::new(AtomicBool::new(false));
    let kept = site.bridge(&gateway, "http/1.1");
    let steady = Load::start(kept.address, 4, "/", ms(1));
    let h2load = |args: &'static [&'static str], requests: usize| {
        let url = url.clone();
        until_told(&stop, move || {
            let args = [args, &[url.as_str()]].concat();
            assert_all_served(&run(Tool::H2load.path().unwrap(), args, seconds(60)), requests);
        })
    };
    let mut work = vec![
        h2load(&["-n", "2000", "-c", "4", "-m", "10"], 2000),
        h2load(&["-n", "60", "-c", "20", "-m", "3"], 60),
        h2load(&["--h1", "-n", "40", "-c", "20"], 40),
    ];
    for resumes in [true, false] {
        let (first, authority) = (site.client(&["http/1.1"]), site.rig.authority.pem());
        work.push(until_told(&stop, move || {
            let client = if resumes { first.clone() } else { TlsClient::trusting(&authority) };
            let mut connection = client.connect(front, "server.test").expect("a handshake");
            assert_eq!(ask(&mut connection, "server.test", "/").expect("an answer").0, 200);
        }));
    }
    for round in 0..ROUNDS {
        site.rig.authority.server(&["server.test"]).write(site.rig.files.path(), "s");
        let line = renew(&gateway);
        assert!(line.contains("\"ok\":1") && line.contains("\"fail\":0"), "round {round}: {line}");
        std::thread::sleep(ms(100));
        let changed = config.clone().runtime("connect_timeout_ms", 4000 + round);
        assert!(matches!(gateway.reload(changed), Reload::Complete(_)), "round {round}");
        std::thread::sleep(ms(100));
    }
    stop.store(true, Ordering::SeqCst);
    let counts: Vec<_> = work.into_iter().map(|worker| worker.join().expect("nothing fails")).collect();
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
    let tally = steady.stop();
    assert_eq!(tally.failures.lock().unwrap().as_slice(), [] as [String; 0]);
    let lost = [&tally.refused, &tally.repeated, &tally.closing].map(|count| count.load(Ordering::SeqCst));
    assert_eq!(lost, [0, 0, 0], "the connections that stay are left alone");
    assert_eq!((kept.established(), kept.failures()), (4, Vec::new()));
    assert_eq!(gateway.metric("cert_rotation_succeeded_total", &[]), f64::from(ROUNDS));
    for result in ["alert", "protocol", "internal", "timeout", "overload", "certificate"] {
        assert_eq!(gateway.metric("tls_handshakes_total", &[("result", result)]), 0.0, "{result}");
    }
    eprintln!("rounds of each kind: {counts:?}");
}

/// A session goes on after SIGHUP and SIGUSR1, and after a restart where the ticket keys are in a file.
pub(crate) fn sessions_of_both_versions_survive_changes() {
    let site = Site::new();
    write(&site.rig.file("tickets"), [7; 80], 0o600);
    for survives_restart in [true, false] {
        let mut listener = site.listener("");
        if survives_restart {
            let file = site.rig.file("tickets").display().to_string();
            listener = listener.block("tls", "ticket_key_path", file);
        }
        let config = testkit::Config::new().listener(listener);
        let mut gateway = Gateway::start(config.clone());
        let clients = ["http/1.1", "h2"].map(|alpn| (alpn, site.client(&[alpn])));
        let visit = |gateway: &Gateway| {
            clients.each_ref().map(|(alpn, client)| {
                let bridge = Bridge::start(client.clone(), gateway.front(), "server.test");
                let version = if *alpn == "h2" { testkit::Version::H2 } else { testkit::Version::H1 };
                let mut front = testkit::Front::connect(version, bridge.address).unwrap();
                assert_eq!(front.get("/").unwrap().text(), "one");
                bridge.resumed()
            })
        };
        assert_eq!(visit(&gateway), [0, 0]);
        assert_eq!(visit(&gateway), [1, 1]);
        let changed = config.clone().runtime("connect_timeout_ms", 4000);
        assert!(matches!(gateway.reload(changed), Reload::Complete(_)));
        assert_eq!(visit(&gateway), [1, 1], "after SIGHUP");
        site.rig.authority.server(&["server.test"]).write(site.rig.files.path(), "s");
        assert!(renew(&gateway).contains("\"ok\":1"));
        assert_eq!(visit(&gateway), [1, 1], "after SIGUSR1");
        assert_eq!(gateway.stop(seconds(10)), 0);
        let gateway = Gateway::start(config);
        assert_eq!(visit(&gateway), [usize::from(survives_restart); 2], "after a restart");
    }
}
