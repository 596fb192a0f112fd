//! Sessions and certificates that change while clients come and go.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use testkit::certificates::write;
use testkit::tls::TlsClient;
use testkit::{Gateway, ms};

use crate::rig::{Rig, renew};

#[track_caller]
fn visit(client: &TlsClient, gateway: &Gateway) -> bool {
    let mut connection = client.connect(gateway.front(), "server.test").unwrap();
    assert!(connection.echo(b"hello").unwrap());
    connection.is_resumed()
}

pub(crate) fn sessions_survive_reload_new_certificates_and_restart() {
    let rig = Rig::new();
    write(&rig.file("tickets"), [7; 80], 0o600);
    for survives_restart in [true, false] {
        let mut listener = rig.listener("");
        if survives_restart {
            listener = listener.block("tls", "ticket_key_path", rig.file("tickets").display().to_string());
        }
        let config = testkit::Config::new().listener(listener);
        let mut gateway = Gateway::start(config.clone());
        let client = rig.client();
        assert!(!visit(&client, &gateway));
        assert!(visit(&client, &gateway));
        let changed = config.clone().runtime("connect_timeout_ms", 4000);
        assert!(matches!(gateway.reload(changed), testkit::gateway::Reload::Complete(_)));
        assert!(visit(&client, &gateway), "after SIGHUP");
        rig.authority.server(&["server.test"]).write(rig.files.path(), "s");
        assert!(renew(&gateway).contains("\"ok\":1"));
        assert!(visit(&client, &gateway), "after SIGUSR1");
        assert_eq!(gateway.stop(testkit::seconds(10)), 0);
        let gateway = Gateway::start(config);
        assert_eq!(visit(&client, &gateway), survives_restart, "after a restart");
        gateway.wait_metric("tls_handshakes_total", &[("result", "resumed")], |n| {
            n == f64::from(u8::from(survives_restart))
        });
    }
}

pub(crate) fn ticket_keys_turn_and_old_tickets_hold_for_the_overlap() {
    let rig = Rig::new();
    let listener = rig.listener("").block("tls", "ticket_rotation_interval_seconds", 1).block(
        "tls",
        "ticket_rotation_overlap_seconds",
        3600,
    );
    let gateway = Gateway::start(testkit::Config::new().listener(listener));
    let client = rig.client();
    visit(&client, &gateway);
    gateway.wait_metric("ticket_key_rotations_total", &[], |n| n >= 1.0);
    assert!(visit(&client, &gateway));
    assert!(gateway.process.stderr.wait_count("TLS ticket key rotated", 1) >= 1);
}

pub(crate) fn rotation_under_load_fails_no_handshake() {
    let rig = Rig::new();
    let gateway = rig.gateway("");
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let client = rig.client();
    let workers: Vec<_> = (0..4)
        .map(|worker| {
            let (stop, done, front) = (Arc::clone(&stop), Arc::clone(&done), gateway.front());
            let client = if worker % 2 == 0 { client.clone() } else { rig.client() };
            std::thread::spawn(move || {
                while !stop.load(Ordering::SeqCst) {
                    let mut connection = client.connect(front, "server.test").expect("a handshake");
                    assert!(connection.echo(b"hello").expect("an echo"));
                    done.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    for round in 0..20 {
        rig.authority.server(&["server.test"]).write(rig.files.path(), "s");
        let line = renew(&gateway);
        assert!(line.contains("\"ok\":1") && line.contains("\"fail\":0"), "round {round}: {line}");
        std::thread::sleep(ms(50));
    }
    stop.store(true, Ordering::SeqCst);
    workers.into_iter().for_each(|worker| worker.join().expect("no handshake fails"));
    assert!(done.load(Ordering::SeqCst) > 50);
    assert_eq!(gateway.metric("cert_rotation_succeeded_total", &[]), 20.0);
    let failed: f64 = ["alert", "protocol", "internal", "timeout", "closed"]
        .iter()
        .map(|result| gateway.metric("tls_handshakes_total", &[("result", result)]))
        .sum();
    assert_eq!(failed, 0.0);
}

/// Runs `openssl s_client` with a line of input and returns all that it prints.
pub(crate) fn openssl(rig: &Rig, gateway: &Gateway, name: &str, more: &[&str]) -> String {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &gateway.front().to_string(), "-servername", name, "-CAfile"]);
    command.arg(rig.file("ca.pem")).args(["-verify_return_error", "-ign_eof"]).args(more);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || {
        use std::io::Write;
        let _ = stdin.write_all(b"a line\n");
        std::thread::sleep(ms(500));
    });
    std::thread::sleep(ms(700));
    child.kill().unwrap();
    writer.join().unwrap();
    let output = child.wait_with_output().unwrap();
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

pub(crate) fn openssl_is_served_and_resumes() {
    let rig = Rig::new();
    let gateway = rig.gateway("");
    for version in ["-tls1_3", "-tls1_2"] {
        let session = rig.file(&format!("session{version}")).display().to_string();
        let first = openssl(&rig, &gateway, "server.test", &[version, "-sess_out", &session]);
        assert!(first.contains("New, TLSv1"), "{first}");
        let second = openssl(&rig, &gateway, "server.test", &[version, "-sess_in", &session]);
        assert!(second.contains("Reused, TLSv1"), "{second}");
    }
}
