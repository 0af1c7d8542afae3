// The page: which view is shown, whether this browser is let in, and the keys that work everywhere.

import { get, onAnswer } from "./api.js";
import { AttentionView } from "./attention_view.js";
import { tellInDialog } from "./dialog.js";
import { announce, el, setText } from "./dom.js";
import { ListView, placeOf } from "./list_view.js";
import { ProcessView } from "./process_view.js";
import { askForCommand } from "./start_dialog.js";

const main = document.getElementById("main");
let view;
let shownPlace;

const VIEWS = [["#/", "Processes"], ["#/attention", "Attention"]];

/** The view of a place. */
function viewOf(hash) {
  const [path, query] = hash.replace(/^#/, "").split("?");
  const process = path.match(/^\/process\/(.+)$/);
  if (process) return new ProcessView(main, decodeURIComponent(process[1]));
  if (path === "/attention") return new AttentionView(main);
  return new ListView(main, new URLSearchParams(query));
}

function show() {
  const hash = location.hash || "#/";
  if (hash === "#main") return;
  // The list that a process was opened from, with its filters, is where the way back leads.
  if (hash.startsWith("#/process/") && shownPlace && !shownPlace.startsWith("#/process/")) history.replaceState({ list: shownPlace }, "");
  const from = shownPlace;
  shownPlace = hash;
  view?.close();
  try {
    view = viewOf(hash);
  } catch {
    view = new ListView(main, new URLSearchParams());
  }
  for (const dialog of document.querySelectorAll("dialog[open]")) dialog.close();
  document.title = view.title === "Processes" ? "Proctor" : `${view.title} · Proctor`;
  for (const link of document.querySelectorAll("#nav a")) {
    if (link.getAttribute("href") === hash.split("?")[0]) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  // Who cannot see it learns that another view is shown.
  if (from !== undefined) main.focus({ preventScroll: true });
  window.scrollTo(0, 0);
  view.open(from);
}

/** What the host's answers say about the connection. */
function sayConnection(answer) {
  const connection = document.getElementById("connection");
  const was = connection.dataset.state;
  if (was === answer) return;
  connection.dataset.state = answer;
  setText(document.getElementById("connection-text"), { answered: "Connected", unreachable: "Host away", shut_out: "Not let in" }[answer]);
  if (answer === "unreachable") {
    announce("The host does not answer; this page tries again");
    awaitHost();
  } else if (was === "unreachable") announce("The host is back");
  if (answer === "shut_out") showDoor();
}

/** Asks until the host is back: a view that has nothing to read would not notice. */
async function awaitHost() {
  while (document.getElementById("connection").dataset.state === "unreachable") {
    await new Promise((resolve) => setTimeout(resolve, 1000));
    await get("/processes?limit=1").catch(() => undefined);
  }
}

function showDoor() {
  view?.close();
  view = undefined;
  main.replaceChildren(el("div", { class: "panel door" },
    el("h1", {}, "This browser is not let in"),
    el("p", {}, "Open the page by a link that is good once. The host prints one when it starts; another one is made by"),
    el("pre", {}, "proctor open"),
    el("p", { class: "muted" }, "The link leaves a cookie that keeps this browser in for thirty days.")));
}

const KEYS = [
  ["/", "search"], ["j k or arrows", "next and previous row"], ["Enter", "open the process"], ["[ ]", "newer and older page"],
  ["n", "start a command"], ["f", "follow the output, or stay"], ["Esc", "back"], ["?", "these keys"],
];

function showHelp() {
  tellInDialog("Keys", el("dl", { class: "keys" }, KEYS.flatMap(([keys, words]) => [el("dt", {}, el("kbd", {}, keys)), el("dd", {}, words)])));
}

function start() {
  if (view) askForCommand((id) => (location.hash = placeOf(id)));
}

document.addEventListener("keydown", (event) => {
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  const { target, key } = event;
  const isTyping = target.matches("input:not([type=radio]):not([type=checkbox]), textarea, select");
  if (isTyping && key !== "Escape" && !(key === "ArrowDown" && target.type === "search")) return;
  // The arrows of a group of choices, and of a box that scrolls, are its own.
  if (key.startsWith("Arrow") && target.matches("input[type=radio], [role=log], pre")) return;
  if (key === "?") showHelp();
  else if (key === "n") start();
  else if (!view?.onKey(key)) return;
  event.preventDefault();
});

document.getElementById("nav").append(...VIEWS.map(([href, name]) => el("a", { href }, name)));
document.getElementById("help-button").addEventListener("click", showHelp);
document.getElementById("start-button").addEventListener("click", start);
document.getElementById("skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});
onAnswer(sayConnection);
window.addEventListener("hashchange", show);
show();
