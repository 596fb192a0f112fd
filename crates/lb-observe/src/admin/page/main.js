// The status page: what is shown when, and what keys and buttons do.

import { Actions } from "./actions.js";
import { $, el, pill, setAttribute, setText, span } from "./dom.js";
import { Feed } from "./feed.js";
import { Overview, certificate, tables, toneOf, why } from "./views.js";

const PROBLEMS = 12;

const feed = new Feed();
const actions = new Actions(feed, say);
const overview = new Overview($("cards"));
const all = tables(choosePool, { drain: (row) => actions.drain(row), weight: (row) => actions.weight(row) });
const reloads = el("ul", { class: "passes" });
const reloadsNone = el("p", { class: "empty" }, "None since the start.");
const endings = el("ul", { class: "passes" });
let behind = false;

const panel = (id, title, ...content) => el("section", { class: "panel", id, "aria-labelledby": `${id}-title` }, el("header", {}, el("h2", { id: `${id}-title` }, title)), ...content);
const endingPanel = panel("endings", "Closing listeners", endings);
endingPanel.hidden = true;
$("sections").append(...Object.values(all).slice(0, 4).map((table) => table.element), all.reasons.element, all.certificates.element, endingPanel, panel("reloads", "Reloads", reloads, reloadsNone));

const links = [...Object.values(all).map((table) => [table.id, table.title, table]), ["reloads", "Reloads", null]].map(([id, title, table]) => {
  const amount = el("span", { class: "count" });
  $("nav").append(el("li", {}, el("a", { href: `#${id}`, on: { click: () => table?.isFolded && table.setFolded(false) } }, title, amount)));
  return { table, amount };
});

feed.addEventListener("state", ({ detail }) => {
  const { process } = feed.sections;
  $("notice").hidden = true;
  overview.tick(feed.sections);
  for (const list of ["pools", "backends", "routes", "listeners"]) {
    if (!document.hidden) all[list].update(feed.rows[list], detail.whole || behind ? null : detail.changed[list]);
  }
  announce(detail);
  if (document.hidden) {
    behind = true;
    return;
  }
  behind = false;
  overview.update(feed.sections);
  keyed(all.reasons, feed.sections.reasons, (row) => `${row.metric} ${row.reason}`);
  keyed(all.certificates, feed.sections.certificates, (row) => `${row.listener} ${row.file}`);
  for (const table of Object.values(all)) table.tick();
  problems();
  head(process);
  passes();
  closing();
  notes();
  if (detail.whole) performance.mark("first state");
});
feed.addEventListener("silent", () => {
  setText($("state"), "no answer");
  setAttribute($("state"), "data-tone", "bad");
  notice("The gateway does not answer. What is shown is how it stood last.", "bad");
});
feed.addEventListener("trouble", ({ detail }) => notice(detail.text, "warn"));
feed.addEventListener("refused", ({ detail }) => {
  setText($("state"), "sign in");
  notice(feed.token ? "The token is not accepted." : `The token of the admin port is needed to look from here (${detail.text.trim()}).`, "warn");
  signIn("It is needed to look from here, and to change something. It is kept until this page is closed.");
});
document.addEventListener("visibilitychange", () => {
  if (!document.hidden && behind) for (const list of ["pools", "backends", "routes", "listeners"]) all[list].update(feed.rows[list], null);
});

function head(process) {
  // Where no token is configured, nothing can be changed.
  $("token").hidden = !process.changes && !feed.token;
  $("reload").hidden = !process.changes;
  document.body.classList.toggle("fixed", !process.changes);
  const tone = { ok: "good", draining: "warn" }[process.state] ?? "quiet";
  setText($("state"), process.state === "ok" ? "serving" : process.state);
  setAttribute($("state"), "data-tone", tone);
  setText($("identity"), `${process.version} · up ${span(process.uptime_seconds)} · configuration ${process.config_version} · ${process.config} · pid ${process.pid}`);
  const state = process.state === "ok" ? "" : `${process.state} · `;
  const wrong = $("problems").children.length;
  document.title = `${wrong ? `(${wrong}) ` : ""}${state}ExpressGateway`;
}

/** Gives a table the rows of a section. */
function keyed(table, rows, key) {
  table.update(new Map(rows.map((row) => [key(row), row])), null);
}

/** What an operator should look at first. */
function problems() {
  const found = [];
  const add = (tone, name, what) => found.push({ tone, name, what });
  for (const row of feed.rows.pools.values()) {
    if (row.panic) add("bad", row.name, "is in panic: too few of its backends are fit, so all are used");
    else if (row.fit === 0) add("bad", row.name, "has no backend that is fit");
    for (const name of row.without_address) add("warn", name, `of ${row.name} has no address`);
  }
  for (const row of feed.rows.backends.values()) {
    if (["ejected", "down", "resting", "draining", "no weight"].includes(row.state)) add(toneOf(row.state), row.backend, `of ${row.pool} is ${row.state === "no weight" ? "without weight" : row.state}${why(row) ? `: ${why(row)}` : ""}`);
  }
  for (const row of feed.sections.certificates) {
    const [, tone] = certificate(row);
    if (tone !== "good") add(tone, row.file, row.days_left < 0 ? "has expired" : `runs out in ${row.days_left} days`);
  }
  const [pass] = feed.sections.reloads;
  if (pass?.outcome === "rejected") add("bad", "The last reload", `was rejected: ${pass.errors[0] ?? ""}`);
  else if (pass?.restart.length === 1) add("warn", "1 change", "of the configuration waits for a restart");
  else if (pass?.restart.length) add("warn", `${pass.restart.length} changes`, "of the configuration wait for a restart");
  if (feed.sections.process.state === "draining") add("warn", "The gateway", "is draining: it takes no new connections");
  found.sort((one, other) => (one.tone === "bad" ? 0 : 1) - (other.tone === "bad" ? 0 : 1));
  const more = found.length - PROBLEMS;
  if (more > 0) {
    found.length = PROBLEMS;
    add("warn", `${more} more`, "are first in the tables below");
  }
  const list = $("problems");
  while (list.children.length > found.length) list.lastChild.remove();
  while (list.children.length < found.length) list.append(el("li", {}, el("b"), el("span", { class: "what" })));
  found.forEach(({ tone, name, what }, at) => {
    const item = list.children[at];
    setAttribute(item, "data-tone", tone);
    setText(item.firstChild, name);
    setText(item.lastChild, what);
  });
  $("attention").hidden = found.length === 0;
}

let passesKnown = "";
function passes() {
  const known = JSON.stringify(feed.sections.reloads);
  if (known === passesKnown) return;
  passesKnown = known;
  const tones = { applied: "good", rejected: "bad", unchanged: "quiet" };
  const lines = (kind, texts) => texts.map((text) => el("li", {}, el("span", { class: "tag" }, kind), text));
  const items = feed.sections.reloads.map((pass) => {
    const changes = [...lines("live", pass.live), ...lines("restart", pass.restart), ...lines("error", pass.errors)];
    if (pass.left_off) changes.push(el("li", {}, `… ${pass.left_off} more, in the log`));
    const at = new Date(pass.time_ms);
    const time = el("time", { datetime: at.toISOString() }, at.toLocaleString());
    return el("li", {}, el("div", { class: "head" }, pill(pass.outcome, tones[pass.outcome]), el("span", {}, `configuration ${pass.version}`), time), ...(changes.length ? [el("ul", {}, ...changes)] : []));
  });
  reloads.replaceChildren(...items);
  reloads.hidden = items.length === 0;
  reloadsNone.hidden = items.length > 0;
}

function closing() {
  const rows = feed.sections.endings;
  endingPanel.hidden = rows.length === 0;
  endings.replaceChildren(...rows.map((row) => el("li", {}, `${row.listener}: ${row.connections} connections, ${span(row.seconds_left)} left`)));
}

function notes() {
  const { routes, backends } = feed.sections.left_off;
  setText(all.routes.note, routes ? `${routes} more are not shown` : "");
  setText(all.backends.note, backends ? `${backends} more are not shown` : "");
  const amounts = [feed.rows.pools.size, feed.rows.backends.size, feed.rows.routes.size, feed.rows.listeners.size, feed.sections.reasons.length, feed.sections.certificates.length, feed.sections.reloads.length];
  links.forEach(({ amount }, at) => setText(amount, amounts[at]));
}

/** Tells screen readers of backends whose state is another one. */
const spoken = new Map();
function announce({ changed, whole }) {
  const said = [];
  for (const id of whole ? feed.rows.backends.keys() : changed.backends) {
    const row = feed.rows.backends.get(id);
    const before = spoken.get(id);
    if (!row) spoken.delete(id);
    else {
      spoken.set(id, row.state);
      if (before !== undefined && before !== row.state) said.push(`${row.backend} is ${row.state}`);
    }
  }
  if (said.length) $("announcer").textContent = said.length > 3 ? `${said.length} backends changed their state` : said.join(", ");
}

let toastTimer = 0;
function say(text) {
  const toast = $("toast");
  toast.textContent = text;
  toast.hidden = false;
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => (toast.hidden = true), 5000);
}

function notice(text, tone) {
  const element = $("notice");
  setText(element, text);
  setAttribute(element, "data-tone", tone);
  element.hidden = false;
}

function filter(text) {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  for (const table of Object.values(all)) table.setFilter(words);
}

function choosePool(name) {
  $("search").value = `pool:${name}`;
  filter($("search").value);
  location.hash = "#backends";
}

function signIn(text) {
  actions.signIn(text, () => feed.start());
}

actions.onToken = () => setText($("token"), feed.token ? "Sign out" : "Sign in");
let filterTimer = 0;
$("search").addEventListener("input", ({ target }) => {
  clearTimeout(filterTimer);
  filterTimer = setTimeout(() => filter(target.value), 60);
});
document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, dialog");
  if (event.key === "/" && !typing) {
    event.preventDefault();
    $("search").focus();
  }
  if (event.key === "Escape" && event.target === $("search")) {
    $("search").value = "";
    filter("");
  }
});
$("token").addEventListener("click", () => {
  if (feed.token) {
    feed.token = null;
    actions.onToken();
    feed.start();
    say("Signed out");
  } else signIn("It is needed to change something. It is kept until this page is closed.");
});
$("reload").addEventListener("click", () => feed.sections.process && actions.reload(feed.sections.process));

const THEMES = [["", "Auto", "as the system"], ["light", "Light", "light"], ["dark", "Dark", "dark"]];
function theme(name) {
  const [value, label, spoken] = THEMES.find(([value]) => value === name) ?? THEMES[0];
  if (value) document.documentElement.dataset.theme = value;
  else delete document.documentElement.dataset.theme;
  setText($("theme"), label);
  $("theme").setAttribute("aria-label", `Colours: ${spoken}`);
  return value;
}
let chosen = theme(localStorage.getItem("theme") ?? "");
$("theme").addEventListener("click", () => {
  const at = THEMES.findIndex(([value]) => value === chosen);
  chosen = theme(THEMES[(at + 1) % THEMES.length][0]);
  localStorage.setItem("theme", chosen);
});

feed.start();
