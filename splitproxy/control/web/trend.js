// Both versions side by side: what they do now, and how it came to be.

import { lines, spread, swatch } from "./chart.js";
import { h } from "./dom.js";
import { count, latency, none, pair, percent, rate } from "./words.js";

const KEPT = 600;
const LEAST = 60;
const QUANTILES = { p50: 3, p95: 4, p99: 5 };

/** What is known of a rollout's sides: points by upstream, and the distribution of latencies. */
export class Trend {
  constructor() {
    this.points = {};
    this.latency = null;
  }

  /** Take over what the API answered. */
  load(answer) {
    this.points = answer.points;
    this.latency = answer.latency;
  }

  /** Take the newest point of each upstream. */
  add(newest) {
    for (const [upstream, point] of Object.entries(newest)) {
      if (!point) continue;
      const known = (this.points[upstream] = this.points[upstream] || []);
      if (known.length && point[0] - known[known.length - 1][0] < 0.2) continue;
      known.push(point);
      while (known.length && known[0][0] < point[0] - KEPT) known.shift();
    }
  }

  now(upstream) {
    const known = this.points[upstream] || [];
    return known[known.length - 1] || [];
  }

  rates() {
    return Object.fromEntries(Object.keys(this.points).map((upstream) => [upstream, this.now(upstream)[1]]));
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

function evidence(one, width, moment) {
  const found = one.evidence;
  if (!found || !Array.isArray(found.history) || !found.history.length) return null;
  const points = found.history;
  const bound = found.alpha ? -Math.log10(found.alpha) : null;
  const [begin, end] = [points[0][0], Math.max(points[points.length - 1][0], points[0][0] + 1)];
  return lines({
    title: "Evidence that the new version is worse",
    sides: [{ name: "log₁₀ e-value", role: "to", points }],
    limits: bound === null ? [] : [{ value: bound, text: `enough at ${bound.toFixed(1)}` }],
    begin, end, width, format: (value) => (value === null ? none : value.toFixed(2)), scale: { least: bound || 1 },
    hover: moment.hover !== null && moment.hover >= begin && moment.hover <= end ? moment.hover : null, pointed: moment.pointed,
  });
}

/** Return the charts of a rollout. `view` holds the width of a chart, the moment pointed at, the quantile chosen. */
export function charts(one, trend, view) {
  const { from, to } = pair(one);
  const roles = [[from, "from"], [to, "to"]];
  const series = (place) =>
    roles.map(([name, role]) => ({ name, role, points: (trend.points[name] || []).map((point) => [point[0], point[place]]) }));
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
    h("div", { "data-key": "rate" }, lines({ ...common, title: "Requests a second", sides: series(1), format: (value) => (value === null ? none : rate(value).replace(" req/s", "")), limits: limits(one, "request-rate"), scale: { floor: 0, least: 1 } })),
    h("div", { "data-key": "spread" }, trend.latency && spread({
      title: "Latency of the last minute", bounds: trend.latency.bounds, width: view.width, format: latency,
      sides: roles.map(([name, role]) => ({ name, role, counts: trend.latency.counts[name] || [] })),
    })),
    one.evidence && h("div", { "data-key": "evidence", class: "wide" }, evidence(one, view.width, view), one.evidence.sentence && h("p", { class: "note" }, one.evidence.sentence)),
  ];
}

/** Return what both sides do now, as a table. */
export function table(one, trend) {
  const { from, to } = pair(one);
  const [old, fresh] = [trend.now(from), trend.now(to)];
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
      trend.latency && h("tr", null, h("th", { scope: "row" }, "In the last minute"), [from, to].map((name) =>
        h("td", null, count((trend.latency.counts[name] || []).reduce((sum, [, many]) => sum + many, 0)))), h("td", { class: "muted" }, none)),
    ),
  );
}
