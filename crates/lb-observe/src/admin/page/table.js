// A table that sorts, filters and shows a part of many rows. Only rows that are shown have elements, and only cells that differ are touched.

import { el, setAttribute } from "./dom.js";

/** Rows that are shown at first, and by each press of the button. */
const PART = 50;

export class Table {
  /**
   * `columns` are objects with a `title`, `cell(row, td)` which fills a cell, and where rows can be sorted by it `by(row)`; `numeric`, `hide` ("wide" or "mid": from which width
   * on it is shown) and `first` ("descending" where the first press sorts so). `text(row)` is what the filter looks through. Rows with a higher `rank(row)` come first.
   */
  constructor({ title, note, columns, text, rank, sort, folded, empty }) {
    Object.assign(this, { title, columns, text, rank, empty });
    this.rows = new Map();
    this.filter = [];
    this.sort = sort ?? null;
    this.most = PART;
    this.order = [];
    this.shown = new Map();
    this.isFolded = false;
    const id = title.toLowerCase().replaceAll(/[^a-z]+/g, "-");
    this.id = id;
    this.note = el("span", { class: "note" }, note ?? "");
    this.fold = el("button", { type: "button", class: "plain fold", "aria-expanded": "true", "aria-controls": `${id}-body`, on: { click: () => this.setFolded(!this.isFolded) } }, "Fold");
    this.heads = columns.map((column) => this.#head(column));
    this.body = el("tbody");
    this.none = el("p", { class: "empty" });
    this.more = el("button", { type: "button", class: "plain", on: { click: () => this.#showMore() } });
    this.count = el("span");
    this.tail = el("div", { class: "tail", hidden: true }, this.count, this.more);
    const caption = el("caption", { class: "hidden" }, title);
    const table = el("table", {}, caption, el("thead", {}, el("tr", {}, ...this.heads)), this.body);
    this.scroll = el("div", { class: "scroll", role: "region", "aria-label": `${title}, table`, tabindex: "0" }, table);
    this.content = el("div", { id: `${id}-body` }, this.scroll, this.none, this.tail);
    this.element = el(
      "section",
      { class: "panel", id, "aria-labelledby": `${id}-title` },
      el("header", {}, el("h2", { id: `${id}-title` }, title), this.note, this.fold),
      this.content,
    );
    if (folded) this.setFolded(true);
  }

  #head(column) {
    const attributes = { scope: "col", class: [column.numeric ? "num" : "", column.hide ?? ""].join(" ").trim() || null };
    if (!column.title) return el("th", attributes, el("span", { class: "hidden" }, column.label ?? ""));
    if (!column.by) return el("th", attributes, column.title);
    const press = () => {
      const first = column.first ?? (column.numeric ? "descending" : "ascending");
      const other = first === "ascending" ? "descending" : "ascending";
      this.sort = this.sort?.column === column.title && this.sort.order === first ? { column: column.title, order: other } : { column: column.title, order: first };
      this.arrange();
    };
    return el("th", attributes, el("button", { type: "button", on: { click: press } }, column.title));
  }

  setFolded(isFolded) {
    this.isFolded = isFolded;
    this.content.hidden = isFolded;
    this.fold.textContent = isFolded ? "Show" : "Fold";
    this.fold.setAttribute("aria-expanded", String(!isFolded));
    this.fold.setAttribute("aria-label", `${isFolded ? "Show" : "Fold"} ${this.title}`);
    if (!isFolded) this.arrange();
  }

  setFilter(words) {
    this.filter = words;
    this.most = PART;
    this.arrange();
  }

  /** Takes rows over; `changed` has the ids of those that differ, or nothing for all. */
  update(rows, changed) {
    this.rows = rows;
    if (this.isFolded) return;
    const moves = !changed || [...changed].some((id) => this.#moves(id));
    if (moves) this.arrange();
    else for (const id of changed) this.#draw(id);
  }

  /** Whether the place of a row may be another one than before. Its place by a number stays until the order is asked for anew, so that rows do not jump. */
  #moves(id) {
    const [row, shown] = [this.rows.get(id), this.known?.get(id)];
    return row === undefined || shown === undefined || shown !== (this.rank?.(row) ?? 0);
  }

  matches(row) {
    const text = this.text(row).toLowerCase();
    // A word such as pool:web is meant whole: another pool may begin with it.
    return this.filter.every((word) => (word.startsWith("pool:") ? text.split(" ").includes(word) : text.includes(word)));
  }

  arrange() {
    if (this.isFolded) return;
    const all = [...this.rows.entries()];
    this.known = new Map(all.map(([id, row]) => [id, this.rank?.(row) ?? 0]));
    const found = this.filter.length ? all.filter(([, row]) => this.matches(row)) : all;
    const column = this.columns.find((column) => column.title === this.sort?.column);
    const direction = this.sort?.order === "descending" ? -1 : 1;
    const key = new Map(found.map(([id, row]) => [id, column?.by(row) ?? null]));
    found.sort(([one], [other]) => {
      const ranks = this.sort?.plain ? 0 : this.known.get(other) - this.known.get(one);
      return ranks || compare(key.get(one), key.get(other), direction);
    });
    this.heads.forEach((head, at) => {
      const isIt = this.columns[at].title === this.sort?.column && this.columns[at].by;
      if (isIt) head.setAttribute("aria-sort", this.sort.order);
      else head.removeAttribute("aria-sort");
    });
    this.order = found.map(([id]) => id);
    this.#place();
    this.#tell(found.length, all.length);
  }

  #place() {
    const wanted = this.order.slice(0, this.most);
    const keep = new Set(wanted);
    for (const [id, shown] of this.shown) {
      if (keep.has(id)) continue;
      shown.tr.remove();
      this.shown.delete(id);
    }
    let before = null;
    for (const id of wanted) {
      if (!this.shown.has(id)) this.#make(id);
      const { tr } = this.shown.get(id);
      const place = before ? before.nextSibling : this.body.firstChild;
      if (place !== tr) this.body.insertBefore(tr, place);
      before = tr;
      this.#draw(id);
    }
  }

  #make(id) {
    const cells = this.columns.map((column, at) =>
      el(at === 0 ? "th" : "td", { scope: at === 0 ? "row" : null, class: [column.numeric ? "num" : "", column.kind ?? "", column.hide ?? ""].join(" ").trim() || null }),
    );
    this.shown.set(id, { tr: el("tr", {}, ...cells), cells, state: {} });
  }

  #draw(id) {
    const [shown, row] = [this.shown.get(id), this.rows.get(id)];
    if (!shown || !row) return;
    this.columns.forEach((column, at) => column.cell(row, shown.cells[at], shown.state));
  }

  /** Draws what has to be drawn in each second, such as charts of rows that did not change. */
  tick() {
    if (this.isFolded) return;
    const charts = this.columns.map((column, at) => [column, at]).filter(([column]) => column.tick);
    if (!charts.length) return;
    for (const [id, shown] of this.shown) {
      const row = this.rows.get(id);
      if (row) for (const [column, at] of charts) column.tick(row, shown.cells[at], shown.state);
    }
  }

  #showMore() {
    const first = this.order[this.most];
    this.most += PART * 4;
    this.arrange();
    this.shown.get(first)?.tr.querySelector("button, a, [tabindex]")?.focus();
  }

  #tell(found, all) {
    const left = Math.max(found - this.most, 0);
    this.none.hidden = found > 0;
    this.none.textContent = all ? "Nothing here matches the filter." : this.empty;
    this.scroll.hidden = found === 0;
    this.tail.hidden = left === 0;
    this.count.textContent = `${Math.min(found, this.most)} of ${found} shown`;
    this.more.textContent = `Show ${Math.min(left, PART * 4)} more`;
    setAttribute(this.more, "aria-label", `Show ${Math.min(left, PART * 4)} more of ${this.title}`);
  }
}

/** What has no value comes last, whichever way the others are sorted. */
function compare(one, other, direction) {
  if (one === other) return 0;
  if (one === null || one === undefined) return 1;
  if (other === null || other === undefined) return -1;
  if (typeof one === "number") return direction * (one - other);
  return direction * String(one).localeCompare(String(other), "en", { numeric: true });
}
