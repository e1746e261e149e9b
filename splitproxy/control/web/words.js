// How things are said: numbers, times, phases, and what a rollout does, why, and what comes next.

// By hand: the browser's own formats take tens of milliseconds to set up.
function plain(value, digits) {
  const [whole, rest = ""] = value.toFixed(digits).split(".");
  const part = rest.replace(/0+$/, "");
  return whole.replace(/\B(?=(\d{3})+$)/g, ",") + (part && `.${part}`);
}

export const none = "–";
const known = (value) => value !== null && value !== undefined;
export const percent = (value, digits = 2) => (known(value) ? `${plain(value, digits)}\u00a0%` : none);
export const count = (value) => (known(value) ? plain(value, 0) : none);

/** A rate: requests a second. */
export const rate = (value) => (known(value) ? `${plain(value, value < 10 ? 1 : 0)}\u00a0req/s` : none);

/** A duration in seconds, as a latency. */
export function latency(seconds) {
  if (!known(seconds)) return none;
  if (seconds >= 1) return `${plain(seconds, 2)}\u00a0s`;
  const ms = seconds * 1000;
  return `${plain(ms, ms < 10 ? 1 : 0)}\u00a0ms`;
}

/** A span of time for people. */
export function span(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 90) return `${whole}\u00a0s`;
  if (whole < 5400) return `${Math.round(whole / 60)}\u00a0min`;
  if (whole < 172800) return `${Math.round(whole / 3600)}\u00a0h`;
  return `${Math.round(whole / 86400)} days`;
}

export const ago = (at, now = Date.now()) => `${span((now - new Date(at)) / 1000)} ago`;
const two = (number) => String(number).padStart(2, "0");

/** The time of day, to the second unless `brief`. */
export const time = (date, brief = false) => `${two(date.getHours())}:${two(date.getMinutes())}${brief ? "" : `:${two(date.getSeconds())}`}`;

/** The time of day, with the date where it is not today. */
export function clock(at) {
  const date = new Date(at);
  if (date.toDateString() === new Date().toDateString()) return time(date);
  return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())} ${time(date)}`;
}

/** Phase -> its icon, its tone and words for those who do not know Flagger's. */
export const PHASES = {
  Initialized: ["ring", "calm", "nothing has been released yet"],
  Waiting: ["lock", "wait", "waits to begin"],
  Progressing: ["play", "go", "under way"],
  WaitingTrafficIncrease: ["lock", "wait", "waits for approval"],
  Paused: ["pause", "wait", "paused"],
  WaitingPromotion: ["lock", "wait", "waits for approval"],
  Promoting: ["next", "go", "being promoted"],
  Baking: ["clock", "go", "promoted, still watched"],
  Finalising: ["next", "go", "being finished"],
  Succeeded: ["check", "good", "promoted"],
  Failed: ["cross", "bad", "rolled back"],
};
export const phase = (name) => PHASES[name] || ["dot", "calm", ""];
export const ended = (name) => ["Initialized", "Succeeded", "Failed"].includes(name);

/** Outcome of a check -> its icon and tone. */
export const OUTCOMES = {
  pass: ["check", "good"],
  fail: ["cross", "bad"],
  inconclusive: ["question", "wait"],
  error: ["warning", "bad"],
};

/** The upstreams that a rollout leads from and to, whatever they are called at present. */
export function pair(one) {
  return one.adopt ? { from: one.adopt.canary, to: one.adopt.primary } : { from: one.primary, to: one.canary };
}

/** The share of requests that the new version has, in percent; the API's weight is 0 once the new one is the primary. */
export const newShare = (one) => (one.adopt ? 100 : one.canaryWeight);

/** A phrase as a sentence. */
export const sentence = (text) => `${text[0].toUpperCase()}${text.slice(1)}.`;

const named = (gate) =>
  ({ "confirm-rollout": "to begin", "confirm-traffic-increase": "to take more traffic", "confirm-promotion": "to be promoted" })[gate];

function headline(one) {
  const { from, to } = pair(one);
  const share = percent(newShare(one));
  const gate = one.waitingFor ? named(one.waitingFor.gate) : "";
  switch (one.phase) {
    case "Initialized":
      return `${from} has all requests; nothing is being released.`;
    case "Waiting":
      return `${to} waits for approval to begin.`;
    case "Progressing":
      if (one.mirroring && !newShare(one)) return `Requests are copied to ${to}; ${from} answers them all.`;
      if (one.cohorts && !newShare(one)) return `${to} answers its cohort${one.cohorts > 1 ? "s" : ""}; ${from} everybody else.`;
      return newShare(one) ? `${to} gets ${share} of the requests.` : `${to} is about to get requests.`;
    case "WaitingTrafficIncrease":
    case "WaitingPromotion":
      return `${to} has ${share} and waits for approval ${gate}.`;
    case "Paused":
      return `Paused: ${to} keeps ${share} of the requests.`;
    case "Promoting":
      return `${to} is being promoted: it has ${share} of the requests.`;
    case "Baking":
      return `${to} has all requests and is watched a little longer.`;
    case "Finalising":
      return `${to} is being made the primary.`;
    case "Succeeded":
      return `${one.primary} has all requests: promoted.`;
    case "Failed":
      return newShare(one) ? `Failed: ${to} has ${share} of the requests.` : `Rolled back: ${from} has all requests again.`;
    default:
      return `${to} has ${share} of the requests.`;
  }
}

function upcoming(one, due) {
  if (one.adopt) return `Make it last: write primary: ${one.adopt.primary} and canary: ${one.adopt.canary} into the file.`;
  if (ended(one.phase) || one.phase === "Finalising") return "";
  const steps = one.steps || [];
  const after = steps[one.step + 1];
  const asks = (one.gates || []).some((each) => each.gate === "confirm-promotion") ? ", which needs approval" : "";
  const then = after ? `${percent(after.weight)} for ${pair(one).to}` : `promotion${asks}`;
  const check = due === null ? "" : due > 0.5 ? `Next check in ${span(due)}` : "Checking now";
  if (one.phase === "Progressing") return sentence([check, `then ${then}`].filter(Boolean).join(", "));
  if (one.phase === "Paused") return `Resume goes on with ${then}; abort returns everything to ${pair(one).from}.`;
  if (one.waitingFor) return `Approve lets it go on; abort returns everything to ${pair(one).from}.`;
  return check && `${check}.`;
}

function checks(one) {
  const verdicts = one.verdicts || [];
  if (!verdicts.length || ended(one.phase)) return "";
  const worst = ["fail", "error", "inconclusive"].map((outcome) => verdicts.find((one) => one.outcome === outcome)).find(Boolean);
  if (!worst) return verdicts.length === 1 ? "Its metric keeps its limits." : `All ${verdicts.length} metrics keep their limits.`;
  const passed = verdicts.filter((verdict) => verdict.outcome === "pass").length;
  return `${worst.outcome === "inconclusive" && passed ? `Limits are kept (${passed} of ${verdicts.length}). ` : ""}${sentence(worst.reason)}`;
}

/** What a rollout does, why, and what comes next. `due` is the next check in seconds, or null. */
export function situation(one, due) {
  const routine = one.phase === "Progressing" && /^step \d+ of \d+/.test(one.reason || "");
  const why = routine ? checks(one) : one.reason ? sentence(one.reason) : checks(one);
  return { headline: headline(one), why, next: upcoming(one, due) };
}

/** Verb -> its icon, its label, and what it does to this rollout. */
export function verbs(one) {
  const { from, to } = pair(one);
  const after = (one.steps || [])[one.step + 1];
  const onward = after ? `on to ${percent(after.weight)} now` : "on to promotion now";
  return {
    approve: ["check", "Approve", one.waitingFor ? "let it go on" : "take the denial back"],
    promote: ["next", "Promote", one.phase === "Baking" ? "end the watch now" : onward],
    resume: ["play", "Resume", "go on by the plan"],
    pause: ["pause", "Pause", ended(one.phase) ? "hold" : `hold at ${percent(newShare(one))}`],
    "set-weight": ["weight", "Set weight", `a share for ${to}`],
    start: ["play", "Start", `a run to ${to}`],
    retry: ["play", "Retry", "run this revision again"],
    undo: ["back", "Undo", `everything back to ${from}`],
    deny: ["lock", "Deny", "keep the next gate closed"],
    abort: ["back", "Abort", `everything back to ${from}`],
  };
}
