//! `expressgateway import`.

use std::time::Instant;

use testkit::gateway::cli;

/// A site of each kind; the output of each passes `check`, and what is not carried is told with file and line.
pub(crate) fn what_is_written_passes_check_and_what_is_not_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    std::fs::create_dir(path("conf.d")).unwrap();
    std::fs::write(
        path("conf.d/api.conf"),
        "server { listen 81; location / { proxy_pass http://10.0.0.1:80; gzip on; } }\n",
    )
    .unwrap();
    for (name, text, told) in [
        (
            "nginx.conf",
            "http {\n include conf.d/*.conf;\n lua_frob on;\n}\n",
            ["nginx.conf:3: lua_frob on: not carried", "conf.d/api.conf:1: gzip on: not carried"],
        ),
        (
            "haproxy.cfg",
            "defaults\n mode http\nfrontend web\n bind *:80\n filter frob\n default_backend app\nbackend app\n compression algo gzip\n server a 10.0.0.1:80\n",
            ["haproxy.cfg:5: filter frob: not carried", "haproxy.cfg:8: compression algo gzip: not carried"],
        ),
        (
            "traefik.yml",
            "entryPoints:\n  web:\n    address: \":80\"\nhttp:\n  routers:\n    a:\n      rule: Host(`a.example`)\n      service: a\n      frob: 1\n  services:\n    a:\n      \
             loadBalancer:\n        servers:\n          - url: http://10.0.0.1:80\ncertificatesResolvers:\n  le:\n    acme:\n      email: x\n",
            [
                "traefik.yml:9: http.routers.a.frob: 1: not carried",
                "traefik.yml:18: certificatesResolvers.le.acme.email: x: not carried",
            ],
        ),
    ] {
        std::fs::write(path(name), text).unwrap();
        let done = cli(&["import", &path(name)]);
        assert_eq!(done.code, 0, "{done:?}");
        for line in told {
            assert!(done.stderr.contains(line), "{line}: {done:?}");
        }
        std::fs::write(path("out.toml"), &done.stdout).unwrap();
        let checked = cli(&["check", &path("out.toml")]);
        assert_eq!(checked.code, 0, "{checked:?}\n{}", done.stdout);
        assert!(done.stdout.contains("10.0.0.1:80"), "{}", done.stdout);
    }
    std::fs::write(path("wrong.conf"), "http {\n").unwrap();
    let wrong = cli(&["import", &path("wrong.conf")]);
    assert!(
        wrong.code == 1
            && wrong.stdout.is_empty()
            && wrong.stderr.contains("wrong.conf:1: a block has no end"),
        "{wrong:?}"
    );
    std::fs::write(path("nothing.conf"), "events {}\n").unwrap();
    assert_eq!(cli(&["import", &path("nothing.conf")]).code, 1);
    assert_eq!(cli(&["import", &path("unnamed")]).code, 1);
}

/// Five hundred lines take a tenth of a second at most, with the start of the program.
pub(crate) fn five_hundred_lines_take_a_tenth_of_a_second() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("nginx.conf").to_str().unwrap().to_owned();
    let locations: String = (0..160)
        .map(|n| format!("    location /p{n} {{\n      proxy_pass http://10.0.{n}.1:80/x;\n    }}\n"))
        .collect();
    let text = format!("http {{\n  server {{\n    listen 80;\n{locations}  }}\n}}\n");
    assert!(text.lines().count() > 480);
    std::fs::write(&path, text).unwrap();
    let fastest = (0..25).map(|_| {
        let begun = Instant::now();
        assert_eq!(cli(&["import", &path]).code, 0);
        begun.elapsed()
    });
    let fastest = fastest.min().unwrap();
    assert!(fastest.as_millis() <= 100, "{fastest:?}");
}
