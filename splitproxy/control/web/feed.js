// The stream of events. Read by `fetch`, for the browser's EventSource cannot send a token. Once a second there are
// signals in it: when none come, what the page shows is old, whatever the connection says.

import { request } from "./api.js";

const PATIENCE = 4000;
const DELAYS = [250, 500, 1000, 2000, 3000];

/** Follows the events for ever. `heard(kind, data)` is called with each, `changed()` when `live` or `last` change. */
export class Feed {
  constructor(heard, changed) {
    this.heard = heard;
    this.changed = changed;
    this.live = false;
    this.last = 0; // when anything was heard, in ms of the page's clock
    this.wall = null; // the same in time for people
    this.next = 0; // when the next attempt is made
    this.failures = 0;
    this.id = "";
    this.wake = () => {};
    setInterval(() => this.look(), 250);
    addEventListener("online", () => this.wake());
    addEventListener("offline", () => this.stop && this.stop.abort());
    this.follow();
  }

  look() {
    if (this.live && performance.now() - this.last > PATIENCE) this.stop.abort();
    if (!this.live) this.changed();
  }

  async follow() {
    for (;;) {
      const stop = (this.stop = new AbortController());
      const opening = setTimeout(() => stop.abort(), PATIENCE * 2);
      try {
        await this.read(stop.signal, opening);
      } catch {
        // Whatever it was: it is tried again.
      }
      clearTimeout(opening);
      stop.abort();
      const wasLive = this.live;
      this.live = false;
      const delay = DELAYS[Math.min(this.failures++, DELAYS.length - 1)];
      this.next = performance.now() + delay;
      if (wasLive || this.failures === 1) this.changed();
      await new Promise((resolve) => {
        this.wake = resolve;
        setTimeout(resolve, delay);
      });
    }
  }

  async read(signal, opening) {
    const headers = this.id ? { "Last-Event-ID": this.id } : {};
    const answer = await request("/api/v1/events?signals=1", { signal, headers });
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { done, value } = await reader.read();
      clearTimeout(opening);
      if (done) return;
      this.noted();
      const blocks = (rest + value).split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) this.take(block);
    }
  }

  noted() {
    this.last = performance.now();
    this.wall = new Date();
    if (this.live) return;
    this.live = true;
    this.failures = 0;
    this.changed();
    this.heard("open", {});
  }

  take(block) {
    const fields = {};
    for (const line of block.split("\n")) {
      const colon = line.indexOf(":");
      if (colon > 0) fields[line.slice(0, colon)] = line.slice(colon + 1).trimStart();
    }
    if (fields.id) this.id = fields.id;
    if (fields.event) this.heard(fields.event, JSON.parse(fields.data));
  }
}
