//! Variables of the environment in values of every kind.

use crate::config::{Config, IoBackend};

fn parse_in(text: &str) -> Result<Config, String> {
    let environment = |name: &str| match name {
        "ADDRESS" => Some("127.0.0.1:81".to_owned()),
        "WORKERS" => Some("3".to_owned()),
        "MANY" => Some("many".to_owned()),
        "DRIVER" => Some("epoll".to_owned()),
        "STRICT" => Some(" true ".to_owned()),
        "HASH" => Some("no digest".to_owned()),
        _ => None,
    };
    Config::parse_in(text, "lb.toml", &environment).map_err(|errors| errors.to_string())
}

#[test]
fn values_of_every_kind_come_from_variables() {
    let config = parse_in(
        "[[listeners]]\naddress = \"${ADDRESS}\"\nprotocol = \"${PROTOCOL:-h1}\"\n\
         [[listeners.backends]]\naddress = \"${BACKEND:-10.0.0.1}:80\"\n\
         [runtime]\nworkers = \"${WORKERS}\"\nio_backend = \"${DRIVER}\"\n\
         [security]\nstrict_te = \"${STRICT}\"\n[dns]\nservers = [\"${DNS:-9.9.9.9}\", \"1.1.1.1\"]\n",
    )
    .unwrap();
    assert_eq!(config.listeners[0].name, "127.0.0.1:81");
    assert_eq!(config.runtime.io_backend, IoBackend::Epoll);
    assert_eq!(config.runtime.workers.map(usize::from), Some(3));
    assert!(config.security.strict_te);
    assert_eq!(config.dns.servers.len(), 2);
}

#[test]
fn what_does_not_fit_is_told_with_line_and_value() {
    for (lines, wanted) in [
        ("[runtime]\nworkers = \"${MANY}\"", "lb.toml:5: runtime.workers = \"${MANY}\": must be an integer"),
        ("[runtime]\nworkers = \"${MANY}\"", "it comes to `many`"),
        ("[runtime]\nworkers = \"3\"", "must be an integer"),
        ("[security]\nstrict_te = \"true\"", "must be true or false"),
        ("[runtime]\nio_backend = \"${NONE}\"", "the environment has no variable NONE"),
        ("[dns]\nservers = [\"1.1.1.1\", \"${NONE}\"]", "dns.servers[1]"),
        ("[pools.\"${ADDRESS}\"]\n", "a name is 1 to 64 letters"),
    ] {
        let text = format!("[[listeners]]\naddress = \"127.0.0.1:80\"\nprotocol = \"h1\"\n{lines}\n");
        let error = parse_in(&text).unwrap_err();
        assert!(error.contains(wanted), "{error}\nin\n{text}");
    }
}

#[test]
fn a_secret_is_not_shown() {
    let error = parse_in("[admin]\napi_token_hash = \"${HASH}\"\n").unwrap_err();
    assert!(error.contains("api_token_hash") && !error.contains("digest"), "{error}");
}
