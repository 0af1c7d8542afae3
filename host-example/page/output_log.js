// The output of a command as it comes. Only the newest lines are in the document; earlier ones are loaded when asked for.

import { el, setText } from "./dom.js";
import { terminalNodes } from "./terminal_text.js";
import { clock, full } from "./time_text.js";

/** How many lines are shown while they come. */
const SHOWN = 2000;

/** How many may be shown when earlier ones were asked for. */
const SHOWN_AT_MOST = 12_000;

export const OUTPUT = "command.output";
const DROPPED = "command.output_dropped";
const HELD_OPEN = "command.output_held_open";
const ATTEMPT = "command.attempt_started";

/** Whether the event has a line here. */
export function isLine({ event_type: type }) {
  return type === OUTPUT || type === DROPPED || type === HELD_OPEN || type === ATTEMPT;
}

function lineOf(event) {
  const { payload } = event;
  const time = el("time", { title: full(event.occurred_at_ms) }, clock(event.occurred_at_ms));
  if (event.event_type !== OUTPUT) {
    const text = event.event_type === ATTEMPT ? `attempt ${payload.attempt}`
      : event.event_type === DROPPED ? `output was dropped: ${JSON.stringify(payload)}`
        : "the command has ended, and something still holds its output open";
    return el("div", { class: "line mark", "data-sequence": event.sequence }, time, el("span", { class: "text" }, text));
  }
  const isError = payload.stream === "stderr";
  return el("div", { class: `line ${isError ? "stderr" : "stdout"}${payload.continued ? " continued" : ""}`, "data-sequence": event.sequence },
    time,
    isError ? el("span", { class: "source" }, "err") : el("span", { class: "source" }),
    el("span", { class: "text" }, terminalNodes(payload.text ?? "")));
}

export class OutputLog {
  #lines = el("div", { class: "lines", role: "log", "aria-live": "off", "aria-label": "Output", tabindex: 0 });
  #earlier = el("button", { type: "button", class: "button earlier", hidden: true }, "Load earlier lines");
  #followButton = el("button", { type: "button", class: "button", "aria-pressed": "true", "aria-keyshortcuts": "f" }, "Follow");
  #count = el("span", { class: "muted" });
  /** The newest lines as events, whether they are shown or not. */
  #tail = [];
  #fresh = [];
  #missed = 0;
  #total = 0;
  #isFollowing = true;
  #frame;
  #loadBefore;
  #hasEarlier = false;

  /** `loadBefore(sequence)` answers `{ events, hasEarlier }` of before an event. */
  constructor(loadBefore) {
    this.#loadBefore = loadBefore;
    const shows = (value, label) => el("label", { class: "choice" },
      el("input", { type: "radio", name: "stream", value, checked: value === "both", onchange: () => { this.#lines.dataset.shows = value; this.#stayAtEnd(); } }), el("span", {}, label));
    const wrap = el("input", { type: "checkbox", checked: true, onchange: () => { this.#lines.classList.toggle("wrapped", wrap.checked); this.#stayAtEnd(); } });
    this.#lines.classList.add("wrapped");
    this.#earlier.addEventListener("click", () => this.#loadEarlier());
    this.#followButton.addEventListener("click", () => this.setFollowing(!this.#isFollowing));
    this.#lines.addEventListener("scroll", () => this.#scrolled());
    this.element = el("section", { class: "card output", "aria-labelledby": "output-title" },
      el("div", { class: "card-head" }, el("h2", { id: "output-title" }, "Output"), this.#count,
        el("div", { class: "card-tools" },
          el("fieldset", { class: "choices" }, el("legend", { class: "visually-hidden" }, "Which output"), shows("both", "Both"), shows("stdout", "stdout"), shows("stderr", "stderr")),
          el("label", { class: "check" }, wrap, "wrap"),
          this.#followButton)),
      this.#lines);
    this.#lines.append(this.#earlier);
    this.#sayHow();
  }

  get isFollowing() {
    return this.#isFollowing;
  }

  /** Whether there is something before what was given. */
  setHasEarlier(hasEarlier) {
    this.#hasEarlier = hasEarlier;
    this.#earlier.hidden = !hasEarlier;
  }

  /** Takes newer events; those that are no line are left out. */
  append(events) {
    const lines = events.filter(isLine);
    if (lines.length === 0) return;
    this.#total += lines.length;
    this.#tail.push(...lines);
    if (this.#tail.length > SHOWN * 2) this.#tail.splice(0, this.#tail.length - SHOWN);
    if (this.#isFollowing) this.#fresh.push(...lines);
    else this.#missed += lines.length;
    this.#frame ??= requestAnimationFrame(() => this.#draw());
  }

  /** Goes on with what comes, or stays where it is. */
  setFollowing(isFollowing) {
    if (isFollowing && !this.#isFollowing) {
      this.#isFollowing = true;
      this.#missed = 0;
      this.#fresh = this.#tail.slice(-SHOWN);
      this.#lines.replaceChildren(this.#earlier);
      this.#draw();
    } else if (!isFollowing) {
      this.#isFollowing = false;
    }
    this.#sayHow();
  }

  close() {
    cancelAnimationFrame(this.#frame);
  }

  #draw() {
    this.#frame = undefined;
    const fresh = this.#fresh.slice(-SHOWN);
    this.#fresh = [];
    if (fresh.length) this.#lines.append(...fresh.map(lineOf));
    if (this.#isFollowing) {
      const tooMany = this.#lines.childElementCount - 1 - SHOWN;
      if (tooMany > 0) {
        for (let at = 0; at < tooMany; at += 1) this.#earlier.nextElementSibling.remove();
        this.#earlier.hidden = false;
      }
      this.#stayAtEnd();
    }
    this.#sayHow();
  }

  #stayAtEnd() {
    if (this.#isFollowing) this.#lines.scrollTop = this.#lines.scrollHeight;
  }

  #sayHow() {
    const shown = this.#lines.childElementCount - 1;
    setText(this.#count, this.#total === 0 ? "none yet" : `${shown.toLocaleString()} ${shown === 1 ? "line" : "lines"}${this.#earlier.hidden ? "" : ", the newest"}`);
    setText(this.#followButton, this.#isFollowing ? "Following" : this.#missed ? `Follow (${this.#missed.toLocaleString()} new)` : "Follow");
    this.#followButton.setAttribute("aria-pressed", String(this.#isFollowing));
  }

  #scrolled() {
    const { scrollTop, scrollHeight, clientHeight } = this.#lines;
    const isAtEnd = scrollHeight - scrollTop - clientHeight < 24;
    if (this.#isFollowing && !isAtEnd && this.#fresh.length === 0) this.setFollowing(false);
    else if (!this.#isFollowing && isAtEnd && this.#missed === 0) {
      this.#isFollowing = true;
      this.#sayHow();
    }
  }

  async #loadEarlier() {
    const first = this.#earlier.nextElementSibling;
    if (!first) return;
    this.setFollowing(false);
    this.#earlier.disabled = true;
    try {
      const { events, hasEarlier } = await this.#loadBefore(Number(first.dataset.sequence));
      const heightBelow = this.#lines.scrollHeight - this.#lines.scrollTop;
      this.#earlier.after(...events.filter(isLine).map(lineOf));
      // What was looked at stays where it is.
      this.#lines.scrollTop = this.#lines.scrollHeight - heightBelow;
      while (this.#lines.childElementCount - 1 > SHOWN_AT_MOST) {
        this.#lines.lastElementChild.remove();
        this.#missed += 1;
      }
      this.setHasEarlier(hasEarlier);
    } finally {
      this.#earlier.disabled = false;
      this.#sayHow();
    }
  }
}
