// Server-sent events that are taken up again where they broke off.
//
// Not an `EventSource`: that cannot begin at a place of our choice, and the output of a process may be long; nor does it say
// why a stream was refused. The form on the wire and the resumption by `Last-Event-ID` are the same.

import { ApiProblem, request } from "./api.js";

/** The longest silence: the host gives a sign of life each 15 s. */
const SILENCE_MS = 45_000;

/** How long a page that nobody sees keeps its connection; browsers have six to a host. */
const UNSEEN_MS = 30_000;

const FIRST_PAUSE_MS = 300;
const LONGEST_PAUSE_MS = 4000;

/** Splits text into events. Pure but for what it holds of an event that is not complete. */
export class EventParser {
  #rest = "";
  #event = { type: "message", data: [], id: undefined };

  /** The events that are complete with this text. */
  push(text) {
    const events = [];
    const lines = (this.#rest + text).split(/\r\n|\n|\r(?!$)/);
    this.#rest = lines.pop();
    for (const line of lines) {
      if (line === "") {
        const { type, data, id } = this.#event;
        if (data.length) events.push({ type, id, data: data.join("\n") });
        this.#event = { type: "message", data: [], id: undefined };
        continue;
      }
      const colon = line.indexOf(":");
      const field = colon < 0 ? line : line.slice(0, colon);
      const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
      if (field === "event") this.#event.type = value;
      else if (field === "data") this.#event.data.push(value);
      else if (field === "id") this.#event.id = value;
    }
    return events;
  }
}

function seen() {
  if (!document.hidden) return Promise.resolve();
  return new Promise((resolve) => document.addEventListener("visibilitychange", () => resolve(), { once: true }));
}

function pause(ms, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener("abort", () => { clearTimeout(timer); resolve(); }, { once: true });
  });
}

/** Reads one connection to its end. */
async function readOnce(path, place, onEvent, onLive, signal) {
  const connection = new AbortController();
  const cut = () => connection.abort();
  signal.addEventListener("abort", cut, { once: true });
  let silence;
  let unseen;
  const heard = () => {
    clearTimeout(silence);
    silence = setTimeout(cut, SILENCE_MS);
  };
  const watchSight = () => {
    clearTimeout(unseen);
    if (document.hidden) unseen = setTimeout(cut, UNSEEN_MS);
  };
  document.addEventListener("visibilitychange", watchSight);
  try {
    heard();
    const headers = { accept: "text/event-stream" };
    if (place.id !== undefined) headers["last-event-id"] = place.id;
    const response = await request(path, { headers, signal: connection.signal });
    if (response.status === 204) return "over";
    onLive();
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    const parser = new EventParser();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return "broken";
      heard();
      for (const event of parser.push(value)) {
        if (event.type === "stopping" || event.type === "failed") return "broken";
        const answer = onEvent({ ...event, data: JSON.parse(event.data) });
        if (event.id !== undefined) place.id = event.id;
        if (event.type === "end" || answer === "over") return "over";
      }
    }
  } catch (error) {
    if (signal.aborted) return "over";
    if (error instanceof ApiProblem && !error.isPassing) throw error;
    return "broken";
  } finally {
    clearTimeout(silence);
    clearTimeout(unseen);
    document.removeEventListener("visibilitychange", watchSight);
    signal.removeEventListener("abort", cut);
    cut();
  }
}

/**
 * Follows a stream behind the event `lastId` until it is over or `signal` says so, across hosts that end and come back.
 * `onState` hears `live` and `broken`. Rejects with the problem of a stream that is refused for good.
 */
export async function follow(path, { lastId, onEvent, onState, signal }) {
  const place = { id: lastId };
  let wait = FIRST_PAUSE_MS;
  while (!signal.aborted) {
    await seen();
    if (signal.aborted) return;
    const live = () => {
      wait = FIRST_PAUSE_MS;
      onState("live");
    };
    if ((await readOnce(path, place, onEvent, live, signal)) === "over") return;
    if (!document.hidden) onState("broken");
    await pause(wait * (0.75 + Math.random() / 2), signal);
    wait = Math.min(wait * 2, LONGEST_PAUSE_MS);
  }
}
