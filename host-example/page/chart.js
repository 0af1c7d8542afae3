// A small chart: the last minutes of one number as a line, drawn as SVG.

import { el, setText, svg } from "./dom.js";

const WIDTH = 160;
const HEIGHT = 26;

/** The points of the line in a box; values that are not there break nothing. Pure. */
export function linePoints(values, slots, width, height) {
  const top = Math.max(1e-9, ...values);
  const from = slots - values.length;
  return values.map((value, at) => [
    ((from + at) / Math.max(1, slots - 1)) * width,
    height - 2 - (Math.max(0, value) / top) * (height - 6),
  ]);
}

export class Chart {
  #slots;
  #area = svg("path", { class: "chart-area" });
  #line = svg("path", { class: "chart-line" });
  #value = el("span", { class: "figure-value" }, "–");
  #values = [];
  #inWords;

  constructor(name, slots, inWords) {
    this.#slots = slots;
    this.#inWords = inWords;
    this.element = el("div", { class: "figure" },
      el("span", { class: "figure-name" }, name),
      this.#value,
      svg("svg", { class: "chart", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true", focusable: "false" }, this.#area, this.#line));
  }

  /** Adds the newest value. */
  push(value) {
    this.#values.push(value);
    if (this.#values.length > this.#slots) this.#values.shift();
    setText(this.#value, this.#inWords(value));
    const points = linePoints(this.#values, this.#slots, WIDTH, HEIGHT).map((point) => point.map((part) => part.toFixed(1)).join(" "));
    if (points.length < 2) return;
    const line = `M${points.join("L")}`;
    this.#line.setAttribute("d", line);
    this.#area.setAttribute("d", `${line}L${WIDTH} ${HEIGHT}L${points[0].split(" ")[0]} ${HEIGHT}Z`);
  }
}
