// The list of processes: a page of rows that is read again when something changes. However many there are, no more than a
// page of them is ever here.

import { get, offers, processPath, withQuery } from "./api.js";
import { followChanges } from "./change_feed.js";
import { announce, badge, el, setText, throttled } from "./dom.js";
import { HostFigures } from "./host_figures.js";
import { ProcessSearch } from "./process_search.js";
import { ago, duration, full, now } from "./time_text.js";

const PAGE = 50;
const STATES = ["running", "completed", "failed", "cancelled", "abandoned"];

/** The most often a list is read. */
const REFRESH_MS = 700;

/** How many rows of a search are kept fresh. */
const RENEWED_HITS = 20;

/** The place of a process's view. */
export function placeOf(id) {
  return `#/process/${encodeURIComponent(id)}`;
}

export class ListView {
  title = "Processes";
  #root;
  #filter;
  #ending = new AbortController();
  #reading;
  #rows = new Map();
  #before = [];
  #after;
  #next;
  #order;
  #search;
  #parts = {};
  #clock;
  #figures = new HostFigures();
  #refresh = throttled(() => this.#read(), REFRESH_MS);

  constructor(root, query) {
    this.#root = root;
    this.#filter = Object.fromEntries(query);
  }

  /** `from` is the place that was shown before: its row gets the focus. */
  async open(from) {
    this.#draw();
    this.#figures.open(this.#parts.figures);
    this.#clock = setInterval(() => this.#tick(), 1000);
    this.#order = (await offers("/processes", "get", "order").catch(() => false)) ? "newest" : undefined;
    if (this.#ending.signal.aborted) return;
    await this.#read();
    [...this.#parts.body.querySelectorAll("a")].find(({ hash }) => hash === from)?.focus();
    followChanges({
      // Output changes nothing of what a list shows.
      onChange: (change) => change?.type === "command.output" || this.#refresh(),
      signal: this.#ending.signal,
    });
  }

  close() {
    this.#ending.abort();
    this.#reading?.abort();
    this.#refresh.stop();
    this.#figures.close();
    clearInterval(this.#clock);
  }

  /** Keys of the list. */
  onKey(key) {
    if (key === "/") this.#parts.search.focus();
    else if (key === "j" || key === "ArrowDown") this.#move(1);
    else if (key === "k" || key === "ArrowUp") this.#move(-1);
    else if (key === "]") this.#turn(1);
    else if (key === "[") this.#turn(-1);
    else if (key === "Escape") this.#leaveSearch();
    else return false;
    return true;
  }

  #draw() {
    const state = (value, label) =>
      el("label", { class: `choice ${value}` },
        el("input", { type: "radio", name: "status", value, checked: (this.#filter.status ?? "any") === value, onchange: () => this.#set("status", value === "any" ? "" : value) }),
        el("span", {}, label));
    const field = (name, label, placeholder) =>
      el("label", { class: "field" }, el("span", { class: "visually-hidden" }, label),
        el("input", { type: "text", name, value: this.#filter[name] ?? "", placeholder, autocomplete: "off", spellcheck: "false", onchange: ({ target }) => this.#set(name, target.value.trim()) }));
    const search = el("input", {
      type: "search", id: "search", value: this.#filter.q ?? "", placeholder: "Search id, label or tag", autocomplete: "off", spellcheck: "false",
      "aria-keyshortcuts": "/", oninput: throttled(() => this.#set("q", search.value.trim()), 250),
    });
    const waiting = el("input", { type: "checkbox", checked: this.#filter.waiting === "true", onchange: () => this.#set("waiting", waiting.checked ? "true" : "") });
    const column = (name, title = name) => el("th", { scope: "col", role: "columnheader", class: `c-${name.toLowerCase()}` }, title);
    Object.assign(this.#parts, {
      search,
      figures: el("section", { class: "figures", "aria-label": "Figures of this host" }),
      body: el("tbody", { role: "rowgroup" }),
      note: el("p", { class: "note" }),
      empty: el("div", { class: "empty", hidden: true }),
      newer: el("button", { type: "button", class: "button", "aria-keyshortcuts": "[", onclick: () => this.#turn(-1), disabled: true }, "← Newer"),
      older: el("button", { type: "button", class: "button", "aria-keyshortcuts": "]", onclick: () => this.#turn(1), disabled: true }, "Older →"),
      further: el("button", { type: "button", class: "button", hidden: true, onclick: () => this.#searchOn() }, "Search the others"),
    });
    const { body, note, empty, newer, older, further, figures } = this.#parts;
    this.#root.replaceChildren(
      el("h1", { class: "visually-hidden" }, "Processes"),
      figures,
      el("form", { class: "filters", role: "search", "aria-label": "Find processes", onsubmit: (event) => { event.preventDefault(); this.#firstLink()?.focus(); } },
        el("label", { class: "field search" }, el("span", { class: "visually-hidden" }, "Search"), search, el("kbd", { "aria-hidden": "true" }, "/")),
        el("fieldset", { class: "choices" }, el("legend", { class: "visually-hidden" }, "Status"), state("any", "All"), STATES.map((name) => state(name, name))),
        field("kind", "Kind", "Kind"),
        field("tags", "Tags, separated by commas", "Tags"),
        el("label", { class: "check" }, waiting, "waiting")),
      el("div", { class: "panel" },
        el("table", { class: "list", role: "table", "aria-label": "Processes", "aria-describedby": "list-note" },
          el("thead", { role: "rowgroup" }, el("tr", { role: "row" }, column("Status"), column("Process"), column("Kind"), column("Tags"), column("Attempts"), column("Started", "Registered"), column("Time"))),
          body),
        empty),
      el("div", { class: "pager" }, note, further, newer, older));
    note.id = "list-note";
  }

  /** A filter has changed: the address says so, and the list begins anew. */
  #set(name, value) {
    if ((this.#filter[name] ?? "") === value) return;
    if (value) this.#filter[name] = value;
    else delete this.#filter[name];
    const query = new URLSearchParams(this.#filter).toString();
    history.replaceState(null, "", query ? `#/?${query}` : "#/");
    this.#before = [];
    this.#after = undefined;
    this.#search = undefined;
    this.#read("announce");
  }

  #leaveSearch() {
    this.#parts.search.value = "";
    this.#set("q", "");
    this.#firstLink()?.focus();
  }

  #turn(pages) {
    if (this.#filter.q) return;
    if (pages > 0 && this.#next) {
      this.#before.push(this.#after);
      this.#after = this.#next;
    } else if (pages < 0 && this.#before.length) {
      this.#after = this.#before.pop();
    } else return;
    this.#read("announce").then(() => {
      this.#root.scrollIntoView({ block: "start" });
      this.#firstLink()?.focus({ preventScroll: true });
    });
  }

  async #read(manner) {
    this.#reading?.abort();
    const reading = (this.#reading = new AbortController());
    const { q, ...filter } = this.#filter;
    try {
      if (q) {
        const isNew = !this.#search;
        const search = (this.#search ??= new ProcessSearch(q, filter, this.#order));
        if (isNew) await search.begin(reading.signal);
        else await this.#renew(search, reading.signal);
        if (reading !== this.#reading) return;
        this.#show(search.processes.slice(0, PAGE * 4));
      } else {
        const query = { ...filter, order: this.#order, after: this.#after, limit: PAGE };
        const page = await get(withQuery("/processes", query), reading.signal);
        if (reading !== this.#reading) return;
        this.#next = page.next_after;
        this.#show(page.processes);
      }
      if (manner === "announce") announce(this.#parts.note.textContent);
    } catch (error) {
      if (reading.signal.aborted) return;
      // A search that broke off is begun again.
      if (this.#search?.scanned === 0) this.#search = undefined;
      if (this.#rows.size === 0 || error.status === 400 || error.status === 422) this.#showNothing("This cannot be listed", error.message);
    }
  }

  /** Reads what may have changed of what was found. */
  async #renew(search, signal) {
    const live = search.processes.filter(({ status }) => status === "running").slice(0, RENEWED_HITS);
    const renewed = await Promise.all(live.map(({ process_id: id }) => get(processPath(id), signal)));
    for (const process of renewed) search.renew(process);
  }

  async #searchOn() {
    const search = this.#search;
    this.#parts.further.disabled = true;
    try {
      for (let page = 0; page < 10 && search === this.#search && !search.isComplete; page += 1) {
        await search.goOn(this.#ending.signal);
        this.#show(search.processes.slice(0, PAGE * 4));
      }
      announce(this.#parts.note.textContent);
    } catch (error) {
      if (!this.#ending.signal.aborted) announce(error.message);
    } finally {
      this.#parts.further.disabled = false;
    }
  }

  #show(processes) {
    const { body, note, empty, newer, older, further } = this.#parts;
    const rows = new Map();
    for (const process of processes) {
      const row = this.#rows.get(process.process_id) ?? new ProcessRow();
      row.show(process);
      rows.set(process.process_id, row);
    }
    for (const [id, row] of this.#rows) if (!rows.has(id)) row.element.remove();
    // Rows that stay are not moved, so that the focus stays on them.
    let at = body.firstElementChild;
    for (const { element } of rows.values()) {
      if (element === at) at = at.nextElementSibling;
      else body.insertBefore(element, at);
    }
    this.#rows = rows;
    const search = this.#filter.q ? this.#search : undefined;
    body.parentElement.hidden = rows.size === 0;
    empty.hidden = rows.size > 0;
    newer.hidden = older.hidden = Boolean(search);
    setText(newer, this.#order ? "← Newer" : "← Before");
    setText(older, this.#order ? "Older →" : "Next →");
    newer.disabled = this.#before.length === 0;
    older.disabled = !this.#next;
    further.hidden = !search || search.isComplete;
    if (rows.size === 0) {
      if (search) this.#showNothing("Nothing found", search.isComplete ? "No process has this in its id, label, kind or tags." : `None of the ${search.scanned.toLocaleString()} processes that were looked at has this.`);
      else if (Object.keys(this.#filter).length) this.#showNothing("No process is like this", "Other filters may find some.");
      else this.#showNothing("No processes yet", "Start a command here, or with proctor submit.");
    }
    if (search) setText(note, `${rows.size} found, ${search.isComplete ? "all" : search.scanned.toLocaleString()} looked at`);
    else setText(note, rows.size === 0 ? "" : `Processes ${(this.#before.length * PAGE + 1).toLocaleString()}–${(this.#before.length * PAGE + rows.size).toLocaleString()}${this.#next ? "" : ", the last"}${this.#order ? ", newest first" : ", by id"}`);
  }

  #showNothing(title, text) {
    const { body, empty } = this.#parts;
    body.parentElement.hidden = true;
    empty.hidden = false;
    empty.replaceChildren(el("p", { class: "empty-title" }, title), el("p", {}, text));
  }

  #firstLink() {
    return this.#parts.body.querySelector("a");
  }

  #move(rows) {
    const links = [...this.#parts.body.querySelectorAll("a.row-link")];
    const at = links.indexOf(document.activeElement);
    const to = at < 0 ? (rows > 0 ? 0 : links.length - 1) : Math.min(links.length - 1, Math.max(0, at + rows));
    links[to]?.focus();
    links[to]?.closest("tr").scrollIntoView({ block: "nearest" });
  }

  #tick() {
    if (document.hidden) return;
    for (const row of this.#rows.values()) row.tick();
  }
}

/** One row. */
class ProcessRow {
  #process;
  #parts = {};

  constructor() {
    const cell = (name, ...children) => (this.#parts[name] = el("td", { role: "cell", class: `c-${name}` }, ...children));
    this.#parts.link = el("a", { class: "row-link" });
    this.#parts.id = el("span", { class: "row-id" });
    this.element = el("tr", { role: "row" },
      cell("status"), cell("process", this.#parts.link, this.#parts.id), cell("kind"), cell("tags"), cell("attempts"), cell("started"), cell("time"));
  }

  show(process) {
    const was = this.#process;
    this.#process = process;
    const { link, id, status, kind, tags, attempts, started } = this.#parts;
    if (was?.status !== process.status || Boolean(was?.wait) !== Boolean(process.wait)) {
      status.replaceChildren(badge(process.status), process.wait && process.status === "running" ? el("span", { class: "badge waiting" }, "waiting") : "");
      this.element.className = process.status;
    }
    link.setAttribute("href", placeOf(process.process_id));
    setText(link, process.label ?? process.process_id);
    setText(id, process.label ? process.process_id : "");
    setText(kind, process.kind);
    if (was?.tags.join() !== process.tags.join()) tags.replaceChildren(...process.tags.map((tag) => el("span", { class: "tag" }, tag)));
    setText(attempts, process.attempts === 0 ? "–" : process.retry ? `${process.attempts} of ${process.retry.max_attempts}` : String(process.attempts));
    started.title = full(process.created_at_ms);
    this.tick();
  }

  tick() {
    const { created_at_ms: from, terminal_at_ms: to } = this.#process;
    setText(this.#parts.started, ago(from));
    setText(this.#parts.time, duration((to ?? now()) - from));
  }
}
