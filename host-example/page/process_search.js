// Finding processes by what people type: the beginning of an id, a label, or any part of id, label, kind and tags.
//
// The host finds ids by their beginning and labels that are equal. Any other part is looked for here, the newest processes
// first and a bounded number at a time.

import { get, withQuery } from "./api.js";

const PREFIX_HITS = 50;
const SCANNED_PAGE = 500;

/** A text that sorts before every one that begins with `prefix`, and after nearly every other that sorts before those. */
export function justBefore(prefix) {
  const characters = [...prefix];
  let point = (characters.pop() ?? "").codePointAt(0) ?? 0;
  const head = characters.join("");
  // Ids hold no control characters, and no text holds half a surrogate pair.
  do point -= 1; while ((point >= 0x7f && point <= 0x9f) || (point >= 0xd800 && point <= 0xdfff));
  return point < 0x20 ? head : head + String.fromCodePoint(point) + "\u{10ffff}";
}

/** Whether the process is meant. */
export function isMeant(process, words) {
  const text = [process.process_id, process.label, process.kind, ...process.tags].join("\n").toLowerCase();
  return words.toLowerCase().split(/\s+/).filter(Boolean).every((word) => text.includes(word));
}

/** One search: what was found so far, and how far it looked. */
export class ProcessSearch {
  #text;
  #filter;
  #order;
  #after;
  #found = new Map();
  /** How many processes were looked at. */
  scanned = 0;
  /** Whether there are no others. */
  isComplete = false;

  constructor(text, filter, order) {
    this.#text = text.trim();
    this.#filter = filter;
    this.#order = order;
  }

  get processes() {
    return [...this.#found.values()];
  }

  /** What the host finds by itself, then a part of the others. */
  async begin(signal) {
    const before = justBefore(this.#text);
    const byId = withQuery("/processes", { ...this.#filter, after: before, limit: PREFIX_HITS });
    const byLabel = withQuery("/processes", { ...this.#filter, label: this.#text, limit: PREFIX_HITS });
    const [withPrefix, labelled] = await Promise.all([get(byId, signal), get(byLabel, signal)]);
    this.#note(withPrefix.processes.filter(({ process_id: id }) => id.startsWith(this.#text)));
    this.#note(labelled.processes);
    await this.goOn(signal);
  }

  /** Looks at further ones. */
  async goOn(signal) {
    const query = { ...this.#filter, order: this.#order, after: this.#after, limit: SCANNED_PAGE };
    const page = await get(withQuery("/processes", query), signal);
    this.scanned += page.processes.length;
    this.#note(page.processes.filter((process) => isMeant(process, this.#text)));
    this.#after = page.next_after;
    this.isComplete = !page.next_after;
  }

  /** Takes what was read anew of a process that was found. */
  renew(process) {
    if (this.#found.has(process.process_id)) this.#found.set(process.process_id, process);
  }

  #note(processes) {
    for (const process of processes) this.#found.set(process.process_id, process);
  }
}
