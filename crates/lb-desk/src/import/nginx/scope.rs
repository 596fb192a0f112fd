//! What a block of nginx hands down to the blocks inside it.

use super::super::ledger::{DirectiveId, Ledger};
use super::super::names::{bytes, millis};
use super::super::output::{Block, text, texts};
use super::syntax::Directive;
use super::values::template;

/// A field that is set, with the directive.
type FieldEdit = (String, DirectiveId);

/// Settings that blocks inside have, unless they have their own.
#[derive(Clone, Debug, Default)]
pub(super) struct Scope {
    request_set: Vec<FieldEdit>,
    request_remove: Vec<FieldEdit>,
    response_add: Vec<FieldEdit>,
    response_remove: Vec<FieldEdit>,
    /// Keys of `http` of a route.
    http: Vec<(&'static str, u64, DirectiveId)>,
    allow: Vec<FieldEdit>,
    deny: Vec<FieldEdit>,
    host: Option<FieldEdit>,
    /// Who keeps the host that the client asked for.
    pub(super) keeps_host: bool,
    /// WebSockets pass.
    pub(super) websocket: Option<DirectiveId>,
}

impl Scope {
    /// Takes in what the directives of a block set. What is none of this is left alone.
    pub(super) fn take(&mut self, directives: &[Directive], ledger: &mut Ledger) {
        // As in nginx, one of a kind in a block replaces all of that kind outside.
        let has = |name: &str| directives.iter().any(|one| one.name == name);
        if has("proxy_set_header") {
            (self.request_set, self.request_remove) = (Vec::new(), Vec::new());
            (self.host, self.keeps_host, self.websocket) = (None, false, None);
        }
        if has("add_header") {
            self.response_add.clear();
        }
        if has("proxy_hide_header") {
            self.response_remove.clear();
        }
        if has("allow") || has("deny") {
            (self.allow, self.deny) = (Vec::new(), Vec::new());
        }
        directives.iter().for_each(|one| self.one(one, ledger));
    }

    fn one(&mut self, directive: &Directive, ledger: &mut Ledger) {
        let id = directive.id;
        let arg = |at: usize| directive.args.get(at).map(String::as_str).unwrap_or_default();
        match directive.name.as_str() {
            "proxy_set_header" => self.set_header(arg(0), arg(1), id, ledger),
            "add_header" => match template(arg(1)) {
                Some(value) => {
                    self.response_add.push((format!("{}: {value}", arg(0)), id));
                    ledger.carried(id);
                    if directive.args.get(2).is_none_or(|word| word != "always") {
                        ledger.adapted(id, "it is added to responses of every status");
                    }
                }
                None => ledger
                    .lost(id, "write it in `response_headers`; the value has a variable without counterpart"),
            },
            "proxy_hide_header" => {
                self.response_remove.push((arg(0).to_owned(), id));
                ledger.carried(id);
            }
            "client_max_body_size" => match bytes(arg(0)) {
                Some(0) => ledger.needless(id, "there is no cap unless one is set"),
                Some(most) => self.time("max_request_body_bytes", most, id, ledger),
                None => {}
            },
            "proxy_read_timeout" => {
                if let Some(time) = millis(arg(0), 1000) {
                    self.time("head_timeout_ms", time, id, ledger);
                    self.time("response_idle_timeout_ms", time, id, ledger);
                }
            }
            "proxy_send_timeout" | "send_timeout" => {
                if let Some(time) = millis(arg(0), 1000) {
                    self.time("write_timeout_ms", time, id, ledger);
                }
            }
            "client_body_timeout" => {
                if let Some(time) = millis(arg(0), 1000) {
                    self.time("body_timeout_ms", time, id, ledger);
                }
            }
            "allow" | "deny" if arg(0) == "all" => {
                if directive.name == "deny" {
                    self.deny.push(("all".to_owned(), id));
                }
                ledger.carried(id);
            }
            "allow" | "deny" => {
                let list = if directive.name == "allow" { &mut self.allow } else { &mut self.deny };
                list.push((arg(0).to_owned(), id));
                ledger.adapted(id, "the longest prefix decides, not the order");
            }
            _ => {}
        }
    }

    fn time(&mut self, key: &'static str, value: u64, id: DirectiveId, ledger: &mut Ledger) {
        self.http.retain(|(known, ..)| *known != key);
        self.http.push((key, value, id));
        ledger.carried(id);
    }

    fn set_header(&mut self, name: &str, value: &str, id: DirectiveId, ledger: &mut Ledger) {
        let lower = name.to_ascii_lowercase();
        match (lower.as_str(), value) {
            ("host", "$host" | "$http_host" | "$host:$server_port" | "$http_host:$server_port") => {
                self.keeps_host = true;
                ledger.needless(id, "backends are asked for the host that the client asked for");
            }
            ("host", _) if !value.contains('$') && !value.is_empty() => {
                self.host = Some((value.to_owned(), id));
                ledger.carried(id);
            }
            ("host", _) => ledger.lost(id, "write `rewrite.host` in the route"),
            ("upgrade", _) => {
                self.websocket = Some(id);
                ledger.carried(id);
            }
            ("connection", "") => ledger.needless(id, "connections to backends are kept by themselves"),
            ("connection", _) => ledger.needless(id, "[listeners.websocket] sets the fields of upgrades"),
            (
                "x-forwarded-for" | "x-forwarded-proto" | "x-forwarded-host" | "x-forwarded-port"
                | "forwarded",
                _,
            ) => {
                ledger.needless(id, "the gateway tells backends the client by itself");
            }
            (_, "") => {
                self.request_remove.push((name.to_owned(), id));
                ledger.carried(id);
            }
            _ => match template(value) {
                Some(value) => {
                    self.request_set.push((format!("{name}: {value}"), id));
                    ledger.carried(id);
                }
                None => ledger
                    .lost(id, "write it in `request_headers`; the value has a variable without counterpart"),
            },
        }
    }

    /// Gives a route that asks a backend what is set for it. `policies` gets an access list, if there is one.
    pub(super) fn dress(&self, route: &mut Block, is_forwarded: bool) {
        let list = |route: &mut Block, key: &str, edits: &[FieldEdit]| {
            if !edits.is_empty() {
                let values: Vec<_> = edits.iter().map(|(value, _)| value).collect();
                let ids: Vec<_> = edits.iter().map(|(_, id)| *id).collect();
                route.key(key, texts(&values), &ids);
            }
        };
        list(route, "response_headers.add", &self.response_add);
        list(route, "response_headers.remove", &self.response_remove);
        if !is_forwarded {
            return;
        }
        list(route, "request_headers.set", &self.request_set);
        list(route, "request_headers.remove", &self.request_remove);
        for (key, value, id) in &self.http {
            route.key(&format!("http.{key}"), value, &[*id]);
        }
        if let Some((host, id)) = &self.host {
            route.key("rewrite.host", text(host), &[*id]);
        }
    }

    /// The access list, if there is one: the block of its policy, without a name.
    pub(super) fn access(&self, name: &str) -> Option<Block> {
        if self.allow.is_empty() && self.deny.is_empty() {
            return None;
        }
        let ids: Vec<_> = self.allow.iter().chain(&self.deny).map(|(_, id)| *id).collect();
        let mut block = Block::new(format!("[policies.{name}.access]"), &ids);
        let values = |list: &[FieldEdit]| {
            list.iter().map(|(value, _)| value.clone()).filter(|value| value != "all").collect::<Vec<_>>()
        };
        let (mut allow, mut deny) = (values(&self.allow), values(&self.deny));
        let denies_all = self.deny.iter().any(|(value, _)| value == "all");
        if !denies_all && !allow.is_empty() {
            // Whom no line names is let in there, and refused here as soon as anybody is allowed.
            allow.extend(["0.0.0.0/0".to_owned(), "::/0".to_owned()]);
        }
        if !allow.is_empty() {
            block.key("allow", texts(&allow), &ids);
        }
        if denies_all && allow.is_empty() {
            deny.extend(["0.0.0.0/0".to_owned(), "::/0".to_owned()]);
        }
        if !deny.is_empty() {
            block.key("deny", texts(&deny), &ids);
        }
        Some(block)
    }
}
