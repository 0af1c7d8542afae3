// One process: where it is and why, its life along the time, its output as it comes, and what can be done to it.

import { get, processPath, withQuery } from "./api.js";
import { announce, badge, el, renew, setText, throttled } from "./dom.js";
import { follow } from "./event_stream.js";
import { isLine, OutputLog } from "./output_log.js";
import { askForAbandon, askForCancel, askForSignal } from "./process_actions.js";
import { shellLine } from "./shell_words.js";
import { ago, clock, duration, full, now, sentence } from "./time_text.js";
import { drawTimeline, timelineOf } from "./timeline.js";

const PAGE = 1000;

/** How many of the newest events are read of a log that is long. */
const TAIL = 2000;

/** How many moments are listed. */
const MOMENTS = 200;

/** How often lease and explanation are read while nothing happens: a lease that is renewed is no event. */
const LOOK_MS = 5000;

/** A moment in words. */
function momentInWords({ event_type: type, payload }) {
  const by = payload?.owner?.owner_id ? ` by ${payload.owner.owner_id}` : "";
  const because = payload?.reason ? `: ${payload.reason}` : "";
  switch (type) {
    case "process.first_started": return `taken up${by}`;
    case "process.attempt_started": return `attempt ${payload.attempt} began${by}`;
    case "process.attempt_failed": return `attempt ${payload.attempt} failed: ${payload.failure?.message}${payload.retry_at_ms ? `; again at ${clock(payload.retry_at_ms)}` : ""}`;
    case "process.cancel_requested": return `asked to end${because}`;
    case "process.abandon_requested": return `may be abandoned${payload?.requested_by ? `, says ${payload.requested_by}` : ""}${because}`;
    case "command.attempt_started": return "command prepared";
    case "command.guarded": return `command runs under guard${payload.guard?.pid ? `, pid ${payload.guard.pid}` : ""}`;
    default: return type.startsWith("signal.") ? `signal ${type.slice(7)}` : type.replace(/^process\./, "").replaceAll("_", " ");
  }
}

export class ProcessView {
  #root;
  #id;
  #ending = new AbortController();
  #process;
  #explanation;
  /** Every event that is known but output. */
  #moments = [];
  #drawnMoments = 0;
  #last = 0;
  #generation;
  #gap;
  #parts = {};
  #log;
  #timers = [];
  #resized;
  #reread = throttled(() => this.#look(), 250);
  #redraw = throttled(() => this.#drawLife(), 200);

  constructor(root, id) {
    this.#root = root;
    this.#id = id;
    this.title = id;
  }

  async open() {
    this.#root.replaceChildren(el("p", { class: "empty" }, "Reading…"));
    try {
      const process = await get(processPath(this.#id), this.#ending.signal);
      this.#process = process;
      this.#generation = process.generation;
      this.#draw();
      this.#look();
      await this.#readEvents();
      this.#timers.push(setInterval(() => this.#tick(), 1000), setInterval(() => document.hidden || this.#isLive && this.#look(), LOOK_MS));
      await this.#followEvents();
    } catch (error) {
      if (this.#ending.signal.aborted) return;
      if (error.status === 404 || error.status === 410) {
        this.#root.replaceChildren(el("div", { class: "panel empty" },
          el("h1", {}, error.status === 410 ? "This process was pruned" : "There is no such process"), el("p", {}, error.message),
          el("p", {}, el("a", { href: "#/" }, "All processes"))));
      } else if (error.status !== 401) {
        // A host that is away is asked again.
        this.#timers.push(setTimeout(() => this.open(), 1500));
      }
    }
  }

  close() {
    this.#ending.abort();
    for (const timer of this.#timers) clearTimeout(timer);
    this.#resized?.disconnect();
    this.#reread.stop();
    this.#redraw.stop();
    this.#log?.close();
  }

  /** Keys of a process. */
  onKey(key) {
    if (key === "Escape") location.hash = history.state?.list ?? "#/";
    else if (key === "f") this.#log?.setFollowing(!this.#log.isFollowing);
    else return false;
    return true;
  }

  get #isLive() {
    return this.#process.status === "running";
  }

  #draw() {
    const process = this.#process;
    const button = (label, manner, onclick) => el("button", { type: "button", class: `button ${manner}`, onclick }, label);
    const done = () => this.#reread();
    this.#log = new OutputLog((sequence) => this.#readBefore(sequence));
    const card = (name, title) => {
      this.#parts[name] = el("div", { class: "card-body" });
      return el("section", { class: `card ${name}`, "aria-labelledby": `${name}-title` }, el("div", { class: "card-head" }, el("h2", { id: `${name}-title` }, title)), this.#parts[name]);
    };
    Object.assign(this.#parts, {
      badges: el("span", { class: "badges" }),
      facts: el("p", { class: "facts" }),
      stuck: el("p", { class: "callout", role: "alert", hidden: true }),
      actions: el("div", { class: "actions" },
        button("Signal…", "", () => askForSignal(this.#id, this.#signalNames(), done)),
        button("Cancel…", "danger-quiet", () => askForCancel(this.#id, done)),
        button("Abandon…", "danger-quiet", () => askForAbandon(this.#id, done))),
      timeline: el("div", { class: "timeline-box" }),
      moments: el("ol", { class: "moments" }),
      momentsNote: el("summary", {}, "Events"),
    });
    const isCommand = process.kind === "command";
    const name = isCommand && Array.isArray(process.input?.argv) ? shellLine(process.input.argv) : process.label ?? this.#id;
    this.#root.replaceChildren(
      el("nav", { class: "crumbs", "aria-label": "Where" }, el("a", { href: history.state?.list ?? "#/" }, "← Processes")),
      el("div", { class: "process-head" },
        el("div", { class: "process-name" }, el("h1", { class: isCommand ? "mono" : "" }, name), this.#parts.badges),
        this.#parts.actions),
      this.#parts.facts,
      this.#parts.stuck,
      el("div", { class: "cards" }, card("where", "Where it is"), card("outcome", "Outcome"), card("lease", "Lease")),
      el("section", { class: "card", "aria-labelledby": "life-title" },
        el("div", { class: "card-head" }, el("h2", { id: "life-title" }, "Timeline")),
        this.#parts.timeline,
        el("details", { class: "moments-box", ontoggle: () => this.#drawMoments() }, this.#parts.momentsNote, this.#parts.moments)),
      this.#log.element,
      this.#input());
    this.#log.element.hidden = !isCommand;
    this.#resized = new ResizeObserver(() => this.#redraw());
    this.#resized.observe(this.#parts.timeline);
    this.#show();
  }

  #input() {
    const { input, kind, cwd } = { ...this.#process, cwd: this.#process.input?.cwd };
    const facts = [];
    if (kind === "command") {
      facts.push(["Command", el("code", {}, shellLine(input.argv ?? []))], ["Directory", el("code", {}, cwd)]);
      const variables = Object.entries(input.env ?? {}).map(([name, value]) => `${name}=${value}`);
      if (variables.length) facts.push(["Environment", el("code", {}, variables.join("\n"))]);
      if (input.env_names?.length) facts.push(["From the host", el("code", {}, input.env_names.join(", "))]);
    }
    return el("section", { class: "card", "aria-labelledby": "input-title" },
      el("div", { class: "card-head" }, el("h2", { id: "input-title" }, "Input")),
      el("div", { class: "card-body" },
        facts.length ? el("dl", {}, facts.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)])) : null,
        el("details", { open: facts.length === 0 }, el("summary", {}, "As it is stored"), el("pre", { tabindex: 0, role: "region", "aria-label": "The input as it is stored" }, JSON.stringify(input, null, 2)))));
  }

  /** Shows what the record, the lease and the explanation say. */
  #show() {
    const process = this.#process;
    const { badges, facts, actions, stuck, where, outcome, lease } = this.#parts;
    renew(badges, [badge(process.status), process.wait && this.#isLive ? el("span", { class: "badge waiting" }, "waiting") : ""]);
    const shown = [
      el("code", { class: "id" }, process.process_id),
      el("span", {}, `kind ${process.kind}`),
      el("span", {}, process.disposition.replaceAll("_", " ")),
      process.attempts > 0 && el("span", {}, process.retry ? `attempt ${process.attempts} of ${process.retry.max_attempts}` : process.attempts === 1 ? "1 attempt" : `${process.attempts} attempts`),
      process.generation > 1 && el("span", {}, `life ${process.generation} of its id`),
      el("span", { title: full(process.created_at_ms) }, `registered ${ago(process.created_at_ms)}`),
      el("span", { class: "took" }, this.#took()),
      process.deadline_at_ms && this.#isLive && el("span", { title: full(process.deadline_at_ms) }, `deadline at ${clock(process.deadline_at_ms)}`),
      process.parent && el("span", {}, "child of ", el("a", { href: `#/process/${encodeURIComponent(process.parent.process_id)}` }, process.parent.process_id)),
      process.external_ref && el("span", {}, `${process.external_ref.backend}/${process.external_ref.id}`),
      ...process.tags.map((tag) => el("a", { class: "tag", href: `#/?tags=${encodeURIComponent(tag)}` }, tag)),
    ].filter(Boolean);
    renew(facts, shown);
    actions.hidden = !this.#isLive;

    const explanation = this.#explanation;
    stuck.hidden = !explanation?.stuck;
    setText(stuck, explanation?.stuck ? `Stuck: ${explanation.next}` : "");
    // What has ended is nowhere any more: the outcome says it all.
    where.parentElement.hidden = !this.#isLive;
    renew(where, explanation ? [
      el("p", { class: "next" }, sentence(explanation.next)),
      el("p", { class: "muted" }, sentence(explanation.rule)),
      explanation.cancel_requested && el("p", { class: "muted" }, "It was asked to end."),
      explanation.waits_for && el("p", {}, waitInWords(explanation.waits_for)),
      process.abandon_request && el("p", { class: "muted" }, `Abandonment was allowed by ${process.abandon_request.requested_by}${process.abandon_request.reason ? `: ${process.abandon_request.reason}` : ""}.`),
    ].filter(Boolean) : [el("p", { class: "muted" }, "Reading…")]);

    outcome.parentElement.hidden = !process.outcome;
    if (process.outcome) renew(outcome, outcomeNodes(process.outcome));
    lease.parentElement.hidden = !process.lease;
    if (process.lease) {
      const { owner, claimed_at_ms: claimed, expires_at_ms: expires } = process.lease;
      renew(lease, [
        el("p", { class: "next" }, owner.owner_id),
        el("p", { class: "muted" }, `Holds it for ${duration(now() - claimed)}; the lease lasts ${duration(expires - now())} unless it is renewed.`),
        el("p", { class: "muted mono small" }, owner.incarnation_id)]);
    }
    this.#redraw();
  }

  #took() {
    const { created_at_ms: from, terminal_at_ms: to } = this.#process;
    return to ? `took ${duration(to - from)}` : `for ${duration(now() - from)}`;
  }

  #tick() {
    if (document.hidden) return;
    if (this.#isLive) {
      setText(this.#parts.facts.querySelector(".took"), this.#took());
      this.#redraw();
    }
  }

  /** Reads record, lease and explanation again. */
  async #look() {
    const { signal } = this.#ending;
    try {
      const [process, explanation] = await Promise.all([get(processPath(this.#id), signal), get(processPath(this.#id, "/explanation"), signal)]);
      const was = this.#process.status;
      this.#process = process;
      this.#explanation = explanation;
      this.#show();
      if (was !== process.status) announce(`${process.label ?? process.process_id}: ${process.status}`);
    } catch {
      // It is looked at again soon.
    }
  }

  /** Reads what is stored: all of a short log, beginning and end of a long one. */
  async #readEvents() {
    const first = await this.#page(0, PAGE);
    this.#take(first.events);
    if (first.next_after === undefined || first.next_after === null) return;
    const last = await this.#lastSequence(first.next_after);
    let after = Math.max(first.next_after, last - TAIL);
    if (after > first.next_after) {
      this.#gap = { from: first.next_after + 1, to: after };
      this.#log.setHasEarlier(true);
    }
    while (after !== undefined && after !== null) {
      const page = await this.#page(after, PAGE);
      this.#take(page.events);
      after = page.next_after;
    }
    this.#drawMoments();
  }

  #page(after, limit) {
    return get(withQuery(processPath(this.#id, "/events"), { after, limit }), this.#ending.signal);
  }

  /** About the last sequence: numbers are dense, so that it is found by halving. */
  async #lastSequence(known) {
    const isThere = async (sequence) => (await this.#page(sequence - 1, 1)).events.length > 0;
    let low = known;
    let high = known * 2;
    while (await isThere(high)) [low, high] = [high, high * 2];
    while (high - low > TAIL / 4) {
      const middle = Math.floor((low + high) / 2);
      if (await isThere(middle)) low = middle;
      else high = middle;
    }
    return low;
  }

  /** What the log shows before an event. */
  async #readBefore(sequence) {
    let before = sequence;
    let lines = [];
    while (before > 1 && lines.length === 0) {
      const after = Math.max(0, before - 1 - PAGE);
      const { events } = await this.#page(after, before - 1 - after);
      lines = events.filter(isLine);
      before = after + 1;
    }
    return { events: lines, hasEarlier: before > 1 };
  }

  /** Takes events, each once and in order. */
  #take(events) {
    const fresh = events.filter(({ sequence }) => sequence > this.#last);
    if (fresh.length === 0) return [];
    this.#last = fresh.at(-1).sequence;
    const moments = fresh.filter(({ event_type: type }) => type !== "command.output");
    this.#moments.push(...moments);
    this.#log.append(fresh);
    if (moments.length) {
      this.#redraw();
      this.#drawMoments();
    }
    return moments;
  }

  async #followEvents() {
    if (!this.#isLive) return;
    await follow(processPath(this.#id, "/events/stream"), {
      lastId: `${this.#generation}.${this.#last}`,
      signal: this.#ending.signal,
      onState: (state) => (state === "live" ? this.#reread() : this.#catchUp()),
      onEvent: ({ type, id, data }) => {
        if (type === "end") {
          this.#reread();
          return undefined;
        }
        // Another life of the same id: this view was of the one before.
        if (id?.split(".")[0] !== String(this.#generation)) {
          this.#reopen();
          return "over";
        }
        if (this.#take([data]).length) this.#reread();
        return undefined;
      },
    });
    this.#reread();
  }

  /** Reads what came while nothing is told, as when the host has no room for another stream. */
  async #catchUp() {
    try {
      this.#take((await this.#page(this.#last, PAGE)).events);
      this.#reread();
    } catch {
      // The stream tries on.
    }
  }

  #reopen() {
    this.close();
    this.#ending = new AbortController();
    this.#moments = [];
    this.#drawnMoments = 0;
    this.#gap = undefined;
    this.#last = 0;
    this.#timers = [];
    this.open();
  }

  #signalNames() {
    const names = this.#moments.map(({ event_type: type }) => type).filter((type) => type.startsWith("signal.")).map((type) => type.slice(7));
    return [...new Set([this.#process.wait?.kind?.name, ...names].filter(Boolean))];
  }

  #drawLife() {
    const box = this.#parts.timeline;
    if (!box.isConnected || box.clientWidth === 0) return;
    box.replaceChildren(drawTimeline(timelineOf(this.#process, this.#moments, now()), box.clientWidth));
  }

  #drawMoments() {
    const { moments, momentsNote } = this.#parts;
    const gap = this.#gap ? ` (those from ${this.#gap.from} to ${this.#gap.to} were not read)` : "";
    setText(momentsNote, `${this.#moments.length + 1} events${this.#log.element.hidden ? "" : " beside the output"}${gap}`);
    if (!moments.parentElement.open) return;
    const from = this.#process.created_at_ms;
    const moment = (at, words, detail) =>
      el("li", {}, el("time", { title: full(at) }, `+${duration(at - from)}`), el("span", { class: "moment-words" }, words), detail && payloadOf(detail));
    if (moments.childElementCount === 0) moments.append(moment(from, "registered"));
    const fresh = this.#moments.slice(Math.max(this.#drawnMoments, this.#moments.length - MOMENTS));
    moments.append(...fresh.map((event) => moment(event.occurred_at_ms, `${momentInWords(event)}${event.late ? " (too late)" : ""}`, event)));
    this.#drawnMoments = this.#moments.length;
    while (moments.childElementCount > MOMENTS) moments.firstElementChild.remove();
  }
}

/** What an event says, drawn when somebody looks: it may be large. */
function payloadOf({ event_type: type, payload }) {
  const text = el("pre", {});
  return el("details", { ontoggle: () => (text.textContent ||= JSON.stringify(payload, null, 2)) }, el("summary", { "aria-label": `What ${type} says` }, type), text);
}

function waitInWords(wait) {
  const { kind, since_ms: since } = wait;
  const what = kind?.kind === "signal" ? `signal ${kind.name}, number ${kind.ordinal}` : JSON.stringify(kind);
  return `It waits for ${what}, since ${clock(since)}, ${ago(since)}.`;
}

/** How it ended, in words and in full. */
function outcomeNodes(outcome) {
  const raw = outcome.raw ?? outcome.value ?? outcome.evidence;
  const words = {
    success: () => "It succeeded.",
    failure: () => sentence(outcome.message),
    cancelled: () => sentence(outcome.message),
    abandoned: () => ({ owner_drain: "Its owner gave it up on its way out.", sweep: "Its owner was proved dead.", reconciled_request: "Somebody asked for it." })[outcome.evidence?.writer] ?? "Nobody can finish it any more.",
  }[outcome.type] ?? (() => outcome.type);
  const small = raw && typeof raw === "object" && Object.values(raw).every((value) => typeof value !== "object");
  return [
    el("p", { class: "next" }, words()),
    outcome.code && el("p", { class: "muted" }, `${outcome.class}, ${outcome.code}`),
    raw !== undefined && raw !== null && (small
      ? el("dl", { class: "small" }, Object.entries(raw).flatMap(([name, value]) => [el("dt", {}, name.replaceAll("_", " ")), el("dd", {}, String(value))]))
      : el("pre", { class: "small", tabindex: 0, role: "region", "aria-label": "The outcome in full" }, JSON.stringify(raw, null, 2))),
  ].filter(Boolean);
}
