//! A configuration of several files.

use crate::config::Config;
use crate::files::ConfigText;

const MAIN: &str = "include = [\"conf.d/*.toml\"]\n[runtime]\nworkers = 2\n[pools.one]\n[[pools.one.backends]]\naddress = \"10.0.0.1:80\"\n";

fn listener(port: u16, pool: &str) -> String {
    format!("[[listeners]]\naddress = \"127.0.0.1:{port}\"\nprotocol = \"h1\"\npool = \"{pool}\"\n")
}

fn parse(files: &[&str]) -> Result<Config, String> {
    let mut text = ConfigText::new(MAIN.to_owned(), "lb.toml".to_owned());
    for (index, file) in files.iter().enumerate() {
        text.push(file, format!("conf.d/{index}.toml"));
    }
    assert_eq!(text.includes(), ["conf.d/*.toml"]);
    Config::parse_files(&text, &|_| None).map_err(|errors| errors.to_string())
}

#[test]
fn listeners_and_pools_of_all_files_are_one_configuration() {
    let more = "[pools.two]\n[[pools.two.backends]]\naddress = \"10.0.0.2:80\"";
    let config = parse(&[&listener(81, "one"), &format!("{}{more}", listener(82, "two")), ""]).unwrap();
    let names: Vec<_> = config.listeners.iter().map(|listener| listener.name.as_str()).collect();
    assert_eq!(names, ["127.0.0.1:81", "127.0.0.1:82"]);
    assert_eq!(config.pools.len(), 2);
    assert_eq!(config.source_name, "lb.toml");
}

#[test]
fn errors_name_the_file_that_they_are_in() {
    let good = listener(81, "one");
    let wrong = format!("\n{good}drain_timeout_ms = 5\n");
    for (files, wanted) in [
        ([&*good, &*wrong], "conf.d/1.toml:6: listeners[1].drain_timeout_ms = 5: must be"),
        ([&*good, "[[listeners]"], "conf.d/1.toml:1: "),
        ([&*good, "\n\"open"], "conf.d/1.toml:2: "),
        // What two files say.
        ([&*good, "[runtime]\nworkers = 3\n"], "conf.d/1.toml:1: runtime: it stands at lb.toml:2 already"),
        ([&*good, "\n[pools.one]\n"], "conf.d/1.toml:2: pools.one: it stands at lb.toml:4 already"),
        (
            ["[[routes.r]]\n", "[[routes.r]]\n"],
            "conf.d/1.toml:1: routes.r: it stands at conf.d/0.toml:1 already",
        ),
        ([&*good, &*good], "conf.d/1.toml:2: listeners[1].address"),
        (["include = [\"x\"]", ""], "conf.d/0.toml:1: include: only the file of the command line"),
    ] {
        let error = parse(&files).unwrap_err();
        assert!(error.contains(wanted), "{error}\nwanted {wanted}");
    }
}

#[test]
fn a_line_of_one_file_does_not_go_on_in_the_next() {
    // Neither file ends with a line.
    assert!(parse(&["[security]\nstrict_te = true", &listener(81, "one")]).unwrap().security.strict_te);
}

#[test]
fn what_is_no_list_of_paths_includes_nothing() {
    for text in ["include = \"x\"", "include = [1, \"\"]", "include = [", "[include]"] {
        assert!(ConfigText::new(text.to_owned(), "lb.toml".to_owned()).includes().is_empty(), "{text}");
    }
}
