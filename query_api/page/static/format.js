// Numbers as people read them.

const count = new Intl.NumberFormat("en-GB");

/** 12345 -> "12,345". */
export const whole = (number) => count.format(number);

/** Counts with their noun: (1, "document") -> "1 document". */
export const counted = (number, noun, plural = `${noun}s`) => `${whole(number)} ${number === 1 ? noun : plural}`;

const when = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", year: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit" });

/** A moment in ISO 8601 as the reader's clock shows it. */
export const moment = (iso) => when.format(new Date(iso));

/** Milliseconds; in microseconds below a tenth of one, in seconds above a thousand. */
export function duration(ms) {
  if (!Number.isFinite(ms)) return "–";
  if (ms >= 1000) return `${(ms / 1000).toFixed(1)} s`;
  if (ms < 0.1) return `${Math.round(ms * 1000)} µs`;
  return `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`;
}

/** Seconds as people say them: 8 s, 5 min, 3 h, 2 d. */
export function ago(seconds) {
  for (const [unit, size] of [["d", 86400], ["h", 3600], ["min", 60]]) {
    if (seconds >= size) return `${Math.floor(seconds / size)} ${unit}`;
  }
  return `${Math.round(seconds)} s`;
}

/** A weight or score with about three digits that matter. */
export function weight(value) {
  if (!Number.isFinite(value)) return "–";
  return Math.abs(value) >= 100 ? value.toFixed(0) : Math.abs(value) >= 10 ? value.toFixed(1) : value.toFixed(2);
}

/** Metadata values of any type as one line of text. */
export function plain(value) {
  if (Array.isArray(value)) return value.map(plain).join(", ");
  return value !== null && typeof value === "object" ? JSON.stringify(value) : String(value);
}
