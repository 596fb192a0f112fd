//! How everything stands, for `GET /status`, the status page and `expressgateway top`.
//!
//! The control thread tells the [`Desk`] what is in force, and the admin port asks it how that stands; neither waits for the other, so that a
//! reload that waits for a name server is seen while it waits. What is asked for is read from counters and from the pools' reports: no worker is
//! stopped, and none is sent anything.

mod board;
mod history;
mod json;
mod rates;
mod state;
mod threads;
mod verdict;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub(crate) use board::{EndingShown, Standing};
pub(crate) use history::Pass;
use lb_observe::admin::{Readiness, StatusSource, StatusState};
use lb_observe::metrics::{BackendReading, Latency, Metrics, MetricsReading, Requests};
use lb_pool::Report;

use board::{Board, millis};
use history::History;
use json::{Object, list};
use rates::{Look, Rates};
use state::{Shown, Tables};
use threads::WorkerThreads;

/// Bytes of what changes of a row, about.
const ROOM: usize = 400;

/// What the admin port is shown.
#[derive(Debug)]
pub(crate) struct Desk {
    metrics: Arc<Metrics>,
    readiness: Arc<Readiness>,
    started: Instant,
    standing: RefCell<Option<Standing>>,
    /// The rows of that, once somebody has looked.
    board: RefCell<Option<Board>>,
    history: RefCell<History>,
    rates: RefCell<Rates>,
    threads: RefCell<WorkerThreads>,
    number: Cell<u64>,
    before: RefCell<Option<Rc<Tables>>>,
}

impl Desk {
    pub(crate) fn new(metrics: Arc<Metrics>, readiness: Arc<Readiness>) -> Rc<Self> {
        let now = Instant::now();
        Rc::new(Self {
            metrics,
            readiness,
            started: now,
            standing: RefCell::default(),
            board: RefCell::default(),
            history: RefCell::default(),
            rates: RefCell::new(Rates::new(now)),
            threads: RefCell::default(),
            number: Cell::new(0),
            before: RefCell::default(),
        })
    }

    /// Something else is in force.
    pub(crate) fn tell(&self, standing: Standing) {
        *self.standing.borrow_mut() = Some(standing);
        self.board.take();
    }

    /// A reload has ended.
    pub(crate) fn reloaded(&self, pass: &Pass, version: u64) {
        self.history.borrow_mut().add(pass, version, SystemTime::now());
    }

    /// How the newest reload went, as JSON.
    pub(crate) fn newest_reload(&self) -> String {
        self.history.borrow().newest().to_owned()
    }

    fn tables(&self, standing: &Standing, board: &Board) -> Tables {
        let (now, time) = (Instant::now(), SystemTime::now());
        let reading = self.metrics.reading();
        let mut rates = self.rates.borrow_mut();
        let mut look = rates.look(now);
        let listeners = listener_rows(board, &reading, &mut look);
        let routes = route_rows(board, &reading, &mut look);
        let (pools, backends) = pool_rows(board, &reading, &mut look, now);
        let sections = vec![
            ("process", self.process(standing, &reading, &mut look)),
            ("workers", self.workers(&reading, &mut look)),
            ("reasons", reasons(&reading, &mut look)),
            ("certificates", certificates(&reading, time)),
            ("endings", endings(standing)),
            ("reloads", self.history.borrow().json()),
            ("left_off", left_off(board)),
        ];
        look.end();
        Tables {
            time_ms: millis(time.duration_since(UNIX_EPOCH).unwrap_or_default()),
            sections,
            tables: vec![
                ("listeners", listeners),
                ("routes", routes),
                ("pools", pools),
                ("backends", backends),
            ],
        }
    }

    fn process(&self, standing: &Standing, reading: &MetricsReading, look: &mut Look<'_>) -> String {
        let mut requests = Requests::default();
        reading.listeners.values().for_each(|listener| requests.add(&listener.requests));
        let bytes = [reading.bytes_to_backends, reading.bytes_to_clients, reading.connections];
        let [to_backends, to_clients, connections] = look.per_second("bytes", bytes);
        let (asked, reused) = reading.backend_connections;
        let open: i64 = reading.listeners.values().map(|listener| listener.connections).sum();
        let started = reading.start.duration_since(UNIX_EPOCH).unwrap_or_default();
        let object = Object::new()
            .text("version", reading.version)
            .text("state", self.readiness.state().name())
            .text("config", &standing.config.source_name)
            .number("config_version", standing.version)
            .flag("changes", standing.config.admin.api_token_hash.is_some())
            .number("pid", std::process::id())
            .number("started_ms", millis(started))
            .number("uptime_seconds", self.started.elapsed().as_secs())
            .number("workers", i128::try_from(reading.workers.len()).unwrap_or_default())
            .number("memory_bytes", reading.resident_memory.unwrap_or_default())
            .number("open_files", reading.open_fds.unwrap_or_default())
            .number("connections", open)
            .number("connections_total", reading.connections)
            .decimal("connections_per_second", connections)
            .decimal("bytes_to_backends_per_second", to_backends)
            .decimal("bytes_to_clients_per_second", to_clients)
            .number("bytes_to_backends_total", reading.bytes_to_backends)
            .number("bytes_to_clients_total", reading.bytes_to_clients)
            .number("backend_connections_total", asked)
            .number("backend_connections_reused_total", reused)
            .decimal("rates_over_seconds", Some(look.interval().as_secs_f64()))
            .decimal("percentiles_over_seconds", Some(look.window().as_secs_f64()));
        with_requests(object, "process", &requests, look).end()
    }

    fn workers(&self, reading: &MetricsReading, look: &mut Look<'_>) -> String {
        let times = self.threads.borrow_mut().times(reading.workers.len());
        let rows = reading.workers.iter().zip(times).enumerate().map(|(at, (worker, times))| {
            let (ran, waited) = times.unwrap_or_default();
            let [requests, ran, waited] =
                look.per_second(&format!("worker {at}"), [worker.requests, ran, waited]);
            let share =
                |nanoseconds: Option<f64>| nanoseconds.filter(|_| times.is_some()).map(|one| one / 1e9);
            Object::new()
                .number("worker", i128::try_from(at).unwrap_or_default())
                .decimal("load", share(ran))
                .decimal("waiting_for_processor", share(waited))
                .number("connections", worker.connections)
                .number("idle_backend_connections", worker.idle)
                .decimal("requests_per_second", requests)
                .end()
        });
        list(rows)
    }
}

impl StatusSource for Desk {
    fn take(&self) -> Option<Rc<StatusState>> {
        let standing = self.standing.borrow();
        let standing = standing.as_ref()?;
        let mut board = self.board.borrow_mut();
        let board = board.get_or_insert_with(|| Board::of(standing));
        let tables = Rc::new(self.tables(standing, board));
        let number = self.number.get().wrapping_add(1);
        self.number.set(number);
        let before = self.before.borrow_mut().replace(Rc::clone(&tables));
        Some(tables.into_state(number, before))
    }
}

fn listener_rows(board: &Board, reading: &MetricsReading, look: &mut Look<'_>) -> Vec<Shown> {
    let rows = board.listeners.iter().map(|(name, row)| {
        let known = reading.listeners.get(name).cloned().unwrap_or_default();
        let object = Object::after(&row.begun, ROOM)
            .number("connections", known.connections)
            .number("shed_total", known.shed)
            .number("tls_handshakes_total", known.handshakes.0)
            .number("tls_handshakes_failed_total", known.handshakes.1)
            .number("flows_total", known.flows);
        let json = with_requests(object, &row.id, &known.requests, look).end();
        Shown { id: row.id.clone(), json }
    });
    rows.collect()
}

fn route_rows(board: &Board, reading: &MetricsReading, look: &mut Look<'_>) -> Vec<Shown> {
    let rows = board.routes.iter().map(|(listener, route, row)| {
        let counted = reading.listeners.get(listener).and_then(|listener| listener.routes.get(route));
        let object = Object::after(&row.begun, ROOM).flag("counted", counted.is_some());
        let json = match counted {
            Some(requests) => with_requests(object, &row.id, requests, look).end(),
            None => object.end(),
        };
        Shown { id: row.id.clone(), json }
    });
    rows.collect()
}

fn pool_rows(
    board: &Board,
    reading: &MetricsReading,
    look: &mut Look<'_>,
    now: Instant,
) -> (Vec<Shown>, Vec<Shown>) {
    let (mut pools, mut backends) = (Vec::new(), Vec::new());
    for pool in &board.pools {
        let known = reading.pools.get(&pool.name);
        let reports = pool.shared.report(now);
        let mut fit = 0u64;
        let mut states: HashMap<&'static str, u64> = HashMap::new();
        for (row, report) in pool.members.iter().zip(&reports) {
            let traffic = known.and_then(|pool| pool.backends.get(&report.backend));
            let (json, state) = member(row, report, traffic, look);
            fit = fit.saturating_add(u64::from(matches!(state, "up" | "unknown" | "probation")));
            let count = states.entry(state).or_default();
            *count = count.saturating_add(1);
            backends.push(Shown { id: row.id.clone(), json });
        }
        let known = known.cloned().unwrap_or_default();
        let object = Object::after(&pool.row.begun, ROOM)
            .flag("panic", pool.shared.is_in_panic())
            .number("backends", i128::try_from(reports.len()).unwrap_or_default())
            .number("fit", fit)
            .number("ejected", states.get("ejected").copied().unwrap_or_default())
            .number("down", states.get("down").copied().unwrap_or_default())
            .number("inflight", known.traffic.inflight)
            .number("connects_total", known.traffic.connections)
            .number("connect_failures_total", known.traffic.connect_failures)
            .number("retries_total", known.retries)
            .number("hedges_total", known.hedges)
            .flag("limits", known.has_limits)
            .number("pending", known.pending)
            .number("overflow_total", known.overflow)
            .number("circuits_open", known.circuits_open);
        let json = with_requests(object, &pool.row.id, &known.traffic.requests, look).end();
        pools.push(Shown { id: pool.row.id.clone(), json });
    }
    (pools, backends)
}

fn member(
    row: &board::Row,
    report: &Report,
    traffic: Option<&BackendReading>,
    look: &mut Look<'_>,
) -> (String, &'static str) {
    let (state, why) = verdict::of(report);
    let [requests, failures, _] = look.per_second(&row.id, [report.requests, report.failures, 0]);
    let over = report.ejected_for.or(report.rest.map(|(_, time)| time));
    let object = Object::after(&row.begun, ROOM)
        .number("weight", report.weight)
        .text("state", state)
        .text("why", &why)
        // Whole seconds, so that a row does not differ from one moment to the next for this alone more often than is worth it.
        .raw("over_in_seconds", &over.map_or("null".to_owned(), |time| time.as_secs().to_string()))
        .flag("draining", report.draining)
        .text("health", report.health.map_or("unchecked", |state| state.as_str()))
        .text("last_probe", report.last.map_or("", |outcome| outcome.as_str()))
        .number("ejections_total", report.ejections)
        .number("inflight", report.requests_running)
        .number("connections", report.connections)
        .number("requests_total", report.requests)
        .number("failures_total", report.failures)
        .decimal("requests_per_second", requests)
        .decimal("failures_per_second", failures);
    let latency = traffic.map(|traffic| look.recent(&row.id, &traffic.requests.latency));
    let object = match latency.filter(|latency| latency.count() > 0) {
        Some(latency) => with_latency(object, &latency),
        // Connections that carry raw bytes have the time of their connects.
        None => object.decimal("mean_ms", report.mean_latency.map(|time| time.as_secs_f64() * 1e3)),
    };
    (object.end(), state)
}

/// Counts, rates and percentiles of requests.
fn with_requests(object: Object, key: &str, requests: &Requests, look: &mut Look<'_>) -> Object {
    let [informational, success, redirection, client_error, server_error, none] = requests.classes;
    let (count, errors) = (requests.count(), requests.errors());
    let [all, failed, _] = look.per_second(key, [count, errors, 0]);
    let classes = Object::new()
        .number("1xx", informational)
        .number("2xx", success)
        .number("3xx", redirection)
        .number("4xx", client_error)
        .number("5xx", server_error)
        .number("none", none)
        .end();
    let recent = look.recent(key, &requests.latency);
    let object = object
        .number("requests_total", count)
        .number("errors_total", errors)
        .raw("statuses", &classes)
        .decimal("requests_per_second", all)
        .decimal("errors_per_second", failed);
    with_latency(object, &recent)
}

fn with_latency(object: Object, latency: &Latency) -> Object {
    let millis = |quantile| latency.quantile(quantile).map(|time: Duration| time.as_secs_f64() * 1e3);
    object.decimal("p50_ms", millis(0.5)).decimal("p90_ms", millis(0.9)).decimal("p99_ms", millis(0.99))
}

fn reasons(reading: &MetricsReading, look: &mut Look<'_>) -> String {
    list(reading.reasons.iter().map(|(metric, reason, count)| {
        let [rate, ..] = look.per_second(&format!("{metric} {reason}"), [*count, 0, 0]);
        Object::new()
            .text("metric", metric)
            .text("reason", reason)
            .number("total", *count)
            .decimal("per_second", rate)
            .end()
    }))
}

fn certificates(reading: &MetricsReading, now: SystemTime) -> String {
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    let of_listeners = reading.listeners.iter().flat_map(|(listener, reading)| {
        reading.certificates.iter().map(move |(file, expiry)| (listener, file, *expiry))
    });
    list(of_listeners.map(|(listener, file, expiry)| {
        Object::new()
            .text("listener", listener)
            .text("file", file)
            .number("expires_ms", i128::from(expiry).saturating_mul(1000))
            .number("days_left", expiry.saturating_sub(now).div_euclid(86_400))
            .end()
    }))
}

fn endings(standing: &Standing) -> String {
    let now = tokio::time::Instant::now();
    list(standing.endings.iter().map(|ending| {
        Object::new()
            .text("listener", &ending.name)
            .number("connections", i128::try_from(ending.gate.open()).unwrap_or_default())
            .number("seconds_left", ending.deadline.saturating_duration_since(now).as_secs())
            .end()
    }))
}

fn left_off(board: &Board) -> String {
    let (routes, backends) = board.left_off;
    let count = |count| i128::try_from(count).unwrap_or_default();
    Object::new().number("routes", count(routes)).number("backends", count(backends)).end()
}
