//! Servers and balancing of a backend.

use super::super::address;
use super::super::ledger::{DirectiveId, Ledger};
use super::super::names::millis;
use super::super::output::{Block, text, texts};
use super::keywords;
use super::syntax::Line;

/// What the servers of a section begin with.
#[derive(Clone, Default)]
pub(super) struct ServerDefaults {
    words: Vec<String>,
}

/// The pool that lines become; `None` without a server. Lines that are not of pools are left alone.
pub(super) fn pool(
    name: &str,
    (section, is_http): (DirectiveId, bool),
    lines: &[Line],
    defaults: &[&Line],
    ledger: &mut Ledger,
) -> Option<Block> {
    let mut pool = Block::new(format!("[pools.{name}]"), &[section]);
    let mut health: Option<Block> = None;
    let mut servers = Vec::new();
    let mut own = ServerDefaults::default();
    let inherited = defaults
        .iter()
        .filter(|line| matches!(line.word(0), "balance" | "option" | "default-server" | "cookie"));
    for line in lines.iter().chain(inherited.copied()) {
        let id = line.id;
        match (line.word(0), line.word(1)) {
            ("balance", kind) => balance(kind, line, &mut pool, ledger),
            ("hash-type", _) => ledger.needless(id, "hashing policies are consistent by themselves"),
            ("default-server", _) => {
                own.words.extend(line.words.iter().skip(1).cloned());
                ledger.carried(id);
            }
            ("option", "httpchk") => {
                let block = health.get_or_insert_with(|| Block::new(format!("[pools.{name}.health]"), &[id]));
                block.vital("type", text("http"), &[id]);
                // Its method and path may be left out.
                if let Some(path) = line.words.iter().skip(2).find(|word| word.starts_with('/')) {
                    block.key("path", text(path), &[id]);
                }
                if let Some(method) = line.words.get(2).filter(|word| !word.starts_with('/')) {
                    block.key("method", text(method), &[id]);
                }
                ledger.carried(id);
            }
            ("http-check", "expect") if line.word(2) == "status" => {
                let block = health.get_or_insert_with(|| Block::new(format!("[pools.{name}.health]"), &[id]));
                block.vital("type", text("http"), &[id]);
                let statuses: Vec<&str> = line.word(3).split(',').collect();
                block.key("expected_statuses", texts(&statuses), &[id]);
                ledger.carried(id);
            }
            ("cookie", cookie) if line.words.iter().any(|word| word == "insert") => {
                let mut sticky = Block::new(format!("[pools.{name}.sticky]"), &[id]);
                sticky.key("cookie", text(cookie), &[id]);
                sticky.key("secure", "false", &[id]);
                if !pool.blocks.iter().any(|block| block.header().ends_with(".sticky]")) {
                    pool.blocks.push(sticky);
                }
                ledger.adapted(id, "the cookie names a backend by a value of the gateway's own");
            }
            ("server", _) => servers.push(line),
            _ => {}
        }
    }
    let mut interval = None;
    let mut checks = None;
    let mut blocks = Vec::new();
    for line in &servers {
        blocks.push(server(name, is_http, line, &own, (&mut interval, &mut checks), ledger));
    }
    if blocks.is_empty() {
        return None;
    }
    if let Some(id) = checks {
        let block = health.get_or_insert_with(|| Block::new(format!("[pools.{name}.health]"), &[id]));
        block.vital("type", text("tcp"), &[id]);
    }
    if let (Some(block), Some((time, id))) = (&mut health, interval) {
        block.key("interval_ms", time, &[id]);
        if time < 2000 {
            block.key("timeout_ms", time, &[id]);
        }
    }
    pool.blocks.extend(health);
    pool.blocks.extend(blocks);
    Some(pool)
}

fn balance(kind: &str, line: &Line, pool: &mut Block, ledger: &mut Ledger) {
    let id = line.id;
    if pool.has("policy") {
        // That of the defaults, which this section replaces.
        return ledger.carried(id);
    }
    let (name, argument) =
        kind.split_once('(').map_or((kind, ""), |(name, rest)| (name, rest.trim_end_matches(')')));
    let hash = |pool: &mut Block, key: &str| {
        pool.key("policy", text("ring_hash"), &[id]);
        pool.key("hash_key", text(key), &[id]);
    };
    match name {
        "roundrobin" | "static-rr" => pool.key("policy", text("round_robin"), &[id]),
        "leastconn" => pool.key("policy", text("least_connections"), &[id]),
        "random" => pool.key("policy", text("p2c"), &[id]),
        "source" => hash(pool, "source_address"),
        "uri" => hash(pool, "path"),
        "url_param" => hash(pool, &format!("query:{}", line.word(2))),
        "hdr" => hash(pool, &format!("header:{argument}")),
        "first" => {
            return ledger.lost(
                id,
                "write `priority` at the backends: a group is used while those before it are too few",
            );
        }
        _ => return ledger.lost(id, "write `policy` and `hash_key`"),
    }
    ledger.carried(id);
}

fn server(
    pool: &str,
    is_http: bool,
    line: &Line,
    defaults: &ServerDefaults,
    (interval, checks): (&mut Option<(u64, DirectiveId)>, &mut Option<DirectiveId>),
    ledger: &mut Ledger,
) -> Block {
    let id = line.id;
    ledger.carried(id);
    let mut block = Block::new(format!("[[pools.{pool}.backends]]"), &[id]);
    block.vital("address", text(&address::address(line.word(2), 80)), &[id]);
    if is_http {
        block.key("protocol", text("h1"), &[id]);
    }
    let own = line.words.iter().skip(3);
    let mut words = own.chain(&defaults.words).map(String::as_str);
    while let Some(word) = words.next() {
        let value = if keywords::takes_value(word) { words.next().unwrap_or_default() } else { "" };
        match word {
            "weight" => block.key("weight", value, &[id]),
            "backup" => block.key("priority", "1", &[id]),
            "disabled" => block.key("weight", "0", &[id]),
            "check" => *checks = checks.or(Some(id)),
            "ssl" => block.key("tls", "true", &[id]),
            "ca-file" => block.key("tls_ca_path", text(value), &[id]),
            "sni" | "verifyhost" if !value.contains('(') => {
                block.key("tls_verify_hostname", text(value), &[id]);
            }
            "verify" if value == "none" => block.key("tls_verify_peer", "false", &[id]),
            "verify" => {}
            "crt" => {
                block.key("tls_client_cert_path", text(value), &[id]);
                block.key("tls_client_key_path", text(value), &[id]);
            }
            "send-proxy" => block.key("proxy_protocol", text("v1"), &[id]),
            "send-proxy-v2" => block.key("proxy_protocol", text("v2"), &[id]),
            "proto" if value == "h2" => block.key("protocol", text("h2"), &[id]),
            "inter" => *interval = interval.or(millis(value, 1).map(|time| (time, id))),
            "cookie" | "id" | "init-addr" | "resolvers" | "resolve-prefer" | "no-ssl" | "enabled"
            | "check-ssl" => {}
            "rise" | "fall" | "maxconn" | "port" | "slowstart" | "observe" | "on-error"
            | "on-marked-down" | "alpn" => {
                ledger.adapted(
                    id,
                    format!(
                        "`{word} {value}` is left out: write [pools.NAME.health], .limits or slow_start_ms"
                    ),
                );
            }
            other => ledger.adapted(id, format!("`{other}` is left out, which the import does not know")),
        }
    }
    block
}
