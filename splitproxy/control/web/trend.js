// Both versions side by side: what they do now, and how it came to be.

import { lines, spread, swatch } from "./chart.js";
import { h } from "./dom.js";
import { count, ended, latency, none, pair, percent, rate, sentence, span } from "./words.js";

const KEPT = 600;
const LEAST = 60;
const QUANTILES = { p50: 3, p95: 4, p99: 5 };

function append(known, point) {
  if (!point || (known.length && point[0] - known[known.length - 1][0] < 0.2)) return;
  known.push(point);
  while (known.length && known[0][0] < point[0] - KEPT) known.shift();
}

/** What is known of a rollout's sides: points by upstream, those of copies, and the distribution of latencies. */
export class Trend {
  constructor() {
    this.points = {};
    this.copies = [];
    this.latency = null;
    this.loaded = false;
  }

  /** Take over what the API answered. */
  load(answer) {
    this.points = answer.points;
    this.copies = answer.copies;
    this.latency = answer.latency;
    this.loaded = true;
  }

  /** Take the newest point of each upstream, and of the copies. */
  add(newest, copies) {
    for (const [upstream, point] of Object.entries(newest)) append((this.points[upstream] = this.points[upstream] || []), point);
    append(this.copies, copies);
  }

  /** Return the points of an upstream; those of copies where a canary gets nothing else. */
  of(upstream, role) {
    const live = this.points[upstream] || [];
    if (role !== "to" || this.copies.length !== live.length) return live;
    return live.map((point, index) => (point[1] > 0 || !this.copies[index][1] ? point : this.copies[index]));
  }

  counts(upstream, role) {
    const live = this.latency.counts[upstream] || [];
    return live.length || role !== "to" ? live : this.latency.copies;
  }

  rates() {
    return Object.fromEntries(Object.entries(this.points).map(([upstream, known]) => [upstream, (known[known.length - 1] || [])[1]]));
  }
}

function limits(one, kind, quantile) {
  const unit = kind === "request-duration" ? 1000 : 1;
  const format = kind === "request-duration" ? latency : kind === "request-rate" ? rate : percent;
  return (one.metrics || [])
    .filter((metric) => metric.kind === kind && (quantile === undefined || `p${metric.quantile * 100}` === quantile))
    .flatMap((metric) => [
      metric.min !== null && { value: metric.min / unit, text: `at least ${format(metric.min / unit)}` },
      metric.max !== null && { value: metric.max / unit, text: `at most ${format(metric.max / unit)}` },
      metric.hardMin !== null && { value: metric.hardMin / unit, text: `rollback below ${format(metric.hardMin / unit)}` },
      metric.hardMax !== null && { value: metric.hardMax / unit, text: `rollback above ${format(metric.hardMax / unit)}` },
    ])
    .filter(Boolean);
}

function chart({ history, alpha, needed }, view) {
  const bound = needed || (alpha ? -Math.log10(alpha) : null);
  const [begin, end] = [history[0][0], Math.max(history[history.length - 1][0], history[0][0] + 1)];
  return lines({
    title: "Evidence that the new version is worse",
    sides: [{ name: "log₁₀ of the e-value", role: "to", points: history }],
    limits: bound === null ? [] : [{ value: bound, text: `rolled back at ${bound.toFixed(1)}` }],
    begin, end, width: view.width, elapsed: true, format: (value) => (value === null ? none : value.toFixed(1)),
    scale: { least: bound || 1 }, pointed: () => {},
  });
}

function proof(gate) {
  if (gate.passed) return "It is proven safe enough for the next step.";
  const left = [gate.requestsLeft && `about ${count(gate.requestsLeft)} more requests`, gate.secondsLeft && span(gate.secondsLeft)].filter(Boolean);
  return `Not proven safe yet${gate.missing ? `: ${gate.missing}` : ""}${left.length ? ` (${left.join(", ")})` : ""}.`;
}

/** Return what the comparison of both versions has come to; null where there is none. */
export function evidence(one, view) {
  const found = one.evidence;
  if (!found || !Array.isArray(found.history)) return null;
  const { from, to } = pair(one);
  const counts = found.counts;
  const examples = (found.examples && found.examples.canary) || [];
  return h(
    "section",
    { class: "panel", "aria-labelledby": "evidence-title" },
    h("div", { class: "panel-head" }, h("h2", { id: "evidence-title" }, "Evidence")),
    h("div", { class: "charts" },
      h("div", null, found.history.length > 0 && chart(found, view)),
      h("div", { class: "telling" },
        found.sentence && h("p", null, sentence(found.sentence)),
        counts && h("p", { class: "muted" }, `${to}: ${count(counts.bad_canary)} of ${count(counts.canary)} failed; ${from}: ${count(counts.bad_primary)} of ${count(counts.primary)}.`),
        found.gate && !ended(one.phase) && h("p", { class: "muted" }, proof(found.gate)),
        examples.length > 0 && h("details", null, h("summary", null, `Requests that failed at ${to}`),
          h("ul", { class: "errors" }, examples.map((each) => h("li", null, h("code", null, `${each.requestId || none} ${each.status || ""} ${each.outcome || ""}`))))))),
  );
}

/** Return what the comparison of copied requests has come to; null where nothing was copied. */
export function copies(one) {
  const found = one.mirrored;
  if (!found) return null;
  const { to } = pair(one);
  const differing = (found.fields || []).slice(0, 6);
  return h(
    "section",
    { class: "panel telling", "aria-labelledby": "copies-title" },
    h("h2", { id: "copies-title" }, "Copied requests"),
    found.sentence && h("p", null, sentence(found.sentence)),
    h("p", { class: "muted" }, `${count(found.pairs)} pairs: ${count(found.canaryOnlyBad)} failed at ${to} alone, ${count(found.referenceOnlyBad)} at ${found.reference} alone, ${count(found.bothBad)} at both.`),
    differing.length > 0 && h("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": "Where answers differ" }, h("table", null,
      h("caption", { class: "said" }, "Where answers differ"),
      h("thead", null, h("tr", null, ["Place", "Answers that differ", "Verdict"].map((title) => h("th", { scope: "col" }, title)))),
      h("tbody", null, differing.map((each) => h("tr", { "data-key": `${each.rule}${each.field}` },
        h("th", { scope: "row" }, each.field), h("td", null, count(each.canaryOnly)), h("td", null, each.verdict)))))),
  );
}

/** Return the charts of a rollout. `view` holds the width of a chart, the moment pointed at, the quantile chosen. */
export function charts(one, trend, view) {
  const { from, to } = pair(one);
  const roles = [[from, "from"], [to, "to"]];
  const series = (place) =>
    roles.map(([name, role]) => ({ name, role, points: trend.of(name, role).map((point) => [point[0], point[place]]) }));
  const end = view.now;
  const started = one.startedAt ? new Date(one.startedAt) / 1000 - 15 : end - 120;
  const begin = Math.max(end - KEPT, Math.min(started, end - LEAST));
  const marks = (one.history || [])
    .filter((entry) => entry.kind === "weight" && entry.attempt === one.attempt)
    .map((entry) => [new Date(entry.at) / 1000, percent(entry.data.weight / 100)]);
  const common = { begin, end, width: view.width, marks, hover: view.hover, pointed: view.pointed };
  const choice = h(
    "fieldset",
    { class: "choice" },
    h("legend", { class: "said" }, "Which latency"),
    Object.keys(QUANTILES).map((name) =>
      h("label", null, h("input", { type: "radio", name: "quantile", value: name, checked: view.quantile === name, onchange: () => view.choose(name) }), h("span", null, name)),
    ),
  );
  const durations = lines({
    ...common, title: `Latency ${view.quantile}`, sides: series(QUANTILES[view.quantile]), format: latency,
    limits: limits(one, "request-duration", view.quantile), scale: { floor: 0, least: 0.001 },
  });
  durations.querySelector("figcaption h3").replaceChildren("Latency", choice);
  return [
    h("div", { "data-key": "success" }, lines({ ...common, title: "Success rate", sides: series(2), format: percent, limits: limits(one, "request-success-rate"), scale: { ceiling: 100.02 } })),
    h("div", { "data-key": "latency" }, durations),
    h("div", { "data-key": "rate" }, lines({ ...common, title: "Requests a second", sides: series(1), format: (value) => (value === null ? none : rate(value).replace("\u00a0req/s", "")), limits: limits(one, "request-rate"), scale: { floor: 0, least: 1 } })),
    h("div", { "data-key": "spread" }, trend.latency && spread({
      title: "Latency of the last minute", bounds: trend.latency.bounds, width: view.width, format: latency,
      sides: roles.map(([name, role]) => ({ name, role, counts: trend.counts(name, role) })),
    })),
  ];
}

/** Return what both sides do now, as a table. */
export function table(one, trend) {
  const { from, to } = pair(one);
  const [old, fresh] = [trend.of(from, "from"), trend.of(to, "to")].map((points) => points[points.length - 1] || []);
  const duration = (name) => limits(one, "request-duration", name).map((limit) => limit.text).join(", ");
  const row = (label, place, format, limit) => {
    const [a, b] = [old[place], fresh[place]];
    return h("tr", null, h("th", { scope: "row" }, label), h("td", null, format(a)), h("td", null, format(b)), h("td", { class: "muted" }, limit || none));
  };
  const head = (name, role) => h("th", { scope: "col" }, swatch(role), " ", name, h("span", { class: "muted role" }, name === one.primary ? "primary" : "canary"));
  return h(
    "table",
    { class: "sides" },
    h("caption", { class: "said" }, "Both versions in the last five seconds"),
    h("thead", null, h("tr", null, h("th", { scope: "col" }, "Last 5 s"), head(from, "from"), head(to, "to"), h("th", { scope: "col" }, "Limit"))),
    h(
      "tbody",
      null,
      row("Success", 2, percent, limits(one, "request-success-rate").map((limit) => limit.text).join(", ")),
      Object.entries(QUANTILES).map(([name, place]) => row(`Latency ${name}`, place, latency, duration(name))),
      row("Requests", 1, rate, limits(one, "request-rate").map((limit) => limit.text).join(", ")),
      trend.latency && h("tr", null, h("th", { scope: "row" }, "In the last minute"), [[from, "from"], [to, "to"]].map(([name, role]) =>
        h("td", null, count(trend.counts(name, role).reduce((sum, [, many]) => sum + many, 0)))), h("td", { class: "muted" }, none)),
    ),
  );
}
