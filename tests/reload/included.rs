//! A configuration of several files (`include`).

use std::net::SocketAddr;

use testkit::gateway::{Reload, cli};
use testkit::{Backend, Client, Config, Gateway, Listener, ports};

fn listener(address: SocketAddr, backend: SocketAddr) -> String {
    format!(
        "[[listeners]]\naddress = \"{address}\"\nprotocol = \"h1\"\n[[listeners.backends]]\naddress = \"{backend}\"\nprotocol = \"h1\"\n"
    )
}

fn answers(address: SocketAddr) -> bool {
    Client::connect(address)
        .is_ok_and(|client| client.for_host("localhost").get("/").is_ok_and(|it| it.status == 200))
}

pub(crate) fn included_files_are_read_by_start_reload_and_check() {
    let backend = Backend::standard("one");
    let config = Config::new().listener(Listener::h1().backend(backend.address));
    let (two, three) = (ports::reserve(), ports::reserve());
    let text = format!("include = [\"conf.d/*.toml\", \"more.toml\"]\n{}", config.render());
    let mut gateway = Gateway::start(config);
    let directory = gateway.dir().join("conf.d");
    std::fs::create_dir(&directory).unwrap();

    // A path without wildcards has to be there.
    match gateway.reload_text(&text) {
        Reload::Rejected(line) => assert!(line.contains("more.toml: cannot be read"), "{line}"),
        other => panic!("{other:?}"),
    }
    std::fs::write(gateway.dir().join("more.toml"), listener(three, backend.address)).unwrap();
    std::fs::write(directory.join("a.toml"), listener(two, backend.address)).unwrap();
    // Neither is included.
    std::fs::write(directory.join(".hidden.toml"), "[[wrong]").unwrap();
    std::fs::write(directory.join("a.toml~"), "[[wrong]").unwrap();
    assert!(matches!(gateway.reload_text(&text), Reload::Complete(_)));
    assert!(answers(two) && answers(three) && answers(gateway.front()));

    // The file of the command line is as it was; an included one is not.
    let wrong = format!("{}[[routes.r]]\nport = 1\n", listener(two, backend.address));
    std::fs::write(directory.join("a.toml"), wrong).unwrap();
    match gateway.reload_text(&text) {
        Reload::Rejected(line) => assert!(line.contains("conf.d/a.toml:8: routes.r"), "{line}"),
        other => panic!("{other:?}"),
    }
    let checked = cli(&["check", gateway.dir().join("lb.toml").to_str().unwrap()]);
    assert_eq!(checked.code, 1);
    assert!(checked.stderr.contains("conf.d/a.toml:8: routes.r"), "{}", checked.stderr);
    assert!(answers(two) && answers(three) && answers(gateway.front()));

    std::fs::remove_file(directory.join("a.toml")).unwrap();
    assert!(matches!(gateway.reload_text(&text), Reload::Complete(_)));
    assert!(!answers(two) && answers(three) && answers(gateway.front()));
    assert_eq!(gateway.reload_text(&text), Reload::Unchanged);
}
