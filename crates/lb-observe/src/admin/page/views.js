// What is shown of listeners, routes, pools and backends, and the cards above them.

import { Chart, bytes, count, el, millis, pill, rate, setAttribute, setText, short, span } from "./dom.js";
import { Table } from "./table.js";

const POINTS = 120;

/** The tone of each word for a backend, and its place where what is wrong comes first. */
const STATES = {
  ejected: ["bad", 6], down: ["bad", 5], resting: ["bad", 4], draining: ["warn", 3], "no weight": ["warn", 2], probation: ["warn", 1], unknown: ["quiet", 0], up: ["good", 0],
};

export const toneOf = (state) => (STATES[state] ?? ["quiet", 0])[0];

/** A cell with a text, or a number. */
const text = (title, of, more = {}) => ({ title, cell: (row, td) => setText(td, of(row)), by: of, ...more });
const number = (title, of, write, more = {}) => ({ title, numeric: true, by: of, cell: (row, td) => setText(td, write(of(row))), ...more });
const errors = (title, of, more = {}) => ({
  ...number(title, of, rate, more),
  cell: (row, td) => {
    const value = of(row);
    setText(td, rate(value));
    td.classList.toggle("bad-number", value > 0);
  },
});
const latencies = [
  number("p50", (row) => row.p50_ms, millis, { hide: "wide" }),
  number("p90", (row) => row.p90_ms, millis, { hide: "wide" }),
  number("p99", (row) => row.p99_ms ?? row.mean_ms, millis, { hide: "mid" }),
];

/** A cell with a name and what belongs to it below. */
function named(title, of, below, more = {}) {
  return {
    title,
    by: of,
    cell: (row, td) => {
      if (!td.firstChild) td.append(el("span", { class: "name" }), el("span", { class: "sub" }));
      setText(td.firstChild, of(row) || "–");
      const sub = below(row);
      td.lastChild.hidden = !sub;
      setText(td.lastChild, sub ?? "");
    },
    ...more,
  };
}

/** A cell with a chart of the last two minutes, drawn while the row is shown. */
function chart(of) {
  return {
    title: "",
    label: "Requests a second, the last two minutes",
    hide: "wide",
    cell: (row, td, state) => {
      if (state.chart) return;
      state.chart = new Chart("spark", ["tone-main"], POINTS / 2);
      td.append(state.chart.element);
    },
    tick: (row, td, state) => {
      state.chart.push([of(row) ?? 0]);
      state.chart.draw();
    },
  };
}

const word = (title, of) => ({
  title,
  by: (row) => of(row)[0],
  cell: (row, td) => {
    const [name, tone, why] = of(row);
    if (!td.firstChild) td.append(pill(name, tone), el("span", { class: "sub" }));
    setText(td.firstChild, name);
    setAttribute(td.firstChild, "data-tone", tone);
    td.lastChild.hidden = !why;
    setText(td.lastChild, why ?? "");
  },
});

/** Why a backend stands as it does, in a line. */
export function why(row) {
  const over = row.over_in_seconds !== null ? `${row.state === "resting" ? "tried again" : "back"} in ${span(row.over_in_seconds)}` : "";
  return [row.why.replaceAll("_", " "), over].filter(Boolean).join(", ");
}

function poolState(row) {
  if (row.panic) return ["panic", "bad", "too few are fit: all are used"];
  if (row.backends === 0) return ["empty", "bad", "no backend has an address"];
  if (row.fit === 0) return ["none fit", "bad", ""];
  if (row.fit < row.backends) return ["partly", "warn", ""];
  return ["up", "good", ""];
}

export function tables(choosePool, act) {
  const backends = new Table({
    title: "Backends",
    text: (row) => `${row.backend} ${row.address} pool:${row.pool} ${row.state} ${row.why} ${row.origin}`,
    rank: (row) => (STATES[row.state] ?? ["", 0])[1],
    sort: { column: "Req/s", order: "descending" },
    empty: "No listener leads to a backend.",
    columns: [
      named("Backend", (row) => row.backend, (row) => [row.pool, row.address === row.backend ? "" : row.address, row.origin === "file" ? "" : row.origin].filter(Boolean).join(" · ")),
      word("State", (row) => [row.state, toneOf(row.state), why(row)]),
      number("Weight", (row) => row.weight, count, { hide: "wide" }),
      chart((row) => row.requests_per_second),
      number("Req/s", (row) => row.requests_per_second, rate),
      errors("Failed/s", (row) => row.failures_per_second, { hide: "mid" }),
      ...latencies,
      number("In flight", (row) => row.inflight, count, { hide: "mid" }),
      number("Connections", (row) => row.connections, count, { hide: "wide" }),
      {
        title: "",
        label: "Actions",
        kind: "act",
        cell: (row, td) => {
          if (!td.firstChild) td.append(el("button", { type: "button", class: "plain" }), " ", el("button", { type: "button", class: "plain wide" }, "Weight"));
          const [drain, , weight] = td.childNodes;
          setText(drain, row.draining ? "Undrain" : "Drain");
          setAttribute(drain, "aria-label", `${row.draining ? "Undrain" : "Drain"} ${row.backend} of ${row.pool}`);
          setAttribute(weight, "aria-label", `Weight of ${row.backend} of ${row.pool}`);
          drain.onclick = () => act.drain(row);
          weight.onclick = () => act.weight(row);
        },
      },
    ],
  });
  const pools = new Table({
    title: "Pools",
    text: (row) => `pool:${row.name} ${row.policy} ${row.listeners.join(" ")} ${poolState(row)[0]}`,
    rank: (row) => ({ bad: 2, warn: 1 })[poolState(row)[1]] ?? 0,
    sort: { column: "Req/s", order: "descending" },
    empty: "No listener leads to a pool.",
    columns: [
      {
        title: "Pool",
        by: (row) => row.name,
        cell: (row, td) => {
          if (!td.firstChild) td.append(el("button", { type: "button", class: "link", on: { click: () => choosePool(row.name) } }, row.name), el("span", { class: "sub" }));
          setText(td.lastChild, row.policy);
        },
      },
      word("State", poolState),
      {
        title: "Fit",
        by: (row) => row.fit / Math.max(row.backends, 1),
        cell: (row, td) => {
          if (!td.firstChild) td.append(el("span", { class: "share wide", "aria-hidden": "true" }, el("i", { class: "up" }), el("i", { class: "part" }), el("i", { class: "out" })), el("span", { class: "sub fit" }));
          const out = row.ejected + row.down;
          const shares = [row.fit, row.backends - row.fit - out, out];
          [...td.firstChild.children].forEach((part, at) => (part.style.width = `${(100 * shares[at]) / Math.max(row.backends, 1)}%`));
          setText(td.lastChild, `${row.fit} of ${row.backends}`);
        },
      },
      chart((row) => row.requests_per_second),
      number("Req/s", (row) => row.requests_per_second, rate),
      errors("Errors/s", (row) => row.errors_per_second),
      ...latencies,
      number("In flight", (row) => row.inflight, count, { hide: "mid" }),
      number("Waiting", (row) => (row.limits ? row.pending : null), count, { hide: "wide" }),
      number("Without room", (row) => (row.limits ? row.circuits_open : null), count, { hide: "wide" }),
      number("Retries", (row) => row.retries_total, short, { hide: "wide" }),
      number("Connects failed", (row) => row.connect_failures_total, short, { hide: "wide" }),
    ],
  });
  const routes = new Table({
    title: "Routes",
    text: (row) => `${row.name} ${row.hosts.join(" ")} ${row.when.join(" ")} ${row.target.replace(/^pool /, "pool:")} ${row.listener}`,
    sort: { column: "Req/s", order: "descending" },
    empty: "No listener has routes.",
    columns: [
      named("Route", (row) => row.name || "without a name", (row) => (row.hosts.length ? row.hosts.join(", ") : "any host")),
      text("When", (row) => row.when.join(" or "), { hide: "mid" }),
      text("Goes to", (row) => row.target),
      text("Listener", (row) => row.listener, { hide: "wide" }),
      chart((row) => row.requests_per_second),
      number("Req/s", (row) => row.requests_per_second ?? null, rate),
      errors("Errors/s", (row) => row.errors_per_second ?? null),
      ...latencies,
      number("Requests", (row) => row.requests_total ?? null, short, { hide: "wide" }),
    ],
  });
  const listeners = new Table({
    title: "Listeners",
    text: (row) => `${row.name} ${row.protocol} pool:${row.pool}`,
    sort: { column: "Listener", order: "ascending" },
    empty: "Nothing listens.",
    columns: [
      named("Listener", (row) => row.name, (row) => row.protocol),
      number("Connections", (row) => row.connections, count),
      chart((row) => row.requests_per_second),
      number("Req/s", (row) => row.requests_per_second, rate),
      errors("Errors/s", (row) => row.errors_per_second),
      ...latencies,
      number("Requests", (row) => row.requests_total, short, { hide: "wide" }),
      number("4xx", (row) => row.statuses["4xx"], short, { hide: "wide" }),
      number("5xx", (row) => row.statuses["5xx"], short, { hide: "wide" }),
      number("Handshakes failed", (row) => row.tls_handshakes_failed_total, short, { hide: "wide" }),
      number("Turned away", (row) => row.shed_total, short, { hide: "wide" }),
    ],
  });
  const reasons = new Table({
    title: "Errors by reason",
    text: (row) => `${row.reason} ${row.metric}`,
    sort: { column: "Per second", order: "descending" },
    empty: "Nothing was refused, cut or retried since the start.",
    columns: [
      named("Reason", (row) => row.reason, (row) => row.metric),
      errors("Per second", (row) => row.per_second),
      number("Total", (row) => row.total, short),
    ],
  });
  const certificates = new Table({
    title: "Certificates",
    text: (row) => `${row.file} ${row.listener}`,
    sort: { column: "Days left", order: "ascending" },
    empty: "No listener speaks TLS.",
    columns: [
      named("File", (row) => row.file, (row) => row.listener),
      { ...word("", (row) => certificate(row)), title: "State", by: null },
      { ...number("Days left", (row) => row.days_left, count), first: "ascending" },
      text("Until", (row) => new Date(row.expires_ms).toISOString().slice(0, 10), { hide: "mid" }),
    ],
  });
  return { pools, backends, routes, listeners, reasons, certificates };
}

export function certificate(row) {
  if (row.days_left < 0) return ["expired", "bad", ""];
  return row.days_left < 14 ? ["soon", "warn", ""] : ["valid", "good", ""];
}

/** The cards at the top. */
export class Overview {
  constructor(parent) {
    const card = (title, kind, ...children) => {
      const element = el("div", { class: `card ${kind}`.trim() }, el("h3", {}, title), ...children);
      parent.append(element);
      return element;
    };
    const value = () => el("p", { class: "value" });
    const beside = () => el("p", { class: "beside" });
    [this.requests, this.requestsBeside, this.requestChart] = [value(), beside(), new Chart("chart", ["tone-main"], POINTS)];
    card("Requests a second", "", this.requests, this.requestsBeside, this.requestChart.element);
    [this.errors, this.errorsBeside, this.errorChart] = [value(), beside(), new Chart("chart", ["tone-bad"], POINTS)];
    card("Errors a second", "", this.errors, this.errorsBeside, this.errorChart.element);
    this.latency = ["p50", "p90", "p99"].map(() => el("dd", { class: "value" }));
    const figures = ["p50", "p90", "p99"].map((name, at) => el("div", {}, el("dt", { class: `tone-${name}` }, name), this.latency[at]));
    [this.latencyBeside, this.latencyChart] = [beside(), new Chart("chart", ["tone-p50", "tone-p90", "tone-p99"], POINTS)];
    card("Latency", "broad", el("dl", { class: "figures" }, ...figures), this.latencyBeside, this.latencyChart.element);
    [this.open, this.openBeside, this.openChart] = [value(), beside(), new Chart("chart", ["tone-main"], POINTS)];
    card("Connections", "", this.open, this.openBeside, this.openChart.element);
    [this.out, this.outBeside, this.outChart] = [value(), beside(), new Chart("chart", ["tone-main"], POINTS)];
    card("Traffic to clients", "", this.out, this.outBeside, this.outChart.element);
    [this.workers, this.workersBeside] = [el("div", { class: "workers" }), beside()];
    card("Workers", "broad", this.workersBeside, this.workers);
  }

  update({ process, workers }) {
    const share = process.requests_per_second > 0 ? (100 * process.errors_per_second) / process.requests_per_second : 0;
    setText(this.requests, rate(process.requests_per_second));
    setText(this.requestsBeside, `${short(process.requests_total)} since the start`);
    setText(this.errors, rate(process.errors_per_second));
    this.errors.style.color = process.errors_per_second > 0 ? "var(--bad)" : "";
    setText(this.errorsBeside, process.errors_per_second > 0 ? `${share < 0.1 ? "<0.1" : share.toFixed(1)} % of requests` : `${short(process.errors_total)} since the start`);
    [process.p50_ms, process.p90_ms, process.p99_ms].forEach((value, at) => setText(this.latency[at], millis(value)));
    setText(this.latencyBeside, process.p50_ms === null ? "no request yet" : `of the last ${span(Math.round(process.percentiles_over_seconds))}`);
    setText(this.open, count(process.connections));
    setText(this.openBeside, `${rate(process.connections_per_second)} new a second`);
    setText(this.out, `${bytes(process.bytes_to_clients_per_second)}/s`);
    setText(this.outBeside, `${bytes(process.bytes_to_backends_per_second)}/s to backends`);
    setText(this.workersBeside, `${process.workers} · ${bytes(process.memory_bytes)} of memory · ${count(process.open_files)} descriptors`);
    this.#workers(workers);
  }

  #workers(workers) {
    while (this.workers.children.length > workers.length) this.workers.lastChild.remove();
    while (this.workers.children.length < workers.length) {
      const at = this.workers.children.length;
      const meter = el("meter", { min: 0, max: 1, low: 0.7, high: 0.9, optimum: 0, "aria-label": `Load of worker ${at}` });
      this.workers.append(el("div", { class: "worker" }, el("span", {}, String(at)), meter, el("span", { class: "num" })));
    }
    workers.forEach((worker, at) => {
      const [, meter, label] = this.workers.children[at].children;
      meter.value = worker.load ?? 0;
      setText(label, worker.load === null ? "–" : `${Math.round(worker.load * 100)} %`);
      setAttribute(this.workers.children[at], "title", `worker ${worker.worker}: ${rate(worker.requests_per_second)} requests a second, ${worker.connections} connections`);
    });
  }

  /** One more point for each chart. */
  tick({ process }) {
    const points = [
      [this.requestChart, [process.requests_per_second]],
      [this.errorChart, [process.errors_per_second]],
      [this.latencyChart, [process.p50_ms, process.p90_ms, process.p99_ms]],
      [this.openChart, [process.connections]],
      [this.outChart, [process.bytes_to_clients_per_second]],
    ];
    for (const [chart, values] of points) {
      chart.push(values);
      if (!document.hidden) chart.draw();
    }
  }
}
