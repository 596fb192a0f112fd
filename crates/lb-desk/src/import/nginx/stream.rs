//! `stream`: servers of raw bytes and datagrams.

use super::super::ledger::Ledger;
use super::super::names::millis;
use super::super::output::{Block, text};
use super::advice;
use super::syntax::Directive;
use super::upstream::Pools;

/// Reads the block.
pub(super) fn read<'a>(
    directives: &'a [Directive],
    out: &mut Vec<Block>,
    pools: &mut Pools<'a>,
    ledger: &mut Ledger,
) {
    for directive in directives {
        match directive.name.as_str() {
            "upstream" => pools.know(directive),
            "server" => {}
            name => settle(directive, name, ledger),
        }
    }
    for directive in directives.iter().filter(|one| one.name == "server") {
        server(directive, out, pools, ledger);
    }
}

fn settle(directive: &Directive, name: &str, ledger: &mut Ledger) {
    if let Some(why) = advice::needless(name) {
        ledger.needless(directive.id, why);
    } else if let Some(instead) = advice::instead(name) {
        ledger.lost(directive.id, instead);
    }
}

fn server(directive: &Directive, out: &mut Vec<Block>, pools: &mut Pools<'_>, ledger: &mut Ledger) {
    let inner = directive.block.as_deref().unwrap_or_default();
    let find = |name: &str| inner.iter().find(|one| one.name == name);
    let Some(pass) = find("proxy_pass") else {
        return ledger.lost(directive.id, "a server without proxy_pass has nothing to forward to");
    };
    let target = pass.args.first().map(String::as_str).unwrap_or_default();
    if target.contains('$') {
        ledger.lost(pass.id, "a backend cannot be chosen by a variable; [passthrough] and tls_passthrough choose by server name");
        return ledger.lost(directive.id, "its backend is chosen by a variable");
    }
    let secure = find("proxy_ssl").is_some_and(|one| one.args.first().is_some_and(|word| word == "on"));
    let pool = pools.of(target, secure, false, pass.id, ledger);
    ledger.carried(directive.id);
    ledger.carried(pass.id);
    for one in inner {
        match one.name.as_str() {
            "proxy_ssl" => ledger.carried(one.id),
            "listen" | "proxy_pass" | "proxy_timeout" | "ssl_certificate" | "ssl_certificate_key" => {}
            name => settle(one, name, ledger),
        }
    }
    for listen in inner.iter().filter(|one| one.name == "listen") {
        let mut args = listen.args.iter().map(String::as_str);
        let address = bind(args.next().unwrap_or_default(), 0);
        let options: Vec<&str> = args.collect();
        let protocol = match (options.contains(&"udp"), options.contains(&"ssl")) {
            (true, _) => "udp",
            (_, true) => "tls",
            _ => "tcp",
        };
        ledger.carried(listen.id);
        let mut listener = Block::new("[[listeners]]", &[directive.id, listen.id]);
        listener.vital("address", text(&address), &[listen.id]);
        listener.vital("protocol", text(protocol), &[listen.id]);
        listener.vital("pool", text(&pool), &[pass.id]);
        if let Some(idle) = find("proxy_timeout")
            && let Some(time) = idle.args.first().and_then(|time| millis(time, 1000))
        {
            let block = if protocol == "udp" { "udp" } else { "tcp" };
            listener.key(&format!("{block}.idle_timeout_ms"), time, &[idle.id]);
            ledger.carried(idle.id);
        }
        if let (true, Some(certificate), Some(key)) =
            (protocol == "tls", find("ssl_certificate"), find("ssl_certificate_key"))
        {
            for (name, one) in [("tls.cert_path", certificate), ("tls.key_path", key)] {
                listener.key(name, text(one.args.first().map(String::as_str).unwrap_or_default()), &[one.id]);
                ledger.carried(one.id);
            }
        }
        out.push(listener);
    }
}

/// An address as ours are written: `80`, `*:80`, `[::]:80`, `example.org`.
pub(super) fn bind(address: &str, port: u16) -> String {
    if address.starts_with("unix:") {
        return address.to_owned();
    }
    if !address.is_empty() && address.bytes().all(|byte| byte.is_ascii_digit()) {
        return format!("0.0.0.0:{address}");
    }
    let address = address.replace("*:", "0.0.0.0:");
    let has_port =
        address.rsplit_once(':').is_some_and(|(host, _)| !host.contains(':') || host.ends_with(']'));
    if has_port { address } else { format!("{address}:{port}") }
}
