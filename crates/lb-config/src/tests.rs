//! Tests of the crate as its users see it.

mod accepted;
mod environment;
mod files;
mod json_schema;
mod keys;
mod list;
mod not_built;
mod plan;
mod pools;
mod rejected;
mod robust;
mod shipped;

use crate::config::{Config, Listener};

fn parse(text: &str) -> Config {
    Config::parse(text, "lb.toml").unwrap_or_else(|errors| panic!("{errors}\nin\n{text}"))
}

fn errors(text: &str) -> String {
    match Config::parse(text, "lb.toml") {
        Ok(_) => panic!("accepted:\n{text}"),
        Err(errors) => errors.to_string(),
    }
}

/// The only listener of a file that has `lines` in an h1 listener.
fn h1(lines: &str) -> Listener {
    let text = format!(
        "[[listeners]]\naddress = \"127.0.0.1:80\"\nprotocol = \"h1\"\n{lines}\n\
         [[listeners.backends]]\naddress = \"10.0.0.1:80\"\n"
    );
    parse(&text).listeners.remove(0)
}
