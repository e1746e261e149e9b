// The plan as a timeline, and how requests are divided at this moment.

import { h, icon } from "./dom.js";
import { ended, newShare, pair, percent, rate, span } from "./words.js";

const DENSE = 12;

/** Return the stations of a rollout: its steps, what comes after them, and how each stands: done, now, ahead, missed. */
export function stations(one) {
  const gated = (gate) => (one.gates || []).some((each) => each.gate === gate);
  const failed = one.phase === "Failed";
  const over = one.phase === "Succeeded" || ["Promoting", "Baking", "Finalising"].includes(one.phase);
  const waiting = one.waitingFor ? one.waitingFor.gate : null;
  const found = [];
  if (gated("confirm-rollout")) {
    found.push({ label: "Begin", gate: true, text: "waits for approval to begin", at: one.phase === "Waiting" ? "now" : one.step >= 0 || over ? "done" : "ahead" });
  }
  for (const step of one.steps || []) {
    const here = step.index === one.step && !over && !ended(one.phase);
    const done = over || step.index < one.step || (step.index === one.step && waiting === "confirm-promotion");
    found.push({
      label: step.mirror && !step.weight ? "Copies" : step.cohorts && !step.weight ? `Cohort ${step.cohorts}` : percent(step.weight),
      text: step.text,
      gate: step.gate !== null && gated(step.gate),
      pause: step.pause !== null,
      hold: step.hold,
      at: failed ? (step.index < one.step ? "done" : step.index === one.step ? "failed" : "missed") : here && !done ? "now" : done ? "done" : "ahead",
      note: here && step.checks > 1 ? `${one.iterations} of ${step.checks} checks` : step.hold ? span(step.hold) : step.pause ? `pause ${span(step.pause)}` : step.pause === 0 ? "pause" : "",
    });
  }
  const gate = gated("confirm-promotion");
  found.push({
    label: "Promote", gate, text: "all requests go to the new version",
    at: failed ? "missed" : waiting === "confirm-promotion" || one.phase === "Promoting" ? "now" : over ? "done" : "ahead",
    note: waiting === "confirm-promotion" ? "needs approval" : "",
  });
  if (one.bakeTime) {
    found.push({
      label: "Watch", text: `watched for ${span(one.bakeTime)} after the promotion`, note: span(one.bakeTime),
      at: failed ? "missed" : one.phase === "Baking" ? "now" : one.phase === "Succeeded" ? "done" : "ahead",
    });
  }
  if (one.phase === "Initialized") for (const each of found) each.at = "ahead";
  return found;
}

const MARKS = { done: "check", now: "dot", failed: "cross", ahead: "ring", missed: "ring" };
const SAID = { done: "done", now: "now", failed: "failed here", ahead: "to come", missed: "not reached" };

/** Return the plan as a timeline. */
export function timeline(one) {
  const all = stations(one);
  return h(
    "ol",
    { class: `plan${all.length > DENSE ? " dense" : ""}`, "aria-label": "Plan" },
    all.map((each, index) =>
      h(
        "li",
        { class: `station ${each.at}`, "data-key": String(index), title: each.text, "aria-current": each.at === "now" ? "step" : null },
        h("span", { class: "station-mark" }, icon(each.gate && each.at !== "done" ? "lock" : MARKS[each.at])),
        h("span", { class: "station-label" }, each.label),
        h("span", { class: "station-note" }, each.note || ""),
        h("span", { class: "said" }, SAID[each.at]),
      ),
    ),
  );
}

/** Return the split as a bar; `rates` are attempts a second by upstream, as they are seen. */
export function split(one, rates) {
  const { from, to } = pair(one);
  const share = newShare(one);
  const [left, right] = [rates[from], rates[to]];
  const seen = left + right > 0 ? (100 * right) / (left + right) : null;
  const side = (role, name, part, many) =>
    h(
      "div",
      { class: `split-side ${role}` },
      h("span", { class: "split-name" }, name),
      h("span", { class: "split-role" }, name === one.primary ? "primary" : "canary"),
      h("b", { class: "split-share" }, percent(part)),
      h("span", { class: "split-rate" }, many === undefined ? "" : rate(many)),
    );
  return h(
    "div",
    { class: "split" },
    h("div", { class: "split-sides" }, side("from", from, 100 - share, left), side("to", to, share, right)),
    h(
      "div",
      { class: "split-bar", role: "img", "aria-label": `${from} gets ${percent(100 - share)}, ${to} gets ${percent(share)}` },
      h("span", { class: "split-part from", style: { "flex-grow": String(100 - share) } }),
      h("span", { class: "split-part to", style: { "flex-grow": String(share) } }),
    ),
    h("p", { class: "split-seen" }, seen === null ? "" : `Seen in the last 5 s: ${percent(seen, 1)} of the requests at ${to}`,
      one.mirroring ? `${seen === null ? "" : " · "}requests are copied to ${to}` : "",
      one.cohorts ? `${seen === null ? "" : " · "}${one.cohorts} cohort${one.cohorts > 1 ? "s" : ""} always at ${to}` : ""),
  );
}
