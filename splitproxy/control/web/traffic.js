// Where requests go: from the listeners by routes and rules to upstreams; and how the upstreams' endpoints stand.

import { h, icon, s } from "./dom.js";
import { count, latency, percent, rate } from "./words.js";

const WIDE = 720;
const NODE = 46;
const GAP = 12;
const MOST = 40;

function conditions(match) {
  const parts = [];
  if (match.method) parts.push(match.method);
  if (match.path && match.path.value !== "/") parts.push(`${match.path.type === "Exact" ? "= " : ""}${match.path.value}`);
  for (const kind of ["headers", "cookies", "queryParams"]) for (const one of match[kind] || []) parts.push(`${one.name}: ${one.value}`);
  return parts.join(" ") || "everything";
}

const told = (rule) => (rule.matches.length ? rule.matches.map(conditions).join(" or ") : "everything");
const signals = (backend) => backend.signals["10s"];
const sum = (values) => values.reduce((all, value) => all + (value || 0), 0);

/** Return the rules to be shown, each with its route. */
function rules(routes) {
  return routes.flatMap((route) => route.rules.map((rule) => ({ route, rule, rate: sum(rule.backends.filter((one) => one.role !== "mirror").map((one) => signals(one).rate)) }))).slice(0, MOST);
}

const cut = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);

function node(x, y, width, title, note, kind = "") {
  return s("g", { class: `node ${kind}`, transform: `translate(${x} ${y})` },
    s("rect", { width, height: NODE, rx: 8 }),
    s("text", { class: "node-title", x: 12, y: 19 }, cut(title, Math.floor(width / 8.2))),
    s("text", { class: "node-note", x: 12, y: 36 }, cut(note, Math.floor(width / 6.6))));
}

function link(x1, y1, x2, y2, role, amount, most) {
  const middle = (x1 + x2) / 2;
  const d = `M${x1} ${y1}C${middle} ${y1} ${middle} ${y2} ${x2} ${y2}`;
  const width = amount > 0 ? 1.5 + 7 * Math.sqrt(amount / most) : 1;
  return [
    s("path", { class: `link ${role}${amount > 0 ? "" : " idle"}`, d, "stroke-width": width.toFixed(1) }),
    amount > 0 && s("path", { class: `flow ${amount > most / 3 ? "fast" : ""}`, d, "stroke-width": Math.min(2, width).toFixed(1) }),
  ];
}

function picture(shown, listeners, width) {
  const column = Math.min(250, Math.floor((width - 160) / 3));
  const places = [0, (width - column) / 2, width - column];
  const upstreams = [...new Set(shown.flatMap(({ rule }) => rule.backends.map((one) => one.name)))];
  const totals = upstreams.map((name) => sum(shown.flatMap(({ rule }) => rule.backends.filter((one) => one.name === name).map((one) => signals(one).rate))));
  const rows = Math.max(shown.length, upstreams.length, 1);
  const height = rows * (NODE + GAP) + 24;
  const spot = (index, all) => 24 + (index + 0.5) * ((height - 24) / all) - NODE / 2;
  const total = sum(shown.map((one) => one.rate));
  const most = Math.max(total, 0.1);
  const entry = spot(0, 1);
  const titles = ["Listeners", "Routes and rules", "Upstreams"];
  return s(
    "svg",
    { class: "routes-picture", viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": "Requests go from the listeners by the rules to the upstreams, as the table below says." },
    titles.map((title, index) => s("text", { class: "column-title", x: places[index], y: 12 }, title)),
    shown.map(({ rate: amount }, index) => link(places[0] + column, entry + NODE / 2, places[1], spot(index, shown.length) + NODE / 2, "plain", amount, most)),
    shown.map(({ rule }, index) => rule.backends.map((backend, place) => {
      const y = spot(index, shown.length) + (NODE * (place + 1)) / (rule.backends.length + 1);
      return link(places[1] + column, y, places[2], spot(upstreams.indexOf(backend.name), upstreams.length) + NODE / 2, backend.role, signals(backend).rate || 0, most);
    })),
    node(places[0], entry, column, listeners.join(", "), rate(total)),
    shown.map(({ route, rule, rate: amount }, index) => node(places[1], spot(index, shown.length), column, `${route.name} · ${rule.name}`, `${rate(amount)} · ${told(rule)}`)),
    upstreams.map((name, index) => node(places[2], spot(index, upstreams.length), column, name, rate(totals[index]))),
  );
}

const ROLES = { primary: "primary", canary: "canary", mirror: "mirror (copies)", none: "none" };

function rows(shown) {
  return shown.flatMap(({ route, rule }) => rule.backends.map((backend, index) => {
    const seen = signals(backend);
    return h("tr", { "data-key": `${route.name}/${rule.name}/${backend.name}/${backend.role}` },
      h("th", { scope: "row", "data-label": "Rule" }, index ? h("span", { class: "said" }, `${route.name} ${rule.name}`) : [`${route.name} · ${rule.name}`, h("span", { class: "muted block" }, `${route.hostnames.join(", ") || "any host"} · ${told(rule)}`)]),
      h("td", { "data-label": "Upstream" }, backend.name, h("span", { class: `role-tag ${backend.role}` }, ROLES[backend.role])),
      h("td", { "data-label": "Share" }, backend.weight === null ? "–" : percent(backend.weight), h("span", { class: "meter", "aria-hidden": "true" }, h("span", { class: `meter-fill ${backend.role}`, style: { width: `${backend.weight || 0}%` } }))),
      h("td", { "data-label": "Requests" }, rate(seen.rate)),
      h("td", { "data-label": "Success" }, seen.successRate === null ? "–" : percent(100 * seen.successRate)),
      h("td", { "data-label": "p50" }, latency(seen.p50)),
      h("td", { "data-label": "p99" }, latency(seen.p99)),
      h("td", { "data-label": "In flight" }, count(backend.inFlight)));
  }));
}

const filterField = (view) =>
  h("label", { class: "filter" }, h("span", null, "Filter"), h("input", { type: "search", value: view.filter, placeholder: "name or host", oninput: (event) => view.find(event.target.value) }));

/** Return the page of routes. */
export function routesPage({ routes, total, listeners }, view) {
  const shown = rules(routes);
  const all = sum(routes.map((route) => route.rules.length));
  const hidden = total - routes.length;
  return h(
    "article",
    { class: "detail", "data-key": "routes" },
    h("header", { class: "head" }, h("div", { class: "head-title" }, h("h1", null, "Routes")), (total > 8 || view.filter) && filterField(view)),
    shown.length ? null : h("p", { class: "empty" }, view.filter ? "No route has this in its name or hosts." : "There is no route."),
    shown.length > 0 && view.wide >= WIDE && h("section", { class: "panel", "aria-label": "Picture" }, picture(shown, listeners, view.wide - 36)),
    shown.length > 0 && h("section", { class: "panel scroll", tabindex: "0", "aria-label": "Table of rules" },
      h("table", { class: "stacks" },
        h("caption", { class: "said" }, "What each rule's upstreams get, over the last ten seconds"),
        h("thead", null, h("tr", null, ["Rule", "Upstream", "Share", "Requests", "Success", "p50", "p99", "In flight"].map((title) => h("th", { scope: "col" }, title)))),
        h("tbody", null, rows(shown)))),
    (hidden > 0 || all > shown.length) && h("p", { class: "note" }, `Shown are ${shown.length} rules${hidden > 0 ? ` of the first ${routes.length} of ${total} routes` : ` of ${all}`}; a filter finds the others.`),
  );
}

function standing(one) {
  if (one.ejected) return ["cross", "bad", "ejected"];
  if (!one.healthy) return ["cross", "bad", "unhealthy"];
  if (one.panic) return ["warning", "wait", "in use only for want of others"];
  return one.inUse ? ["check", "good", "in use"] : ["ring", "calm", "not in use"];
}

function card(upstream) {
  const addresses = upstream.addresses.filter((one) => !one.mirror);
  const copies = upstream.addresses.filter((one) => one.mirror && one.requests > 0);
  const usable = addresses.filter((one) => one.inUse).length;
  const tone = !addresses.length ? "calm" : usable === addresses.length ? "good" : usable ? "wait" : "bad";
  const mark = { good: "check", wait: "warning", bad: "cross", calm: "ring" }[tone];
  return h(
    "section",
    { class: "panel", "data-key": upstream.name, "aria-label": upstream.name },
    h("div", { class: "panel-head" }, h("h2", null, upstream.name),
      h("span", { class: `badge ${tone}` }, icon(mark), addresses.length ? `${usable} of ${addresses.length} in use` : "no address yet"),
      h("span", { class: "muted" }, upstream.loadBalancing)),
    h("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": `Endpoints of ${upstream.name}` },
      h("table", { class: "stacks" },
        h("caption", { class: "said" }, `Endpoints of ${upstream.name}`),
        h("thead", null, h("tr", null, ["Endpoint", "Health", "In flight", "Connections", "Waiting", "Requests", "Connect failures"].map((title) => h("th", { scope: "col" }, title)))),
        h("tbody", null, [...addresses, ...copies].map((one) => {
          const [sign, how, words] = standing(one);
          const opinion = one.workers.all > 1 && (one.workers.unhealthy || one.workers.ejected) ? ` (${one.workers.unhealthy + one.workers.ejected} of ${one.workers.all} workers say so)` : "";
          return h("tr", { "data-key": `${one.address}${one.mirror}` },
            h("th", { scope: "row", "data-label": "Endpoint" }, one.address, one.mirror && h("span", { class: "role-tag mirror" }, "copies")),
            h("td", { "data-label": "Health" }, h("span", { class: `health ${how}` }, icon(sign), words, opinion)),
            h("td", { "data-label": "In flight" }, count(one.inFlight)),
            h("td", { "data-label": "Connections" }, `${count(one.open)}, ${count(one.idle)} idle`),
            h("td", { "data-label": "Waiting" }, count(one.pending)),
            h("td", { "data-label": "Requests" }, count(one.requests)),
            h("td", { "data-label": "Connect failures" }, count(one.connectFailures)));
        })))),
  );
}

/** Return the page of upstreams. */
export function upstreamsPage(upstreams, view) {
  const wanted = view.filter.toLowerCase();
  const matching = upstreams.filter((one) => one.name.toLowerCase().includes(wanted) || one.addresses.some((each) => each.address.includes(wanted)));
  const shown = matching.slice(0, MOST);
  return h(
    "article",
    { class: "detail", "data-key": "upstreams" },
    h("header", { class: "head" }, h("div", { class: "head-title" }, h("h1", null, "Upstreams")), (upstreams.length > 8 || view.filter) && filterField(view)),
    shown.length ? shown.map(card) : h("p", { class: "empty" }, view.filter ? "No upstream has this in its name or addresses." : "There is no upstream."),
    matching.length > shown.length && h("p", { class: "note" }, `Shown are ${shown.length} of ${matching.length}; a filter finds the others.`),
  );
}
