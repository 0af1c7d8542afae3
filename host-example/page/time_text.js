// Times in words. The clock is the host's, as far as its answers tell it.

let aheadMs = 0;

/** Notes what the host's clock says; small differences are left to the network. */
export function noteHostTime(dateHeader) {
  const hostMs = Date.parse(dateHeader ?? "");
  if (Number.isNaN(hostMs)) return;
  const found = hostMs + 500 - Date.now();
  aheadMs = Math.abs(found) > 3000 ? found : 0;
}

/** Now, by the host's clock, in ms since the Unix epoch. */
export function now() {
  return Date.now() + aheadMs;
}

/** A length of time with two units at most: `850 ms`, `4.2 s`, `3 min 5 s`, `2 d 4 h`. */
export function duration(ms) {
  if (ms < 0) return "0 ms";
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 10_000) return `${(ms / 1000).toFixed(1)} s`;
  const seconds = Math.round(ms / 1000);
  if (seconds < 60) return `${seconds} s`;
  const pair = (large, largeName, small, smallName) => (small ? `${large} ${largeName} ${small} ${smallName}` : `${large} ${largeName}`);
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return pair(minutes, "min", seconds % 60, "s");
  const hours = Math.floor(minutes / 60);
  if (hours < 24) return pair(hours, "h", minutes % 60, "min");
  return pair(Math.floor(hours / 24), "d", hours % 24, "h");
}

/** The same as a word about the past. */
export function ago(ms) {
  const since = now() - ms;
  if (since < 1500) return "just now";
  if (since < 60_000) return `${Math.round(since / 1000)} s ago`;
  if (since < 3_600_000) return `${Math.floor(since / 60_000)} min ago`;
  if (since < 86_400_000) return `${Math.floor(since / 3_600_000)} h ago`;
  return `${Math.floor(since / 86_400_000)} d ago`;
}

const FULL = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const CLOCK = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });

/** The words as a sentence. */
export function sentence(text) {
  return text ? `${text[0].toUpperCase()}${text.slice(1)}${/[.!?]$/.test(text) ? "" : "."}` : "";
}

/** Date and time, as the reader writes them. */
export function full(ms) {
  return FULL.format(ms);
}

/** The time of day. */
export function clock(ms) {
  return CLOCK.format(ms);
}
