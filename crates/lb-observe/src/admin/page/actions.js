// What the page can change: each after a question, and each with the token of the admin port.

import { $, setText } from "./dom.js";
import { toneOf } from "./views.js";

const dialog = $("dialog");
const error = $("dialog-error");

/** Asks, and does it. */
export class Actions {
  constructor(feed, say) {
    this.feed = feed;
    this.say = say;
    this.doing = null;
    $("dialog-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#confirm();
    });
    $("dialog-cancel").addEventListener("click", () => dialog.close());
    $("weight-reset").addEventListener("click", () => {
      $("weight").value = "";
      $("weight").placeholder = "as configured";
    });
  }

  #ask({ title, text, button, weight, doing }) {
    this.doing = doing;
    setText($("dialog-title"), title);
    setText($("dialog-text"), text);
    setText($("dialog-confirm"), button);
    $("weight-row").hidden = weight === undefined;
    $("weight").value = weight ?? "";
    $("weight").placeholder = "";
    $("token-row").hidden = this.feed.token !== null;
    $("token-input").value = "";
    error.textContent = "";
    dialog.showModal();
    const first = [$("weight"), $("token-input"), $("dialog-confirm")].find((input) => input.offsetParent !== null);
    first?.focus();
  }

  async #confirm() {
    if (!$("token-row").hidden) {
      const token = $("token-input").value.trim();
      if (!token) {
        error.textContent = "The token is needed.";
        return;
      }
      this.feed.token = token;
    }
    const confirm = $("dialog-confirm");
    confirm.disabled = true;
    try {
      const said = await this.doing();
      dialog.close();
      this.say(said);
      this.onToken?.();
    } catch (failure) {
      error.textContent = failure.message;
      if (failure.status === 403) {
        // What was typed is not the token: it is asked for again.
        this.feed.token = null;
        $("token-row").hidden = false;
        $("token-input").focus();
        this.onToken?.();
      }
    } finally {
      confirm.disabled = false;
    }
  }

  async #post(path, body) {
    let response;
    try {
      response = await fetch(path, { method: "POST", headers: this.feed.fields, body: body ?? null, cache: "no-store" });
    } catch {
      throw new Error("The gateway does not answer.");
    }
    const text = await response.text();
    if (response.ok) return text;
    const failure = new Error(text.trim() || `status ${response.status}`);
    failure.status = response.status;
    throw failure;
  }

  #path(row, verb) {
    return `/backends/${encodeURIComponent(row.pool)}/${encodeURIComponent(row.backend)}/${verb}`;
  }

  drain(row) {
    const back = row.draining;
    const running = { 0: "It has no requests now", 1: "It finishes the request that it has" }[row.inflight] ?? `It finishes the ${row.inflight} requests that it has`;
    const pool = [...this.feed.rows.pools.values()].find((pool) => pool.name === row.pool);
    const left = (pool?.fit ?? 1) - (toneOf(row.state) === "good" ? 1 : 0);
    const rest = left > 0 ? `${left} of ${pool?.backends} backends go on.` : "No other backend of the pool is fit: its requests will fail.";
    this.#ask({
      title: back ? `Undrain ${row.backend}?` : `Drain ${row.backend}?`,
      text: back ? `It gets requests of the pool ${row.pool} again.` : `${running}, and it gets no more of the pool ${row.pool} until it is undrained. ${rest}`,
      button: back ? "Undrain" : "Drain",
      doing: async () => {
        await this.#post(this.#path(row, back ? "undrain" : "drain"));
        return `${row.backend} ${back ? "takes requests again" : "is draining"}`;
      },
    });
  }

  weight(row) {
    this.#ask({
      title: `Weight of ${row.backend}`,
      text: `Its share of the pool ${row.pool} relative to others; 0 for none. It holds until a reload. An empty field gives back the configured one.`,
      button: "Set",
      weight: row.weight,
      doing: async () => {
        const value = $("weight").value.trim();
        await this.#post(this.#path(row, "weight"), JSON.stringify({ weight: value === "" ? null : Number(value) }));
        return `Weight of ${row.backend} set`;
      },
    });
  }

  reload(process) {
    this.#ask({
      title: "Reload the configuration?",
      text: `${process.config} is read again, as by SIGHUP. What can change while running changes at once; a file with faults changes nothing.`,
      button: "Reload",
      doing: async () => {
        const pass = JSON.parse(await this.#post("/reload"));
        const waiting = pass.restart.length ? `, ${pass.restart.length} wait for a restart` : "";
        return pass.outcome === "unchanged" ? "Reloaded: nothing differs" : `Reloaded: ${pass.live.length} changes in force${waiting}`;
      },
    });
  }

  /** Asks for the token alone, for those who may not look without it. */
  signIn(text, then) {
    this.#ask({
      title: "Token of the admin port",
      text,
      button: "Sign in",
      doing: async () => {
        const response = await fetch("/status", { headers: this.feed.fields, cache: "no-store" });
        await response.body?.cancel();
        const backends = response.ok ? await fetch("/backends", { headers: this.feed.fields, cache: "no-store" }) : response;
        await (backends === response ? null : backends.body?.cancel());
        if (!backends.ok) {
          const failure = new Error(backends.status === 403 ? "That is not the token." : `status ${backends.status}`);
          failure.status = backends.status;
          throw failure;
        }
        then();
        return "Signed in, until this page is closed";
      },
    });
  }
}
