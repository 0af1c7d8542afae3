// What will not end by itself: processes that are stuck, and those whose actors are quarantined.

import { get, offers, processPath, withQuery } from "./api.js";
import { el } from "./dom.js";
import { placeOf } from "./list_view.js";
import { ago, full, sentence } from "./time_text.js";

/** How many running processes are asked about at a time, where the host does not say by itself which are stuck. */
const ASKED = 100;

export class AttentionView {
  title = "Attention";
  #root;
  #ending = new AbortController();
  #list = el("div", { class: "panel" });
  #quarantined = el("div", {});
  #more = el("button", { type: "button", class: "button", hidden: true }, "Look further");
  #after;
  #found = 0;
  #note = el("p", { class: "note", "aria-live": "polite" });

  constructor(root) {
    this.#root = root;
    this.#more.addEventListener("click", () => this.#look());
  }

  async open() {
    this.#root.replaceChildren(
      el("h1", {}, "What needs somebody"),
      el("p", { class: "muted" }, "Processes that nobody and nothing will end by itself."),
      this.#quarantined, this.#list, el("div", { class: "pager" }, this.#note, this.#more));
    await Promise.all([this.#look(), this.#showQuarantined()]);
  }

  close() {
    this.#ending.abort();
  }

  onKey(key) {
    if (key === "Escape") location.hash = "#/";
    else return false;
    return true;
  }

  async #look() {
    const { signal } = this.#ending;
    this.#more.disabled = true;
    this.#note.textContent = "Looking…";
    try {
      if (await offers("/stuck")) {
        const page = await get(withQuery("/stuck", { after: this.#after }), signal);
        this.#after = page.next_after;
        for (const explanation of page.stuck) this.#show(explanation);
      } else {
        const page = await get(withQuery("/processes", { status: "running", after: this.#after, limit: ASKED }), signal);
        this.#after = page.next_after;
        for (const process of page.processes) {
          const explanation = await get(processPath(process.process_id, "/explanation"), signal);
          if (explanation.stuck) this.#show(explanation);
        }
      }
      this.#more.hidden = !this.#after;
      this.#note.textContent = this.#after ? `${this.#found} so far` : "";
      if (this.#found === 0 && !this.#after) this.#list.replaceChildren(el("div", { class: "empty" }, el("p", { class: "empty-title" }, "Nothing is stuck"), el("p", {}, "Everything that has not ended has somebody who ends it.")));
    } catch (error) {
      if (!signal.aborted) this.#note.textContent = error.message;
    } finally {
      this.#more.disabled = false;
    }
  }

  #show(explanation) {
    this.#found += 1;
    this.#list.append(el("article", { class: "stuck" },
      el("h2", {}, el("a", { href: placeOf(explanation.process_id) }, explanation.process_id)),
      el("p", {}, sentence(explanation.next)),
      el("p", { class: "muted" }, `${sentence(explanation.rule)} Since ${full(explanation.since_ms)}, ${ago(explanation.since_ms)}.`)));
  }

  async #showQuarantined() {
    if (!(await offers("/host").catch(() => false))) return;
    const host = await get("/host", this.#ending.signal).catch(() => undefined);
    if (!host?.quarantined?.length) return;
    this.#quarantined.replaceChildren(el("section", { class: "callout", "aria-label": "Quarantined" },
      el("p", {}, "Their actors failed again and again, and rest for a minute:"),
      el("ul", {}, host.quarantined.map(({ process_id: id, reason }) => el("li", {}, el("a", { href: placeOf(id) }, id), `: ${reason}`)))));
  }
}
