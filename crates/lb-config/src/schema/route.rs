//! Routes: `[[listeners.routes]]`, `[[routes.NAME]]` and what stands inside them.

use lb_core::route::Scheme;

use super::filter::{REQUEST_HEADERS, RESPONSE_HEADERS, REWRITE};
use super::http::HTTP_PROTOCOLS;
use super::limits::{ROUTE_HTTP, ROUTE_RETRY};
use super::mirror::MIRROR;
use super::split::{SPLIT, STICKY};
use super::{Block, Key, On, Text};

macro_rules! conditions {
    ($($more:expr,)*) => {
        [
            Key::text("path", Text::RoutePath).or_else("any").live("The path of the request is this."),
            Key::text("path_prefix", Text::RoutePath).or_else("any").live(
                "The path begins with these segments: `/shop` is for `/shop` and `/shop/cart`, not for `/shopping`. A slash at the end does not count.",
            ),
            Key::text("path_regex", Text::Regex).or_else("any").live("The whole path matches this regular expression."),
            Key::flag("ignore_case", false).live("Whether letter case of the path does not count."),
            Key::texts("methods", Text::Token).or_else("any").live("The method is one of these. `GET` is not for HEAD."),
            Key::texts("headers", Text::ValueCondition).or_else("none").live(
                "Conditions on fields, of which all must hold: `\"N=value\"`, `\"N\"` (there is one), `\"!N\"` (there is none), `\"N~regex\"` (the \
                 whole value matches). Several lines of a field are one value with `, ` between.",
            ),
            Key::texts("query", Text::ValueCondition).or_else("none").live(
                "Conditions on parameters of the query, decoded; of a repeated parameter the first counts.",
            ),
            Key::texts("cookies", Text::ValueCondition).or_else("none").live("Conditions on cookies."),
            Key::texts("sources", Text::Network).or_else("any").live(
                "The client's address is in one of these networks (CIDR). A client of a Unix socket is in none.",
            ),
            Key::word("scheme", Scheme::WORDS).or_else("any").live("The client came inside TLS (`https`), or did not."),
            Key::texts("server_names", Text::HostPattern).or_else("any").live(
                "The client has asked for one of these names in its TLS handshake (SNI); written as `hosts`. Without TLS, or without a name, none holds.",
            ),
            Key::texts("alpn", Text::NotBlank).or_else("any").live(
                "The protocol that was chosen on the client's connection is one of these, such as `h2` or `http/1.1`.",
            ),
            Key::word("client_cert", &["any", "none"]).or_else("not looked at").live(
                "Whether the client has shown a certificate, which is always a verified one. Needs `client_auth` where the listener is inside TLS.",
            ),
            Key::texts("client_certs", Text::CertificatePattern).or_else("any").live(
                "The client has shown a certificate that is one of these: `sha256:` and its fingerprint in hex, `subject:` and its whole subject as \
                 `X-Client-Cert-Subject` has it, `dns:` or `uri:` and an alternative name; a `*` at the end stands for any rest. Needs `client_auth` \
                 where the listener is inside TLS.",
            ),
            $($more,)*
        ]
    };
}

/// The keys of a route, wherever it stands.
static ROUTE_KEYS: [Key; 33] = conditions![
    Key::text("name", Text::RouteName).or_else("none").live(
        "What logs and metrics call it; unique in the file.",
    ),
    Key::texts("hosts", Text::HostPattern).or_else("any").live(
        "The request asks for one of these hosts: exact ones, `*.example.org` for any number of labels below a domain but not the domain itself, \
         IP addresses. Letter case, port and a last dot do not count.",
    ),
    Key::integer("priority", 0, 1000, "").or(0).live(
        "What goes before all conditions but the host where several routes match: more is first. Needed only where the usual order is not what is wanted.",
    ),
    Key::blocks("matches", &MATCHES),
    Key::text("pool", Text::NotBlank).or_else("another target").live("The name of the `[pools.NAME]` that takes the request."),
    Key::block("redirect", &REDIRECT),
    Key::block("respond", &RESPOND),
    Key::block("rewrite", &REWRITE),
    Key::block("request_headers", &REQUEST_HEADERS),
    Key::block("response_headers", &RESPONSE_HEADERS),
    Key::blocks("split", &SPLIT),
    Key::block("sticky", &STICKY),
    Key::blocks("mirror", &MIRROR),
    Key::block("http", &ROUTE_HTTP),
    Key::block("retry", &ROUTE_RETRY),
    Key::flag("websocket", true).live(
        "Whether its requests may switch to WebSocket, where `[listeners.websocket]` lets them. Otherwise an upgrade over HTTP/1.1 is an ordinary request, and an \
         extended CONNECT over HTTP/2 or HTTP/3 is answered 501 (`method`). Only in routes with a `pool` or a `split`.",
    ),
    Key::flag("tls_passthrough", false).live(
        "On h1s and tls listeners: connections that meet the route's conditions (`server_names`, `alpn`, `sources`) go to a backend of its `pool` as they are, \
         inside TLS; what they ask for is read from the ClientHello. Access lists of the listener hold for them.",
    ),
    Key::texts("policies", Text::NotBlank).or_else("none").live("The names of the `[policies.NAME]` that hold for it."),
    Key::texts("without", Text::FilterKind).or_else("none").live(
        "Kinds of filters of the listener and the virtual host that do not hold for it: `access`, `errors`, `request_headers`, `response_headers`.",
    ),
];

/// The keys of a set of conditions.
static MATCH_KEYS: [Key; 14] = conditions![];

pub(super) static OWN_ROUTES: Block = Block {
    path: "listeners.routes",
    doc: "Where requests go that meet conditions; what no route takes goes to the listener's `pool` or `[[listeners.backends]]`, and without \
          those it is answered 404. A route has conditions, which must all hold, and exactly one target: `pool`, `split`, `redirect` or `respond`. \
          The order of routes does not matter: where several match, the one is taken with (1) the more specific host, (2) the higher \
          `priority`, (3) an exact path, then a regular expression, then the longer prefix, (4) a method, (5) more conditions on fields, (6) on \
          the query, (7) on cookies, (8) the longer source network, where of several of a route the shortest counts, (9) more conditions on the connection (scheme, TLS); only then the one that stands first, a listener's own \
          routes before tables. A request is matched by one canonical form of its path, which is what is forwarded: see `[listeners.paths]`. \
          Where there are routes, a host that is neither a DNS name nor an IP address is answered 400. On tcp and tls listeners a route takes \
          connections: it has a `pool`, and of conditions `server_names` (the more specific name goes first, as with hosts), `alpn`, `sources`, and on tls \
          listeners certificates. On tcp listeners, whose clients' TLS ends at the backend, they look at the ClientHello, and `alpn` is \
          what the client offers; the hello has at most 16 KiB and comes within `runtime.handshake_timeout_ms`. A connection without TLS asks for no \
          name. What no route takes goes to the listener's own backends, and without any is closed.",
    on: On::EVERYWHERE,
    keys: &ROUTE_KEYS,
};

pub(super) static TABLES: Block = Block {
    path: "routes.NAME",
    doc: "A table of routes for any number of listeners, which name it in `route_tables`.",
    on: On::EVERYWHERE,
    keys: &ROUTE_KEYS,
};

static MATCHES: Block = Block {
    path: "listeners.routes.matches",
    doc: "Sets of conditions, one of which must hold, in place of conditions on the route itself: at most 64.",
    on: On::EVERYWHERE,
    keys: &MATCH_KEYS,
};

static REDIRECT: Block = Block {
    path: "listeners.routes.redirect",
    doc: "Answers with the URL where the client is to go instead; what is not said stays as it was asked for. The port is that of a new `scheme`, \
          else the one that the client asked for. A redirect to the URL that was asked for is answered 500 (`redirect_loop`).",
    on: On::EVERYWHERE,
    keys: &[
        Key::word("scheme", Scheme::WORDS).or_else("that of the request").live("The scheme."),
        Key::text("host", Text::HostName).or_else("that of the request").live("The host, without a port."),
        Key::integer("port", 1, 65_535, "")
            .or_else("see above")
            .live("The port. It is left out where it follows from the scheme."),
        Key::text("path", Text::Target).or_else("that of the request").live(
            "The whole path, in which `${capture.N}` may stand as in `rewrite`. Not together with `prefix`.",
        ),
        Key::text("prefix", Text::Target)
            .or_else("that of the request")
            .live("What stands in place of the route's `path_prefix`, which it needs."),
        Key::integer("status", 301, 308, "").or(302).live("The status: 301, 302, 303, 307 or 308."),
        Key::flag("keep_query", true).live("Whether the query goes along."),
    ],
};

static RESPOND: Block = Block {
    path: "listeners.routes.respond",
    doc: "Answers in place of a backend.",
    on: On::EVERYWHERE,
    keys: &[
        Key::integer("status", 200, 599, "").required().live("The status."),
        Key::text("body", Text::Body).or_else("empty").live("The body."),
        Key::text("body_file", Text::Path).or_else("`body`").live(
            "A file with the body, of at most 64 KiB, in place of `body`. It is read when the configuration is, and again on SIGUSR1.",
        ),
        Key::text("content_type", Text::FieldValue)
            .or_else("`text/plain; charset=utf-8`")
            .live("What the body is (`Content-Type`)."),
    ],
};

pub(super) static VIRTUAL_HOSTS: Block = Block {
    path: "listeners.virtual_hosts",
    doc: "Requests for these hosts are looked up in these tables alone: of several virtual hosts the one with the most specific name is chosen, \
          and neither the others nor the listener's own routes are looked at. What no route takes goes to `pool`, and without one it is \
          answered 404.",
    on: On::EVERYWHERE,
    keys: &[
        Key::texts("hosts", Text::HostPattern).required().live("Its hosts, as in a route."),
        Key::texts("route_tables", Text::NotBlank).or_else("none").live("The names of its tables."),
        Key::texts("policies", Text::NotBlank).or_else("none").live(
            "The names of the `[policies.NAME]` that hold for all its requests, with a route or without.",
        ),
        Key::text("pool", Text::NotBlank)
            .or_else("404")
            .live("The name of the `[pools.NAME]` for what no route takes."),
    ],
};

pub(super) static PATHS: Block = Block {
    path: "listeners.paths",
    doc: "What becomes of paths where there are routes. A path is made canonical once: unreserved characters are decoded, dot segments resolved, \
          leading slashes made one; `%2F` is never a separator. A path that breaks the grammar, holds control characters or leads above the \
          root is answered 400 (`path_syntax`). A canonical path can mean something else to a lenient backend: encoded slashes, `;` \
          parameters, doubled slashes, double encoding. It passes only where each such reading has the same route; else the answer is 400 \
          (`path_ambiguous`).",
    on: On::only(HTTP_PROTOCOLS),
    keys: &[
        Key::flag("normalize", true).live(
            "Whether the canonical path is forwarded. `false`, for signed paths: it goes on as it came, and the canonical one is a further \
             reading of it.",
        ),
        Key::word("ambiguous", &["refuse", "allow"]).or_word("refuse").live(
            "What becomes of a path with readings of different routes. `\"allow\"` lets clients past routes that guard something.",
        ),
        Key::flag("merge_slashes", false).live("Whether runs of slashes inside a path are made one."),
        Key::word("override_fields", &["drop", "keep"]).or_word("drop").live(
            "What becomes of fields by which some backends read another path, method or host than those that were matched (`X-Original-URL`, \
             `X-Rewrite-URL`, `X-HTTP-Method-Override`, `X-HTTP-Method`, `X-Method-Override`, `X-Forwarded-Prefix`, `X-Original-Host`, `X-Host`).",
        ),
    ],
};
