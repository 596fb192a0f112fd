//! Upstreams, and the pools that they become.

use std::collections::BTreeMap;

use super::super::ledger::{DirectiveId, Ledger};
use super::super::names::Names;
use super::super::output::{Block, text};
use super::advice;
use super::syntax::Directive;

/// The pools that are needed so far.
#[derive(Default)]
pub(super) struct Pools<'a> {
    upstreams: BTreeMap<&'a str, &'a Directive>,
    /// The names of pools, by what they are made of.
    made: BTreeMap<(String, bool), String>,
    pub(super) blocks: Vec<Block>,
    names: Names,
}

impl<'a> Pools<'a> {
    pub(super) fn know(&mut self, upstream: &'a Directive) {
        if let Some(name) = upstream.args.first() {
            self.upstreams.insert(name, upstream);
        }
    }

    /// The pool for an upstream, or for a host with or without a port.
    pub(super) fn of(
        &mut self,
        target: &str,
        tls: bool,
        is_http: bool,
        by: DirectiveId,
        ledger: &mut Ledger,
    ) -> String {
        if let Some(name) = self.made.get(&(target.to_owned(), tls)) {
            return name.clone();
        }
        let name = self.names.give(target.trim_start_matches("unix:"));
        let mut pool = Block::new(format!("[pools.{name}]"), &[]);
        match self.upstreams.get(target) {
            Some(upstream) => {
                ledger.carried(upstream.id);
                pool.stands_for(upstream.id);
                let directives = upstream.block.as_deref().unwrap_or_default();
                for directive in directives.iter().filter(|one| one.name != "server") {
                    policy(directive, &mut pool, ledger);
                }
                for directive in directives.iter().filter(|one| one.name == "server") {
                    pool.blocks.push(backend(&name, directive, tls, is_http, ledger));
                }
            }
            None => {
                let mut backend = Block::new(format!("[[pools.{name}.backends]]"), &[by]);
                backend.vital("address", text(&address(target, if tls { 443 } else { 80 })), &[by]);
                protocol(&mut backend, tls, is_http);
                pool.blocks.push(backend);
            }
        }
        self.made.insert((target.to_owned(), tls), name.clone());
        self.blocks.push(pool);
        name
    }

    /// Upstreams that nothing leads to.
    pub(super) fn leave_unused(&self, ledger: &mut Ledger) {
        for (name, upstream) in &self.upstreams {
            if !self.made.keys().any(|(target, _)| target == name) {
                ledger.lost(upstream.id, "nothing that is carried leads to it");
            }
        }
    }
}

fn protocol(backend: &mut Block, tls: bool, is_http: bool) {
    if is_http {
        backend.key("protocol", text("h1"), &[]);
    }
    if tls {
        backend.key("tls", "true", &[]);
    }
}

/// An address with a port, as ours are written.
fn address(target: &str, port: u16) -> String {
    if target.starts_with("unix:") {
        return target.trim_end_matches(':').to_owned();
    }
    let has_port = target.rsplit_once(':').is_some_and(|(host, port)| {
        !port.is_empty()
            && port.bytes().all(|byte| byte.is_ascii_digit())
            && (!host.contains(':') || host.ends_with(']'))
    });
    if has_port { target.to_owned() } else { format!("{target}:{port}") }
}

fn backend(pool: &str, directive: &Directive, tls: bool, is_http: bool, ledger: &mut Ledger) -> Block {
    let id = directive.id;
    let mut block = Block::new(format!("[[pools.{pool}.backends]]"), &[id]);
    let mut args = directive.args.iter();
    let target = args.next().map(String::as_str).unwrap_or_default();
    block.vital("address", text(&address(target, if tls { 443 } else { 80 })), &[id]);
    protocol(&mut block, tls, is_http);
    ledger.carried(id);
    for arg in args {
        match arg.split_once('=').unwrap_or((arg, "")) {
            ("weight", weight) => block.key("weight", weight, &[id]),
            ("backup", _) => block.key("priority", "1", &[id]),
            ("down", _) => block.key("weight", "0", &[id]),
            ("max_fails" | "fail_timeout", _) => {
                ledger.adapted(id, "max_fails and fail_timeout are left out: write [pools.NAME.outlier], or health checks in [pools.NAME.health]");
            }
            ("max_conns", most) => {
                ledger.adapted(id, format!("max_conns={most} is left out: write [pools.NAME.limits] max_connections, which holds for each backend"));
            }
            ("resolve", _) => {}
            (other, _) => {
                ledger.adapted(id, format!("`{other}` is left out, which the import does not know"));
            }
        }
    }
    block
}

fn policy(directive: &Directive, pool: &mut Block, ledger: &mut Ledger) {
    let id = directive.id;
    let first = directive.args.first().map(String::as_str).unwrap_or_default();
    let hash_key = |variable: &str| {
        Some(match variable {
            "$remote_addr" | "$binary_remote_addr" => "source_address".to_owned(),
            "$request_uri" | "$uri" => "path".to_owned(),
            _ => match (
                variable.strip_prefix("$arg_"),
                variable.strip_prefix("$http_"),
                variable.strip_prefix("$cookie_"),
            ) {
                (Some(name), ..) => format!("query:{name}"),
                (_, Some(name), _) => format!("header:{}", name.replace('_', "-")),
                (.., Some(name)) => format!("cookie:{name}"),
                _ => return None,
            },
        })
    };
    match directive.name.as_str() {
        "least_conn" => pool.key("policy", text("least_connections"), &[id]),
        "least_time" => pool.key("policy", text("p2c_ewma"), &[id]),
        "random" => pool.key("policy", text(if first == "two" { "p2c" } else { "random" }), &[id]),
        "ip_hash" => {
            pool.key("policy", text("maglev"), &[id]);
            pool.key("hash_key", text("source_address"), &[id]);
        }
        "hash" => match hash_key(first) {
            Some(key) => {
                pool.key("policy", text("ring_hash"), &[id]);
                pool.key("hash_key", text(&key), &[id]);
            }
            None => return ledger.lost(id, "write `policy = \"ring_hash\"` with a `hash_key`: source_address, path, header, cookie or query"),
        },
        "sticky" => {
            let mut sticky = Block::new(pool_block(pool, "sticky"), &[id]);
            if let (Some(name), "cookie") = (directive.args.get(1), first) {
                sticky.key("cookie", text(name), &[id]);
                pool.blocks.push(sticky);
            } else {
                return ledger.lost(id, "write [pools.NAME.sticky]");
            }
        }
        name => {
            match (advice::needless(name), advice::instead(name)) {
                (Some(why), _) => ledger.needless(id, why),
                (None, Some(instead)) => ledger.lost(id, instead),
                (None, None) => {}
            }
            return;
        }
    }
    ledger.carried(id);
}

fn pool_block(pool: &Block, name: &str) -> String {
    format!("{}.{name}]", pool.header().trim_end_matches(']'))
}
