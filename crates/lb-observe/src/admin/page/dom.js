// Elements, charts and the way numbers are written. Text is always set as text: nothing here makes markup of a string.

const SVG = "http://www.w3.org/2000/svg";

export function $(id) {
  return document.getElementById(id);
}

/** Makes an element. Children are elements or texts; a value of null leaves an attribute out. */
export function el(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "on") {
      for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener);
    } else if (value !== null && value !== undefined && value !== false) {
      element.setAttribute(key, value === true ? "" : String(value));
    }
  }
  element.append(...children);
  return element;
}

/** Sets a text if it differs: what does not change is not drawn again. */
export function setText(element, text) {
  const value = String(text);
  if (element.textContent !== value) element.textContent = value;
}

/** Sets an attribute if it differs. */
export function setAttribute(element, name, value) {
  if (element.getAttribute(name) !== String(value)) element.setAttribute(name, String(value));
}

/** A word for a state, with its tone; the shape of its mark differs by tone as well as the colour. */
export function pill(word, tone) {
  return el("span", { class: "pill", "data-tone": tone }, word);
}

/** A chart of one or several lines. It is a picture of what stands beside it as a number, and hidden from screen readers. */
export class Chart {
  constructor(kind, tones, points) {
    this.points = points;
    this.series = tones.map(() => []);
    this.element = document.createElementNS(SVG, "svg");
    for (const [name, value] of [["class", kind], ["viewBox", "0 0 100 30"], ["preserveAspectRatio", "none"], ["aria-hidden", "true"], ["focusable", "false"]]) {
      this.element.setAttribute(name, value);
    }
    this.paths = tones.map((tone) => {
      const path = (name) => {
        const path = document.createElementNS(SVG, "path");
        path.setAttribute("class", `${name} ${tone}`);
        return path;
      };
      const [area, line] = [path("area"), path("line")];
      if (tones.length === 1) this.element.append(area);
      this.element.append(line);
      return { area, line };
    });
  }

  /** Adds a point to each line; null where there is none. */
  push(values) {
    this.series.forEach((series, at) => {
      series.push(values[at] ?? null);
      if (series.length > this.points) series.shift();
    });
  }

  draw() {
    const top = Math.max(...this.series.flat().map((value) => value ?? 0), 1e-9) * 1.08;
    const step = 100 / (this.points - 1);
    this.series.forEach((series, at) => {
      const { area, line } = this.paths[at];
      const begin = 100 - (series.length - 1) * step;
      let d = "";
      let open = false;
      let first = 0;
      let last = 0;
      series.forEach((value, index) => {
        if (value === null) {
          open = false;
          return;
        }
        last = begin + index * step;
        if (!d) first = last;
        d += `${open ? "L" : "M"}${last.toFixed(2)} ${(30 - (value / top) * 29).toFixed(2)}`;
        open = true;
      });
      line.setAttribute("d", d);
      area.setAttribute("d", d ? `${d.replaceAll("M", (m, offset) => (offset ? "L" : "M"))}L${last.toFixed(2)} 30L${first.toFixed(2)} 30Z` : "");
    });
  }
}

export function count(value) {
  if (value === null || value === undefined) return "–";
  return Math.round(value).toLocaleString("en").replaceAll(",", " ");
}

export function rate(value) {
  if (value === null || value === undefined) return "–";
  if (value > 0 && value < 0.05) return "<0.1";
  return value < 10 && value % 1 !== 0 ? value.toFixed(1) : short(value);
}

export function short(value) {
  for (const [size, letter] of [[1e9, "G"], [1e6, "M"], [1e4, "k"]]) {
    if (value >= size) {
      const unit = letter === "k" ? 1e3 : size;
      const scaled = value / unit;
      return `${scaled < 100 ? scaled.toFixed(1) : Math.round(scaled)}${letter}`;
    }
  }
  return count(value);
}

export function millis(value) {
  if (value === null || value === undefined) return "–";
  if (value >= 9999) return "≥10 s";
  if (value >= 1000) return `${(value / 1000).toFixed(1)} s`;
  return value < 10 ? `${value.toFixed(1)} ms` : `${Math.round(value)} ms`;
}

export function bytes(value) {
  if (value === null || value === undefined) return "–";
  for (const [size, unit] of [[1 << 30, "GiB"], [1 << 20, "MiB"], [1 << 10, "KiB"]]) {
    if (value >= size) return `${(value / size).toFixed(value / size < 100 ? 1 : 0)} ${unit}`;
  }
  return `${Math.round(value)} B`;
}

export function span(seconds) {
  const parts = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  const at = parts.findIndex(([size]) => seconds >= size);
  if (at < 0) return "0\u00a0s";
  const [size, unit] = parts[at];
  const next = parts[at + 1];
  const rest = next ? Math.floor((seconds % size) / next[0]) : 0;
  return `${Math.floor(seconds / size)}\u00a0${unit}${rest ? ` ${rest}\u00a0${next[1]}` : ""}`;
}
