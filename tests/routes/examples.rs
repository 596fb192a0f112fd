//! The files of `config/examples/` that have routes, run as they stand but for addresses and certificates.

use std::net::SocketAddr;

use testkit::certificates::Authority;
use testkit::tls::TlsClient;
use testkit::{Backend, Client, Config, Gateway, ports, request};

/// An example, with other addresses in it, running.
fn start(name: &str, places: &[(&str, String)]) -> Gateway {
    let path = format!("{}/../../config/examples/{name}", env!("CARGO_MANIFEST_DIR"));
    let mut text = std::fs::read_to_string(path).unwrap();
    // The test's own file says where the admin port is.
    text = text.replace("[observability]\nmetrics_bind = \"127.0.0.1:9090\"\n", "");
    for (from, to) in places {
        assert!(text.contains(from), "{name} has no {from}");
        text = text.replace(from, to);
    }
    Gateway::start(Config::new().text(&text))
}

fn text(front: SocketAddr, target: &str, fields: &[(&str, &str)]) -> String {
    Client::connect(front).unwrap().request("GET", target, fields, b"").unwrap().text()
}

/// Virtual hosts with certificates by server name, and clients in the clear sent to TLS.
pub(crate) fn virtual_hosts_and_a_redirect_to_tls() {
    let [one, two, blog] = ["one", "two", "blog"].map(Backend::standard);
    let authority = Authority::new("test authority");
    let files = tempfile::tempdir().unwrap();
    authority.server(&["shop.example.com"]).write(files.path(), "shop");
    authority.server(&["blog.example.com", "*.blog.example.com"]).write(files.path(), "blog");
    let (tls, plain) = (ports::reserve(), ports::reserve());
    let _gateway = start(
        "h1s-virtual-hosts.toml",
        &[
            ("0.0.0.0:8443", tls.to_string()),
            ("0.0.0.0:8080", plain.to_string()),
            ("port = 8443", format!("port = {}", tls.port())),
            ("/etc/expressgateway/", format!("{}/", files.path().display())),
            ("10.0.0.11:8080", one.address.to_string()),
            ("10.0.0.12:8080", two.address.to_string()),
            ("10.0.0.21:8080", blog.address.to_string()),
        ],
    );
    let ask = |name: &str| {
        let client = TlsClient::new(&authority, None).alpn(&["http/1.1"]);
        let mut tls = client.connect(tls, name).unwrap();
        tls.send(&request("GET", "/", &[("Host", name), ("Connection", "close")], b"")).unwrap();
        let answer = String::from_utf8(tls.to_end().unwrap()).unwrap();
        answer.rsplit("\r\n").next().unwrap_or_default().to_owned()
    };
    let mut shop = [ask("shop.example.com"), ask("shop.example.com")];
    shop.sort();
    assert_eq!(shop, ["one", "two"]);
    assert_eq!([ask("blog.example.com"), ask("a.blog.example.com")], ["blog", "blog"]);
    let moved =
        Client::connect(plain).unwrap().request("GET", "/x?y", &[("Host", "shop.example.com")], b"").unwrap();
    assert_eq!(moved.status, 308);
    assert_eq!(moved.header("location"), Some(format!("https://shop.example.com:{}/x?y", tls.port())));
}

/// Two services by path, the prefix of one taken off.
pub(crate) fn services_by_path() {
    let [users, web] = ["users", "web"].map(Backend::standard);
    let front = ports::reserve();
    let _gateway = start(
        "h1-rewrite.toml",
        &[
            ("0.0.0.0:8080", front.to_string()),
            ("127.0.0.1:3001", users.address.to_string()),
            ("127.0.0.1:3000", web.address.to_string()),
        ],
    );
    assert_eq!(text(front, "/users/7", &[("X-Debug", "1")]), "users");
    let request = users.last_request();
    assert_eq!((request.target(), request.header("x-debug")), ("/7", None));
    assert_eq!(request.header("x-real-ip").as_deref(), Some("127.0.0.1"));
    assert_eq!(text(front, "/users-list", &[]), "web");
}

/// A canary, on which clients stay.
pub(crate) fn a_canary() {
    let [stable, canary] = ["stable", "canary"].map(Backend::standard);
    let front = ports::reserve();
    let _gateway = start(
        "h1-canary.toml",
        &[
            ("0.0.0.0:8080", front.to_string()),
            ("127.0.0.1:3000", stable.address.to_string()),
            ("127.0.0.1:3001", canary.address.to_string()),
        ],
    );
    let mut client = Client::connect(front).unwrap();
    for _ in 0..400 {
        let first = client.get("/").unwrap();
        let cookie = first.header("set-cookie").unwrap();
        let cookie = cookie.split(';').next().unwrap();
        let again = client.request("GET", "/", &[("Cookie", cookie)], b"").unwrap();
        assert_eq!(again.text(), first.text());
    }
    // Of 400 new clients 20 are expected there: fewer than 2 or more than 60 are further than four standard deviations off.
    let there = canary.request_count() / 2;
    assert!((2..=60).contains(&there), "{there} of 400");
    assert_eq!(stable.request_count() + canary.request_count(), 800);
}

/// Blue and green, exchanged by the call that the file's comment has.
pub(crate) fn blue_and_green() {
    let [blue, green] = ["blue", "green"].map(Backend::standard);
    let front = ports::reserve();
    let gateway = start(
        "h1-blue-green.toml",
        &[
            ("0.0.0.0:8080", front.to_string()),
            ("127.0.0.1:3000", blue.address.to_string()),
            ("127.0.0.1:3001", green.address.to_string()),
        ],
    );
    assert_eq!(text(front, "/", &[]), "blue");
    // What the hash in the file is of.
    let token = [("Authorization", "Bearer password")];
    let mut admin = gateway.admin_client();
    let turned =
        admin.request("POST", "/routes/app/weights", &token, b"{\"blue\": 0, \"green\": 1}").unwrap();
    assert_eq!(turned.status, 200, "{}", turned.text());
    assert_eq!(text(front, "/", &[]), "green");
}
