// The state of the gateway, kept up to date by server-sent events. They are read by fetch, which can send a token where EventSource cannot.

const LISTS = ["listeners", "routes", "pools", "backends"];

/** Longer than this without an event, and what is shown is called old. */
const SILENCE_MS = 4000;

export class Feed extends EventTarget {
  constructor() {
    super();
    /** The sections as they came: process, workers, reasons, … */
    this.sections = {};
    /** For each list its rows by id. */
    this.rows = Object.fromEntries(LISTS.map((list) => [list, new Map()]));
    this.token = null;
    this.isLive = false;
    this.heard = 0;
    this.wait = 1000;
    this.abort = null;
    setInterval(() => this.#look(), 1000);
  }

  /** Fields of a request that carry the token, if there is one. */
  get fields() {
    return this.token ? { Authorization: `Bearer ${this.token}` } : {};
  }

  /** Begins, or begins anew with another token. */
  start() {
    this.abort?.abort();
    const abort = new AbortController();
    this.abort = abort;
    this.#run(abort).catch(() => {});
  }

  async #run(abort) {
    while (!abort.signal.aborted) {
      try {
        const response = await fetch("/status/events", { headers: this.fields, signal: abort.signal, cache: "no-store" });
        if (response.status === 403) {
          this.#tell("refused", { text: await response.text() });
          return;
        }
        if (response.ok) await this.#read(response.body.getReader());
        else this.#tell("trouble", { text: (await response.text()).trim() });
      } catch (error) {
        if (abort.signal.aborted) return;
      }
      this.isLive = false;
      this.#tell("silent", {});
      await new Promise((resolve) => setTimeout(resolve, this.wait));
      this.wait = Math.min(this.wait * 2, 15000);
    }
  }

  async #read(reader) {
    const decoder = new TextDecoder();
    let text = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      text += decoder.decode(value, { stream: true });
      let end = text.indexOf("\n\n");
      while (end >= 0) {
        this.#event(text.slice(0, end));
        text = text.slice(end + 2);
        end = text.indexOf("\n\n");
      }
    }
  }

  #event(text) {
    const [first, ...rest] = text.split("\n");
    const data = JSON.parse(rest.join("\n").slice("data: ".length));
    const changed = Object.fromEntries(LISTS.map((list) => [list, new Set()]));
    const whole = first === "event: status";
    for (const list of LISTS) {
      const rows = this.rows[list];
      if (whole) rows.clear();
      for (const id of (!whole && data.gone[list]) || []) {
        rows.delete(id);
        changed[list].add(id);
      }
      for (const row of (whole ? data[list] : data.rows[list]) || []) {
        rows.set(row.id, row);
        changed[list].add(row.id);
      }
      delete data[list];
    }
    delete data.rows;
    delete data.gone;
    Object.assign(this.sections, data);
    this.isLive = true;
    this.heard = Date.now();
    this.wait = 1000;
    this.#tell("state", { changed, whole });
  }

  #look() {
    if (this.isLive && Date.now() - this.heard > SILENCE_MS) {
      this.isLive = false;
      this.#tell("silent", {});
    }
  }

  #tell(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}
