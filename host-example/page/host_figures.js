// How busy the host is: its figures of the last minutes, where it offers them.

import { get, offers } from "./api.js";
import { Chart } from "./chart.js";

const STATS = "/stats";
const EACH_MS = 2000;
/** Four minutes. */
const KEPT = 120;

/** How much a figure grew in each second between two looks. */
function rate(name, last, stats) {
  const seconds = (stats.now_ms - last.now_ms) / 1000;
  return seconds > 0 ? Math.max(0, (stats[name] - last[name]) / seconds) : 0;
}

/** What took a commit between two looks, in ms: 0 if there was none. */
function commitMs(last, stats) {
  const commits = stats.commit_seconds_count - last.commit_seconds_count;
  return commits > 0 ? ((stats.commit_seconds_sum - last.commit_seconds_sum) / commits) * 1000 : 0;
}

const short = new Intl.NumberFormat(undefined, { notation: "compact", maximumFractionDigits: 1 });

const FIGURES = [
  ["Events", (last, stats) => rate("appends_total", last, stats), (value) => `${short.format(value)}/s`],
  ["Commit", commitMs, (value) => (value > 0 ? `${value < 10 ? value.toFixed(1) : Math.round(value)} ms` : "idle")],
  ["Queue", (_, stats) => stats.queue_depth, short.format],
  ["Running", (_, stats) => stats.runs_under_way, short.format],
  ["Live actors", (_, stats) => stats.live_actors, short.format],
  ["Waiters", (_, stats) => stats.waiters, short.format],
];

export class HostFigures {
  #timer;
  #last;
  #charts;
  #closed = false;

  async open(root) {
    const offered = await offers(STATS).catch(() => false);
    root.hidden = !offered;
    if (!offered || this.#closed) return;
    this.#charts = FIGURES.map(([name, , inWords]) => new Chart(name, KEPT, inWords));
    root.replaceChildren(...this.#charts.map(({ element }) => element));
    this.#look();
    this.#timer = setInterval(() => this.#look(), EACH_MS);
  }

  close() {
    this.#closed = true;
    clearInterval(this.#timer);
  }

  async #look() {
    if (document.hidden) return;
    const stats = await get(STATS).catch(() => undefined);
    if (!stats || this.#closed) return;
    // A host that came anew counts from 0.
    const last = this.#last && stats.appends_total >= this.#last.appends_total ? this.#last : stats;
    this.#charts.forEach((chart, at) => chart.push(FIGURES[at][1](last, stats) ?? 0));
    this.#last = stats;
  }
}
