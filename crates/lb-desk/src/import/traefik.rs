//! Traefik: entry points of the static configuration; routers, services, middlewares and certificates of the dynamic one.

mod advice;
mod middleware;
mod rule;
mod service;
mod yaml;

use std::collections::BTreeMap;

use super::Files;
use super::address;
use super::ledger::{DirectiveId, Ledger};
use super::names::Names;
use super::output::{Block, text, texts};
use rule::Matcher;
use service::Services;
use yaml::Node;

/// Priorities that routes may have.
const MOST_PRIORITY: u64 = 1000;

/// Reads a configuration with the files of its file provider, and gives what it becomes.
pub(super) fn read(
    name: &str,
    contents: &str,
    files: &dyn Files,
    ledger: &mut Ledger,
) -> Result<Block, String> {
    let mut documents = yaml::read(name, contents, ledger)?;
    for (key, wildcard) in [("providers.file.filename", ""), ("providers.file.directory", "/*.y*ml")] {
        let named: Vec<(String, DirectiveId)> = documents
            .iter()
            .filter_map(|document| document.at(key))
            .filter_map(|node| Some((node.text()?.to_owned(), node.id())))
            .collect();
        for (path, id) in named {
            match files.read(&format!("{}{wildcard}", path.trim_end_matches('/')), name) {
                Ok(texts) => {
                    ledger.carried(id);
                    for (name, text) in texts {
                        documents.extend(yaml::read(&name, &text, ledger)?);
                    }
                }
                Err(problem) => {
                    ledger.lost(id, format!("{problem}; what stands there is missing in the output"));
                }
            }
        }
    }
    let root =
        Importer { documents: &documents, names: Names::default(), tables: BTreeMap::new(), ledger }.make();
    for document in &documents {
        advice::settle(document, "", ledger);
        blocks(document, ledger);
    }
    Ok(root)
}

/// What is in a block tells of itself.
fn blocks(node: &Node, ledger: &mut Ledger) {
    match node {
        Node::Map(entries, id) if !entries.is_empty() => {
            if !ledger.is_settled(*id) {
                ledger.carried(*id);
            }
            entries.iter().for_each(|(_, inner)| blocks(inner, ledger));
        }
        Node::List(items, id) if !items.is_empty() => {
            if !ledger.is_settled(*id) {
                ledger.carried(*id);
            }
            items.iter().for_each(|inner| blocks(inner, ledger));
        }
        _ => {}
    }
}

/// An address that clients reach.
struct EntryPoint {
    name: String,
    address: String,
    ids: Vec<DirectiveId>,
    tls: bool,
    is_tcp: Option<bool>,
    pool: Option<(String, DirectiveId)>,
    blocks: Vec<Block>,
    proxies: Option<(Vec<String>, DirectiveId)>,
    is_used: bool,
}

struct Importer<'a, 'l> {
    documents: &'a [Node],
    names: Names,
    /// The routes of each entry point, by its name.
    tables: BTreeMap<String, Vec<Block>>,
    ledger: &'l mut Ledger,
}

impl<'a> Importer<'a, '_> {
    fn all(&self, path: &str) -> Vec<&'a (String, Node)> {
        self.documents.iter().filter_map(|document| document.at(path)).flat_map(Node::entries).collect()
    }

    fn make(mut self) -> Block {
        let mut points = self.entry_points();
        let middlewares = self.all("http.middlewares");
        let mut services =
            Services::new(self.all("http.services"), self.all("tcp.services"), self.all("udp.services"));
        for (kind, path) in [("tcp", "tcp.routers"), ("udp", "udp.routers")] {
            for (_, router) in self.all(path) {
                self.raw(kind, router, &mut points, &mut services);
            }
        }
        for (_, router) in self.all("http.routers") {
            self.router(router, &mut points, &middlewares, &mut services);
        }
        let certificates = self.certificates();
        let mut root = Block::default();
        for point in points {
            self.listener(point, &certificates, &mut root);
        }
        for (_, routes) in std::mem::take(&mut self.tables) {
            root.blocks.extend(routes);
        }
        root.blocks.append(&mut services.blocks);
        root
    }

    fn entry_points(&mut self) -> Vec<EntryPoint> {
        let mut points = Vec::new();
        for (name, node) in self.all("entryPoints") {
            let Some(written) = node.get("address") else { continue };
            let address_text = written.text().unwrap_or_default();
            let (address_text, is_udp) = match address_text.split_once('/') {
                Some((address, "udp")) => (address, true),
                Some((address, _)) => (address, false),
                None => (address_text, false),
            };
            self.ledger.carried(written.id());
            let mut point = EntryPoint {
                name: name.clone(),
                address: address::address(address_text, 80),
                ids: vec![written.id(), node.id()],
                tls: false,
                is_tcp: if is_udp { Some(false) } else { None },
                pool: None,
                blocks: Vec::new(),
                proxies: None,
                is_used: false,
            };
            if let Some(tls) = node.at("http.tls") {
                point.tls = true;
                self.ledger.carried(tls.id());
            }
            if let Some(trusted) = node.at("forwardedHeaders.trustedIPs") {
                point.proxies =
                    Some((trusted.texts().into_iter().map(str::to_owned).collect(), trusted.id()));
                trusted.each(&mut |id| self.ledger.carried(id));
            }
            if let Some(to) = node.at("http.redirections.entryPoint") {
                self.redirection(to, &mut point);
            }
            points.push(point);
        }
        points
    }

    /// An entry point whose requests all go to another one.
    fn redirection(&mut self, node: &Node, point: &mut EntryPoint) {
        let scheme = node.get("scheme");
        let id = scheme.or(node.get("to")).map_or(node.id(), Node::id);
        let mut route = Block::new(format!("[[routes.{}]]", self.names.give(&point.name)), &[id]);
        route.vital("redirect.scheme", text(scheme.and_then(Node::text).unwrap_or("https")), &[id]);
        let is_permanent = node.get("permanent").and_then(Node::text) != Some("false");
        route.vital("redirect.status", if is_permanent { 301 } else { 302 }, &[]);
        route.vital("priority", MOST_PRIORITY, &[]);
        node.each(&mut |id| self.ledger.carried(id));
        point.is_used = true;
        point.blocks.push(route);
    }

    /// The entry points that a router has, by their positions.
    fn points_of(&mut self, router: &Node, points: &mut Vec<EntryPoint>, wants_tls: bool) -> Vec<usize> {
        let named: Vec<String> = match router.get("entryPoints") {
            Some(node) => {
                node.each(&mut |id| self.ledger.carried(id));
                node.texts().into_iter().map(str::to_owned).collect()
            }
            None if points.is_empty() => vec![if wants_tls { "websecure" } else { "web" }.to_owned()],
            None => {
                return (0..points.len())
                    .filter(|at| {
                        points
                            .get(*at)
                            .is_some_and(|point| point.is_tcp != Some(false) && point.pool.is_none())
                    })
                    .collect();
            }
        };
        let mut found = Vec::new();
        for name in named {
            if let Some(at) = points.iter().position(|point| point.name == name) {
                found.push(at);
                continue;
            }
            // The static configuration is another file.
            let port = match (name.as_str(), wants_tls) {
                ("web" | "http", _) | (_, false) => 80,
                _ => 443,
            };
            if let Some(node) = router.get("entryPoints") {
                self.ledger.adapted(node.id(), format!("the address of `{name}` stands in the static configuration: 0.0.0.0:{port} is a guess"));
            }
            points.push(EntryPoint {
                name,
                address: format!("0.0.0.0:{port}"),
                ids: vec![router.id()],
                tls: false,
                is_tcp: None,
                pool: None,
                blocks: Vec::new(),
                proxies: None,
                is_used: false,
            });
            found.push(points.len().saturating_sub(1));
        }
        found
    }

    fn router(
        &mut self,
        router: &'a Node,
        points: &mut Vec<EntryPoint>,
        middlewares: &[&'a (String, Node)],
        services: &mut Services<'a>,
    ) {
        let Some(rule) = router.get("rule") else { return };
        let found = match rule::read(rule.text().unwrap_or_default()) {
            Ok(found) => found,
            Err(problem) => {
                return router
                    .each(&mut |id| self.ledger.lost(id, format!("its rule cannot be carried: {problem}")));
            }
        };
        let wants_tls = router.get("tls").is_some();
        if let Some(tls) = router.get("tls") {
            self.ledger.carried(tls.id());
            if let Some(resolver) = tls.get("certResolver") {
                self.ledger.lost(resolver.id(), "certificates are not requested; have a program write them, and name them in [listeners.tls]");
            }
        }
        let mut route = Block::new("", &[router.id(), rule.id()]);
        // The rule is longer where it says more, which is what goes first there.
        let priority = router.get("priority");
        if let Some(value) = priority.and_then(|node| node.text()?.parse::<u64>().ok()) {
            route.vital("priority", value.min(MOST_PRIORITY), &[]);
            priority.iter().for_each(|node| self.ledger.carried(node.id()));
        }
        let mut edits = middleware::Edits::default();
        if let Some(list) = router.get("middlewares") {
            self.ledger.carried(list.id());
            for item in list.items() {
                let wanted = item.text().unwrap_or_default();
                let wanted = wanted.split('@').next().unwrap_or_default();
                match middlewares.iter().find(|(name, _)| name == wanted) {
                    Some((name, node)) => {
                        self.ledger.carried(item.id());
                        edits.take(name, node, self.ledger);
                    }
                    None => self.ledger.lost(item.id(), "there is no such middleware in these files"),
                }
            }
        }
        let target = if edits.redirects() {
            router
                .get("service")
                .iter()
                .for_each(|node| self.ledger.needless(node.id(), "every request is sent elsewhere"));
            Some(Vec::new())
        } else {
            router.get("service").and_then(|node| services.target(node, self.ledger))
        };
        let Some(target) = target else {
            return self.ledger.lost(rule.id(), "its service cannot be carried");
        };
        let points_of = self.points_of(router, points, wants_tls);
        self.ledger.carried(rule.id());
        for alternatives in by_hosts(&found) {
            let mut route = route.clone();
            conditions(&alternatives, &mut route, rule.id());
            edits.dress(&mut route);
            target.iter().for_each(|(key, value, id)| route.vital(key, value, &[*id]));
            for at in &points_of {
                let Some(point) = points.get_mut(*at) else { continue };
                if point.pool.is_some() {
                    self.ledger
                        .adapted(rule.id(), format!("not at {}, which forwards raw bytes", point.name));
                    continue;
                }
                // All of its requests are sent elsewhere.
                if !point.blocks.is_empty() {
                    continue;
                }
                point.is_used = true;
                point.is_tcp = Some(true);
                point.tls |= wants_tls;
                let name = point.name.clone();
                let table = self.tables.entry(name).or_default();
                table.push(route.clone());
            }
        }
    }

    /// A router of raw bytes or datagrams: its entry point has the one pool.
    fn raw(
        &mut self,
        kind: &str,
        router: &'a Node,
        points: &mut Vec<EntryPoint>,
        services: &mut Services<'a>,
    ) {
        let rule = router.get("rule");
        if let Some(rule) = rule {
            let all = matches!(rule.text(), Some("HostSNI(`*`)" | "HostSNI(\"*\")"));
            if !all {
                return router.each(&mut |id| {
                    self.ledger.lost(
                        id,
                        "write a route with `tls_passthrough` and `server_names` on a tls or h1s listener",
                    );
                });
            }
            self.ledger.carried(rule.id());
        }
        let Some(pool) = router.get("service").and_then(|node| services.raw(kind, node, self.ledger)) else {
            return;
        };
        let id = router.get("service").map_or(router.id(), Node::id);
        for at in self.points_of(router, points, router.get("tls").is_some()) {
            let Some(point) = points.get_mut(at) else { continue };
            if point.pool.is_some() {
                self.ledger.lost(id, "its entry point has another router already");
                continue;
            }
            point.is_used = true;
            point.is_tcp = Some(kind == "tcp");
            point.pool = Some((pool.clone(), id));
        }
    }

    /// Certificate and key of each entry, and what they stand in.
    fn certificates(&mut self) -> Vec<(String, String, DirectiveId)> {
        let mut found = Vec::new();
        let lists = self.documents.iter().filter_map(|document| document.at("tls.certificates"));
        let stores =
            self.documents.iter().filter_map(|document| document.at("tls.stores.default.defaultCertificate"));
        for node in stores.chain(lists.flat_map(Node::items)) {
            if let (Some(certificate), Some(key)) = (node.get("certFile"), node.get("keyFile")) {
                [certificate, key].iter().for_each(|node| self.ledger.carried(node.id()));
                found.push((
                    certificate.text().unwrap_or_default().to_owned(),
                    key.text().unwrap_or_default().to_owned(),
                    certificate.id(),
                ));
            }
        }
        found
    }

    fn listener(
        &mut self,
        point: EntryPoint,
        certificates: &[(String, String, DirectiveId)],
        root: &mut Block,
    ) {
        if !point.is_used {
            return point
                .ids
                .iter()
                .for_each(|id| self.ledger.lost(*id, "no router that is carried uses it"));
        }
        let mut listener = Block::new("[[listeners]]", &point.ids);
        listener.vital("address", text(&point.address), &point.ids);
        let is_raw = point.pool.is_some();
        let protocol = match (is_raw, point.is_tcp, point.tls) {
            (true, Some(false), _) => "udp",
            (true, ..) => "tcp",
            (false, _, true) => "h1s",
            (false, ..) => "h1",
        };
        listener.vital("protocol", text(protocol), &[]);
        if let Some((pool, id)) = &point.pool {
            listener.vital("pool", text(pool), &[*id]);
        }
        let table = self.names.give(&format!("at-{}", point.name));
        let mut routes = self.tables.remove(&point.name).unwrap_or_default();
        routes.extend(point.blocks);
        if !routes.is_empty() && !is_raw {
            listener.key("route_tables", texts(&[&table]), &[]);
            // Upgrades pass there by themselves.
            listener.blocks.push(Block::new("[listeners.websocket]", &[]));
        }
        if let Some((proxies, id)) = &point.proxies {
            let mut block = Block::new("[listeners.client_address]", &[*id]);
            block.vital("trusted_proxies", texts(proxies), &[*id]);
            listener.blocks.push(block);
        }
        if protocol == "h1s" {
            for (at, (certificate, key, id)) in certificates.iter().enumerate() {
                let mut block = Block::new(
                    if at == 0 { "[listeners.tls]" } else { "[[listeners.tls.certificates]]" },
                    &[*id],
                );
                block.vital("cert_path", text(certificate), &[*id]);
                block.vital("key_path", text(key), &[*id]);
                listener.blocks.push(block);
            }
            if certificates.is_empty() {
                // Without a certificate there is no such listener; its routes are to be seen all the same.
                let mut block = Block::new("[listeners.tls]", &[]);
                block.vital("cert_path", text("/etc/expressgateway/site.pem"), &[]);
                block.vital("key_path", text("/etc/expressgateway/site.key"), &[]);
                listener.blocks.push(block);
                point.ids.first().iter().for_each(|id| {
                    self.ledger.adapted(
                        **id,
                        "certificates are not named here: put them where cert_path and key_path say",
                    );
                });
            }
        }
        root.blocks.push(listener);
        for mut route in routes {
            route.rename(format!("[[routes.{table}]]"));
            root.blocks.push(route);
        }
    }
}

/// Alternatives by their hosts, since those are of a whole route.
fn by_hosts(found: &[Vec<Matcher>]) -> Vec<(Vec<String>, Vec<Vec<Matcher>>)> {
    let mut groups: Vec<(Vec<Matcher>, Vec<String>)> = Vec::new();
    for alternative in found {
        let (hosts, rest): (Vec<_>, Vec<_>) =
            alternative.iter().cloned().partition(|one| matches!(one, Matcher::Host(_)));
        let hosts =
            hosts.into_iter().filter_map(|one| if let Matcher::Host(host) = one { Some(host) } else { None });
        let hosts: Vec<String> = hosts.filter(|host| host != "*").collect();
        match groups
            .iter_mut()
            .find(|(known, known_hosts)| *known == rest && known_hosts.is_empty() == hosts.is_empty())
        {
            Some((_, known)) => known.extend(hosts),
            None => groups.push((rest, hosts)),
        }
    }
    let mut by_hosts: Vec<(Vec<String>, Vec<Vec<Matcher>>)> = Vec::new();
    for (rest, mut hosts) in groups {
        hosts.sort();
        hosts.dedup();
        match by_hosts.iter_mut().find(|(known, _)| *known == hosts) {
            Some((_, alternatives)) => alternatives.push(rest),
            None => by_hosts.push((hosts, vec![rest])),
        }
    }
    by_hosts
}

fn conditions((hosts, alternatives): &(Vec<String>, Vec<Vec<Matcher>>), route: &mut Block, id: DirectiveId) {
    if !hosts.is_empty() {
        route.vital("hosts", texts(hosts), &[id]);
    }
    let keys = |matchers: &[Matcher]| {
        let mut lists: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        let mut keys: Vec<(String, String)> = Vec::new();
        for one in matchers {
            match one {
                Matcher::Host(_) => {}
                Matcher::Path(key, path) => keys.push(((*key).to_owned(), text(path))),
                Matcher::Method(value) => lists.entry("methods").or_default().push(value.clone()),
                Matcher::Header(value) => lists.entry("headers").or_default().push(value.clone()),
                Matcher::Query(value) => lists.entry("query").or_default().push(value.clone()),
                Matcher::Source(value) => lists.entry("sources").or_default().push(value.clone()),
            }
        }
        keys.extend(lists.into_iter().map(|(key, values)| (key.to_owned(), texts(&values))));
        keys
    };
    match alternatives.as_slice() {
        [only] => keys(only).iter().for_each(|(key, value)| route.vital(key, value, &[id])),
        several => {
            let sets = several.iter().map(|set| {
                let keys: Vec<_> = keys(set).iter().map(|(key, value)| format!("{key} = {value}")).collect();
                format!("{{ {} }}", keys.join(", "))
            });
            route.vital("matches", format!("[{}]", sets.collect::<Vec<_>>().join(", ")), &[id]);
        }
    }
}
