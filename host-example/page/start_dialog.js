// Starting a command.

import { post } from "./api.js";
import { ask, labelled } from "./dialog.js";
import { announce, el } from "./dom.js";
import { needsShell, shellWords } from "./shell_words.js";

/** What is run, as its words. */
function wordsOf(line, byShell) {
  if (byShell) return ["sh", "-c", line];
  const words = shellWords(line);
  if (words.length === 0) throw new SyntaxError("Which command?");
  return words;
}

/** Asks for a command; `started` gets the id of its process. */
export function askForCommand(started) {
  const line = el("input", { type: "text", class: "mono", required: true, autocomplete: "off", spellcheck: "false", placeholder: "make -j4 all", oninput: preview });
  const byShell = el("input", { type: "checkbox", onchange: preview });
  const words = el("p", { class: "words", "aria-live": "polite" });
  const id = el("input", { type: "text", class: "mono", autocomplete: "off", spellcheck: "false", maxlength: 512 });
  const tags = el("input", { type: "text", autocomplete: "off", spellcheck: "false" });
  const rerunnable = el("input", { type: "checkbox", onchange: () => (attempts.disabled = !rerunnable.checked) });
  const attempts = el("input", { type: "number", min: 1, max: 1000, value: "1", disabled: true });
  function preview() {
    try {
      const found = line.value.trim() ? wordsOf(line.value, byShell.checked) : [];
      words.replaceChildren(...found.map((word) => el("code", {}, word)));
      if (!byShell.checked && needsShell(line.value)) words.append(" Without a shell, these signs are passed as they are.");
    } catch (error) {
      words.replaceChildren(error.message);
    }
  }
  ask({
    title: "Start a command",
    fields: [
      labelled("Command", line, undefined),
      words,
      el("label", { class: "check" }, byShell, "by a shell (sh -c)"),
      el("details", {},
        el("summary", {}, "More"),
        labelled("Id", id, "A name that is not taken; by default a new one."),
        labelled("Tags", tags, "Separated by commas."),
        el("label", { class: "check" }, rerunnable, "may be run again, after a failure or when the host has died"),
        labelled("Attempts at most", attempts)),
    ],
    action: "Start",
    act: async () => {
      const request = { command: { argv: wordsOf(line.value, byShell.checked) } };
      if (id.value.trim()) request.process_id = id.value.trim();
      request.tags = tags.value.split(",").map((tag) => tag.trim()).filter(Boolean);
      if (rerunnable.checked) {
        request.disposition = "rerunnable";
        if (attempts.valueAsNumber > 1) request.retry = { max_attempts: attempts.valueAsNumber };
      }
      const process = await post("/processes", request);
      announce(`Started ${process.label ?? process.process_id}`);
      started(process.process_id);
    },
  });
}
