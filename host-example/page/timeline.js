// The life of a process, drawn along the time: its attempts, the pauses between them, what it waited for, and what happened to it.

import { svg } from "./dom.js";
import { duration } from "./time_text.js";

const ENDS = new Set(["process.completed", "process.failed", "process.cancelled", "process.abandoned"]);
const ATTEMPT_STARTED = "process.attempt_started";
const ATTEMPT_FAILED = "process.attempt_failed";

/** Marks: what has no length. */
function markOf({ event_type: type, payload }) {
  if (type.startsWith("signal.")) return { kind: "signal", label: `signal ${type.slice(7)}` };
  if (type === "process.cancel_requested") return { kind: "request", label: `asked to end${payload?.reason ? `: ${payload.reason}` : ""}` };
  if (type === "process.abandon_requested") return { kind: "request", label: "may be abandoned" };
  if (ENDS.has(type)) return { kind: type.slice(8), label: type.slice(8) };
  if (type === "command.output_dropped") return { kind: "request", label: "output was dropped" };
  return undefined;
}

/**
 * The spans and marks of a process. `events` are in their order; output may be left out. Pure: `now` ends what has not ended.
 */
export function timelineOf(process, events, now) {
  const start = process.created_at_ms;
  const end = Math.max(process.terminal_at_ms ?? now, start + 1);
  const attempts = [];
  const pauses = [];
  const waits = [];
  const marks = [];
  const close = (spans, at, fields = {}) => {
    const open = spans.at(-1);
    if (open && open.to === undefined) Object.assign(open, { to: at }, fields);
  };
  for (const event of events) {
    const { event_type: type, payload, occurred_at_ms: at } = event;
    if (event.late) continue;
    if (type === ATTEMPT_STARTED) {
      close(attempts, at, { state: "lost" });
      close(pauses, at);
      attempts.push({ from: at, label: `attempt ${payload.attempt}`, state: "running" });
    } else if (type === ATTEMPT_FAILED) {
      close(attempts, at, { state: "failed" });
      pauses.push({ from: at, label: "pause before the next attempt" });
    } else if (type === "process.waiting" || type === "process.wait_set") {
      close(waits, at);
      waits.push({ from: at, label: "waiting" });
    } else if (type === "process.resumed" || type === "process.wait_cleared") {
      close(waits, at);
    } else if (ENDS.has(type)) {
      close(attempts, at, { state: type.slice(8) });
    }
    const mark = markOf(event);
    if (mark) marks.push({ ...mark, at });
  }
  for (const spans of [attempts, pauses, waits]) close(spans, end);
  return { start, end, attempts, pauses, waits, marks };
}

/** A step of an axis that people can read, so that there are at most `most` of them. Pure. */
export function axisStep(length, most) {
  const units = [1, 10, 100, 1000, 10_000, 60_000, 600_000, 3_600_000, 21_600_000, 86_400_000, 864_000_000, 8_640_000_000, 86_400_000_000];
  for (const unit of units) for (const times of [1, 2, 5]) if (length / (unit * times) <= most) return unit * times;
  return length / most;
}

const EDGE = 14;
const BAR = 22;

/** Draws it, so many pixels wide. */
export function drawTimeline({ start, end, attempts, pauses, waits, marks }, width) {
  const inner = Math.max(60, width - EDGE * 2);
  const x = (at) => EDGE + ((Math.min(Math.max(at, start), end) - start) / (end - start)) * inner;
  const height = waits.length ? 92 : 74;
  const top = 20;
  const nodes = [];
  const bar = (span, y, tall, kind) => nodes.push(svg("rect", {
    class: `span ${kind}`, x: x(span.from).toFixed(1), y, width: Math.max(2, x(span.to) - x(span.from)).toFixed(1), height: tall, rx: Math.min(4, tall / 2),
  }, svg("title", {}, `${span.label}, ${duration(span.to - span.from)}`)));
  nodes.push(svg("rect", { class: "span life", x: EDGE, y: top + BAR / 2 - 2, width: inner, height: 4, rx: 2 }));
  const step = axisStep(end - start, Math.max(2, Math.floor(inner / 90)));
  const axis = height - 20;
  for (let at = start; at <= end; at += step) {
    const place = x(at);
    nodes.push(svg("line", { class: "grid", x1: place, x2: place, y1: 8, y2: axis }));
    const anchor = place < 40 ? "start" : place > width - 40 ? "end" : "middle";
    nodes.push(svg("text", { class: "tick", x: anchor === "start" ? EDGE : place, y: axis + 14, "text-anchor": anchor }, at === start ? "0" : duration(at - start)));
  }
  for (const span of pauses) bar(span, top + BAR / 2 - 4, 8, "pause");
  for (const span of attempts) {
    bar(span, top, BAR, `attempt ${span.state}`);
    const room = x(span.to) - x(span.from);
    if (room > 74) nodes.push(svg("text", { class: "span-text", x: x(span.from) + 8, y: top + 15 }, span.label));
    else if (room > 20) nodes.push(svg("text", { class: "span-text", x: x(span.from) + room / 2, y: top + 15, "text-anchor": "middle" }, span.label.split(" ")[1]));
  }
  for (const span of waits) bar(span, top + BAR + 6, 8, "wait");
  for (const mark of marks) {
    const place = x(mark.at).toFixed(1);
    nodes.push(svg("g", { class: `mark ${mark.kind}`, transform: `translate(${place} 12)` },
      svg("title", {}, `${mark.label}, after ${duration(mark.at - start)}`),
      svg("line", { x1: 0, x2: 0, y1: 0, y2: top + BAR - 10 }),
      mark.kind === "signal" ? svg("path", { d: "M0 -6L6 0L0 6L-6 0Z" }) : mark.kind === "request" ? svg("path", { d: "M-6 -5H6L0 6Z" }) : svg("circle", { r: 5.5 })));
  }
  const words = `${attempts.length === 1 ? "one attempt" : `${attempts.length} attempts`} in ${duration(end - start)}${marks.length ? `; ${marks.slice(0, 12).map(({ label }) => label).join(", ")}` : ""}`;
  return svg("svg", { class: "timeline", role: "img", "aria-label": `Timeline: ${words}`, width, height, viewBox: `0 0 ${width} ${height}` }, nodes);
}
