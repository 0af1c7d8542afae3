// What a person can do to a process: signal it, ask it to end, allow it to be abandoned. Each is asked for once more.

import { post, processPath } from "./api.js";
import { ask, labelled } from "./dialog.js";
import { announce, el } from "./dom.js";

/** An id by which a request that is sent twice is one. `crypto.randomUUID` is not there on plain HTTP beyond loopback. */
function freshId() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** `names` are those of signals that are known of it, the awaited one first. */
export function askForSignal(id, names, done) {
  const name = el("input", { type: "text", value: names[0] ?? "", required: true, pattern: "[A-Za-z0-9_\\-]+", list: "signal-names", autocomplete: "off", spellcheck: "false" });
  const payload = el("textarea", { rows: 4, spellcheck: "false", placeholder: "null" });
  const signalId = freshId();
  ask({
    title: "Send a signal",
    fields: [
      labelled("Name", name, "Letters, digits, _ and -. The process has to declare it."),
      el("datalist", { id: "signal-names" }, names.map((value) => el("option", { value }))),
      labelled("Payload", payload, "JSON; nothing is null."),
    ],
    action: "Send",
    act: async () => {
      let value = null;
      try {
        if (payload.value.trim()) value = JSON.parse(payload.value);
      } catch (error) {
        throw new Error(`The payload is no JSON: ${error.message}`);
      }
      const sent = await post(processPath(id, `/signals/${encodeURIComponent(name.value)}`), { signal_id: signalId, payload: value });
      announce(`Signal ${name.value} was sent, number ${sent.ordinal} of its name`);
      done();
    },
  });
}

function askWithReason(id, { title, text, action, route, said }, done) {
  const reason = el("input", { type: "text", autocomplete: "off" });
  ask({
    title,
    text,
    fields: [labelled("Reason", reason, "Optional. It is kept with the process.")],
    action,
    manner: "danger",
    act: async () => {
      await post(processPath(id, route), { reason: reason.value.trim() || null });
      announce(said);
      done();
    },
  });
}

export function askForCancel(id, done) {
  askWithReason(id, {
    title: "Cancel this process?",
    text: "Its executor is told, and ends it in its own time. A command gets SIGTERM, and after a while SIGKILL.",
    action: "Cancel the process",
    route: "/cancel",
    said: "The process was asked to end",
  }, done);
}

export function askForAbandon(id, done) {
  askWithReason(id, {
    title: "Abandon this process?",
    text: "It ends as abandoned once nobody holds its lease. Nobody is told to stop: whoever still works on it can write nothing more.",
    action: "Abandon the process",
    route: "/abandon",
    said: "The process may be abandoned now",
  }, done);
}
