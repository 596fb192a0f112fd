//! HAProxy: frontends, backends, and sections that are both.

mod backend;
mod conditions;
mod fields;
mod keywords;
mod syntax;

use std::collections::BTreeMap;

use super::address;
use super::ledger::{DirectiveId, Ledger};
use super::names::{Names, millis};
use super::output::{Block, text, texts};
use conditions::{Acls, Keys};
use syntax::{Line, Section};

/// Priorities that routes may have.
const MOST_PRIORITY: usize = 1000;

/// Reads a configuration, and gives what it becomes.
pub(super) fn read(name: &str, contents: &str, ledger: &mut Ledger) -> Result<Block, String> {
    let sections = syntax::read(name, contents, ledger)?;
    let mut root = Block::default();
    let mut names = Names::default();
    let mut defaults: Vec<&Line> = Vec::new();
    let (mut pools, mut fronts) = (BTreeMap::new(), Vec::new());
    let mut pool_blocks = Vec::new();
    for section in &sections {
        match section.kind.as_str() {
            "global" => {
                ledger.carried(section.id);
                section.lines.iter().for_each(|line| global(line, &mut root, ledger));
            }
            // Each section of defaults takes the place of the one before.
            "defaults" => {
                ledger.carried(section.id);
                defaults = section.lines.iter().collect();
            }
            "frontend" | "backend" | "listen" => {
                let is_http = mode(&section.lines, &defaults) == "http";
                if section.kind != "frontend" {
                    let pool = names.give(&section.name);
                    if let Some(block) =
                        backend::pool(&pool, (section.id, is_http), &section.lines, &defaults, ledger)
                    {
                        pools.insert(section.name.as_str(), pool);
                        pool_blocks.push(block);
                    } else if section.kind == "backend" {
                        ledger.lost(
                            section.id,
                            "a backend without a server that is carried has nobody to send to",
                        );
                    }
                }
                if section.kind == "backend" {
                    ledger.carried(section.id);
                }
                fronts.push((section, is_http, defaults.clone()));
            }
            _ => {
                ledger.lost(section.id, "there is no counterpart of this section");
                section.lines.iter().for_each(|line| ledger.lost(line.id, "its section has no counterpart"));
            }
        }
    }
    let mut tables = Vec::new();
    for (section, is_http, defaults) in &fronts {
        let mut front =
            Front { section, defaults, is_http: *is_http, pools: &pools, names: &mut names, ledger };
        if section.kind != "backend" {
            front.read(&mut root.blocks, &mut tables);
        }
        front.rest();
    }
    for line in
        sections.iter().filter(|section| section.kind == "defaults").flat_map(|section| &section.lines)
    {
        other(line, ledger);
    }
    root.blocks.append(&mut tables);
    root.blocks.append(&mut pool_blocks);
    Ok(root)
}

fn mode(lines: &[Line], defaults: &[&Line]) -> &'static str {
    let modes = lines.iter().chain(defaults.iter().copied()).filter(|line| line.word(0) == "mode");
    match modes.map(|line| line.word(1)).next() {
        Some("http") => "http",
        _ => "tcp",
    }
}

fn global(line: &Line, root: &mut Block, ledger: &mut Ledger) {
    match (line.word(0), line.word(1)) {
        ("nbthread", count) if !count.is_empty() => {
            root.key("runtime.workers", count, &[line.id]);
            ledger.carried(line.id);
        }
        _ => other(line, ledger),
    }
}

/// Settles a line that nothing has taken in. What is settled stays.
fn other(line: &Line, ledger: &mut Ledger) {
    if ledger.is_settled(line.id) {
        return;
    }
    match (line.word(0), keywords::needless(line.word(0), line.word(1))) {
        (_, Some(why)) => ledger.needless(line.id, why),
        ("mode", None) => ledger.carried(line.id),
        ("no", None) => ledger.needless(line.id, "what is not set is not done"),
        (first, None) => ledger.lost(line.id, keywords::instead(first, line.word(1))),
    }
}

/// A section that clients come to.
struct Front<'a, 'b> {
    section: &'a Section,
    defaults: &'b [&'a Line],
    is_http: bool,
    pools: &'b BTreeMap<&'a str, String>,
    names: &'b mut Names,
    ledger: &'b mut Ledger,
}

impl Front<'_, '_> {
    fn read(&mut self, out: &mut Vec<Block>, tables: &mut Vec<Block>) {
        let section = self.section;
        let mut listeners = Vec::new();
        for line in section.lines.iter().filter(|line| line.word(0) == "bind") {
            self.bind(line, &mut listeners);
        }
        let own = if section.kind == "listen" { self.pools.get(section.name.as_str()) } else { None };
        let default = section
            .lines
            .iter()
            .chain(self.defaults.iter().copied())
            .find(|line| line.word(0) == "default_backend");
        let default_pool = default.and_then(|line| match self.pools.get(line.word(1)) {
            Some(pool) => {
                self.ledger.carried(line.id);
                Some(pool)
            }
            None => {
                self.ledger.lost(line.id, "there is no such backend with servers");
                None
            }
        });
        let pool = default_pool.or(own).cloned();
        let by: Vec<DirectiveId> = default.map(|line| line.id).into_iter().chain([section.id]).collect();
        let table = self.names.give(&section.name);
        let routes = if self.is_http { self.routes(&table, pool.as_deref()) } else { Vec::new() };
        if listeners.is_empty() || pool.is_none() && routes.is_empty() {
            return self
                .ledger
                .lost(section.id, "it needs an address (`bind`) and a backend or a rule that is carried");
        }
        self.ledger.carried(section.id);
        for mut listener in listeners {
            if let Some(pool) = &pool {
                listener.vital("pool", text(pool), &by);
            }
            if !routes.is_empty() {
                listener.key("route_tables", texts(&[&table]), &[]);
            }
            self.times(&mut listener);
            out.push(listener);
        }
        tables.extend(routes);
    }

    fn bind(&mut self, line: &Line, out: &mut Vec<Block>) {
        let id = line.id;
        self.ledger.carried(id);
        let (mut certificates, mut is_tls, mut http2) = (Vec::new(), false, false);
        let mut words = line.words.iter().skip(2).map(String::as_str);
        while let Some(word) = words.next() {
            let value = if keywords::takes_value(word) { words.next().unwrap_or_default() } else { "" };
            match word {
                "ssl" => is_tls = true,
                "crt" => certificates.push(value),
                "alpn" => {}
                "proto" => http2 = value == "h2",
                "accept-proxy" => self.ledger.adapted(
                    id,
                    "PROXY protocol is left out: write [listeners.proxy_protocol] with the trusted networks",
                ),
                "v4v6"
                | "v6only"
                | "tfo"
                | "defer-accept"
                | "transparent"
                | "no-sslv3"
                | "no-tlsv10"
                | "no-tlsv11"
                | "no-tls-tickets"
                | "name"
                | "process"
                | "thread"
                | "backlog"
                | "ciphers"
                | "ciphersuites"
                | "ssl-min-ver"
                | "ssl-max-ver"
                | "curves"
                | "ecdhe"
                | "nice"
                | "prefer-client-ciphers"
                | "force-tlsv12"
                | "strict-sni"
                | "id"
                | "interface"
                | "mss"
                | "shards"
                | "tcp-ut" => {}
                "ca-file" | "crl-file" | "crt-list" => {
                    self.ledger.adapted(id, format!("`{word} {value}` is left out: write [listeners.tls] client_auth and client_ca_path, or certificates"));
                }
                "verify" => self
                    .ledger
                    .adapted(id, format!("`verify {value}` is left out: write [listeners.tls] client_auth")),
                other => self
                    .ledger
                    .adapted(id, format!("`{other} {value}` is left out, which the import does not know")),
            }
        }
        for one in line.word(1).split(',').filter(|one| !one.is_empty()) {
            let mut listener = Block::new("[[listeners]]", &[id, self.section.id]);
            listener.vital("address", text(&address::address(one, 80)), &[id]);
            let protocol = match (self.is_http, is_tls) {
                (true, true) => "h1s",
                (true, false) => "h1",
                (false, true) => "tls",
                (false, false) => "tcp",
            };
            listener.vital("protocol", text(protocol), &[id]);
            if http2 && protocol == "h1" {
                listener.key("h2c", "true", &[id]);
            }
            for (at, file) in certificates.iter().enumerate().filter(|_| is_tls) {
                let mut block = Block::new(
                    if at == 0 { "[listeners.tls]" } else { "[[listeners.tls.certificates]]" },
                    &[id],
                );
                block.vital("cert_path", text(file), &[id]);
                block.vital("key_path", text(file), &[id]);
                listener.blocks.push(block);
                self.ledger.adapted(id, "certificate and key are read from the one file; a directory is not: name each file in [[listeners.tls.certificates]]");
            }
            out.push(listener);
        }
    }

    /// Times and numbers of a listener.
    fn times(&mut self, listener: &mut Block) {
        for line in self.section.lines.iter().chain(self.defaults.iter().copied()) {
            let id = line.id;
            match (line.word(0), line.word(1)) {
                ("timeout", kind) => {
                    let Some(time) = millis(line.word(2), 1).filter(|time| *time > 0) else { continue };
                    match (self.is_http, kind) {
                        (true, "http-request") => listener.key("http.header_timeout_ms", time, &[id]),
                        (true, "http-keep-alive") => listener.key("http.keepalive_timeout_ms", time, &[id]),
                        (true, "client") => {
                            listener.key("http.body_timeout_ms", time, &[id]);
                            listener.key("http.write_timeout_ms", time, &[id]);
                        }
                        (true, "server") => {
                            listener.key("http.head_timeout_ms", time, &[id]);
                            listener.key("http.response_idle_timeout_ms", time, &[id]);
                        }
                        (false, "client" | "server") => {
                            if listener.has("tcp.idle_timeout_ms") {
                                self.ledger.adapted(
                                    id,
                                    "both directions have one idle timeout, the first that is named",
                                );
                            }
                            listener.key("tcp.idle_timeout_ms", time, &[id]);
                        }
                        (_, "connect") => {
                            self.ledger.adapted(id, format!("the time for a connect is one for the whole process: runtime.connect_timeout_ms = {time}"));
                            continue;
                        }
                        (_, "queue") => {
                            self.ledger.lost(id, "write [pools.NAME.limits]");
                            continue;
                        }
                        _ => continue,
                    }
                    self.ledger.carried(id);
                }
                ("retries", count) if self.is_http => {
                    listener.key("http.retries", count, &[id]);
                    self.ledger.carried(id);
                }
                _ => {}
            }
        }
    }

    /// The routes of rules, the first with the highest priority.
    fn routes(&mut self, table: &str, default: Option<&str>) -> Vec<Block> {
        let section = self.section;
        let mut acls = Acls::default();
        for line in section.lines.iter().filter(|line| line.word(0) == "acl") {
            acls.add(line.words.get(1..).unwrap_or_default(), line.id, self.ledger);
        }
        let edits = fields::of(&section.lines, self.ledger);
        let mut routes: Vec<Block> = Vec::new();
        let mut has_any_host = false;
        for line in &section.lines {
            let Some((target, condition)) = self.target(line) else { continue };
            let Some(found) = acls.conditions(condition) else {
                self.ledger.lost(line.id, "its condition has no counterpart in a route: write `hosts`, `path_prefix`, `path_regex`, `headers`, `methods`, `sources` or `scheme`");
                continue;
            };
            self.ledger.carried(line.id);
            if !found.hosts.is_empty() && has_any_host {
                self.ledger.adapted(
                    line.id,
                    "a route with a host goes before those without, also before rules that stand above it",
                );
            }
            has_any_host |= found.hosts.is_empty();
            let ids: Vec<_> = found.ids.iter().copied().chain([line.id]).collect();
            let mut route = Block::new(format!("[[routes.{table}]]"), &ids);
            if !found.hosts.is_empty() {
                route.vital("hosts", texts(&found.hosts), &ids);
            }
            route.vital("priority", MOST_PRIORITY.saturating_sub(routes.len()), &[]);
            match found.alternatives.as_slice() {
                [only] => only.iter().for_each(|(key, value)| route.vital(key, value, &ids)),
                several => {
                    let sets = several.iter().map(|set| {
                        let keys: Vec<_> =
                            set.iter().map(|(key, value)| format!("{key} = {value}")).collect();
                        format!("{{ {} }}", keys.join(", "))
                    });
                    route.vital("matches", format!("[{}]", sets.collect::<Vec<_>>().join(", ")), &ids);
                }
            }
            if found.alternatives.iter().flatten().any(|(key, _)| key == "path_prefix") {
                self.ledger.adapted(line.id, "a prefix is of whole segments: /x and /x/y, not /xy");
            }
            target.iter().for_each(|(key, value)| route.vital(key, value, &ids));
            if target.iter().any(|(key, _)| key == "pool") {
                edits.dress(&mut route);
            }
            routes.push(route);
        }
        // Edits of fields stand in routes alone.
        if let (Some(pool), false) = (default, edits.is_empty()) {
            let mut route = Block::new(format!("[[routes.{table}]]"), &[section.id]);
            route.vital("pool", text(pool), &[]);
            edits.dress(&mut route);
            routes.push(route);
        }
        routes
    }

    /// Where a rule sends requests, as keys of a route, and its condition.
    fn target<'c>(&self, line: &'c Line) -> Option<(Keys, &'c [String])> {
        let at = line.words.iter().position(|word| word == "if" || word == "unless")?;
        let (rule, condition) = line.words.split_at_checked(at)?;
        let word = |at: usize| rule.get(at).map(String::as_str).unwrap_or_default();
        let key = |name: &str, value: String| (name.to_owned(), value);
        let keys = match (word(0), word(1)) {
            ("use_backend", name) => vec![key("pool", text(self.pools.get(name)?))],
            ("redirect", _) => redirect(rule.get(1..)?)?,
            ("http-request", "redirect") => redirect(rule.get(2..)?)?,
            ("http-request", "deny" | "reject" | "return") | ("block", _) => {
                let status = rule.iter().position(|word| word == "deny_status" || word == "status");
                let status =
                    status.and_then(|at| rule.get(at.saturating_add(1))).map_or("403", String::as_str);
                vec![key("respond.status", status.to_owned())]
            }
            _ => return None,
        };
        Some((keys, condition))
    }

    fn rest(&mut self) {
        for line in &self.section.lines {
            other(line, self.ledger);
        }
    }
}

/// `scheme https code 301`, `prefix`, `location`.
fn redirect(words: &[String]) -> Option<Keys> {
    let (mut keys, mut status) = (Vec::new(), "302");
    let mut words = words.iter().map(String::as_str);
    while let Some(word) = words.next() {
        match word {
            "scheme" => keys.push(("redirect.scheme".to_owned(), text(words.next()?))),
            "code" => status = words.next()?,
            "prefix" | "location" => {
                let target = words.next()?;
                if target.contains('%') {
                    return None;
                }
                let (scheme, rest) =
                    target.split_once("://").map_or((None, target), |(scheme, rest)| (Some(scheme), rest));
                let (host, path) = match scheme {
                    Some(_) => rest.split_at_checked(rest.find('/').unwrap_or(rest.len()))?,
                    None => ("", rest),
                };
                keys.extend(scheme.map(|scheme| ("redirect.scheme".to_owned(), text(scheme))));
                if !host.is_empty() {
                    keys.push(("redirect.host".to_owned(), text(host)));
                }
                if word == "location" {
                    keys.push(("redirect.path".to_owned(), text(if path.is_empty() { "/" } else { path })));
                    keys.push(("redirect.keep_query".to_owned(), "false".to_owned()));
                } else if !path.trim_end_matches('/').is_empty() {
                    return None;
                }
            }
            "drop-query" => keys.push(("redirect.keep_query".to_owned(), "false".to_owned())),
            _ => return None,
        }
    }
    keys.push(("redirect.status".to_owned(), status.to_owned()));
    (keys.len() > 1).then_some(keys)
}
