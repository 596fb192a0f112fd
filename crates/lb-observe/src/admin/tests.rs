use std::net::SocketAddr;
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, LocalSet, spawn_local};
use tokio::time::timeout;

use super::*;

struct Server {
    address: SocketAddr,
    readiness: Arc<Readiness>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Server {
    async fn start(token: Option<&str>, check_host: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let readiness = Readiness::new();
        let admin = Admin {
            metrics: Metrics::new(1),
            readiness: Arc::clone(&readiness),
            token_hash: token.map(|token| Sha256::digest(token).into()),
            check_host,
            page: false,
            status: Rc::new(Nothing),
            calls: answering(),
            questions: Questions::default(),
        };
        let (stop, stopped) = oneshot::channel();
        let task = spawn_local(serve(listener, admin, async { stopped.await.unwrap_or_default() }));
        Self { address, readiness, stop, task }
    }

    async fn send(&self, request: &str) -> Answer {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        Answer::read(&mut stream).await
    }

    async fn get(&self, path: &str, fields: &str) -> Answer {
        self.send(&format!("GET {path} HTTP/1.1\r\nConnection: close\r\n{fields}\r\n")).await
    }
}

/// A gateway that has not started yet.
#[derive(Debug)]
struct Nothing;

impl StatusSource for Nothing {
    fn take(&self) -> Option<Rc<StatusState>> {
        None
    }
}

struct Answer {
    status: u16,
    content_type: String,
    body: String,
}

impl Answer {
    async fn read(stream: &mut TcpStream) -> Self {
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let content_type =
            head.lines().find_map(|line| line.strip_prefix("content-type: ")).unwrap_or_default();
        Self { status, content_type: content_type.to_owned(), body: body.to_owned() }
    }

    #[track_caller]
    fn is(&self, status: u16, content_type: &str, body: &str) {
        assert_eq!((self.status, &*self.content_type, &*self.body), (status, content_type, body));
    }
}

/// Somebody who answers every call with what it was.
fn answering() -> mpsc::Sender<Call> {
    let (calls, mut received) = mpsc::channel::<Call>(MAX_WAITING_CALLS);
    spawn_local(async move {
        while let Some(Call { action, answer }) = received.recv().await {
            answer.send(Ok(format!("{action:?}"))).unwrap();
        }
    });
    calls
}

#[test]
fn c_08_backends_are_changed_only_with_a_token_in_force() {
    run(async || {
        let send = async |server: &Server, method: &str, fields: &str| {
            server
                .send(&format!(
                    "{method} /backends/p/b HTTP/1.1\r\nConnection: close\r\nHost: localhost\r\n{fields}\r\n"
                ))
                .await
        };
        let open = Server::start(None, true).await;
        let refused = send(&open, "DELETE", "").await;
        refused.is(403, TEXT, "forbidden: backends can be changed only where admin.api_token_hash is set\n");
        assert_eq!(open.get("/backends", "Host: localhost\r\n").await.body, "List(None)");
        let guarded = Server::start(Some("secret"), true).await;
        for fields in ["", "Authorization: Bearer wrong\r\n"] {
            let refused = send(&guarded, "DELETE", fields).await;
            refused.is(403, TEXT, "forbidden: the bearer token is missing or wrong\n");
            assert_eq!(guarded.get("/backends", fields).await.status, 403);
        }
        let token = "Authorization: Bearer secret\r\n";
        send(&guarded, "DELETE", token).await.is(200, JSON, "Remove(\"p\", \"b\")");
        assert_eq!(send(&guarded, "GET", token).await.status, 405, "what changes something is no GET");
        let elsewhere = format!("{token}Host: evil.example\r\n");
        assert_eq!(guarded.get("/backends", &elsewhere).await.status, 403);
        assert_eq!(send(&guarded, "DELETE", &elsewhere).await.status, 403);
    });
}

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json; charset=utf-8";

fn run(test: impl AsyncFnOnce()) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let bounded = async { timeout(Duration::from_secs(20), test()).await.expect("in time") };
    LocalSet::new().block_on(&runtime, bounded);
}

#[test]
fn probes_follow_the_state() {
    run(async || {
        let server = Server::start(None, true).await;
        for (state, name, ready, started) in [
            (State::Booting, "booting", 503, 503),
            (State::Ok, "ok", 200, 200),
            (State::Draining, "draining", 503, 200),
        ] {
            server.readiness.advance(state);
            let body = format!("{{\"status\":\"{name}\"}}\n");
            server.get("/livez", "").await.is(200, JSON, &body);
            server.get("/healthz", "").await.is(200, JSON, &body);
            server.get("/readyz", "").await.is(ready, JSON, &body);
            server.get("/startupz", "").await.is(started, JSON, &body);
        }
    });
}

#[test]
fn readiness_never_goes_back() {
    let readiness = Readiness::new();
    assert_eq!(readiness.state(), State::Booting);
    readiness.advance(State::Draining);
    readiness.advance(State::Ok);
    assert_eq!(readiness.state(), State::Draining);
}

#[test]
fn metrics_are_exposed() {
    run(async || {
        let server = Server::start(None, true).await;
        let answer = server.get("/metrics?x=1", "Host: localhost:9090\r\n").await;
        assert_eq!((answer.status, &*answer.content_type), (200, "text/plain; version=0.0.4; charset=utf-8"));
        assert!(answer.body.contains("# TYPE connections_total counter\nconnections_total 0\n"));
        server.get("/other", "").await.is(404, TEXT, "not found\n");
        server.get("/metrics/", "").await.is(404, TEXT, "not found\n");
    });
}

#[test]
fn c_08_only_get_is_allowed() {
    run(async || {
        let server = Server::start(Some("secret"), true).await;
        for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "BREW"] {
            let request = format!("{method} /metrics HTTP/1.1\r\nHost: evil\r\nConnection: close\r\n\r\n");
            server.send(&request).await.is(405, TEXT, "method not allowed\n");
        }
        let head = server.send("HEAD /livez HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
        head.is(405, TEXT, "");
    });
}

#[test]
fn a_token_guards_all_but_probes() {
    run(async || {
        let server = Server::start(Some("secret"), true).await;
        for fields in [
            "",
            "Authorization: Bearer wrong\r\n",
            "Authorization: Bearer\r\n",
            "Authorization: secret\r\n",
            "Authorization: Basic secret\r\n",
            "Authorization: BEARER secret\r\n",
        ] {
            server.get("/metrics", fields).await.is(403, TEXT, "forbidden\n");
            server.get("/other", fields).await.is(403, TEXT, "forbidden\n");
            assert_eq!(server.get("/livez", fields).await.status, 200);
        }
        for fields in ["Authorization: Bearer secret\r\n", "authorization: bearer   secret  \r\n"] {
            assert_eq!(server.get("/metrics", fields).await.status, 200);
            assert_eq!(server.get("/other", fields).await.status, 404);
        }
    });
}

#[test]
fn c_08_a_foreign_host_is_refused() {
    run(async || {
        let server = Server::start(None, true).await;
        server.get("/metrics", "Host: evil.example:9090\r\n").await.is(403, TEXT, "forbidden\n");
        assert_eq!(server.get("/metrics", "Host: 127.0.0.1:9090\r\n").await.status, 200);
        let open = Server::start(None, false).await;
        assert_eq!(open.get("/metrics", "Host: prometheus.internal\r\n").await.status, 200);
    });
}

#[test]
fn bad_requests_get_a_400() {
    run(async || {
        let server = Server::start(None, true).await;
        assert_eq!(server.send("GET / HTTP/1.1\r\nbad field\r\n\r\n").await.status, 400);
        let long = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "a".repeat(20_000));
        assert_eq!(server.send(&long).await.status, 431);
    });
}

#[test]
fn connections_are_kept_alive_and_bounded() {
    run(async || {
        let server = Server::start(None, true).await;
        let mut idle = Vec::new();
        for _ in 0..256 {
            let mut stream = TcpStream::connect(server.address).await.unwrap();
            stream.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
            let mut byte = [0];
            stream.read_exact(&mut byte).await.unwrap();
            idle.push(stream);
        }
        let is_answered = async || {
            let mut stream = TcpStream::connect(server.address).await.unwrap();
            let _ = stream.write_all(b"GET /livez HTTP/1.1\r\n\r\n").await;
            matches!(stream.read(&mut [0; 64]).await, Ok(1..))
        };
        assert!(!is_answered().await);
        drop(idle);
        // The server may notice the ends one after another.
        while !is_answered().await {}
    });
}

#[test]
fn slow_heads_and_old_connections_end() {
    // With the clock paused, time passes only while everybody waits.
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        let server = Server::start(None, true).await;
        let start = tokio::time::Instant::now();
        let mut slow = TcpStream::connect(server.address).await.unwrap();
        slow.write_all(b"GET /livez HTTP/1.1\r\nHost: loc").await.unwrap();
        slow.read_to_end(&mut Vec::new()).await.unwrap();
        assert!(start.elapsed() >= Duration::from_secs(10) && start.elapsed() < Duration::from_secs(12));

        let start = tokio::time::Instant::now();
        let mut busy = TcpStream::connect(server.address).await.unwrap();
        while busy.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n").await.is_ok() {
            if !matches!(busy.read(&mut [0; 1024]).await, Ok(1..)) {
                break;
            }
            tokio::time::sleep(Duration::from_secs(4)).await;
        }
        assert!(start.elapsed() >= Duration::from_secs(60) && start.elapsed() < Duration::from_secs(70));
    });
}

#[test]
fn it_answers_until_it_is_stopped() {
    run(async || {
        let server = Server::start(None, true).await;
        server.readiness.advance(State::Draining);
        assert_eq!(server.get("/readyz", "").await.status, 503);
        let mut idle = TcpStream::connect(server.address).await.unwrap();
        idle.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        idle.read_exact(&mut [0]).await.unwrap();
        server.stop.send(()).unwrap();
        timeout(Duration::from_millis(900), server.task)
            .await
            .expect("idle connections do not hold it")
            .unwrap();
        idle.read_to_end(&mut Vec::new()).await.unwrap();
        assert!(TcpStream::connect(server.address).await.is_err());
    });
}
