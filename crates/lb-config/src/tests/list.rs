//! Lists of backends outside the configuration.

use crate::config::BackendProtocol;
use crate::list::{ListFormat, parse_backends};

fn read(text: &str, format: ListFormat) -> Result<Vec<crate::Backend>, String> {
    parse_backends(text, "list", format).map_err(|errors| errors.to_string())
}

const TOML: &str = "[[backends]]\naddress = \"app.example:3000\"\nweight = 2\n\
    [[backends]]\naddress = \"[::1]:3001\"\nprotocol = \"h2\"\ntls = true\ntls_ca_path = \"/ca\\\"é\"\n";
const JSON: &str = "[{\"address\": \"app.example:3000\", \"weight\": 2},\n\
    {\"address\": \"[::1]:3001\", \"protocol\": \"h2\", \"tls\": true, \"tls_ca_path\": \"\\u002fca\\\"\\u00e9\"}]";

#[test]
fn a_list_is_the_same_in_toml_and_json() {
    let backends = read(TOML, ListFormat::Toml).unwrap();
    assert_eq!(read(JSON, ListFormat::Json).unwrap(), backends);
    assert_eq!((backends[0].weight, backends[1].protocol), (2, BackendProtocol::H2));
    assert_eq!(backends[1].tls.as_ref().unwrap().ca_path.as_ref().unwrap().to_str(), Some("/ca\"é"));
    assert_eq!(read("", ListFormat::Toml), Ok(vec![]));
    assert_eq!(read("[]", ListFormat::Json), Ok(vec![]));
    let formats = ["a.json", "a.JSON", "a.toml", "json"].map(|name| ListFormat::of(name.as_ref()));
    assert_eq!(formats, [ListFormat::Json, ListFormat::Json, ListFormat::Toml, ListFormat::Toml]);
}

#[test]
fn a_wrong_list_is_refused_with_what_is_wrong() {
    let toml = |text: &str| read(text, ListFormat::Toml).unwrap_err();
    assert_eq!(
        toml("[[backends]]\naddress = \"a:1\"\nwieght = 2"),
        "list:3: backends[0].wieght = 2: unknown key; did you mean `weight`?"
    );
    assert_eq!(toml("[[backend]]\n"), "list:1: backend = […]: unknown key; did you mean `backends`?");
    let json = |text: &str| read(text, ListFormat::Json).unwrap_err();
    assert_eq!(
        json("[{\"address\": \"a:1\", \"weight\": -1}]"),
        "list: backends[0].weight = -1: must be an integer 0..=4294967295"
    );
    assert_eq!(
        json("[{\"address\": \"a\"}]"),
        "list: backends[0].address = \"a\": must be \"host:port\" or \"unix:/path\"; the port is missing"
    );
    assert!(json("[{\"address\": \"a:1\", \"address\": \"b:1\"}]").contains("duplicate key"));
    assert!(json("[{\"address\": null}]").contains("anything but null"));
    assert_eq!(json("{}"), "list: backends = {…}: must be an array of tables, each opened by [[backends]]");
    assert!(json("[{\"address\": \"a:1\"}] x").starts_with("list: not JSON: "));
}

#[test]
fn no_json_is_taken_for_toml_and_none_panics() {
    for text in [
        "\"",
        "[",
        "[{\"\\u0000\\\"]\\n[x\": 1}]",
        "[{\"a.b\": 1e400}]",
        "[{\"a\": [[[[{}]]]]}]",
        "",
        "\u{feff}[]",
    ] {
        assert!(read(text, ListFormat::Json).is_err(), "{text}");
    }
    for deep in ["[".repeat(100_000), "{\"a\":".repeat(100_000)] {
        assert!(read(&deep, ListFormat::Json).is_err());
    }
    let long = " ".repeat((4 << 20) + 1);
    assert_eq!(read(&long, ListFormat::Json).unwrap_err(), read(&long, ListFormat::Toml).unwrap_err());
}
