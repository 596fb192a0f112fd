//! Attack C-06: clients that leave in the middle of whatever they have begun.

use testkit::{Backend, Config, Gateway, Listener, Usage, eventually, pattern, seconds};

/// Clients that leave in the middle, ten thousand of them: what they asked for is called off, what they leave behind serves others, and
/// nothing stays.
pub(crate) fn c_06_clients_that_leave_by_the_thousand() {
    const EACH: usize = 2500;
    let backend = Backend::standard("one");
    let config = Config::new().listener(Listener::h1().backend(backend.address));
    let gateway = Gateway::start(config);
    gateway.get("/");
    let (at_first, usage) = (gateway.process.open_fds(), Usage::watch(&gateway));
    let body = pattern::bytes(100_000);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (gateway, body) = (&gateway, &body);
            scope.spawn(move || {
                for round in 0..EACH {
                    let mut client = gateway.client();
                    let whole = round * 7919 % body.len();
                    match (thread + round) % 4 {
                        // Within the head, within an upload, within an answer; between a request and its answer.
                        0 => client.send_anyway("GET / HTTP/1.1\r\nHo"),
                        1 => client.send_anyway(
                            [
                                b"POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n",
                                &body[..whole],
                            ]
                            .concat(),
                        ),
                        2 => {
                            client.send_anyway("GET /bytes/3000000 HTTP/1.1\r\nHost: a\r\n\r\n");
                            drop(client.head("GET"));
                        }
                        _ => client.send_anyway("GET /bytes/100 HTTP/1.1\r\nHost: a\r\n\r\n"),
                    }
                    if round % 2 == 0 { client.reset() } else { drop(client) }
                }
            });
        }
    });
    let listener = gateway.front().to_string();
    gateway.wait_metric("connections_inflight", &[("listener", &listener)], |open| open == 0.0);
    eventually("the sockets are closed", seconds(20), || gateway.process.open_fds() <= at_first + 16);
    usage.assert_grew_less_than(&gateway, 16 << 20);
    for round in 0..200 {
        let size = round * 100;
        let response = gateway.get(&format!("/bytes/{size}"));
        assert!(response.status == 200 && response.body == pattern::bytes(size), "{round}");
    }
    backend.assert_clean();
}
