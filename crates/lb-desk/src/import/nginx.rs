//! nginx: `http` and `stream` blocks, their servers, locations and upstreams.

mod advice;
mod location;
mod scope;
mod stream;
mod syntax;
mod upstream;
mod values;

use std::collections::BTreeMap;

use super::Files;
use super::ledger::{DirectiveId, Ledger};
use super::names::{Names, millis};
use super::output::{Block, text, texts};
use location::{Making, Paths};
use scope::Scope;
use syntax::Directive;
use upstream::Pools;

/// Reads a configuration, and gives what it becomes.
pub(super) fn read(
    name: &str,
    contents: &str,
    files: &dyn Files,
    ledger: &mut Ledger,
) -> Result<Block, String> {
    let directives = syntax::read(name, contents, files, ledger)?;
    let mut root = Block::default();
    let (mut pools, mut names) = (Pools::default(), Names::default());
    let mut rest = Vec::new();
    for directive in &directives {
        match (directive.name.as_str(), &directive.block) {
            ("http", Some(block)) => {
                ledger.carried(directive.id);
                http(block, &mut root, &mut rest, &mut pools, &mut names, ledger);
            }
            ("stream", Some(block)) => {
                ledger.carried(directive.id);
                stream::read(block, &mut rest, &mut pools, ledger);
            }
            // A file that is included elsewhere begins inside `http`.
            ("server" | "upstream", Some(_)) => {}
            _ => process(directive, &mut root, ledger),
        }
    }
    if directives.iter().any(|one| matches!(one.name.as_str(), "server" | "upstream")) {
        http(&directives, &mut root, &mut rest, &mut pools, &mut names, ledger);
    }
    pools.leave_unused(ledger);
    root.blocks.append(&mut rest);
    root.blocks.append(&mut pools.blocks);
    Ok(root)
}

/// Directives of the process, and those inside that need nothing.
fn process(directive: &Directive, root: &mut Block, ledger: &mut Ledger) {
    let (id, first) = (directive.id, directive.args.first().map(String::as_str).unwrap_or_default());
    match directive.name.as_str() {
        "worker_processes" if first == "auto" => {
            ledger.needless(id, "there is a worker for each core unless runtime.workers says otherwise");
        }
        "worker_processes" => {
            root.key("runtime.workers", first, &[id]);
            ledger.carried(id);
        }
        "access_log" if first == "off" => ledger.needless(id, "there is no access log unless one is named"),
        "access_log" if first.starts_with('/') && !first.contains('$') => {
            if root.has("observability.access_log") {
                return ledger.lost(id, "there is one access log for all listeners; its lines have `listener`, `host` and `route`");
            }
            root.key("observability.access_log", text(first), &[id]);
            root.key("observability.access_log_format", text("combined"), &[id]);
            ledger.carried(id);
            if directive.args.len() > 1 {
                ledger.adapted(id, "its format is `combined`; observability.access_log_format takes others");
            }
        }
        name => {
            if let Some(why) = advice::needless(name) {
                ledger.needless(id, why);
            } else if let Some(instead) = advice::instead(name) {
                ledger.lost(id, instead);
            }
        }
    }
    // What stands in a block that needs nothing needs nothing; all else is told by itself.
    for inner in directive.block.iter().flatten() {
        process(inner, root, ledger);
    }
}

/// What is known of a listener.
#[derive(Default)]
struct Front<'a> {
    servers: Vec<(&'a Directive, bool)>,
    tls: bool,
    http2: bool,
    listens: Vec<DirectiveId>,
}

fn http<'a>(
    directives: &'a [Directive],
    root: &mut Block,
    out: &mut Vec<Block>,
    pools: &mut Pools<'a>,
    names: &mut Names,
    ledger: &mut Ledger,
) {
    let mut scope = Scope::default();
    scope.take(directives, ledger);
    let mut fronts: BTreeMap<String, Front<'a>> = BTreeMap::new();
    let mut order: Vec<String> = Vec::new();
    let mut listener_keys = Vec::new();
    for directive in directives {
        match directive.name.as_str() {
            "upstream" => pools.know(directive),
            "server" => {
                let block = directive.block.as_deref().unwrap_or_default();
                let listens: Vec<&Directive> = block.iter().filter(|one| one.name == "listen").collect();
                if listens.is_empty() {
                    fronts.entry("0.0.0.0:80".to_owned()).or_default().servers.push((directive, false));
                    order.push("0.0.0.0:80".to_owned());
                }
                for listen in listens {
                    if let Some(address) = self::listen(listen, directive, &mut fronts, ledger) {
                        order.push(address);
                    }
                }
            }
            _ if listener_key(directive, &mut listener_keys, root, ledger) => {}
            _ => process(directive, root, ledger),
        }
    }
    let mut made: BTreeMap<DirectiveId, Server> = BTreeMap::new();
    let mut policies = Vec::new();
    let mut tables = Vec::new();
    let mut seen = std::collections::BTreeSet::new();
    for address in order.into_iter().filter(|address| seen.insert(address.clone())) {
        let Some(front) = fronts.get(&address) else { continue };
        let mut listener = Block::new("[[listeners]]", &front.listens);
        listener.vital("address", text(&address), &front.listens);
        listener.vital("protocol", text(if front.tls { "h1s" } else { "h1" }), &[]);
        if front.http2 && !front.tls {
            listener.key("h2c", "true", &[]);
        }
        for (key, value, id) in &listener_keys {
            listener.key(&format!("http.{key}"), value, &[*id]);
        }
        // The first server takes what no name of the others fits, unless another is marked for it.
        let default = front.servers.iter().position(|(_, is_default)| *is_default).unwrap_or_default();
        for (at, (directive, _)) in front.servers.iter().enumerate() {
            let server = made.entry(directive.id).or_insert_with(|| {
                let made = server(directive, &scope, root, (pools, &mut policies, names, ledger));
                tables.extend(made.routes.clone());
                made
            });
            certificate(&mut listener, server, front.tls, at == default);
            if let Some(id) = server.websocket
                && !listener.blocks.iter().any(|block| block.header() == "[listeners.websocket]")
            {
                listener.blocks.push(Block::new("[listeners.websocket]", &[id]));
            }
            if server.routes.is_empty() {
                continue;
            }
            if at == default {
                listener.key("route_tables", texts(&[&server.table]), &[directive.id]);
            } else if !server.names.is_empty() {
                let mut host = Block::new("[[listeners.virtual_hosts]]", &[directive.id]);
                host.vital("hosts", texts(&server.names), &server.name_ids);
                host.vital("route_tables", texts(&[&server.table]), &[directive.id]);
                listener.blocks.push(host);
            }
        }
        let leads = listener.has("route_tables")
            || listener.blocks.iter().any(|block| block.header().ends_with("virtual_hosts]]"));
        if leads {
            out.push(listener);
        } else {
            front
                .listens
                .iter()
                .for_each(|id| ledger.taken_out(*id, "nothing that is carried is behind this address"));
        }
    }
    out.append(&mut tables);
    out.append(&mut policies);
}

/// Notes an address that a server listens at.
fn listen<'a>(
    listen: &Directive,
    server: &'a Directive,
    fronts: &mut BTreeMap<String, Front<'a>>,
    ledger: &mut Ledger,
) -> Option<String> {
    let id = listen.id;
    let mut args = listen.args.iter().map(String::as_str);
    let address = stream::bind(args.next().unwrap_or_default(), 80);
    let options: Vec<&str> = args.collect();
    if options.contains(&"quic") {
        ledger.lost(
            id,
            "write a listener with protocol = \"quic\" and [listeners.quic] with a retry_secret_path",
        );
        return None;
    }
    ledger.carried(id);
    let front = fronts.entry(address.clone()).or_default();
    front.listens.push(id);
    let mut is_default = false;
    for option in options {
        match option.split('=').next().unwrap_or_default() {
            "ssl" => front.tls = true,
            "http2" | "spdy" => front.http2 = true,
            "default_server" | "default" => is_default = true,
            "reuseport" | "deferred" | "backlog" | "so_keepalive" | "ipv6only" | "rcvbuf" | "sndbuf"
            | "fastopen" | "bind" => {}
            "proxy_protocol" => ledger.adapted(
                id,
                "PROXY protocol is left out: write [listeners.proxy_protocol] with the trusted networks",
            ),
            other => ledger.adapted(id, format!("`{other}` is left out, which the import does not know")),
        }
    }
    if !front.servers.iter().any(|(known, _)| known.id == server.id) {
        front.servers.push((server, is_default));
    }
    Some(address)
}

/// Takes in a directive that is one of all listeners.
fn listener_key(
    directive: &Directive,
    keys: &mut Vec<(&'static str, u64, DirectiveId)>,
    root: &mut Block,
    ledger: &mut Ledger,
) -> bool {
    let Some(time) = directive.args.first().and_then(|time| millis(time, 1000)) else { return false };
    let key = match directive.name.as_str() {
        "keepalive_timeout" if time > 0 => "keepalive_timeout_ms",
        "client_header_timeout" => "header_timeout_ms",
        "proxy_connect_timeout" => {
            root.key("runtime.connect_timeout_ms", time, &[directive.id]);
            ledger.adapted(directive.id, "the time for a connect is one for the whole process");
            return true;
        }
        _ => return false,
    };
    keys.push((key, time, directive.id));
    ledger.carried(directive.id);
    true
}

/// What a server has become.
struct Server {
    table: String,
    names: Vec<String>,
    name_ids: Vec<DirectiveId>,
    routes: Vec<Block>,
    certificate: Option<(String, DirectiveId)>,
    key: Option<(String, DirectiveId)>,
    websocket: Option<DirectiveId>,
}

/// What all servers add to.
type Shared<'a, 'b> = (&'b mut Pools<'a>, &'b mut Vec<Block>, &'b mut Names, &'b mut Ledger);

fn server<'a>(
    directive: &'a Directive,
    outside: &Scope,
    root: &mut Block,
    (pools, policies, names, ledger): Shared<'a, '_>,
) -> Server {
    let directives = directive.block.as_deref().unwrap_or_default();
    ledger.carried(directive.id);
    let (mut hosts, mut name_ids) = (Vec::new(), Vec::new());
    let mut files = [None, None];
    for one in directives {
        let first = one.args.first().cloned().unwrap_or_default();
        match one.name.as_str() {
            "server_name" => {
                ledger.carried(one.id);
                name_ids.push(one.id);
                one.args.iter().for_each(|name| host(name, one.id, &mut hosts, ledger));
            }
            "ssl_certificate" | "ssl_certificate_key" => {
                let place = if one.name == "ssl_certificate" { files.first_mut() } else { files.last_mut() };
                if let Some(place) = place {
                    *place = Some((first, one.id));
                    ledger.carried(one.id);
                }
            }
            "ssl" => ledger.needless(one.id, "the protocol of the listener says it"),
            "access_log" => process(one, root, ledger),
            "keepalive_timeout" | "client_header_timeout" | "proxy_connect_timeout" => {
                ledger.lost(
                    one.id,
                    "this is one for the listener ([listeners.http]) or the process ([runtime])",
                );
            }
            _ => {}
        }
    }
    let wanted = hosts.first().map_or("default", |name: &String| name.trim_start_matches("*."));
    let table = names.give(wanted);
    let has_preferred = directives
        .iter()
        .any(|one| one.name == "location" && one.args.first().is_some_and(|kind| kind.starts_with("^~")));
    let mut making = Making {
        pools,
        policies,
        names,
        ledger,
        table: table.clone(),
        routes: Vec::new(),
        websocket: None,
        has_preferred,
    };
    making.block(directives, outside, &Paths::Prefix("/".to_owned()), (directive.id, false, false));
    let (routes, websocket) = (making.routes, making.websocket);
    if routes.is_empty() {
        ledger.lost(directive.id, "nothing in it is carried: no request becomes one of its own");
    }
    let [certificate, key] = files;
    Server { table, names: hosts, name_ids, routes, certificate, key, websocket }
}

/// A name of a server as ours are written.
fn host(name: &str, id: DirectiveId, hosts: &mut Vec<String>, ledger: &mut Ledger) {
    match name {
        "" | "_" | "$hostname" | "localhost" if name != "localhost" => {}
        _ if name.starts_with('~') => {
            ledger.adapted(id, format!("the expression {name} is left out: name the hosts"));
        }
        _ if name.ends_with(".*") => {
            ledger.adapted(id, format!("{name} is left out: a wildcard stands at the beginning"));
        }
        _ => match name.strip_prefix('.') {
            Some(domain) => hosts.extend([domain.to_owned(), format!("*.{domain}")]),
            None => hosts.push(name.to_owned()),
        },
    }
}

fn certificate(listener: &mut Block, server: &Server, is_tls: bool, is_default: bool) {
    let (true, Some((certificate, certificate_id)), Some((key, key_id))) =
        (is_tls, &server.certificate, &server.key)
    else {
        return;
    };
    let has_own = listener.blocks.iter().any(|block| block.header() == "[listeners.tls]");
    let ids = [*certificate_id, *key_id];
    let header = if has_own { "[[listeners.tls.certificates]]" } else { "[listeners.tls]" };
    let mut block = Block::new(header, &ids);
    block.vital("cert_path", text(certificate), &ids);
    block.vital("key_path", text(key), &ids);
    if has_own && !is_default && !server.names.is_empty() {
        let names: Vec<_> =
            server.names.iter().filter(|name| name.parse::<std::net::IpAddr>().is_err()).collect();
        block.key("server_names", texts(&names), &server.name_ids);
    }
    if !has_own {
        // The block of the first certificate stands before all others of the listener.
        listener.blocks.insert(0, block);
        return;
    }
    let after = listener
        .blocks
        .iter()
        .take_while(|block| {
            block.header().starts_with("[listeners.tls]") || block.header().starts_with("[[listeners.tls.")
        })
        .count();
    listener.blocks.insert(after, block);
}
