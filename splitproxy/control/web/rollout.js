// One rollout: what happens, why, what can be done, and what has happened.

import { h, icon, part } from "./dom.js";
import { split, timeline } from "./plan.js";
import { charts, copies, evidence, table } from "./trend.js";
import { OUTCOMES, ago, clock, ended, newShare, none, pair, percent, phase, situation, span, verbs } from "./words.js";

const ORDER = ["approve", "promote", "resume", "retry", "start", "pause", "set-weight", "undo", "deny", "abort"];
const FEW = 12;

export const badge = (name) => {
  const [mark, tone, words] = phase(name);
  return h("span", { class: `badge ${tone}`, title: words }, icon(mark), name);
};

/** Return the rollouts to choose from. */
export function list(rollouts, selected) {
  return h(
    "nav",
    { class: "list", "aria-label": "Rollouts" },
    h("h2", { class: "list-title" }, "Rollouts"),
    h("ul", null, rollouts.map((one) => {
      const [mark, tone] = phase(one.phase);
      const share = ended(one.phase) ? "" : percent(newShare(one));
      return h("li", { "data-key": one.name }, h(
        "a",
        { href: `#/rollouts/${encodeURIComponent(one.name)}`, class: "list-item", "aria-current": one.name === selected ? "page" : null },
        h("span", { class: `list-mark ${tone}` }, icon(mark)),
        h("span", { class: "list-name" }, one.name, h("span", { class: "list-phase" }, one.phase)),
        h("span", { class: "list-share" }, share),
      ));
    })),
  );
}

function actions(one, context) {
  const words = verbs(one);
  const legal = ORDER.filter((name) => (one.verbs || []).includes(name));
  const first = legal.find((name) => ["approve", "promote", "resume", "retry", "start"].includes(name));
  return h(
    "div",
    { class: "actions", role: "group", "aria-label": `What can be done with ${one.name}` },
    legal.map((name) => {
      const [mark, label, effect] = words[name];
      const kind = ["abort", "undo"].includes(name) ? "danger" : name === first ? "primary" : "";
      return h(
        "button",
        { type: "button", class: `action ${kind}`, "data-key": name, disabled: context.stale || context.busy, onclick: () => context.ask(one, name) },
        icon(mark),
        h("span", { class: "action-label" }, label),
        h("span", { class: "action-effect" }, effect),
      );
    }),
  );
}

function hero(one, context) {
  const { headline, why, next } = situation(one, context.due);
  const [, tone] = phase(one.phase);
  const trouble = (one.verdicts || []).some((verdict) => verdict.outcome === "fail") && !ended(one.phase);
  return h(
    "section",
    { class: `hero ${trouble ? "bad" : tone}`, "aria-label": "What happens now" },
    h("p", { class: "headline", id: "headline" }, headline),
    why && h("p", { class: "why" }, why),
    (one.alarms || []).map((alarm) => h("p", { class: "alarm" }, icon("warning"), " ", alarm)),
    next && h("p", { class: "next" }, next),
    one.adopt && h("pre", { class: "edit", tabindex: "0", "aria-label": "The edit to make in the file" }, `primary: ${one.adopt.primary}\ncanary: ${one.adopt.canary}`),
    part("actions", [one, context.stale, context.busy], () => actions(one, context)),
    split(one, context.trend.rates()),
    part("plan", [one], () => timeline(one)),
  );
}

function head(one) {
  const facts = [
    one.revision && ["Revision", one.revision],
    ["From", `${pair(one).from} → ${pair(one).to}`],
    ["Route", one.route],
    one.strategy && ["Strategy", one.strategy],
    one.attempt > 0 && ["Run", `${one.attempt}${one.startedAt ? `, began ${ago(one.startedAt)}` : ""}`],
    one.phaseSince && ["In this phase", span((Date.now() - new Date(one.phaseSince)) / 1000)],
    one.dryRun && ["Dry run", "moves no traffic"],
  ].filter(Boolean);
  return h(
    "header",
    { class: "head" },
    h("div", { class: "head-title" }, h("h1", null, one.name), badge(one.phase)),
    h("dl", { class: "facts" }, facts.map(([term, value]) => h("div", { "data-key": term }, h("dt", null, term), h("dd", null, value)))),
  );
}

const bound = (verdict) =>
  [verdict.min !== null && `at least ${verdict.min}`, verdict.max !== null && `at most ${verdict.max}`].filter(Boolean).join(", ");
const figure = (value, unit) => (value === null || value === undefined ? none : `${Math.round(value * 100) / 100} ${unit}`.trim());

function verdictPanel(one) {
  const verdicts = one.verdicts || [];
  const failed = one.failedChecks || 0;
  const pips = Math.min(one.threshold || 1, 20);
  return h(
    "section",
    { class: "panel", "aria-labelledby": "checks-title" },
    h("div", { class: "panel-head" }, h("h2", { id: "checks-title" }, "Last check"),
      h("span", { class: "pips", role: "img", "aria-label": `${failed} of ${one.threshold} failed checks until it is rolled back` },
        Array.from({ length: pips }, (_, index) => h("span", { class: `pip${index < failed ? " full" : ""}` })),
        h("span", { class: "pips-text", "aria-hidden": "true" }, `${failed} of ${one.threshold} failed`))),
    verdicts.length
      ? h("ul", { class: "verdicts" }, verdicts.map((verdict) => {
          const [mark, tone] = OUTCOMES[verdict.outcome] || ["dot", "calm"];
          return h("li", { class: `verdict ${tone}`, "data-key": verdict.metric },
            h("span", { class: "verdict-mark" }, icon(mark), h("span", { class: "said" }, verdict.outcome)),
            h("span", { class: "verdict-name" }, verdict.metric),
            h("b", { class: "verdict-value" }, figure(verdict.value, verdict.unit)),
            h("span", { class: "verdict-limit" }, bound(verdict) ? `${bound(verdict)} ${verdict.unit}` : verdict.outcome),
            h("p", { class: "verdict-reason" }, verdict.reason));
        }))
      : h("p", { class: "empty" }, "Nothing has been checked yet."),
  );
}

const KINDS = { weight: "weight", gate: "lock", rollback: "back", verb: "play", note: "warning", phase: "dot" };

function entryMark(entry) {
  if (entry.kind === "check") return OUTCOMES[entry.data && entry.data.outcome] || ["check", entry.warning ? "bad" : "good"];
  if (entry.kind === "phase") {
    const [mark, tone] = phase(entry.data && entry.data.after);
    return [mark, tone];
  }
  return [KINDS[entry.kind] || "dot", entry.warning ? "wait" : "calm"];
}

/** Return a function that does its work once for each history: most drawings have the same one. */
function once(work) {
  const done = new WeakMap();
  return (history) => {
    if (!done.has(history)) done.set(history, work(history));
    return done.get(history);
  };
}

/** Return the entries, newest first, without what another of the same moment says too. */
const condensed = once((history) => {
  const found = [];
  for (const entry of [...history].reverse()) {
    const same = found.slice(-6).filter((other) => other.at === entry.at);
    const [, change = "", reason = entry.text] = /^(\S+ -> \S+): (.*)$/s.exec(entry.text) || [];
    const repeated = same.some((other) => other.text.includes(reason));
    if (repeated && !change) continue;
    found.push({ ...entry, text: change ? `${change.replace("->", "→")}${repeated ? "" : `: ${reason}`}` : entry.text });
  }
  return found;
});

function historyPanel(one, context) {
  const entries = condensed(one.history || []);
  const shown = context.more ? entries : entries.slice(0, FEW);
  return h(
    "section",
    { class: "panel", "aria-labelledby": "history-title" },
    h("div", { class: "panel-head" }, h("h2", { id: "history-title" }, "What has happened")),
    entries.length
      ? h("ol", { class: "history" }, shown.map((entry) => {
          const [mark, tone] = entryMark(entry);
          return h("li", { class: `entry ${tone}`, "data-key": String(entry.id || `${entry.at}${entry.kind}`) },
            h("span", { class: "entry-mark" }, icon(mark)),
            h("span", { class: "entry-text" }, h("span", { class: "said" }, entry.warning ? "warning: " : ""), entry.text),
            h("time", { class: "entry-time", datetime: entry.at, title: entry.at }, clock(entry.at)));
        }))
      : h("p", { class: "empty" }, "Nothing yet."),
    entries.length > FEW && h("button", { type: "button", class: "plain", onclick: context.toggleMore }, context.more ? "Show less" : `Show all ${entries.length}`),
  );
}

/** Return the runs that a history tells of, the newest first. */
const runs = once((history) => {
  const found = new Map();
  for (const entry of history) {
    if (!entry.attempt) continue;
    const run = found.get(entry.attempt) || { attempt: entry.attempt, began: entry.at, outcome: null, text: "", share: 0 };
    if (entry.kind === "weight") run.share = Math.max(run.share, entry.data.weight / 100);
    const after = entry.kind === "phase" && entry.data.after;
    if (after === "Succeeded" || after === "Failed") {
      Object.assign(run, { outcome: after, at: entry.at, text: entry.text.replace(/^\S+ -> \S+: /, "") });
    }
    found.set(entry.attempt, run);
  }
  return [...found.values()].reverse();
});

function pastPanel(one) {
  const past = runs(one.history || []);
  if (!past.length) return null;
  return h(
    "section",
    { class: "panel", "aria-labelledby": "past-title" },
    h("div", { class: "panel-head" }, h("h2", { id: "past-title" }, "Runs")),
    h("ul", { class: "runs" }, past.slice(0, 20).map((run) => h("li", { "data-key": String(run.attempt) },
      h("span", { class: "run-number" }, `#${run.attempt}`),
      badge(run.outcome || (run.attempt === one.attempt ? one.phase : "Failed")),
      h("span", { class: "run-text" }, run.text || (run.outcome ? "" : "under way")),
      h("span", { class: "muted run-time" }, `${clock(run.began)}${run.at ? `, ${span((new Date(run.at) - new Date(run.began)) / 1000)}` : ""}, up to ${percent(run.share)}`)))),
  );
}

/** Return the page of a rollout. */
export function detail(one, context) {
  return h(
    "article",
    { class: "detail", "aria-labelledby": "headline", "data-key": one.name },
    head(one),
    hero(one, context),
    h("div", { class: "columns" },
      h("div", { class: "column" },
        h("section", { class: "panel", "aria-labelledby": "sides-title" },
          h("div", { class: "panel-head" }, h("h2", { id: "sides-title" }, "Side by side")),
          context.trend.loaded
            ? [h("div", { class: "charts" }, charts(one, context.trend, context.view)),
               h("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": "Figures of both versions" }, table(one, context.trend))]
            : h("div", { class: "charts to-come" })),
        part("evidence", [one, context.view.width], () => evidence(one, context.view)),
        part("copies", [one], () => copies(one))),
      h("div", { class: "column side" }, 
        part("checks", [one], () => verdictPanel(one)),
        part("history", [one, context.more], () => historyPanel(one, context)),
        part("past", [one], () => pastPanel(one)))),
  );
}
