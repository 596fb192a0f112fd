//! `[pools.NAME]` and the blocks inside it.

use super::key::{BYTES, MS, S};
use super::listener::BACKEND_KEYS;
use super::{Block, Key, On, Text};
use crate::config::{Policy, ProbeKind, ProbeMethod, SameSite};

/// An hour: above it a time between two looks is a mistake in the unit.
const HOUR_MS: u64 = 3_600_000;

/// Browsers keep no cookie for longer than 400 days.
const LONGEST_COOKIE_SECONDS: u64 = 400 * 86_400;

/// A pool.
pub(crate) static POOLS: Block = Block {
    path: "pools.NAME",
    doc: "Backends under a name, with the rules by which they are used. Listeners refer to it by `pool = \"NAME\"`, and several may share \
          it. NAME is 1 to 64 letters, digits, `-` and `_`. The backends that stand inside a listener are a pool of its own, with \
          the default of every key below; its blocks may stand in the listener as well. A pool has at least one backend, or `[pools.NAME.discovery]`; one that no listener \
          uses is a warning.",
    on: On::EVERYWHERE,
    keys: &[
        Key::hinted("policy", Policy::WORDS, POLICY_HINTS).or_word("round_robin").live(
            "How a backend is chosen; always by weight. `round_robin` in turn, `random` by chance, `least_connections` and `least_request` \
             the least busy of all, `p2c` the less busy of two drawn by chance, `p2c_ewma` the better of two by the square of latency, failures and requests under way; \
             `maglev`, `ring_hash` and `rendezvous` always the same for the same `hash_key`, as far as the backends stay the same.",
        ),
        Key::text("hash_key", Text::HashKey).or_else("`source_address`").live(
            "What `maglev`, `ring_hash` and `rendezvous` hash. Without it in a request, the backend is chosen by chance. `source_address` \
             is the client's IP address without its port. `connection_id` is that of QUIC, and in a passthrough, which sees several of one connection, \
             the client's address with its port: connections of other listeners have none and go by the \
             client's IP address, as with `source_address`, which is a warning. All but these two need HTTP, so that no tcp, tls or udp listener \
             may use the pool.",
        ),
        Key::zero_or("hash_balance_factor", 101, 1000, "percent").or(0).live(
            "With a hashing policy, a backend whose load is above this percentage of the mean is passed over for the next. 0 = none is.",
        ),
        Key::integer("maglev_table_size", 251, 5_000_011, "entries")
            .or(65_537)
            .live("Entries of `maglev`'s table. A prime number, best a hundred times the number of backends or more."),
        Key::integer("ring_points_per_weight", 1, 1000, "points")
            .or(160)
            .live(
                "Points on the ring of `ring_hash` for each unit of weight. More of them spread better, and cost memory. A ring has \
                 262144 at most; beyond that all backends have fewer in proportion.",
            ),
        Key::integer("panic_threshold_percent", 0, 100, "percent").or(1).live(
            "When less than this share of the backends is well, by weight, and no other priority can take over, all are used as if they \
             were. 1 = only when none is. More is for pools whose few would be swept away by what is meant for many. 0 = never, and what \
             comes while none is well is answered 503.",
        ),
        Key::integer("rest_ms", 0, HOUR_MS, MS).or(10_000).live(
            "How long a backend's address is left alone, as long as another is well, after a connect to it failed or took too long, or after \
             it let a request wait for its response for too long and answered no other meanwhile. One such failure is enough. Then \
             one request is let through: if it fails too, the next waits twice as long, up to six times `rest_ms`. All workers know \
             of it. Times are shortened at random by up to a tenth. 0 = it never is.",
        ),
        Key::integer("slow_start_ms", 0, HOUR_MS, MS)
            .or(0)
            .live("How long the weight of a backend that has come back grows until it is whole. 0 = it is at once."),
        Key::integer("ewma_decay_ms", 1, HOUR_MS, MS)
            .or(10_000)
            .live("How long a latency counts with `p2c_ewma`: after this time, for a third. Where answers are many, each makes up for a sixty-fourth."),
        Key::blocks("backends", &BACKENDS),
        Key::block("sticky", &STICKY),
        Key::block("health", &HEALTH),
        Key::block("outlier", &OUTLIER),
        Key::block("limits", &LIMITS),
        Key::block("retry", &RETRY),
        Key::block("discovery", &DISCOVERY),
    ],
};

const POLICY_HINTS: &[(&str, &str)] = &[
    ("roundrobin", "it is \"round_robin\""),
    ("rr", "it is \"round_robin\""),
    ("wrr", "it is \"round_robin\", which goes by weight"),
    ("weighted_round_robin", "it is \"round_robin\", which goes by weight"),
    ("leastconn", "it is \"least_connections\""),
    ("least_conn", "it is \"least_connections\""),
    ("least_requests", "it is \"least_request\""),
    ("peak_ewma", "it is \"p2c_ewma\""),
    ("ewma", "it is \"p2c_ewma\""),
    ("ip_hash", "it is \"maglev\" with hash_key = \"source_address\""),
    ("source", "it is \"maglev\" with hash_key = \"source_address\""),
    ("ring", "it is \"ring_hash\""),
    ("ketama", "it is \"ring_hash\""),
    ("consistent_hash", "there are \"maglev\", \"ring_hash\" and \"rendezvous\""),
];

static BACKENDS: Block = Block {
    path: "pools.NAME.backends",
    doc: "A backend of the pool. What `[[listeners.backends]]` says of the protocols behind one listener holds for every listener that uses \
          the pool.",
    on: On::EVERYWHERE,
    keys: &BACKEND_KEYS,
};

static STICKY: Block = Block {
    path: "pools.NAME.sticky",
    doc: "A cookie that keeps a client at the backend of its first request, as long as that one is well. It is signed, and nothing is \
          remembered for it. No tcp, tls or udp listener may use the pool.",
    on: On::EVERYWHERE,
    keys: &STICKY_KEYS,
};

static STICKY_KEYS: [Key; 7] = [
    Key::text("cookie", Text::Token).or_else("`eg_sticky`").live(
        "Its name. `__Host-` and `__Secure-` at its beginning ask for what browsers then insist on.",
    ),
    Key::integer("ttl_seconds", 0, LONGEST_COOKIE_SECONDS, S)
        .or(0)
        .live("How long a browser keeps it. 0 = as long as its session."),
    Key::text("path", Text::CookiePath).or_else("`/`").live("Its `Path`: the requests that it is sent with."),
    Key::flag("secure", true).live("Its `Secure`: whether it is sent only inside TLS."),
    Key::flag("http_only", true).live("Its `HttpOnly`: whether scripts are kept from it."),
    Key::word("same_site", SameSite::WORDS)
        .or_word("lax")
        .live("Its `SameSite`: whether other sites' pages send it along. `none` needs `secure`."),
    Key::text("key_path", Text::Path).or_else("a key made at the start").live(
        "File of the 32 bytes that sign it; not readable by group or others. Instances that share it take each other's cookies, and a \
         restart keeps them.",
    ),
];

/// These keys beside the backends of a listener.
pub(super) static OWN_STICKY: Block = Block {
    path: "listeners.sticky",
    doc: "`[pools.NAME.sticky]` for the listener's own `[[listeners.backends]]`. Not together with `pool`.",
    on: On::EVERYWHERE,
    keys: &STICKY_KEYS,
};

static HEALTH: Block = Block {
    path: "pools.NAME.health",
    doc: "Probes: every address of every backend is probed at intervals, once for the whole process, and not used while it fails.",
    on: On::EVERYWHERE,
    keys: &HEALTH_KEYS,
};

static HEALTH_KEYS: [Key; 16] = [
    Key::word("type", ProbeKind::WORDS).required().live(
        "What a probe is: `tcp` a connection, `http` a request, `grpc` a call of `grpc.health.v1.Health/Check`, `quic` a question over UDP for the versions of QUIC that are spoken there, of which 1 or 2 must be one, `udp` a datagram that is answered. \
         With the protocol and TLS settings of the backend, except `quic` and `udp`, which need none.",
    ),
    Key::integer("interval_ms", 100, HOUR_MS, MS).or(5000).live("From one probe of an address to its next."),
    Key::integer("timeout_ms", 10, HOUR_MS, MS)
        .or(2000)
        .live("How long a probe may take, from its connect to the end of its body; at most `interval_ms`."),
    Key::integer("rise", 1, 100, "probes").or(2).live("Successes in a row after which a failed address is used again."),
    Key::integer("fall", 1, 100, "probes").or(3).live("Failures in a row after which an address is used no more."),
    Key::integer("jitter_percent", 0, 50, "percent")
        .or(10)
        .live("By how much of itself the interval varies, so that probes of many instances do not fall together."),
    Key::integer("port", 1, 65_535, "").or_else("that of the backend").live("The port that is probed. Not where a backend is at a Unix socket."),
    Key::word("method", ProbeMethod::WORDS).or_word("GET").live("The method. With `http`."),
    Key::text("path", Text::Target).or_else("`/`").live("Path and query. With `http`."),
    Key::text("host", Text::Authority)
        .or_else("the backend's `address`")
        .live("The `Host` or `:authority`. With `http` and `grpc`."),
    Key::texts("expected_statuses", Text::Statuses)
        .or_else("`[\"200-399\"]`")
        .live("The statuses of a success, one by one or as ranges. With `http`."),
    Key::text("body_contains", Text::NotBlank)
        .or_else("any body")
        .live("What the beginning of the body contains, byte by byte. With `http`; not with HEAD."),
    Key::integer("max_body_bytes", 1, 16 << 20, BYTES)
        .or(65_536)
        .live("How much of the body is read; the rest is not waited for. With `http`."),
    Key::text("grpc_service", Text::Any)
        .or_else("the server as a whole")
        .live("The service whose health is asked for. With `grpc`."),
    Key::text("send", Text::Payload).or_else("an empty datagram").live(
        "What is sent: text, in which `\\\\`, `\\r`, `\\n`, `\\t`, `\\0` and `\\xNN` (two hex digits) stand for bytes, or `hex:` and hex digits; best in single \
         quotes, where TOML leaves backslashes alone. Sent up to three times, since datagrams get lost. With `udp`.",
    ),
    Key::text("expect", Text::Payload)
        .or_else("any answer")
        .live("What an answer begins with, written like `send`. Answers that begin otherwise are passed over. With `udp`."),
];

/// These keys beside the backends of a listener.
pub(super) static OWN_HEALTH: Block = Block {
    path: "listeners.health",
    doc: "`[pools.NAME.health]` for the listener's own `[[listeners.backends]]`. Not together with `pool`.",
    on: On::EVERYWHERE,
    keys: &HEALTH_KEYS,
};

static OUTLIER: Block = Block {
    path: "pools.NAME.outlier",
    doc: "What is concluded from requests: a backend that fails them, or is much slower than the others, is ejected for a while, and for \
          longer each time. The last backend of a pool never is.",
    on: On::EVERYWHERE,
    keys: &OUTLIER_KEYS,
};

static OUTLIER_KEYS: [Key; 10] = [
    Key::integer("consecutive_5xx", 0, 1000, "responses").or(5).live(
        "Responses 5xx in a row, as one worker sees them, after which a backend is ejected. Gateway failures count too. 0 = no backend is ejected for this.",
    ),
    Key::integer("consecutive_gateway_failures", 0, 1000, "failures").or(5).live(
        "Failed connects, timeouts and resets in a row, as one worker sees them, after which a backend is ejected. 0 = no backend is \
         ejected for this.",
    ),
    Key::integer("error_rate_percent", 0, 100, "percent")
        .or(0)
        .live("The share of failed requests in an interval from which on a backend is ejected. 0 = no backend is ejected for this."),
    Key::integer("min_requests", 1, 1_000_000, "requests")
        .or(20)
        .live("A backend with fewer requests in an interval is not judged by rate or latency."),
    Key::integer("interval_ms", 100, HOUR_MS, MS).or(10_000).live("How often rate and latency are judged."),
    Key::zero_or("latency_factor_percent", 101, 10_000, "percent").or(0).live(
        "The mean latency in an interval above which a backend is ejected if it is a millisecond above the median too, in percent of the median of the pool, of which at least three \
         backends must have been judged. 0 = no backend is ejected for this.",
    ),
    Key::integer("base_ejection_ms", 100, HOUR_MS, MS)
        .or(30_000)
        .live("How long the first ejection lasts. Each further one lasts twice as long as the one before. Times are shortened at random by up to a \
               tenth, so that backends that were ejected together do not return together."),
    Key::integer("max_ejection_ms", 100, 24 * HOUR_MS, MS)
        .or(300_000)
        .live("How long an ejection lasts at most, before it is shortened at random; at least `base_ejection_ms`."),
    Key::integer("max_ejection_percent", 1, 100, "percent").or(50).live(
        "How much of the pool may be ejected at once. One backend of a pool of two or more may always be.",
    ),
    Key::integer("probation_ms", 0, HOUR_MS, MS).or(30_000).live(
        "For how long after its return half as many failures in a row eject a backend again.",
    ),
];

/// These keys beside the backends of a listener.
pub(super) static OWN_OUTLIER: Block = Block {
    path: "listeners.outlier",
    doc: "`[pools.NAME.outlier]` for the listener's own `[[listeners.backends]]`. Not together with `pool`.",
    on: On::EVERYWHERE,
    keys: &OUTLIER_KEYS,
};

static LIMITS: Block = Block {
    path: "pools.NAME.limits",
    doc: "What one backend may be given at once by the whole process. Each worker has an equal part, and at least 1: with fewer than there are \
          workers, the sum is the number of workers. What finds no room at any backend waits, first come, first served, or is refused with 503; \
          a TCP connection is closed, and the first datagram of a flow is dropped without a wait.",
    on: On::EVERYWHERE,
    keys: &LIMITS_KEYS,
};

static LIMITS_KEYS: [Key; 4] = [
    Key::integer("max_connections", 0, 1_000_000, "connections")
        .or(0)
        .live("Connections to one backend, in use or idle. 0 = any number."),
    Key::integer("max_requests", 0, 1_000_000, "requests").or(0).live("Requests at one backend. 0 = any number."),
    Key::integer("max_pending", 0, 1_000_000, "requests").or(0).live(
        "Requests and connections that may wait for room. 0 = none: what finds no room is refused. Needs one of the limits above.",
    ),
    Key::integer("pending_timeout_ms", 1, 600_000, MS).or(1000).live("How long one waits at most."),
];

/// These keys beside the backends of a listener.
pub(super) static OWN_LIMITS: Block = Block {
    path: "listeners.limits",
    doc: "`[pools.NAME.limits]` for the listener's own `[[listeners.backends]]`. Not together with `pool`.",
    on: On::EVERYWHERE,
    keys: &LIMITS_KEYS,
};

static RETRY: Block = Block {
    path: "pools.NAME.retry",
    doc: "Further tries of a request. Without the block they are made as with an empty one, but that a failed connect is followed by as many \
          as the listener's `http.retries` or `tcp.connect_tries` say. Never after a byte of a response has \
          reached the client; and a request that may not be repeated (RFC 9110 §9.2.2; every gRPC call is a POST) only when the backend has not \
          seen it. A body of more than 16 KiB is not sent again, unless its route keeps more of it (`replay_bytes`, `buffer_request_bytes`). A further try goes to another backend where there is one.",
    on: On::EVERYWHERE,
    keys: &RETRY_KEYS,
};

static RETRY_KEYS: [Key; 8] = [
    Key::integer("attempts", 0, 10, "").or(1).live("Further tries of one request, those after a failed connect included. 0 = none."),
    Key::texts("on", Text::RetryOn).or_else("`[\"connect\", \"refused\", \"reset\"]`").live(
        "What is tried again: `connect` a connect that failed, `refused` a stream that was refused unseen, `reset` a connection that ended \
         before its response, `timeout` a try that took longer than `per_try_timeout_ms`, which must then be above 0, and these \
         statuses.",
    ),
    Key::integer("per_try_timeout_ms", 0, HOUR_MS, MS)
        .or(0)
        .live("How long one try may take to its response head, the client's time for its body not counted; the last one ends with 504. \
               0 = as long as the request."),
    Key::integer("backoff_ms", 0, 60_000, MS).or(0).live(
        "How long a request waits before its first further try, at most: the pause is drawn evenly from 0 to this, so that requests which failed \
         together do not come back together, and the range doubles with each further try, up to a minute. What has cost no backend anything (a failed \
         connect, a GOAWAY, a reused connection that was dead) is tried again without one. A pause ends with the time of the whole request; \
         a request that waits counts as a further try for `budget_percent`. 0 = no pauses.",
    ),
    Key::integer("budget_percent", 0, 100, "percent").or(20).live(
        "How many further tries may run at once, in percent of the running requests of a worker, and how many there may be in all, in \
         percent of its requests; so that tries do not add to an overload (attack C-05). Tries that cost no backend anything (after a failed connect, a GOAWAY, a reused connection that was dead before anything was sent) are not counted. After a connection lost before an answer only the bound in all holds, and one try for each running request.",
    ),
    Key::integer("budget_min", 0, 1000, "tries").or(3).live(
        "How many may run at once in a worker, and begin in a second, however few requests do.",
    ),
    Key::zero_or("hedge_percentile", 50, 99, "percent").or(0).live(
        "When a repeatable request has waited for longer than this share of the latest ones, a second try starts at another backend, and \
         the first response is taken. Counts as a further try, and against the budget. Known after 128 requests of a worker. Clients that are \
         bound to a backend by a cookie are not hedged. 0 = never.",
    ),
    Key::integer("hedge_min_delay_ms", 0, 60_000, MS).or(10).live("But not before this time."),
];

/// These keys beside the backends of a listener.
pub(super) static OWN_RETRY: Block = Block {
    path: "listeners.retry",
    doc: "`[pools.NAME.retry]` for the listener's own `[[listeners.backends]]`. Not together with `pool`.",
    on: On::EVERYWHERE,
    keys: &RETRY_KEYS,
};

static DISCOVERY: Block = Block {
    path: "pools.NAME.discovery",
    doc: "Where further backends come from, beside those in `[[pools.NAME.backends]]`. Exactly one of `srv` and `file` is set.",
    on: On::EVERYWHERE,
    keys: &DISCOVERY_KEYS,
};

static DISCOVERY_KEYS: [Key; 5] = [
    Key::text("srv", Text::ServiceName).live(
        "A name with SRV records, such as `_http._tcp.example.org`: they say host, port, priority and weight of each backend.",
    ),
    Key::word("protocol", DISCOVERED_PROTOCOLS).or_word("tcp").live("What the backends of `srv` speak, without TLS."),
    Key::flag("allow_loopback", false).live(
        "Whether the names of `srv` may lead to this machine itself. The records name the port too, so that an attacker who can forge one could \
         otherwise reach what listens only here (attack C-03).",
    ),
    Key::text("file", Text::Path).live(
        "A file of backends with the keys of `[[pools.NAME.backends]]`, read again when it changes: `[[backends]]` blocks, or an array of \
         objects when its name ends with `.json`.",
    ),
    Key::integer("refresh_ms", 100, HOUR_MS, MS)
        .or(5000)
        .live("The least time between two looks at the source."),
];

/// These keys beside the backends of a listener.
pub(super) static OWN_DISCOVERY: Block = Block {
    path: "listeners.discovery",
    doc: "`[pools.NAME.discovery]` for the listener's own `[[listeners.backends]]`. Not together with `pool`.",
    on: On::EVERYWHERE,
    keys: &DISCOVERY_KEYS,
};

/// An h3 backend needs keys that an SRV record does not have.
const DISCOVERED_PROTOCOLS: &[&str] = &["tcp", "h1", "h2"];

/// A file of backends.
pub(crate) static LIST: Block = Block {
    path: "",
    doc: "Backends of a pool.",
    on: On::EVERYWHERE,
    keys: &[Key::blocks("backends", &LISTED)],
};

static LISTED: Block =
    Block { path: "backends", doc: "One of them.", on: On::EVERYWHERE, keys: &BACKEND_KEYS };
