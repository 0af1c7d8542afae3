// Questions to the host, with the session of this browser, and what it cannot answer as an error that says why.

import { noteHostTime } from "./time_text.js";

const BASE = "/api/v1";

/** An answer that is a problem document, or no answer at all (status 0). */
export class ApiProblem extends Error {
  constructor(status, problem) {
    super(problem.detail ?? problem.title ?? `the host answered ${status}`);
    this.status = status;
    this.code = (problem.type ?? "").split(":").at(-1);
  }

  /** Whether the same question may have another answer soon. */
  get isPassing() {
    return this.status === 0 || this.status === 429 || this.status >= 500;
  }
}

/** Who wants to know whether the host answers, and whether this browser is let in. */
const listeners = new Set();

export function onAnswer(listener) {
  listeners.add(listener);
}

function tell(answer) {
  for (const listener of listeners) listener(answer);
}

/** Sends a request; answers the response, which is good. */
export async function request(path, options = {}) {
  let response;
  try {
    response = await fetch(BASE + path, { cache: "no-store", ...options });
  } catch (error) {
    if (options.signal?.aborted) throw error;
    tell("unreachable");
    throw new ApiProblem(0, { detail: "the host does not answer" });
  }
  noteHostTime(response.headers.get("date"));
  tell(response.status === 401 ? "shut_out" : "answered");
  if (response.ok) return response;
  const problem = await response.json().catch(() => ({}));
  throw new ApiProblem(response.status, problem);
}

export async function get(path, signal) {
  return (await request(path, { signal })).json();
}

export async function post(path, body) {
  const options = { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) };
  return (await request(path, options)).json();
}

/** The path of a process, and of what belongs to it. */
export function processPath(id, rest = "") {
  return `/processes/${encodeURIComponent(id)}${rest}`;
}

/** A path with a query; what is empty is left out. */
export function withQuery(path, query) {
  const parameters = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    if (value !== undefined && value !== null && value !== "") parameters.set(name, value);
  }
  const text = parameters.toString();
  return text ? `${path}?${text}` : path;
}

let description;

/** What this host offers, by its own description. */
export async function offers(path, method = "get", parameter = undefined) {
  description ??= get("/openapi.json").catch((error) => {
    description = undefined;
    throw error;
  });
  const operation = (await description).paths?.[BASE + path]?.[method];
  if (!operation) return false;
  return parameter === undefined || (operation.parameters ?? []).some(({ name }) => name === parameter);
}
