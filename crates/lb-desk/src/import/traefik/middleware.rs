//! Middlewares, and the keys of a route that they become.

use super::super::ledger::{DirectiveId, Ledger};
use super::super::output::{Block, text, texts};
use super::yaml::Node;

/// What middlewares do to the requests of a router.
#[derive(Debug, Default)]
pub(super) struct Edits {
    lists: Vec<(&'static str, String, DirectiveId)>,
    keys: Vec<(&'static str, String, DirectiveId)>,
}

impl Edits {
    /// Whether requests are sent elsewhere.
    pub(super) fn redirects(&self) -> bool {
        self.keys.iter().any(|(key, ..)| key.starts_with("redirect."))
    }

    /// Takes a middleware in.
    pub(super) fn take(&mut self, name: &str, node: &Node, ledger: &mut Ledger) {
        for (kind, settings) in node.entries() {
            match kind.to_ascii_lowercase().as_str() {
                "headers" => self.headers(settings, ledger),
                "redirectscheme" => {
                    self.all(settings, ledger, |key, value| match key {
                        "scheme" => Some(("redirect.scheme", text(value))),
                        "port" => Some(("redirect.port", value.to_owned())),
                        "permanent" => {
                            Some(("redirect.status", if value == "true" { "301" } else { "302" }.to_owned()))
                        }
                        _ => None,
                    });
                }
                "addprefix" => {
                    self.all(settings, ledger, |key, value| {
                        (key == "prefix").then(|| ("rewrite.prefix", text(value)))
                    });
                    ledger.adapted(
                        settings.id(),
                        "it stands in place of the route's path_prefix: write that in front of it too",
                    );
                }
                "stripprefix" => match settings.get("prefixes") {
                    Some(prefixes) => {
                        self.keys.push(("rewrite.prefix", text("/"), prefixes.id()));
                        prefixes.each(&mut |id| {
                            ledger.adapted(id, "the path_prefix of the route is what is taken off");
                        });
                    }
                    None => continue,
                },
                "replacepath" => {
                    self.all(settings, ledger, |key, value| {
                        (key == "path").then(|| ("rewrite.path", text(value)))
                    });
                }
                "compress" => {
                    settings.each(&mut |id| ledger.lost(id, "bodies are not compressed; let backends do it"));
                }
                "ipallowlist" | "ipwhitelist" => {
                    settings.each(&mut |id| ledger.lost(id, "write [policies.NAME.access] with `allow`, and name it in `policies` of the route"));
                }
                "ratelimit" | "inflightreq" => {
                    settings.each(&mut |id| ledger.lost(id, "write [policies.NAME.rate_limit] or .concurrency, and name it in `policies` of the route"));
                }
                "basicauth" | "digestauth" | "forwardauth" => {
                    settings.each(&mut |id| {
                        ledger.lost(id, "requests are not authenticated here: let the backend do it");
                    });
                }
                "chain" => settings
                    .each(&mut |id| ledger.lost(id, "name the middlewares at the router, and import again")),
                _ => {
                    settings.each(&mut |id| ledger.lost(id, format!("middleware {name} has no counterpart")));
                }
            }
        }
    }

    fn all(
        &mut self,
        node: &Node,
        ledger: &mut Ledger,
        ours: impl Fn(&str, &str) -> Option<(&'static str, String)>,
    ) {
        for (key, value) in node.entries() {
            if let Some((name, written)) = ours(&key.to_ascii_lowercase(), value.text().unwrap_or_default()) {
                self.keys.push((name, written, value.id()));
                ledger.carried(value.id());
            }
        }
    }

    fn headers(&mut self, node: &Node, ledger: &mut Ledger) {
        for (key, value) in node.entries() {
            let id = value.id();
            let (set, remove) = match key.to_ascii_lowercase().as_str() {
                "customrequestheaders" => ("request_headers.set", "request_headers.remove"),
                "customresponseheaders" => ("response_headers.set", "response_headers.remove"),
                "stsseconds" => {
                    self.lists.push((
                        "response_headers.set",
                        format!("Strict-Transport-Security: max-age={}", value.text().unwrap_or_default()),
                        id,
                    ));
                    ledger.carried(id);
                    continue;
                }
                "framedeny" if value.text() == Some("true") => {
                    self.lists.push(("response_headers.set", "X-Frame-Options: DENY".to_owned(), id));
                    ledger.carried(id);
                    continue;
                }
                "contenttypenosniff" if value.text() == Some("true") => {
                    self.lists.push((
                        "response_headers.set",
                        "X-Content-Type-Options: nosniff".to_owned(),
                        id,
                    ));
                    ledger.carried(id);
                    continue;
                }
                "sslredirect" | "sslhost" | "sslproxyheaders" => {
                    value.each(&mut |id| {
                        ledger.lost(id, "write a route with `scheme = \"http\"` and `redirect.scheme`");
                    });
                    continue;
                }
                key if key.starts_with("accesscontrol") => {
                    value.each(&mut |id| ledger.lost(id, "write [policies.NAME.cors]"));
                    continue;
                }
                _ => {
                    value.each(&mut |id| ledger.lost(id, "write it in `response_headers` of the route"));
                    continue;
                }
            };
            ledger.carried(id);
            for (name, value) in value.entries() {
                let id = value.id();
                match value.text().unwrap_or_default() {
                    "" => self.lists.push((remove, name.clone(), id)),
                    written => self.lists.push((set, format!("{name}: {written}"), id)),
                }
                if name.to_ascii_lowercase().starts_with("x-forwarded-") {
                    self.lists.pop();
                    ledger.needless(id, "the gateway tells backends the client by itself");
                } else {
                    ledger.carried(id);
                }
            }
        }
    }

    /// Gives a route what is done.
    pub(super) fn dress(&self, route: &mut Block) {
        let has_redirect = self.redirects();
        for (key, value, id) in &self.keys {
            // What is sent elsewhere asks no backend.
            if !has_redirect || key.starts_with("redirect.") {
                route.vital(key, value, &[*id]);
            }
        }
        for key in [
            "request_headers.set",
            "request_headers.remove",
            "response_headers.set",
            "response_headers.remove",
        ] {
            let of_key: Vec<_> = self.lists.iter().filter(|(known, ..)| *known == key).collect();
            if of_key.is_empty() || has_redirect && key.starts_with("request") {
                continue;
            }
            let values: Vec<_> = of_key.iter().map(|(_, value, _)| value).collect();
            let ids: Vec<_> = of_key.iter().map(|(.., id)| *id).collect();
            route.key(key, texts(&values), &ids);
        }
    }
}
