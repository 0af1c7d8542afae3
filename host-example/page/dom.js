// Elements, made without markup: text of processes only ever becomes text nodes.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "value") element.value = value;
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** An HTML element with attributes, listeners (`onclick`) and children. */
export function el(tag, properties = {}, ...children) {
  return fill(document.createElement(tag), properties, children);
}

/** The same for SVG. */
export function svg(tag, properties = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), properties, children);
}

/** Sets the text only where it differs, so that selections and screen readers are left alone. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Gives an element these children; those that are equal stay, and with them the focus and what is selected. */
export function renew(parent, children) {
  const old = [...parent.childNodes];
  const made = children.map((child) => (child instanceof Node ? child : document.createTextNode(child)));
  if (old.length !== made.length) return parent.replaceChildren(...made);
  old.forEach((node, at) => node.isEqualNode(made[at]) || node.replaceWith(made[at]));
}

/** Says something to who cannot see it. */
export function announce(text) {
  setText(document.getElementById("announcer"), text);
}

/** The state of a process as a word with a colour and a shape of its own. */
export function badge(status) {
  return el("span", { class: `badge ${status}` }, status);
}

/** Calls `later` once, at most so often; the last call is never lost. */
export function throttled(later, pauseMs) {
  let timer;
  let last = -Infinity;
  const run = () => {
    timer = undefined;
    last = performance.now();
    later();
  };
  const call = () => {
    timer ??= setTimeout(run, Math.max(0, last + pauseMs - performance.now()));
  };
  call.stop = () => clearTimeout(timer);
  return call;
}
