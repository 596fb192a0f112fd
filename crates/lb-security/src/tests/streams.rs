//! Handshakes and data.

use std::future::poll_fn;
use std::io::IoSlice;
use std::sync::Arc;
use std::task::Poll;

use testkit::certificates::{Authority, Leaf, write};

use super::{Rig, established, handshake, receive, run, send, sockets, worker};
use crate::{KeyAccess, TlsFailure, TlsStream, failure_of};

const MUTUAL: &str = "client_auth = \"require\"\nclient_ca_path = \"DIR/ca.pem\"\n";

/// Waits until something has arrived.
async fn arrival(stream: &TlsStream) {
    poll_fn(|cx| {
        if stream.looked_into().1 {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(())
    })
    .await;
}

#[test]
fn data_of_any_size_cross_in_both_directions_and_buffers_go_back() {
    run(async {
        let rig = Rig::new();
        let (mut server, mut client) = established(&rig.load("").unwrap(), &rig.client("server.test")).await;
        assert_eq!(server.alpn(), Some(&b"http/1.1"[..]));
        assert_eq!(client.alpn(), server.alpn());
        assert_eq!(server.server_name(), Some("server.test"));
        for (size, most) in
            [(1, 7), (100, 65_536), (16_384, 7), (16_385, 65_536), (300_000, 100), (3_000_000, 65_536)]
        {
            let data: Vec<u8> = (0..size).map(|n| (n % 251) as u8).collect();
            for _ in 0..2 {
                let receiving = async {
                    let mut all = Vec::new();
                    while all.len() < size {
                        all.extend(receive(&mut server, most).await.unwrap());
                    }
                    all
                };
                let (sent, received) = tokio::join!(send(&mut client, &data), receiving);
                sent.unwrap();
                assert!(received == data, "{size} bytes, {most} at once");
                std::mem::swap(&mut server, &mut client);
            }
        }
        for stream in [&server, &client] {
            assert_eq!(stream.looked_into().0, 0);
        }
    });
}

#[test]
fn a_clean_end_is_told_from_a_cut_and_a_half_closed_peer_still_receives() {
    run(async {
        let rig = Rig::new();
        let bundle = rig.load("").unwrap();
        let (mut server, mut client) = established(&bundle, &rig.client("server.test")).await;
        send(&mut client, b"last words").await.unwrap();
        client.shutdown_write().unwrap();
        assert_eq!(receive(&mut server, 100).await.unwrap(), b"last words");
        assert_eq!(receive(&mut server, 100).await.unwrap(), b"");
        send(&mut server, b"answer").await.unwrap();
        assert_eq!(receive(&mut client, 100).await.unwrap(), b"answer");
        let (mut server, client) = established(&bundle, &rig.client("server.test")).await;
        drop(client);
        let error = receive(&mut server, 100).await.unwrap_err();
        assert_eq!(failure_of(&error), Some(TlsFailure::Truncated));
        assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
    });
}

#[test]
fn several_small_slices_arrive_together() {
    run(async {
        let rig = Rig::new();
        let (mut server, mut client) = established(&rig.load("").unwrap(), &rig.client("server.test")).await;
        let slices = [IoSlice::new(b"head"), IoSlice::new(b""), IoSlice::new(b"body")];
        let n = poll_fn(|cx| server.poll_send_vectored(cx, &slices)).await.unwrap();
        assert_eq!(n, 8);
        assert_eq!(receive(&mut client, 100).await.unwrap(), b"headbody");
    });
}

#[test]
fn a_second_connection_of_a_backend_resumes_the_session_across_bundles() {
    run(async {
        let rig = Rig::new();
        let tls = rig.client("server.test");
        for is_resumed in [false, true, true] {
            // A new bundle each time, as after SIGUSR1.
            let (mut server, mut client) = established(&rig.load("").unwrap(), &tls).await;
            send(&mut server, b"x").await.unwrap();
            receive(&mut client, 10).await.unwrap();
            assert_eq!((server.is_resumed(), client.is_resumed()), (is_resumed, is_resumed));
            assert_eq!(server.server_name(), Some("server.test"));
        }
    });
}

#[test]
fn an_idle_backend_connection_takes_tickets_in_and_is_quiet() {
    run(async {
        let rig = Rig::new();
        let (mut server, mut client) = established(&rig.load("").unwrap(), &rig.client("server.test")).await;
        poll_fn(|cx| server.poll_flush(cx)).await.unwrap();
        arrival(&client).await;
        assert!(client.is_quiet());
        send(&mut server, b"unasked").await.unwrap();
        arrival(&client).await;
        assert!(!client.is_quiet());
    });
}

#[test]
fn t_06_clients_are_let_in_by_their_certificate_and_the_revocation_list() {
    run(async {
        let rig = Rig::new();
        rig.authority.client("good\nclient").write(rig.path(), "good");
        Authority::new("other").client("x").write(rig.path(), "stranger");
        let revoked = rig.authority.client("revoked");
        revoked.write(rig.path(), "revoked");
        write(&rig.file("crl.pem"), rig.authority.revocation_list(&[revoked.serial]), 0o644);
        let bundle = rig.load(&format!("{MUTUAL}client_crl_path = \"DIR/crl.pem\"\n")).unwrap();
        let with = |files| rig.client_with("server.test", files);
        let (server, _client) = established(&bundle, &with(Some("good"))).await;
        let peer = server.peer_certificate().unwrap();
        assert!(peer.subject.contains("good\\0Aclient"), "{}", peer.subject);
        assert_eq!(peer.sha256.len(), 64);
        for files in [None, Some("stranger"), Some("revoked")] {
            let (server, _) = handshake(&bundle, &with(files)).await;
            assert_eq!(failure_of(&server.unwrap_err()), Some(TlsFailure::Certificate), "{files:?}");
        }
        let asked = rig.load(&MUTUAL.replace("require", "request")).unwrap();
        let (server, _client) = established(&asked, &with(None)).await;
        assert_eq!(server.peer_certificate(), None);
        let (server, _) = handshake(&asked, &with(Some("stranger"))).await;
        assert!(server.is_err());
    });
}

#[test]
fn t_06_a_session_does_not_outlive_the_rules_that_its_client_was_checked_by() {
    run(async {
        let rig = Rig::new();
        let client = rig.authority.client("c");
        client.write(rig.path(), "c");
        write(&rig.file("crl.pem"), rig.authority.revocation_list(&[1]), 0o644);
        let lines = format!("{MUTUAL}client_crl_path = \"DIR/crl.pem\"\n");
        let tls = rig.client_with("server.test", Some("c"));
        for is_resumed in [false, true] {
            let (mut server, mut client) = established(&rig.load(&lines).unwrap(), &tls).await;
            send(&mut server, b"x").await.unwrap();
            receive(&mut client, 10).await.unwrap();
            assert_eq!(server.is_resumed(), is_resumed);
            assert!(server.peer_certificate().is_some(), "resumed or not");
        }
        write(&rig.file("crl.pem"), rig.authority.revocation_list(&[client.serial]), 0o644);
        let (server, _) = handshake(&rig.load(&lines).unwrap(), &tls).await;
        assert_eq!(failure_of(&server.unwrap_err()), Some(TlsFailure::Certificate));
    });
}

#[test]
fn t_02_policies_that_differ_by_name_hold_for_their_names() {
    run(async {
        let rig = Rig::new();
        rig.authority.server(&["closed.test"]).write(rig.path(), "closed");
        rig.authority.client("c").write(rig.path(), "c");
        let lines = "[[listeners.tls.certificates]]\ncert_path = \"DIR/closed.pem\"\nkey_path = \"DIR/closed.key\"\n\
             client_auth = \"require\"\nclient_ca_path = \"DIR/ca.pem\"\n";
        let bundle = rig.load(lines).unwrap();
        let (server, _client) = established(&bundle, &rig.client("server.test")).await;
        let open = server.accepted().unwrap();
        assert!(
            [&b""[..], b"server.test", b"other.test:443", b"[::1]", b"[::1]:443"]
                .iter()
                .all(|host| open.serves(host))
        );
        assert!([&b"closed.test"[..], b"CLOSED.test.:443"].iter().all(|host| !open.serves(host)));
        let (server, _) = handshake(&bundle, &rig.client("closed.test")).await;
        assert_eq!(failure_of(&server.unwrap_err()), Some(TlsFailure::Certificate));
        let (server, _client) = established(&bundle, &rig.client_with("closed.test", Some("c"))).await;
        assert_eq!(server.server_name(), Some("closed.test"));
        let closed = server.accepted().unwrap();
        assert!(closed.serves(b"closed.test") && !closed.serves(b"server.test") && !closed.serves(b""));
    });
}

#[test]
fn a_backend_with_another_name_or_authority_is_not_believed() {
    run(async {
        let rig = Rig::new();
        let bundle = rig.load("").unwrap();
        let (_, client) = handshake(&bundle, &rig.client("another.test")).await;
        assert_eq!(failure_of(&client.unwrap_err()), Some(TlsFailure::Certificate));
        write(&rig.file("ca.pem"), Authority::new("stranger").pem(), 0o644);
        let (server, client) = handshake(&bundle, &rig.client("server.test")).await;
        assert_eq!(failure_of(&client.unwrap_err()), Some(TlsFailure::Certificate));
        assert_eq!(failure_of(&server.unwrap_err()), Some(TlsFailure::Alert));
    });
}

#[test]
fn t_05_plaintext_in_place_of_tls_fails_closed_on_both_sides() {
    run(async {
        let rig = Rig::new();
        let bundle = rig.load("").unwrap();
        let tls = rig.client("server.test");
        let (mut liar, socket) = sockets().await;
        let mut server = TlsStream::server(socket, worker(), Arc::clone(&bundle)).unwrap();
        poll_fn(|cx| liar.poll_send(cx, b"GET / HTTP/1.1\r\n\r\n")).await.unwrap();
        let error = poll_fn(|cx| server.poll_handshake(cx)).await.unwrap_err();
        assert_eq!(failure_of(&error), Some(TlsFailure::NotTls));
        let (mut liar, socket) = sockets().await;
        let mut client = TlsStream::client(socket, worker(), &tls).unwrap();
        poll_fn(|cx| liar.poll_send(cx, b"HTTP/1.1 200 OK\r\n\r\nbody")).await.unwrap();
        let error = poll_fn(|cx| client.poll_handshake(cx)).await.unwrap_err();
        assert_eq!(failure_of(&error), Some(TlsFailure::NotTls));
        let mut buffer = [0; 100];
        assert!(poll_fn(|cx| client.poll_recv(cx, &mut buffer).map_ok(<[u8]>::len)).await.is_err());
    });
}

#[test]
fn t_01_a_hello_in_tiny_records_is_read_and_one_without_end_is_not() {
    run(async {
        let rig = Rig::new();
        let bundle = rig.load("").unwrap();
        let tls = rig.client("server.test");
        let (mut wire, socket) = sockets().await;
        let mut client = TlsStream::client(socket, worker(), &tls).unwrap();
        assert!(poll_fn(|cx| Poll::Ready(client.poll_handshake(cx).is_pending())).await);
        let mut buffer = vec![0; 65_536];
        let hello = poll_fn(|cx| wire.poll_recv(cx, &mut buffer).map_ok(<[u8]>::to_vec)).await.unwrap();
        assert!(hello.len() > 1200, "a post-quantum share is in it: {}", hello.len());
        let tiny: Vec<u8> = hello[5..].iter().flat_map(|byte| [22, 3, 1, 0, 1, *byte]).collect();
        for step in [1, 1000, tiny.len()] {
            let (mut liar, socket) = sockets().await;
            let mut server = TlsStream::server(socket, worker(), Arc::clone(&bundle)).unwrap();
            for part in tiny.chunks(step) {
                poll_fn(|cx| liar.poll_send(cx, part)).await.unwrap();
                assert!(poll_fn(|cx| Poll::Ready(server.poll_handshake(cx).is_pending())).await);
            }
            let mut buffer = [0; 100];
            let answer = poll_fn(|cx| {
                assert!(server.poll_handshake(cx).is_pending());
                liar.poll_recv(cx, &mut buffer).map_ok(<[u8]>::to_vec)
            });
            assert_eq!(answer.await.unwrap()[0], 22, "a ServerHello");
        }
        let (mut liar, socket) = sockets().await;
        let mut server = TlsStream::server(socket, worker(), bundle).unwrap();
        // A hello that says it has 65535 bytes, and more records than that.
        let mut endless = vec![22, 3, 1, 64, 0, 1, 0, 255, 255];
        endless.resize(5 + 16_384, 0);
        let error = poll_fn(|cx| {
            let _ = liar.poll_send(cx, &endless);
            cx.waker().wake_by_ref();
            server.poll_handshake(cx)
        });
        assert!(matches!(
            failure_of(&error.await.unwrap_err()),
            Some(TlsFailure::TooLarge | TlsFailure::Protocol)
        ));
    });
}

#[test]
fn a_backends_own_certificate_is_trusted_for_itself_alone() {
    run(async {
        let rig = Rig::new();
        // As it is named, what the server shows, the name that is asked for, and whether the server is believed.
        let mut cases = Vec::new();
        for is_authority in [false, true] {
            let own = Leaf::self_signed(&["server.test"], is_authority, false);
            let stranger = Leaf::self_signed(&["server.test"], is_authority, false);
            let below = Authority::server_of(&own, &["server.test"]);
            cases.extend([
                (own.cert.clone(), own.clone(), "server.test", true),
                (own.cert.clone(), own.clone(), "another.test", false),
                (own.cert.clone(), stranger, "server.test", false),
                // Only an authority vouches for another.
                (own.cert.clone(), below, "server.test", is_authority),
                // Among others.
                (rig.authority.pem() + &own.cert, own, "server.test", true),
            ]);
        }
        // One of an authority that is not in the file, and one for clients.
        let foreign = Authority::new("foreign").server(&["server.test"]);
        cases.push((foreign.cert.clone(), foreign, "server.test", true));
        let wrong = rig.authority.client("server.test");
        cases.push((wrong.cert.clone(), wrong, "server.test", false));
        for (index, (named, shown, name, is_believed)) in cases.into_iter().enumerate() {
            shown.write(rig.path(), "s");
            write(&rig.file("ca.pem"), named, 0o644);
            let (server, client) = handshake(&rig.load("").unwrap(), &rig.client(name)).await;
            assert_eq!(client.is_ok(), is_believed, "case {index}: {:?}", client.err());
            if !is_believed {
                assert_eq!(failure_of(&server.unwrap_err()), Some(TlsFailure::Alert), "case {index}");
            }
        }
    });
}

#[test]
fn t_06_a_clients_own_certificate_is_trusted_for_itself_alone() {
    run(async {
        let rig = Rig::new();
        let own = Leaf::self_signed(&["client.test"], false, false);
        own.write(rig.path(), "own");
        Leaf::self_signed(&["client.test"], false, false).write(rig.path(), "stranger");
        Authority::server_of(&own, &["client.test"]).write(rig.path(), "below");
        write(&rig.file("clients.pem"), &own.cert, 0o644);
        let lines = MUTUAL.replace("ca.pem", "clients.pem");
        let bundle = rig.load(&lines).unwrap();
        let with = |files| rig.client_with("server.test", files);
        let (server, _client) = established(&bundle, &with(Some("own"))).await;
        assert!(server.peer_certificate().is_some());
        for files in [None, Some("stranger"), Some("below")] {
            let (server, _) = handshake(&bundle, &with(files)).await;
            assert_eq!(failure_of(&server.unwrap_err()), Some(TlsFailure::Certificate), "{files:?}");
        }
        // Beside an authority; and with a revocation list, which does not cover it.
        write(&rig.file("clients.pem"), own.cert + &rig.authority.pem(), 0o644);
        rig.authority.client("good").write(rig.path(), "good");
        for files in ["own", "good"] {
            let (server, _client) = handshake(&rig.load(&lines).unwrap(), &with(Some(files))).await;
            assert!(server.is_ok(), "{files}");
        }
        write(&rig.file("crl.pem"), rig.authority.revocation_list(&[1]), 0o644);
        let listed = rig.load(&format!("{lines}client_crl_path = \"DIR/crl.pem\"\n")).unwrap();
        assert!(handshake(&listed, &with(Some("good"))).await.0.is_ok());
        assert!(handshake(&listed, &with(Some("own"))).await.0.is_err());
    });
}

#[test]
fn a_file_that_can_verify_nobody_is_told() {
    let rig = Rig::new();
    let now = std::time::SystemTime::now();
    let why = |pem: String, name| {
        write(&rig.file("ca.pem"), pem, 0o644);
        crate::futility_of_authorities(&rig.file("ca.pem"), name, now).unwrap()
    };
    let own = |is_authority, has_expired| Leaf::self_signed(&["server.test"], is_authority, has_expired).cert;
    let name = Some("server.test");
    assert_eq!(why(rig.authority.pem(), name), None);
    assert_eq!(why(own(false, false), name), None);
    assert_eq!(why(own(true, false), Some("another.test")), None, "it vouches for others");
    assert_eq!(why(own(false, false), None), None, "a client needs no name");
    assert_eq!(why(own(true, true) + &rig.authority.pem(), name), None);
    assert!(why(own(false, false), Some("another.test")).is_some());
    assert!(why(own(true, true), name).is_some_and(|why| why.contains("expired")));
    assert!(why(rig.authority.server(&["server.test"]).cert, None).is_some(), "a server's, for clients");
}

#[test]
fn keys_are_their_owners_unless_their_group_is_let_in() {
    let rig = Rig::new();
    let key = std::fs::read_to_string(rig.file("s.key")).unwrap();
    for (mode, owner, group) in [
        (0o400, true, true),
        (0o600, true, true),
        (0o440, false, true),
        (0o640, false, true),
        (0o660, false, false),
        (0o650, false, false),
        (0o644, false, false),
        (0o604, false, false),
    ] {
        write(&rig.file("s.key"), &key, mode);
        for (access, is_taken) in [(KeyAccess::Owner, owner), (KeyAccess::Group, group)] {
            let loaded = crate::files::private_key(&rig.file("s.key"), access);
            assert_eq!(loaded.is_ok(), is_taken, "{mode:o} {access:?}");
        }
    }
}
