// What operators say, each confirmed first: what it will do to this rollout stands in the question.

import { rollout, send } from "./api.js";
import { ask, say } from "./dialogs.js";
import { h } from "./dom.js";
import { newShare, pair, percent } from "./words.js";

const choice = (value, label, text, checked) =>
  h("label", { class: "option" }, h("input", { type: "radio", name: "how", value, checked }), h("span", null, h("b", null, label), h("span", { class: "muted" }, ` ${text}`)));

function question(one, verb) {
  const { from, to } = pair(one);
  const after = (one.steps || [])[one.step + 1];
  const share = percent(newShare(one));
  const gate = one.waitingFor ? one.waitingFor.gate : "the gate";
  switch (verb) {
    case "abort":
      return { title: `Abort ${one.name}?`, confirm: "Abort", danger: true, text: `All requests go back to ${from} at once, and this run ends as Failed. Retry runs it again.` };
    case "undo":
      return { title: `Undo the promotion of ${to}?`, confirm: "Undo", danger: true, text: `All requests go back from ${to} to ${from} at once.` };
    case "approve":
      return { title: `Approve ${one.name}?`, confirm: "Approve", text: one.waitingFor ? `${gate} is opened, and ${to} goes on.` : "The denial is taken back." };
    case "deny":
      return { title: `Deny ${one.name}?`, confirm: "Deny", danger: true, text: `The next gate stays closed until it is approved. ${to} keeps ${share} meanwhile.` };
    case "pause":
      return { title: `Pause ${one.name}?`, confirm: "Pause", text: `${to} keeps ${share} until somebody resumes. Checks go on, and what is bad is still rolled back.` };
    case "resume":
      return { title: `Resume ${one.name}?`, confirm: "Resume", text: after ? `It goes on by the plan; the next step is ${percent(after.weight)} for ${to}.` : "It goes on by the plan." };
    case "start":
    case "retry":
      return { title: `${verb === "start" ? "Start" : "Retry"} ${one.name}?`, confirm: verb === "start" ? "Start" : "Retry", text: `A run to ${to} begins at the first step.` };
    case "promote":
      return {
        title: `Promote ${one.name}?`, confirm: "Promote", text: `How far shall ${to} go?`,
        fields: [
          choice("step", "One step.", one.phase === "Baking" ? "End the watch now." : after ? `On to ${percent(after.weight)} now; checks go on.` : "On to promotion now.", true),
          choice("full", "To the end.", `${to} gets everything now, without the rest of the plan.`, false),
        ],
      };
    case "set-weight":
      return {
        title: `Set the share of ${to}`, confirm: "Set", text: `It has ${share} now. It keeps what you set until somebody resumes.`,
        fields: [h("label", { class: "field" }, "Percent of the requests", h("input", { type: "number", name: "weight", min: "0", max: "100", step: "0.01", value: String(newShare(one)), required: true }))],
        check: ({ weight }) => (weight !== "" && weight >= 0 && weight <= 100 ? "" : "A number from 0 to 100, please."),
      };
    default:
      return { title: `${verb} ${one.name}?`, confirm: verb, text: "" };
  }
}

/** Ask whether it is meant, do it, and say how it went. */
export async function steer(one, verb) {
  const given = await ask(question(one, verb));
  if (!given) return;
  try {
    const after = verb === "set-weight"
      ? await send("PUT", `${rollout(one.name)}/weight`, { canaryWeight: Number(given.weight) })
      : await send("POST", `${rollout(one.name)}/${verb}`, verb === "promote" && given.how === "full" ? { full: true } : undefined);
    say(`${one.name}: ${verb} was done; it is ${after.phase} at ${percent(newShare(after))}.`);
  } catch (error) {
    say(`${verb} was not done: ${error.message}`, "bad");
  }
}
