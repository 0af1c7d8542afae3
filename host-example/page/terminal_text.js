// Text that was written for a terminal: its colours become classes, and what only a terminal can do is left out.

import { el } from "./dom.js";

// Escape sequences: those that choose colours (and end in m), other control sequences, those with text, and lone ones.
const SEQUENCE = /\x1b\[([0-9;:]*)m|\x1b\[[0-?]*[ -/]*[@-~]|\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[ -/]*[0-~]?/g;
const CONTROL = /[\x00-\x08\x0b-\x1f\x7f]/g;

const COLOURS = ["black", "red", "green", "yellow", "blue", "magenta", "cyan", "white"];

function styleAfter(style, codes) {
  const next = { ...style };
  const list = codes === "" ? [0] : codes.split(/[;:]/).map(Number);
  for (let at = 0; at < list.length; at += 1) {
    const code = list[at];
    if (code === 0) Object.assign(next, { colour: undefined, bold: false, dim: false });
    else if (code === 1) next.bold = true;
    else if (code === 2) next.dim = true;
    else if (code === 22) Object.assign(next, { bold: false, dim: false });
    else if (code >= 30 && code <= 37) next.colour = COLOURS[code - 30];
    else if (code >= 90 && code <= 97) next.colour = COLOURS[code - 90];
    else if (code === 39) next.colour = undefined;
    // 256 colours and exact ones: their numbers are not codes.
    else if (code === 38 || code === 48) at += list[at + 1] === 5 ? 2 : 4;
  }
  return next;
}

/** The text in parts, each with its style. */
export function terminalParts(text) {
  // What a carriage return wrote over is gone on a terminal too.
  const line = text.replace(/\r$/, "");
  const shown = line.slice(line.lastIndexOf("\r") + 1);
  const parts = [];
  let style = {};
  let at = 0;
  const add = (piece) => {
    const clean = piece.replace(CONTROL, "\ufffd");
    if (clean) parts.push({ text: clean, style });
  };
  for (const found of shown.matchAll(SEQUENCE)) {
    add(shown.slice(at, found.index));
    at = found.index + found[0].length;
    if (found[1] !== undefined) style = styleAfter(style, found[1]);
  }
  add(shown.slice(at));
  return parts;
}

/** The text as nodes. */
export function terminalNodes(text) {
  return terminalParts(text).map(({ text: piece, style }) => {
    const classes = [style.colour && `ansi-${style.colour}`, style.bold && "ansi-bold", style.dim && "ansi-dim"].filter(Boolean);
    return classes.length ? el("span", { class: classes.join(" ") }, piece) : document.createTextNode(piece);
  });
}
