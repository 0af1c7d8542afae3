// Questions before something is done, each in a dialog of its own.

import { el } from "./dom.js";

let serial = 0;

/** A labelled control with a line of help. */
export function labelled(label, control, help) {
  const id = (control.id ||= `field-${(serial += 1)}`);
  const parts = [el("label", { for: id }, label), control];
  if (help) {
    control.setAttribute("aria-describedby", `${id}-help`);
    parts.push(el("p", { class: "help", id: `${id}-help` }, help));
  }
  return el("div", { class: "labelled" }, parts);
}

/**
 * Asks. `act` is called when the answer is yes; while it is under way nothing else can be pressed, and what it throws is shown
 * and leaves the dialog open.
 */
export function ask({ title, text, fields = [], action, manner = "primary", act }) {
  const heading = `dialog-${(serial += 1)}`;
  const problem = el("p", { class: "problem", role: "alert" });
  const submit = el("button", { type: "submit", class: `button ${manner}` }, action);
  const close = () => dialog.close();
  const form = el("form", {
    onsubmit: async (event) => {
      event.preventDefault();
      if (submit.disabled) return;
      submit.disabled = true;
      problem.textContent = "";
      try {
        await act();
        close();
      } catch (error) {
        problem.textContent = error.message;
      } finally {
        submit.disabled = false;
      }
    },
  },
  el("h2", { id: heading }, title), text && el("p", {}, text), fields, problem,
  el("div", { class: "dialog-end" }, el("button", { type: "button", class: "button", onclick: close }, "Leave it"), submit));
  const dialog = el("dialog", { "aria-labelledby": heading, onclose: () => dialog.remove() }, form);
  document.body.append(dialog);
  dialog.showModal();
  (form.querySelector("input:not([type=radio]), textarea") ?? submit).focus();
  return dialog;
}

/** Tells something, to be closed again. */
export function tellInDialog(title, ...content) {
  const heading = `dialog-${(serial += 1)}`;
  const dialog = el("dialog", { "aria-labelledby": heading, onclose: () => dialog.remove() },
    el("h2", { id: heading }, title), content,
    el("div", { class: "dialog-end" }, el("button", { type: "button", class: "button primary", onclick: () => dialog.close() }, "Close")));
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}
