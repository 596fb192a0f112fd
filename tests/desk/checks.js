// What an accessibility checker looks for, as far as it can be told from a page without a person: names, contrast, references, headings, tables. Gives a list of faults.
(() => {
  const faults = [];
  const fault = (element, what) => faults.push(`${what}: <${element.tagName.toLowerCase()}${element.id ? ` id=${element.id}` : ""} class="${element.getAttribute("class") ?? ""}"> ${element.textContent.trim().slice(0, 40)}`);
  const isShown = (element) => element.checkVisibility({ visibilityProperty: true, opacityProperty: true }) && element.getClientRects().length > 0;
  const all = [...document.querySelectorAll("body *")].filter(isShown);

  // Names.
  for (const element of all.filter((one) => one.matches("button, a[href], input, meter, [role=region], nav, section, dialog"))) {
    const by = (element.getAttribute("aria-labelledby") ?? "").split(" ").filter(Boolean).map((id) => document.getElementById(id)?.textContent ?? "").join(" ");
    const label = element.labels ? [...element.labels].map((one) => one.textContent).join(" ") : "";
    const name = (element.getAttribute("aria-label") || by || label || element.textContent || "").trim();
    if (!name) fault(element, "no name");
    const seen = element.matches("button, a[href]") ? element.textContent.trim().toLowerCase() : "";
    const spoken = (element.getAttribute("aria-label") ?? "").toLowerCase();
    if (seen && spoken && !seen.split(/\s+/).every((word) => spoken.includes(word)) && element.id !== "theme") fault(element, "the name lacks what is seen");
  }
  for (const image of document.querySelectorAll("img")) if (!image.hasAttribute("alt")) fault(image, "no alt");
  for (const svg of document.querySelectorAll("svg")) if (svg.getAttribute("aria-hidden") !== "true") fault(svg, "a picture without a name");

  // References.
  const ids = [...document.querySelectorAll("[id]")].map((one) => one.id);
  for (const id of ids) if (ids.filter((other) => other === id).length > 1) faults.push(`id twice: ${id}`);
  for (const name of ["aria-controls", "aria-labelledby", "for"]) {
    for (const element of document.querySelectorAll(`[${name}]`)) {
      for (const id of element.getAttribute(name).split(" ")) if (!document.getElementById(id)) fault(element, `${name} leads nowhere`);
    }
  }
  for (const link of document.querySelectorAll('a[href^="#"]')) if (!document.getElementById(link.getAttribute("href").slice(1))) fault(link, "link leads nowhere");

  // Structure.
  if (!document.documentElement.lang) faults.push("no language");
  if (document.querySelectorAll("h1").length !== 1) faults.push("not one h1");
  if (document.querySelectorAll("main").length !== 1) faults.push("not one main");
  let level = 0;
  for (const heading of [...document.querySelectorAll("h1, h2, h3, h4")].filter(isShown)) {
    const own = Number(heading.tagName[1]);
    if (own > level + 1) fault(heading, `heading after level ${level}`);
    level = own;
  }
  for (const table of document.querySelectorAll("table")) {
    if (!table.caption) fault(table, "no caption");
    if (![...table.querySelectorAll("th")].every((head) => head.scope)) fault(table, "th without scope");
    if ([...table.tBodies[0].rows].some((row) => row.cells.length !== table.tHead.rows[0].cells.length)) fault(table, "cells without heads");
  }

  // Contrast (WCAG 2.2, 1.4.3).
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const colour = (text) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = text;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = (top, below) => top.slice(0, 3).map((value, at) => value * top[3] + below[at] * (1 - top[3])).concat(1);
  const ground = (element) => {
    const layers = [];
    for (let one = element; one; one = one.parentElement) layers.push(colour(getComputedStyle(one).backgroundColor));
    return layers.reverse().reduce((below, top) => over(top, below), [255, 255, 255, 1]);
  };
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((value) => (value / 255 <= 0.04045 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  for (const element of all) {
    if (![...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim())) continue;
    if (element.closest(".hidden, .skip, noscript, [disabled]")) continue;
    const style = getComputedStyle(element);
    const below = ground(element);
    const [one, other] = [light(over(colour(style.color), below)), light(below)];
    const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    const size = parseFloat(style.fontSize);
    const isLarge = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    if (ratio < (isLarge ? 3 : 4.5)) fault(element, `contrast ${ratio.toFixed(2)}`);
  }
  return faults;
})()
