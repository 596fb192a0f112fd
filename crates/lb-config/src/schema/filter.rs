//! What happens to requests and responses on their way: `rewrite`, edits of fields, IDs, and `[policies.NAME]`.

use lb_core::filter::KeepFrom;

use super::http::HTTP_PROTOCOLS;
use super::key::{MS, S};
use super::rate::{CONCURRENCY, RATE_LIMIT};
use super::{Block, Key, On, Text};

pub(super) static REWRITE: Block = Block {
    path: "listeners.routes.rewrite",
    doc: "Which path and host the backend is asked for in place of those that the client asked for; the query stays. What comes out is in \
          canonical form and, whatever a lenient backend makes of it, stays within the new `prefix`, or within `path` up to its first captured \
          text; otherwise the answer is 400 (`rewrite`). A prefix that is taken off is told to the backend in `X-Forwarded-Prefix`, the \
          client's host in `X-Forwarded-Host`. Only in routes with a `pool` or a `split`.",
    on: On::EVERYWHERE,
    keys: &[
        Key::text("host", Text::Authority).or_else("that of the request").live("The host, with or without a port."),
        Key::text("path", Text::Target).or_else("that of the request").live(
            "The whole path. `${capture.N}` stands for what a group of the route's `path_regex` has found, by its number or name. Not \
             together with `prefix`.",
        ),
        Key::text("prefix", Text::Target)
            .or_else("that of the request")
            .live("What stands in place of the route's `path_prefix`, which it needs; `\"/\"` takes that off."),
    ],
};

/// The keys of edits.
static EDIT_KEYS: [Key; 3] = [
    Key::texts("remove", Text::Token).or_else("none").live("The names of fields that go."),
    Key::texts("set", Text::HeaderLine)
        .or_else("none")
        .live("Fields (`\"N: value\"`) that stand in place of all others of their names."),
    Key::texts("add", Text::HeaderLine)
        .or_else("none")
        .live("Fields that stand beside others of their names."),
];

pub(super) static REQUEST_HEADERS: Block = Block {
    path: "listeners.routes.request_headers",
    doc: "What becomes of the fields of requests: `remove` first, then `set`, then `add`. A name with `_` is removed like the same name with `-`, \
          since many backends read them as one. In values stand `${client_ip}`, `${scheme}`, `${host}`, `${method}`, `${path}`, `${query}`, \
          `${url}`, `${request_id}`, `${route}`, `${server_name}`, `${tls_version}`, `${cert_subject}`, `${cert_sha256}`, `${header.N}`, \
          `${cookie.N}` and `${capture.N}` (a group of `path_regex`) for what the client sent, before any edit; without such a value, for \
          nothing. A field whose value would hold control characters is left out. `Host`, fields of framing and of one hop, `X-Forwarded-*` \
          and others that the gateway writes have keys of their own.",
    on: On::EVERYWHERE,
    keys: &EDIT_KEYS,
};

pub(super) static RESPONSE_HEADERS: Block = Block {
    path: "listeners.routes.response_headers",
    doc: "What becomes of the fields of responses, the gateway's own included: as in `request_headers`, with `${status}` besides.",
    on: On::EVERYWHERE,
    keys: &EDIT_KEYS,
};

pub(super) static REQUEST_ID: Block = Block {
    path: "listeners.request_id",
    doc: "Gives each request an ID, a UUID of version 7, which backend, access log (`request_id`) and client are told. Without this block a \
          field of that name is one as any other.",
    on: On::only(HTTP_PROTOCOLS),
    keys: &[
        Key::text("header", Text::Token).or_else("`X-Request-Id`").live(
            "The field that carries it. What clients send under this name, also with `_` in place of `-`, never passes.",
        ),
        Key::word("keep_from", KeepFrom::WORDS).or_word("trusted").live(
            "Whose IDs are kept where they are 1 to 128 letters, digits, `.`, `_` and `-`: those of trusted proxies, of nobody, or of anyone.",
        ),
        Key::flag("respond", true).live("Whether the client is told."),
    ],
};

static ACCESS: Block = Block {
    path: "policies.NAME.access",
    doc: "Which clients are let in, by the address that the gateway knows them by (`[listeners.client_address]`, `[listeners.proxy_protocol]`). The \
          longest prefix decides, and of equal ones that in `deny`; a client that no network has is refused if anything stands in `allow`, or there is an `allow_file`. A \
          client at a Unix socket is in no network. The lists of all levels hold: a client must be let in by each. Requests that are refused \
          are answered 403 (`access`) before anything else becomes of them; on tcp and tls listeners the connection is closed, before TLS and \
          before any backend.",
    on: On::EVERYWHERE,
    keys: &[
        Key::texts("allow", Text::Network).or_else("everybody").live("Networks (CIDR) that are let in."),
        Key::texts("deny", Text::Network).or_else("nobody").live("Networks (CIDR) that are not."),
        Key::text("allow_file", Text::Path).or_else("none").live(
            "A file with further networks that are let in: one on each line; `#` begins a comment. It has at most 1000000, and is no file without any text. It is \
             looked at each second, and read again when it has changed and then stayed as it is for a second. One that cannot be used leaves in force what was \
             read before (`access_file_failures_total`). An `allow_file` without networks lets nobody in.",
        ),
        Key::text("deny_file", Text::Path)
            .or_else("none")
            .live("A file with further networks that are not let in, as `allow_file`."),
        Key::word("client_cert", &["any", "none"]).or_else("not looked at").live(
            "Whether clients must have shown a certificate that was verified (`any`), or must not have (`none`): others are answered 403 \
             (`client_certificate`). Needs `client_auth` of the listener. Not on tcp and tls listeners, whose clients are let in before TLS.",
        ),
        Key::flag("dry_run", false).live(
            "Whether nobody is refused, only counted (`filter_dry_run_total`; on tcp and tls listeners, connections) and told of in the log, a few lines at a time.",
        ),
    ],
};

static CORS: Block = Block {
    path: "policies.NAME.cors",
    doc: "What scripts of other sites may ask for and read (CORS, the Fetch standard). A preflight (`OPTIONS` with `Origin` and \
          `Access-Control-Request-Method`) goes by the route of the method that it announces, and is answered by the gateway: 204, or 403 \
          (`cors_origin`) where its origin is not listed. No backend gets it, and what comes after CORS in the order of filters does not \
          see it. Other requests are forwarded whatever their origin is, since browsers alone heed it; in their responses, the gateway's own included, the CORS fields of \
          the backend give way to those that this block says. The block of the innermost level holds.",
    on: On::EVERYWHERE,
    keys: &[
        Key::texts("allow_origins", Text::Origin).required().live(
            "Origins as browsers write them: scheme, host, and the port unless it is that of the scheme. `\"https://*.example.com\"` has any number of labels before \
             the domain, but not none. `\"*\"` is every origin, and `\"null\"` that of files and sandboxes.",
        ),
        Key::texts("allow_methods", Text::Token)
            .or_else("`GET`, `HEAD` and `POST`")
            .live("Methods that scripts may use; `\"*\"` for any."),
        Key::texts("allow_headers", Text::Token)
            .or_else("none")
            .live("Fields that scripts may send besides those that need no leave; `\"*\"` for any."),
        Key::texts("expose_headers", Text::Token)
            .or_else("none")
            .live("Fields of responses that scripts may read besides those that need no leave."),
        Key::flag("allow_credentials", false).live("Whether requests come with cookies and other credentials."),
        Key::flag("reflect_any_origin", false).live(
            "Names each origin that `\"*\"` lets in back to itself, which `allow_credentials` needs: any site may then act as a user who visits it.",
        ),
        Key::integer("max_age_seconds", 0, 86_400, S).or(5).live("How long browsers remember the answer to a preflight."),
    ],
};

static FAULT: Block = Block {
    path: "policies.NAME.fault",
    doc: "Makes requests fail on purpose, so that what clients see of it can be tried out: some wait, and some are answered in place of a backend. \
          Preflights and what earlier filters refuse are left alone; each share is drawn by itself. A client that leaves while its request waits has asked \
          no backend. The block of the innermost level holds.",
    on: On::EVERYWHERE,
    keys: &[
        Key::integer("delay_ms", 1, 600_000, MS).or_else("no delay").live(
            "How long requests wait before anything else becomes of them; counts as time of the request.",
        ),
        Key::text("delay_fraction", Text::Fraction)
            .or_else("`100%`")
            .live("Which share of the requests waits. Needs `delay_ms`."),
        Key::integer("abort_status", 400, 599, "")
            .or_else("no answer")
            .live("The status that requests are answered with."),
        Key::text("abort_fraction", Text::Fraction)
            .or_else("`100%`")
            .live("Which share of the requests is answered so. Needs `abort_status`."),
    ],
};

static ERRORS: Block = Block {
    path: "policies.NAME.errors",
    doc: "What clients are told in place of the gateway's short texts, where the route of the request is known; a fixed answer (`respond`) that has a body, and a \
          redirect, stay as they are. Of several levels the innermost one's holds, as a whole. gRPC calls are answered in gRPC's own words. Files are read \
          with the configuration, and again on SIGUSR1; each has at most 64 KiB, and goes out as it stands: nothing of a request is put into it.",
    on: On::EVERYWHERE,
    keys: &[
        Key::texts("pages", Text::ErrorPage).or_else("none").live(
            "Statuses, 400 to 599, and the file of their page: `\"404: /etc/eg/404.html\"`, `\"500-504: /etc/eg/down.html\"`. What it is follows from the end \
             of the file's name (`.json`, `.xml`, `.txt`); else it is HTML.",
        ),
        Key::flag("problem_json", true).live(
            "Whether a client whose `Accept` prefers JSON to HTML is told a problem of RFC 9457 (`application/problem+json`) in place of text and pages: status, \
             its title, the reason as in the access log (`detail`), and the ID of the request if it has one (`instance`).",
        ),
        Key::flag("intercept", false).live(
            "Whether backends' responses with the statuses of `pages` are replaced as well. Their fields stay, but for those that describe the body. Responses to \
             HEAD and to gRPC calls are not touched.",
        ),
    ],
};

pub(super) static POLICIES: Block = Block {
    path: "policies.NAME",
    doc: "Filters under a name, which listeners, virtual hosts and routes have by `policies`. A request meets those of its listener, then those of \
          its virtual host, then those of its route, and then what the route says itself. Edits of all levels hold, in this order; each kind of \
          filter stands once on a level. `without` of a route takes away kinds that listener and virtual host have. `${capture.N}` has no value in policies, which \
          know of no `path_regex`.",
    on: On::EVERYWHERE,
    keys: &[
        Key::block("request_headers", &REQUEST_HEADERS),
        Key::block("response_headers", &RESPONSE_HEADERS),
        Key::block("access", &ACCESS),
        Key::block("rate_limit", &RATE_LIMIT),
        Key::block("concurrency", &CONCURRENCY),
        Key::block("cors", &CORS),
        Key::block("fault", &FAULT),
        Key::block("errors", &ERRORS),
        Key::later("basic_auth", "authentication"),
        Key::later("jwt", "authentication"),
        Key::later("forward_auth", "authentication"),
        Key::later("compress", "compression"),
        Key::later("cache", "caches"),
    ],
};
