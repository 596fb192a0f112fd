use lb_config::Config;

use super::*;

struct None_;

impl Files for None_ {
    fn read(&self, pattern: &str, _from: &str) -> Result<Vec<(String, String)>, String> {
        match pattern {
            "conf.d/*.conf" => {
                Ok(vec![("conf.d/a.conf".to_owned(), "server { listen 81; return 204; }".to_owned())])
            }
            "loop.conf" => Ok(vec![("loop.conf".to_owned(), "include loop.conf;".to_owned())]),
            _ => Err("it is not there".to_owned()),
        }
    }
}

fn of(dialect: Dialect, text: &str) -> (String, Vec<ImportNote>) {
    let imported = import(dialect, "in.conf", text, &None_).unwrap();
    let toml = imported.toml.unwrap_or_default();
    if !toml.is_empty() {
        Config::parse(&toml, "out.toml").unwrap_or_else(|errors| panic!("{errors}\n{toml}"));
    }
    (toml, imported.notes)
}

fn fate<'a>(notes: &'a [ImportNote], start: &str) -> &'a Fate {
    &notes
        .iter()
        .find(|note| note.directive.starts_with(start))
        .unwrap_or_else(|| panic!("{start}: {notes:#?}"))
        .fate
}

const NGINX: &str = r#"
user www-data;
worker_processes 4;
events { worker_connections 1024; }
http {
    include mime.types;
    include conf.d/*.conf;
    sendfile on;
    client_max_body_size 10m;
    upstream app { least_conn; server 10.0.0.1:8080 weight=3; server 10.0.0.2:8080 backup max_fails=2; keepalive 16; }
    server {
        listen 80 default_server;
        server_name _;
        return 301 https://$host$request_uri;
    }
    server {
        listen 443 ssl http2;
        server_name shop.example www.shop.example;
        ssl_certificate /etc/a.pem;
        ssl_certificate_key /etc/a.key;
        add_header X-Frame-Options DENY always;
        location / { proxy_pass http://app; proxy_set_header Host $host; proxy_read_timeout 90s; }
        location /api/ { proxy_pass http://api.internal/v1/; proxy_set_header X-Real-IP $remote_addr; proxy_set_header Upgrade $http_upgrade; }
        location = /ping { return 200 "pong"; }
        location ~* \.(jpg|png)$ { root /var/www; expires 30d; }
        location ~ \.php$ { fastcgi_pass unix:/run/php.sock; }
        location /inside { allow 10.0.0.0/8; deny all; proxy_pass http://app; }
    }
}
stream { server { listen 5432; proxy_pass db:5432; proxy_timeout 10m; } server { listen 53 udp; proxy_pass 10.0.0.9:53; } }
"#;

#[test]
fn nginx_is_carried() {
    let (toml, notes) = of(Dialect::Nginx, NGINX);
    let config = Config::parse(&toml, "out.toml").unwrap();
    let names: Vec<_> = config.listeners.iter().map(|one| format!("{} {}", one.name, one.protocol)).collect();
    assert_eq!(
        names,
        ["0.0.0.0:81 h1", "0.0.0.0:80 h1", "0.0.0.0:443 h1s", "0.0.0.0:5432 tcp", "0.0.0.0:53/udp udp"],
        "{toml}"
    );
    for line in [
        "runtime.workers = 4",
        "redirect.scheme = \"https\"",
        "redirect.status = 301",
        "policy = \"least_connections\"",
        "weight = 3",
        "priority = 1",
        "path_prefix = \"/api/\"",
        "rewrite.prefix = \"/v1/\"",
        "http.head_timeout_ms = 90000",
        "http.max_request_body_bytes = 10485760",
        "response_headers.add = [\"X-Frame-Options: DENY\"]",
        "request_headers.set = [\"X-Real-IP: ${client_ip}\"]",
        "[listeners.websocket]",
        "path = \"/ping\"",
        "respond.body = \"pong\"",
        "path_regex = \".*\\\\.(jpg|png)\"",
        "ignore_case = true",
        "respond.status = 501",
        "allow = [\"10.0.0.0/8\"]",
        "tcp.idle_timeout_ms = 600000",
    ] {
        assert!(toml.contains(line), "{line} is missing in\n{toml}");
    }
    assert!(matches!(fate(&notes, "include mime.types"), Fate::Lost(why) if why.contains("not there")));
    assert_eq!(fate(&notes, "include conf.d"), &Fate::Carried);
    assert!(matches!(fate(&notes, "fastcgi_pass"), Fate::Lost(_)));
    assert!(matches!(fate(&notes, "sendfile"), Fate::Needless(_)));
    assert!(matches!(fate(&notes, "server 10.0.0.2:8080"), Fate::Adapted(_)));
    assert!(notes.iter().any(|note| &*note.file == "conf.d/a.conf" && note.line == 1));
}

#[test]
fn what_is_not_understood_is_told_with_its_line() {
    let text = "http {\n  server {\n    listen 80;\n    quux on;\n    location / { proxy_pass http://a; frob 1; }\n  }\n}\n";
    let (_, notes) = of(Dialect::Nginx, text);
    for (start, line) in [("quux on", 4), ("frob 1", 5)] {
        let note = notes.iter().find(|note| note.directive == start).unwrap();
        assert!(matches!(note.fate, Fate::Lost(_)) && note.line == line, "{note}");
    }
    let wrong = import(Dialect::Nginx, "x.conf", "http {\n server {\n", &None_).unwrap_err();
    assert!(wrong.starts_with("x.conf:2: "), "{wrong}");
    assert!(import(Dialect::Nginx, "x.conf", "include loop.conf;", &None_).is_err());
}

#[test]
fn what_the_configuration_does_not_allow_is_taken_out() {
    let text = "http { server { listen 80; location ~ (?=x) { return 204; } location /a { return 204; } location /b { proxy_pass http://ba%d; } } }";
    let (toml, notes) = of(Dialect::Nginx, text);
    assert!(toml.contains("path_prefix = \"/a\"") && !toml.contains("(?=x)"), "{toml}");
    assert!(matches!(fate(&notes, "location ~ (?=x)"), Fate::Lost(_)));
    assert!(matches!(fate(&notes, "proxy_pass"), Fate::Lost(_)), "{notes:#?}");
    let nothing = import(Dialect::Nginx, "x.conf", "http { server { listen 80; } }", &None_).unwrap();
    assert_eq!(nothing.toml, None);
    assert!(
        nothing.notes.iter().all(|note| matches!(note.fate, Fate::Lost(_) | Fate::Carried)),
        "{:#?}",
        nothing.notes
    );
}

const HAPROXY: &str = r#"
global
    daemon
    maxconn 4096
    nbthread 4
defaults
    mode http
    option forwardfor
    timeout connect 5s
    timeout client 30s
    timeout server 50000
    retries 2
    balance leastconn
frontend web
    bind *:80
    bind *:443 ssl crt /etc/haproxy/site.pem alpn h2,http/1.1
    acl is_api path_beg /api
    acl is_api path_beg /v2
    acl host_shop hdr(host) -i shop.example
    acl inside src 10.0.0.0/8
    acl odd fc_http_major 2
    http-request set-header X-Client %[src]
    http-response del-header Server
    redirect scheme https code 301 if !{ ssl_fc }
    http-request deny if { path /admin } !{ ssl_fc }
    use_backend api if is_api host_shop
    use_backend other if odd
    use_backend nowhere if inside
    default_backend app
backend app
    balance roundrobin
    cookie SRV insert indirect nocache
    option httpchk GET /health
    http-check expect status 200
    server a 10.0.0.1:8080 check weight 10 cookie a
    server b 10.0.0.2:8080 check backup inter 3s frobnicate
backend api
    server a 10.0.1.1:8080 ssl verify none
listen db
    mode tcp
    bind 127.0.0.1:5432
    balance source
    server one 10.0.2.1:5432 check
userlist u
    user x password y
"#;

#[test]
fn haproxy_is_carried() {
    let (toml, notes) = of(Dialect::Haproxy, HAPROXY);
    for line in [
        "runtime.workers = 4",
        "address = \"0.0.0.0:80\"",
        "protocol = \"h1s\"",
        "cert_path = \"/etc/haproxy/site.pem\"",
        "pool = \"app\"",
        "http.head_timeout_ms = 50000",
        "http.retries = 2",
        "redirect.scheme = \"https\"",
        "scheme = \"http\"",
        "hosts = [\"shop.example\"]",
        "matches = [{ path_prefix = \"/api\" }, { path_prefix = \"/v2\" }]",
        "request_headers.set = [\"X-Client: ${client_ip}\"]",
        "response_headers.remove = [\"Server\"]",
        "policy = \"round_robin\"",
        "policy = \"least_connections\"",
        "policy = \"ring_hash\"",
        "cookie = \"SRV\"",
        "path = \"/health\"",
        "expected_statuses = [\"200\"]",
        "weight = 10",
        "priority = 1",
        "tls_verify_peer = false",
        "address = \"127.0.0.1:5432\"",
        "interval_ms = 3000",
        "respond.status = 403",
    ] {
        assert!(toml.contains(line), "{line} is missing in\n{toml}\n{notes:#?}");
    }
    for start in ["use_backend other", "use_backend nowhere", "acl odd", "userlist", "user x", "maxconn"] {
        assert!(matches!(fate(&notes, start), Fate::Lost(_)), "{start}: {notes:#?}");
    }
    assert!(matches!(fate(&notes, "server b"), Fate::Adapted(how) if how.contains("frobnicate")));
    assert!(matches!(fate(&notes, "option forwardfor"), Fate::Needless(_)));
}

const TRAEFIK: &str = r#"
entryPoints:
  web:
    address: ":80"
    http:
      redirections:
        entryPoint: { to: websecure, scheme: https }
  websecure:
    address: ":443"
    forwardedHeaders: { trustedIPs: ["10.0.0.0/8"] }
  postgres: { address: ":5432" }
api: { dashboard: true }
certificatesResolvers: { le: { acme: { email: a@b.example } } }
http:
  routers:
    shop:
      rule: "(Host(`shop.example`) || Host(`www.shop.example`)) && PathPrefix(`/cart`)"
      entryPoints: [websecure]
      middlewares: [secure, strip, frobber]
      service: shop
      priority: 7
      tls: { certResolver: le }
    odd: { rule: "!Host(`a`)", service: shop }
    either: { rule: "Host(`e.example`) && (PathPrefix(`/a`) || Path(`/x`))", service: shop }
    canary: { rule: "HostRegexp(`^[^.]+\\.shop\\.example$`) && Method(`GET`)", entryPoints: [websecure], service: both, tls: {} }
  services:
    shop:
      loadBalancer:
        sticky: { cookie: { name: srv, httpOnly: true } }
        healthCheck: { path: /health, interval: 10s }
        servers: [{ url: "http://10.0.0.1:8080" }, { url: "https://10.0.0.2/base" }]
    other: { loadBalancer: { servers: [{ url: "http://10.0.0.3" }] } }
    both: { weighted: { services: [{ name: shop, weight: 3 }, { name: other, weight: 1 }] } }
  middlewares:
    secure: { headers: { stsSeconds: 31536000, customRequestHeaders: { X-A: b, X-Gone: "" }, permissionsPolicy: x } }
    strip: { stripPrefix: { prefixes: [/cart] } }
tcp:
  routers: { db: { rule: "HostSNI(`*`)", entryPoints: [postgres], service: db } }
  services: { db: { loadBalancer: { servers: [{ address: "10.0.0.9:5432" }] } } }
tls:
  certificates: [{ certFile: /etc/a.pem, keyFile: /etc/a.key }]
"#;

#[test]
fn traefik_is_carried() {
    let (toml, notes) = of(Dialect::Traefik, TRAEFIK);
    for line in [
        "address = \"0.0.0.0:80\"",
        "redirect.scheme = \"https\"",
        "address = \"0.0.0.0:443\"",
        "protocol = \"h1s\"",
        "cert_path = \"/etc/a.pem\"",
        "trusted_proxies = [\"10.0.0.0/8\"]",
        "hosts = [\"shop.example\", \"www.shop.example\"]",
        "matches = [{ path_prefix = \"/a\" }, { path = \"/x\" }]",
        "priority = 7",
        "response_headers.set = [\"Strict-Transport-Security: max-age=31536000\"]",
        "request_headers.set = [\"X-A: b\"]",
        "request_headers.remove = [\"X-Gone\"]",
        "hosts = [\"*.shop.example\"]",
        "split = [{ pool = \"shop\", weight = 3 }, { pool = \"other\", weight = 1 }]",
        "cookie = \"srv\"",
        "interval_ms = 10000",
        "address = \"10.0.0.2:443\"",
        "tls = true",
        "address = \"0.0.0.0:5432\"",
        "protocol = \"tcp\"",
    ] {
        assert!(toml.contains(line), "{line} is missing in\n{toml}\n{notes:#?}");
    }
    for start in [
        "http.routers.odd.rule",
        "http.routers.shop.middlewares[2]",
        "certificatesResolvers.le.acme.email",
        "http.middlewares.secure.headers.permissionsPolicy",
    ] {
        assert!(matches!(fate(&notes, start), Fate::Lost(_)), "{start}: {notes:#?}");
    }
    assert!(matches!(fate(&notes, "api.dashboard"), Fate::Needless(_)));
    assert_eq!(
        toml.matches("e.example").count(),
        1,
        "an entry point whose requests are all sent elsewhere has no others: {toml}"
    );
    let bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n".to_owned()
        + &('b'..='k')
            .map(|c| format!("{c}: &{c} [{}]\n", vec![format!("*{}", char::from(c as u8 - 1)); 9].join(",")))
            .collect::<String>();
    assert!(import(Dialect::Traefik, "bomb.yml", &bomb, &None_).is_err());
}

/// Every directive of the input has a fate, whatever the input is.
#[test]
fn any_bytes_are_read_without_a_panic_and_all_that_comes_out_is_right() {
    let mut rng = lb_core::rng::SplitMix64::new(11);
    for (dialect, text) in [(Dialect::Nginx, NGINX), (Dialect::Haproxy, HAPROXY), (Dialect::Traefik, TRAEFIK)]
    {
        let lines: Vec<&str> = text.lines().collect();
        for _ in 0..300 {
            let mut made: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
            for _ in 0..1 + rng.below(4) {
                let at = rng.below(made.len() as u64) as usize;
                match rng.below(4) {
                    0 => _ = made.remove(at),
                    1 => made.insert(at, lines[rng.below(lines.len() as u64) as usize].to_owned()),
                    2 => made[at] = made[at].chars().filter(|_| rng.below(9) > 0).collect(),
                    _ => made[at].insert(
                        0,
                        ['}', '{', ';', '"', '%', '$', '\u{0}', 'é', '*', '&'][rng.below(10) as usize],
                    ),
                }
            }
            let made = made.join("\n");
            let Ok(imported) = import(dialect, "in", &made, &None_) else { continue };
            if let Some(toml) = &imported.toml {
                let config =
                    Config::parse(toml, "out").unwrap_or_else(|errors| panic!("{errors}\n{toml}\n{made}"));
                assert!(config.serves() && config.not_built_yet().is_empty());
            }
            for note in &imported.notes {
                assert!(note.line > 0 && !note.to_string().contains('\n'), "{note:?}");
            }
        }
    }
}
