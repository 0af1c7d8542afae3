// Word that something in the store has changed: from the host's feed where it offers one, else by the clock.
//
// A word is a hint; what is shown is read again.

import { offers } from "./api.js";
import { follow } from "./event_stream.js";

/** How often is looked where nobody tells. */
const POLL_MS = 2000;

const STREAM = "/changes/stream";

/**
 * Calls `onChange` for each change until `signal` says so: with `{ processId, type }` where that is known, and with nothing where
 * anything may have changed.
 */
export async function followChanges({ onChange, signal }) {
  document.addEventListener("visibilitychange", () => document.hidden || onChange(), { signal });
  if (await offers(STREAM).catch(() => false)) {
    try {
      await follow(`${STREAM}?after=now`, {
        onEvent: ({ data }) => onChange({ processId: data.process_id, type: data.event_type ?? data.change }),
        // A feed that is back may have missed its beginning; one that is refused for now must not leave the list as it was.
        onState: () => document.hidden || onChange(),
        signal,
      });
    } catch {
      // A feed that is refused for good, as by a store that was restored meanwhile: the clock does it.
    }
  }
  if (signal.aborted) return;
  const timer = setInterval(() => document.hidden || onChange(), POLL_MS);
  signal.addEventListener("abort", () => clearInterval(timer), { once: true });
}
