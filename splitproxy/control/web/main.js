// The page: which part of it is shown, what it knows, and when it asks again.

import { forgetToken, get, hasToken, isAsking, request, rollout, send, whenAskedForToken } from "./api.js";
import { configurationPage } from "./configuration.js";
import { announce, ask, askToken, say } from "./dialogs.js";
import { $, h, icon, part, render } from "./dom.js";
import { Feed } from "./feed.js";
import { detail, list } from "./rollout.js";
import { steer } from "./steer.js";
import { routesPage, upstreamsPage } from "./traffic.js";
import { Trend } from "./trend.js";
import { clock, ended, phase, span } from "./words.js";

const HISTORY = 300;
const POLL = { routes: 2000, upstreams: 2000 };
const BREATH = 60; // between two drawings, in ms
const SPREAD_EVERY = 5000;
const RELOAD_EVERY = 15000;
const SECTIONS = [["rollouts", "Rollouts"], ["routes", "Routes"], ["upstreams", "Upstreams"], ["configuration", "Config"]];
const THEMES = { auto: "Colours: as the system", light: "Colours: light", dark: "Colours: dark" };

const known = {
  rollouts: new Map(), // name -> the whole view, or the summary where that was not asked for yet
  trends: new Map(),
  due: new Map(), // name -> when the next check is due, on the page's clock
  loaded: false,
  config: null,
  text: null,
  routes: null,
  upstreams: null,
  skew: 0, // the proxy's clock ahead of this one, in seconds
};
const view = {
  section: "rollouts",
  name: null,
  more: false,
  busy: false,
  filter: "",
  hover: null,
  quantile: "p99",
  width: 420,
  wide: 900,
  failure: "",
  pointed: (at) => {
    if (view.hover === at) return;
    view.hover = at;
    draw();
  },
  choose: (name) => {
    view.quantile = name;
    draw();
  },
  find: (text) => {
    view.filter = text;
    known.routes = view.section === "routes" ? known.routes : null;
    view.section === "routes" ? poll("routes") : draw();
  },
};

// --- which rollout ---------------------------------------------------------------------------------------------------
/** Return the rollout to show: the one asked for, else one that is under way, else the one that changed last. */
function chosen() {
  if (view.name && known.rollouts.has(view.name)) return known.rollouts.get(view.name);
  const all = [...known.rollouts.values()];
  const since = (one) => new Date(one.phaseSince || 0);
  const running = all.filter((one) => !ended(one.phase));
  return (running.length ? running : all).sort((a, b) => since(b) - since(a))[0] || null;
}

const byUrgency = (a, b) => ended(a.phase) - ended(b.phase) || a.name.localeCompare(b.name);
const trendOf = (name) => {
  if (!known.trends.has(name)) known.trends.set(name, new Trend());
  return known.trends.get(name);
};

// --- asking ----------------------------------------------------------------------------------------------------------
const events = new Map(); // name -> how many were heard: an answer that was overtaken by one is thrown away

/** Return a function that takes over an answer to what is asked now, unless an event has come in between. */
function keeper() {
  const before = new Map(events);
  return (one) => before.get(one.name) === events.get(one.name) && keep(one);
}

function keep(one) {
  known.rollouts.set(one.name, one);
  known.due.set(one.name, one.nextCheckInSeconds === null || one.nextCheckInSeconds === undefined ? null : performance.now() + one.nextCheckInSeconds * 1000);
}

async function loadRollouts() {
  const take = keeper();
  const all = await get("/api/v1/rollouts?history=0");
  const names = new Set(all.map((one) => one.name));
  for (const name of known.rollouts.keys()) if (!names.has(name)) known.rollouts.delete(name);
  for (const one of all) take({ ...one, history: (known.rollouts.get(one.name) || {}).history || [] });
  known.loaded = true;
  draw();
}

async function loadOne(name) {
  const take = keeper();
  take(await get(`${rollout(name)}?history=${HISTORY}`));
  draw();
}

async function loadTrend(name, seconds) {
  const answer = await get(`${rollout(name)}/trend?seconds=${seconds}`);
  if (seconds) trendOf(name).load(answer);
  else trendOf(name).latency = answer.latency;
  draw();
}

async function loadConfig() {
  known.config = await get("/api/v1/config?brief=1");
  draw();
}

const asked = new Map();

/** Ask soon, and not again while an answer is under way: many events make one question. */
function soon(name, work, wait = 40) {
  const entry = asked.get(name) || { running: false, again: false };
  asked.set(name, entry);
  if (entry.running) {
    entry.again = true;
    return;
  }
  entry.running = true;
  setTimeout(async () => {
    try {
      await work();
    } catch (error) {
      if (error.status) say(error.message, "bad");
    }
    entry.running = false;
    if (entry.again) {
      entry.again = false;
      soon(name, work, 200);
    }
  }, wait);
}

function loadShown(fully) {
  const one = chosen();
  if (view.section !== "rollouts" || !one) return;
  soon(`one:${one.name}`, () => loadOne(one.name), fully ? 0 : 40);
  if (fully || !trendOf(one.name).loaded) soon(`trend:${one.name}`, () => loadTrend(one.name, 600), 0);
}

async function loadAll() {
  soon("config", loadConfig, 0);
  await loadRollouts();
  loadShown(true);
}

async function poll(section) {
  try {
    if (section === "routes") {
      const answer = await request(`/api/v1/routes?limit=100&contains=${encodeURIComponent(view.filter)}`);
      known.routes = { routes: await answer.json(), total: Number(answer.headers.get("X-Total-Count")) };
    } else known.upstreams = await get("/api/v1/upstreams");
    view.failure = "";
  } catch (error) {
    if (!error.status) return; // the feed says that the connection is lost
    view.failure = error.message;
  }
  draw();
}

/** Ask again and again while a section is shown; of a proxy that takes long to answer, the less often. */
async function keepPolling(section) {
  for (;;) {
    const began = performance.now();
    if (feed.live && view.section === section && !document.hidden) await poll(section);
    await new Promise((resolve) => setTimeout(resolve, Math.max(POLL[section], 5 * (performance.now() - began))));
  }
}

// --- events ----------------------------------------------------------------------------------------------------------
function heard(kind, data) {
  if (kind === "open" || kind === "gap") soon("all", loadAll, 0);
  else if (kind === "signals") takeSignals(data);
  else if (kind === "rollout") takeRollout(data);
  else if (kind === "reload") {
    soon("config", loadConfig);
    soon("all", loadAll);
    if (data.result === "failure") say("A reload was refused; see Config.", "bad");
    else if (data.result === "success") say(`Generation ${data.generation} is served.`);
  } else if (kind === "endpoint" && view.section === "upstreams") poll("upstreams");
}

function takeSignals(data) {
  known.skew = data.at - Date.now() / 1000;
  for (const [name, sides] of Object.entries(data.rollouts)) {
    // A trend that was not asked for yet would begin with a hole.
    if (known.trends.has(name) && trendOf(name).loaded) trendOf(name).add(sides, data.copies[name]);
  }
  draw();
}

function takeRollout(data) {
  const { kind, text, warning, at, data: details, ...summary } = data;
  events.set(summary.name, (events.get(summary.name) || 0) + 1);
  const before = known.rollouts.get(summary.name) || { history: [], verdicts: [] };
  const one = { ...before, ...summary };
  if (kind) one.history = [...(before.history || []), { kind, text, warning, at, data: details, attempt: summary.attempt }];
  if (before.phase !== one.phase) {
    one.phaseSince = at || new Date().toISOString();
    one.verbs = []; // what is legal now comes with the answer asked for below
    announce(`${one.name} is ${one.phase}: ${phase(one.phase)[2]}. ${one.reason || ""}`);
  }
  known.rollouts.set(one.name, one);
  const shown = chosen();
  draw();
  soon(shown && shown.name === one.name ? `one:${one.name}` : "all", () => (shown && shown.name === one.name ? loadOne(one.name) : loadRollouts()));
}

// --- drawing ---------------------------------------------------------------------------------------------------------
function context(one) {
  const due = known.due.get(one.name);
  return {
    trend: trendOf(one.name), stale: !feed.live, busy: view.busy, more: view.more,
    due: due === null || due === undefined || !feed.live ? null : Math.max(0, (due - performance.now()) / 1000),
    view: Object.assign(view, { now: nowThere() }),
    toggleMore: () => {
      view.more = !view.more;
      draw();
    },
    ask: act,
  };
}

let lastSeen = 0;
/** Return the proxy's present time, which stands still while nothing is heard of it. */
const nowThere = () => (feed.live || !lastSeen ? (lastSeen = Date.now() / 1000 + known.skew) : lastSeen);

async function act(one, verb) {
  await steer(one, verb);
  loadShown(false);
}

async function reload() {
  const meant = await ask({ title: "Reload the configuration?", text: "The files are read and checked; only if all is well are they applied.", confirm: "Reload" });
  if (!meant) return;
  try {
    const report = await send("POST", "/-/reload");
    say(report.result === "unchanged" ? "Nothing has changed in the files." : `Generation ${report.generation} is served.`);
  } catch (error) {
    say(`The reload was refused: ${error.message.split("\n")[0]}`, "bad");
  }
  soon("config", loadConfig, 0);
}

async function showText() {
  known.text = known.text ? null : JSON.stringify((await get("/api/v1/config")).config, null, 2);
  draw();
}

function content() {
  const failure = view.failure && h("p", { class: "alarm" }, icon("warning"), " ", view.failure);
  if (view.section === "routes") {
    return known.routes && known.config ? [failure, routesPage({ ...known.routes, listeners: known.config.listeners }, view)] : h("p", { class: "empty" }, view.failure || "Loading…");
  }
  if (view.section === "upstreams") return known.upstreams ? [failure, upstreamsPage(known.upstreams, view)] : h("p", { class: "empty" }, view.failure || "Loading…");
  if (view.section === "configuration") {
    return known.config ? configurationPage(known.config, { stale: !feed.live, busy: view.busy, reload, showText, text: known.text }) : h("p", { class: "empty" }, "Loading…");
  }
  const one = chosen();
  if (!known.loaded) return h("p", { class: "empty" }, "Loading…");
  if (!one) {
    return h("section", { class: "panel nothing" }, h("h1", null, "No rollout yet"),
      h("p", null, "The configuration has no rollouts. A rollout leads a route's requests from one upstream to another, step by step, and takes them back when the new one does worse:"),
      h("pre", { tabindex: "0" }, "rollouts:\n  - name: shop\n    route: shop\n    primary: shop-v1\n    canary: shop-v2\n    revision: \"2\"\n    analysis: {interval: 10s, threshold: 5, stepWeight: 10, maxWeight: 50}"),
      h("p", null, "Write one into the file; it is read again by itself. ", h("a", { href: "#/routes" }, "See the routes"), " meanwhile."));
  }
  const all = [...known.rollouts.values()].sort(byUrgency);
  return h("div", { class: all.length > 1 ? "with-list" : "" }, all.length > 1 && part("list", [one.name, ...all], () => list(all, one.name)), detail(one, context(one)));
}

function drawFrame() {
  const current = known.config;
  const refused = current && current.lastReload && current.lastReload.result === "failure";
  render($("sections"), SECTIONS.map(([name, title]) =>
    h("a", { href: name === "rollouts" ? "#/" : `#/${name}`, "aria-current": view.section === name ? "page" : null }, title,
      name === "configuration" && refused && h("span", { class: "flag", title: "the last reload was refused" }, icon("warning"), h("span", { class: "said" }, "the last reload was refused")))));
  const theme = document.documentElement.dataset.theme || "auto";
  render($("standing"),
    h("span", { class: `live ${feed.live ? "good" : "bad"}` }, icon(feed.live ? "dot" : "ring"), feed.live ? "Live" : "Not live"),
    hasToken() && h("button", { type: "button", class: "plain", onclick: leave }, "Forget token"),
    h("button", { type: "button", class: "plain theme", title: THEMES[theme], "aria-label": THEMES[theme], onclick: turnTheme }, { auto: "◐", light: "○", dark: "●" }[theme]));
  document.body.classList.toggle("stale", !feed.live);
  render($("banner"), !feed.live && !isAsking() && (feed.wall || feed.failures > 0) && h("div", { class: "banner" }, icon("warning"),
    h("strong", { role: "alert" }, feed.wall ? "Connection lost." : "The proxy does not answer."), // said once, the age is not
    feed.wall && h("span", null, `Shown is what was true ${span((performance.now() - feed.last) / 1000)} ago, at ${clock(feed.wall)}.`),
    h("button", { type: "button", class: "plain", onclick: () => feed.wake() }, "Try now")));
  render($("footer"), current && h("span", null, `splitproxy ${current.version} · generation ${current.generation}`),
    h("nav", { "aria-label": "Raw data" }, ["/metrics", "/api/v1/rollouts", "/api/v1/routes", "/api/v1/upstreams", "/api/v1/config", "/readyz"].map((path) => h("a", { href: path }, path))));
  const one = view.section === "rollouts" ? chosen() : null;
  document.title = `${feed.live ? "" : "(not live) "}${one ? `${one.name}: ${one.phase}` : SECTIONS.find(([name]) => name === view.section)[1]} – splitproxy`;
}

let drawing = false;
let drawn = -BREATH;
function draw() {
  if (drawing) return;
  drawing = true;
  setTimeout(() => requestAnimationFrame(redraw), Math.max(0, drawn + BREATH - performance.now()));
}

function redraw() {
  drawing = false;
  drawn = performance.now();
  const focused = document.activeElement;
  drawFrame();
  render($("main"), content());
  if (!focused.isConnected) $("main").focus({ preventScroll: true }); // its button is not legal any more
  const shape = `${view.section} ${known.rollouts.size > 1} ${document.querySelector(".charts > div") !== null}`;
  if (shape !== view.shape && measure()) render($("main"), content());
  view.shape = shape;
}

/** Take notice of the room there is; return whether it changed. */
function measure() {
  const wide = $("main").clientWidth - parseFloat(getComputedStyle($("main")).paddingLeft) * 2;
  const chart = document.querySelector(".charts > div");
  const width = chart ? Math.floor(chart.clientWidth) : view.width;
  const changed = width !== view.width || wide !== view.wide;
  Object.assign(view, { wide, width });
  return changed;
}

function leave() {
  forgetToken();
  location.reload();
}

function turnTheme() {
  const names = Object.keys(THEMES);
  const next = names[(names.indexOf(document.documentElement.dataset.theme || "auto") + 1) % names.length];
  setTheme(next);
  localStorage.setItem("splitproxy-theme", next);
  drawFrame();
}

function setTheme(name) {
  if (name === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
}

// --- the beginning ---------------------------------------------------------------------------------------------------
function follow() {
  const [section = "", name = null] = location.hash.replace(/^#\/?/, "").split("/");
  const sectionChanged = view.section !== (section || "rollouts");
  view.section = SECTIONS.some(([one]) => one === section) ? section : "rollouts";
  const wanted = name && decodeURIComponent(name);
  if (view.name !== wanted) view.more = false;
  view.name = wanted;
  if (sectionChanged) Object.assign(view, { filter: "", failure: "", hover: null });
  if (POLL[view.section]) poll(view.section);
  draw();
  loadShown(false);
  if (sectionChanged) scrollTo(0, 0);
}

setTheme(localStorage.getItem("splitproxy-theme") || "auto");
whenAskedForToken(askToken);
document.querySelector(".skip").onclick = (event) => {
  event.preventDefault(); // the part of the address behind # says what is shown
  $("main").focus();
};
const feed = new Feed(heard, () => draw());
addEventListener("hashchange", follow);
new ResizeObserver(() => measure() && draw()).observe($("main"));
for (const section of Object.keys(POLL)) keepPolling(section);
setInterval(() => feed.live && soon("all", loadAll), RELOAD_EVERY);
setInterval(() => {
  const one = chosen();
  if (feed.live && view.section === "rollouts" && one && !document.hidden) soon(`spread:${one.name}`, () => loadTrend(one.name, 0));
}, SPREAD_EVERY);
follow();
soon("all", loadAll, 0); // beside the feed's first answer, after which it is asked for again
