//! Services, and the pools that they become.

use std::collections::BTreeMap;

use super::super::address;
use super::super::ledger::{DirectiveId, Ledger};
use super::super::names::{Names, millis};
use super::super::output::{Block, text};
use super::yaml::Node;

/// The services of all files.
pub(super) struct Services<'a> {
    http: Vec<&'a (String, Node)>,
    tcp: Vec<&'a (String, Node)>,
    udp: Vec<&'a (String, Node)>,
    made: BTreeMap<(String, String), String>,
    pub(super) blocks: Vec<Block>,
    names: Names,
}

/// Keys of a route, with what they stand for.
pub(super) type Target = Vec<(String, String, DirectiveId)>;

impl<'a> Services<'a> {
    pub(super) fn new(
        http: Vec<&'a (String, Node)>,
        tcp: Vec<&'a (String, Node)>,
        udp: Vec<&'a (String, Node)>,
    ) -> Self {
        Self { http, tcp, udp, made: BTreeMap::new(), blocks: Vec::new(), names: Names::default() }
    }

    /// Where a router sends requests; `None` where that cannot be carried.
    pub(super) fn target(&mut self, by: &Node, ledger: &mut Ledger) -> Option<Target> {
        let name = plain(by.text()?).to_owned();
        if by.text()?.contains("@internal") {
            ledger.lost(by.id(), "the admin port shows what goes on (observability.metrics_bind)");
            return None;
        }
        let Some((_, node)) = self.http.iter().copied().find(|(known, _)| *known == name) else {
            ledger.lost(by.id(), "there is no such service in these files");
            return None;
        };
        let target = if let Some(weighted) = node.get("weighted") {
            let mut branches = Vec::new();
            for one in weighted.get("services").map(Node::items).unwrap_or_default() {
                let pool = self.pool("http", one.get("name")?, ledger)?;
                let weight = one.get("weight").and_then(|node| node.text()?.parse::<u32>().ok()).unwrap_or(1);
                branches.push(format!("{{ pool = {}, weight = {weight} }}", text(&pool)));
                one.each(&mut |id| ledger.carried(id));
            }
            vec![("split".to_owned(), format!("[{}]", branches.join(", ")), by.id())]
        } else if let Some(mirroring) = node.get("mirroring") {
            let pool = self.pool("http", mirroring.get("service")?, ledger)?;
            let mut mirrors = Vec::new();
            for one in mirroring.get("mirrors").map(Node::items).unwrap_or_default() {
                let pool = self.pool("http", one.get("name")?, ledger)?;
                let percent = one.get("percent").and_then(Node::text).unwrap_or("100");
                mirrors.push(format!(
                    "{{ pool = {}, fraction = {} }}",
                    text(&pool),
                    text(&format!("{percent}%"))
                ));
                one.each(&mut |id| ledger.carried(id));
            }
            vec![
                ("pool".to_owned(), text(&pool), by.id()),
                ("mirror".to_owned(), format!("[{}]", mirrors.join(", ")), by.id()),
            ]
        } else {
            vec![("pool".to_owned(), text(&self.pool("http", by, ledger)?), by.id())]
        };
        ledger.carried(by.id());
        Some(target)
    }

    /// The pool of a router for raw bytes or datagrams.
    pub(super) fn raw(&mut self, kind: &str, by: &Node, ledger: &mut Ledger) -> Option<String> {
        let pool = self.pool(kind, by, ledger);
        if pool.is_some() {
            ledger.carried(by.id());
        }
        pool
    }

    fn pool(&mut self, kind: &str, by: &Node, ledger: &mut Ledger) -> Option<String> {
        let name = plain(by.text()?).to_owned();
        let key = (kind.to_owned(), name.clone());
        if let Some(pool) = self.made.get(&key) {
            return Some(pool.clone());
        }
        let all = match kind {
            "http" => &self.http,
            "tcp" => &self.tcp,
            _ => &self.udp,
        };
        let Some((_, node)) = all.iter().copied().find(|(known, _)| *known == name) else {
            ledger.lost(by.id(), "there is no such service in these files");
            return None;
        };
        let Some(balancer) = node.get("loadBalancer") else {
            ledger.lost(by.id(), "only services with a load balancer are pools");
            return None;
        };
        let pool = self.names.give(&name);
        let mut block = Block::new(format!("[pools.{pool}]"), &[node.id(), balancer.id()]);
        if let Some(sticky) = balancer.at("sticky.cookie") {
            block.blocks.push(sticky_block(&pool, sticky, ledger));
        }
        if let Some(check) = balancer.get("healthCheck") {
            block.blocks.push(health(&pool, check, ledger));
        }
        if let Some(host) = balancer.get("passHostHeader") {
            match host.text() {
                Some("false") => ledger.lost(
                    host.id(),
                    "write `rewrite.host` in the route; backends are asked for the client's host",
                ),
                _ => ledger.needless(host.id(), "backends are asked for the client's host"),
            }
        }
        let servers = balancer.get("servers").map(Node::items).unwrap_or_default();
        for server in servers {
            let place = server.get("url").or_else(|| server.get("address"));
            let Some((place, url)) = place.and_then(|node| Some((node, node.text()?))) else { continue };
            let mut backend = Block::new(format!("[[pools.{pool}.backends]]"), &[place.id()]);
            let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
            let (host, path) =
                rest.split_at_checked(rest.find('/').unwrap_or(rest.len())).unwrap_or((rest, ""));
            ledger.carried(place.id());
            if !path.trim_end_matches('/').is_empty() {
                ledger.adapted(
                    place.id(),
                    format!("the path {path} is left out: write `rewrite.prefix` in the route"),
                );
            }
            backend.vital(
                "address",
                text(&address::address(host, if scheme == "https" { 443 } else { 80 })),
                &[place.id()],
            );
            if kind == "http" {
                backend.key("protocol", text(if scheme == "h2c" { "h2" } else { "h1" }), &[]);
            }
            if scheme == "https" {
                backend.key("tls", "true", &[place.id()]);
            }
            if let Some(weight) = server.get("weight") {
                backend.key("weight", weight.text().unwrap_or_default(), &[weight.id()]);
                ledger.carried(weight.id());
            }
            block.blocks.push(backend);
        }
        self.blocks.push(block);
        self.made.insert(key, pool.clone());
        Some(pool)
    }
}

/// A name without its provider.
fn plain(name: &str) -> &str {
    name.strip_suffix("@file").unwrap_or(name)
}

fn sticky_block(pool: &str, node: &Node, ledger: &mut Ledger) -> Block {
    let mut block = Block::new(format!("[pools.{pool}.sticky]"), &[node.id()]);
    ledger.carried(node.id());
    let mut has_secure = false;
    for (key, value) in node.entries() {
        let (id, written) = (value.id(), value.text().unwrap_or_default());
        match key.to_ascii_lowercase().as_str() {
            "name" => block.key("cookie", text(written), &[id]),
            "secure" => {
                has_secure = true;
                block.key("secure", written, &[id]);
            }
            "httponly" => block.key("http_only", written, &[id]),
            "samesite" => block.key("same_site", text(written), &[id]),
            "maxage" => block.key("ttl_seconds", written, &[id]),
            "path" => block.key("path", text(written), &[id]),
            _ => continue,
        }
        ledger.carried(id);
    }
    if !has_secure {
        block.key("secure", "false", &[]);
    }
    block
}

fn health(pool: &str, node: &Node, ledger: &mut Ledger) -> Block {
    let mut block = Block::new(format!("[pools.{pool}.health]"), &[node.id()]);
    ledger.carried(node.id());
    block.vital("type", text("http"), &[]);
    let mut interval = None;
    for (key, value) in node.entries() {
        let (id, written) = (value.id(), value.text().unwrap_or_default());
        match key.to_ascii_lowercase().as_str() {
            "path" => block.key("path", text(written), &[id]),
            "interval" => match millis(written, 1000) {
                Some(time) => {
                    interval = Some(time);
                    block.key("interval_ms", time, &[id]);
                }
                None => continue,
            },
            "timeout" => match millis(written, 1000) {
                Some(time) => block.key("timeout_ms", time, &[id]),
                None => continue,
            },
            "port" => block.key("port", written, &[id]),
            "hostname" => block.key("host", text(written), &[id]),
            "method" => block.key("method", text(written), &[id]),
            "status" => block.key("expected_statuses", format!("[{}]", text(written)), &[id]),
            _ => continue,
        }
        ledger.carried(id);
    }
    // The default is longer than a short interval.
    if let Some(interval) = interval.filter(|interval| *interval < 2000) {
        block.key("timeout_ms", interval, &[]);
    }
    block
}
