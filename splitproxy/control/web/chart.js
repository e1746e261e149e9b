// Pictures of numbers over time and of their distribution. The old version is a dashed line with a square, the new one a
// solid line with a dot: colour only helps. What a picture shows is also said in its label.

import { h, s } from "./dom.js";
import { count, time } from "./words.js";

const HEIGHT = 168;
const LEFT = 46;
const RIGHT = 14;
const TOP = 16;
const BOTTOM = 20;
const GAP_SECONDS = 3.5;

const round = (value) => Math.round(value * 10) / 10;

/** Return about `wanted` round numbers that span from `low` to `high`. */
export function ticks(low, high, wanted = 4) {
  const raw = (high - low || 1) / wanted;
  const magnitude = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].find((one) => one * magnitude >= raw) * magnitude;
  const found = [];
  for (let at = Math.ceil(low / step - 1e-9) * step; at <= high + step * 1e-6; at += step) found.push(Number(at.toPrecision(10)));
  return found;
}

/** Return where a side's swatch is drawn in a legend: its line and its shape. */
export const swatch = (role) =>
  s(
    "svg",
    { class: `swatch ${role}`, viewBox: "0 0 26 10", "aria-hidden": "true" },
    s("path", { class: `line ${role}`, d: "M0 5H26" }),
    shape(role, 13, 5),
  );

function shape(role, x, y) {
  if (role === "from") return s("rect", { class: `end ${role}`, x: round(x - 3.5), y: round(y - 3.5), width: 7, height: 7 });
  return s("circle", { class: `end ${role}`, cx: round(x), cy: round(y), r: 4 });
}

function frame(width, label, x, y, yTicks, format, ...content) {
  return s(
    "svg",
    { class: "plot", role: "img", "aria-label": label, viewBox: `0 0 ${width} ${HEIGHT}`, width, height: HEIGHT },
    yTicks.map((value) => [
      s("path", { class: "grid", d: `M${LEFT} ${round(y(value))}H${width - RIGHT}` }),
      s("text", { class: "tick", x: LEFT - 6, y: round(y(value)) + 3.5, "text-anchor": "end" }, format(value)),
    ]),
    content,
  );
}

function path(points, x, y, gap) {
  let text = "";
  let before = null;
  for (const [at, value] of points) {
    if (value === null || value === undefined) continue;
    text += `${before === null || at - before > gap ? "M" : "L"}${round(x(at))} ${round(y(value))}`;
    before = at;
  }
  return text;
}

const newest = (points) => {
  for (let index = points.length - 1; index >= 0; index--) if (points[index][1] !== null) return points[index];
  return null;
};

function nearest(points, at) {
  let best = null;
  for (const point of points) if (point[1] !== null && (!best || Math.abs(point[0] - at) < Math.abs(best[0] - at))) best = point;
  return best && Math.abs(best[0] - at) < GAP_SECONDS ? best : null;
}

function timeTicks(begin, end, width, elapsed) {
  const steps = [5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600, 7200];
  const format = (at) => (elapsed ? `${Math.round(at - begin)} s` : time(new Date(at * 1000), end - begin >= 240));
  const step = steps.find((one) => (end - begin) / one <= Math.max(2, (width - LEFT) / 110)) || 14400;
  const found = [];
  const first = elapsed ? begin : Math.ceil(begin / step) * step;
  for (let at = first; at <= end; at += step) found.push([at, format(at)]);
  return found;
}

function legend(sides, values, format) {
  return h(
    "span",
    { class: "legend" },
    sides.map((side, index) =>
      h("span", { class: "legend-side" }, swatch(side.role), h("span", { class: "legend-name" }, side.name), h("b", null, format(values[index]))),
    ),
  );
}

function figure(title, note, body, ...more) {
  return h("figure", { class: "chart" }, h("figcaption", null, h("h3", null, title), note), body, ...more);
}

/** The scale of values: from the data and those limits that are near enough to be drawn where they are. */
function valueScale(sides, limits, { floor, ceiling, least }) {
  const values = sides.flatMap((side) => side.points.map((point) => point[1])).filter((value) => value !== null);
  let low = floor === undefined ? Math.min(...values) : floor;
  let high = Math.max(...values, least || 0);
  if (!values.length) [low, high] = [floor === undefined ? 0 : floor, ceiling || least || 1];
  const range = Math.max(high - low, high * 0.05, 1e-6);
  for (const { value } of limits) {
    if (value > high && value - low <= range * 2.5) high = value;
    if (value < low) low = value;
  }
  const pad = (high - low || 1) * 0.08;
  if (floor === undefined) low -= pad;
  return [low, ceiling === undefined ? high + pad : Math.min(high + pad, ceiling)];
}

/**
 * Draw values over time. `sides` are {name, role, points: [[seconds, value]...]}, `limits` {value, text}, `marks`
 * [seconds, text]; `hover` is the moment pointed at, or null, and `pointed` is told of it.
 */
export function lines({ title, sides, limits = [], marks = [], begin, end, width, format, scale = {}, hover = null, pointed, elapsed = false }) {
  const inside = ([at]) => at >= begin && at <= end;
  sides = sides.map((side) => ({ ...side, points: side.points.filter(inside) }));
  const [low, high] = valueScale(sides, limits, scale);
  const x = (at) => LEFT + ((at - begin) / (end - begin)) * (width - LEFT - RIGHT);
  const y = (value) => TOP + (1 - (value - low) / (high - low)) * (HEIGHT - TOP - BOTTOM);
  const shown = sides.map((side) => (hover === null ? newest(side.points) : nearest(side.points, hover)));
  const values = shown.map((point) => (point ? point[1] : null));
  const label = [
    `${title}.`,
    ...sides.map((side, index) => `${side.name}: ${format(values[index])}.`),
    ...limits.map((limit) => `Limit: ${limit.text}.`),
  ].join(" ");
  const plot = frame(
    width, label, x, y, ticks(low, high, 3), format,
    timeTicks(begin, end, width, elapsed).map(([at, text]) =>
      s("text", { class: "tick", x: round(x(at)), y: HEIGHT - 5, "text-anchor": "middle" }, text)),
    marks.filter(inside).map(([at, text], index, all) => [
      s("path", { class: "mark", d: `M${round(x(at))} ${TOP}V${HEIGHT - BOTTOM}` }),
      (index === all.length - 1 || x(all[index + 1][0]) - x(at) > 30) && s("text", { class: "mark-text", x: Math.min(round(x(at)) + 3, width), y: TOP - 4, "text-anchor": x(at) > width - 34 ? "end" : null }, text),
    ]),
    limits.map(({ value, text }) => {
      const off = value > high;
      const at = off ? TOP + 2 : y(value);
      return [
        !off && s("path", { class: "limit", d: `M${LEFT} ${round(at)}H${width - RIGHT}` }),
        s("text", { class: "limit-text", x: width - RIGHT, y: round(off || at < TOP + 14 ? at + 13 : at - 5), "text-anchor": "end" }, off ? `${text} (far above)` : text),
      ];
    }),
    sides.map((side) => {
      const last = newest(side.points);
      return [
        s("path", { class: `line ${side.role}`, d: path(side.points, x, y, elapsed ? Infinity : GAP_SECONDS) }),
        last && end - last[0] < 4 * GAP_SECONDS && hover === null && shape(side.role, x(last[0]), y(last[1])),
      ];
    }),
    hover !== null && hover >= begin && [
      s("path", { class: "cursor", d: `M${round(x(hover))} ${TOP}V${HEIGHT - BOTTOM}` }),
      shown.map((point, index) => point && shape(sides[index].role, x(point[0]), y(point[1]))),
    ],
  );
  plot.onpointermove = (event) => {
    const box = event.currentTarget.getBoundingClientRect();
    const place = ((event.clientX - box.left) / box.width) * width;
    pointed(place < LEFT ? null : begin + ((place - LEFT) / (width - LEFT - RIGHT)) * (end - begin));
  };
  plot.onpointerleave = () => pointed(null);
  return figure(title, legend(sides, values, format), plot);
}

/** Draw how durations are spread: `sides` are {name, role, counts: [[bucket, count]...]}, `bounds` in seconds. */
export function spread({ title, sides, bounds, width, format, note }) {
  const pairs = sides.map((side) => {
    const found = new Map();
    let all = 0;
    for (const [bucket, many] of side.counts) {
      const place = bucket >> 1;
      found.set(place, (found.get(place) || 0) + many);
      all += many;
    }
    return { ...side, all, shares: found };
  });
  const used = pairs.flatMap((side) => [...side.shares.keys()]);
  const edge = (place) => bounds[Math.min(Math.max(place * 2 - 1, 0), bounds.length - 1)];
  const totals = h("span", { class: "legend" }, pairs.map((side) =>
    h("span", { class: "legend-side" }, swatch(side.role), h("span", { class: "legend-name" }, side.name), h("b", null, count(side.all)))));
  if (!used.length) return figure(title, totals, h("p", { class: "empty plot" }, "No requests in the last minute."));
  const first = Math.min(...used) - 2;
  const last = Math.max(...used) + 3;
  const [low, high] = [Math.log10(edge(Math.max(first, 1))), Math.log10(edge(last))];
  const top = Math.max(...pairs.flatMap((side) => [...side.shares.values()].map((many) => (100 * many) / (side.all || 1))));
  const x = (seconds) => LEFT + ((Math.log10(seconds) - low) / (high - low)) * (width - LEFT - RIGHT);
  const y = (share) => TOP + (1 - share / (top * 1.08)) * (HEIGHT - TOP - BOTTOM);
  const outline = (side) => {
    let text = `M${LEFT} ${round(y(0))}`;
    for (let place = Math.max(first, 1); place < last; place++) {
      const at = y((100 * (side.shares.get(place) || 0)) / (side.all || 1));
      text += `L${round(x(edge(place)))} ${round(at)}L${round(x(edge(place + 1)))} ${round(at)}`;
    }
    return `${text}L${width - RIGHT} ${round(y(0))}`;
  };
  const marks = [];
  for (let power = Math.ceil(low - 1e-9); power <= high; power++) marks.push(10 ** power);
  if (marks.length < 3) for (const one of [...marks, 10 ** Math.floor(low)]) for (const times of [2, 5]) {
    const at = Math.log10(one * times);
    if (at > low && at < high && !marks.includes(one * times)) marks.push(one * times);
  }
  const apart = marks.sort((a, b) => a - b).filter((at, index, all) => !index || x(at) - x(all[index - 1]) > 44 || Number.isInteger(Math.log10(at)));
  const label = `${title}. ${pairs.map((side) => `${side.name}: ${side.all} requests.`).join(" ")}`;
  return figure(title, totals, frame(
    width, label, x, y, ticks(0, top, 3), (value) => `${value} %`,
    apart.map((at) => [
      s("path", { class: "grid", d: `M${round(x(at))} ${HEIGHT - BOTTOM}v4` }),
      s("text", { class: "tick", x: round(x(at)), y: HEIGHT - 5, "text-anchor": "middle" }, format(at)),
    ]),
    pairs.map((side) => side.all > 0 && s("path", { class: `area ${side.role}`, d: outline(side) })),
  ), note && h("p", { class: "note" }, note));
}
