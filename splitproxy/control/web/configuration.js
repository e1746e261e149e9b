// What the proxy runs by: generation, files, workers, and how the last reload went.

import { h, icon } from "./dom.js";
import { ago, count } from "./words.js";

const RESULTS = { success: ["check", "good", "was applied"], unchanged: ["ring", "calm", "found nothing new"], failure: ["cross", "bad", "was refused"] };
const TRIGGERS = { start: "the start", file: "a changed file", signal: "a signal", api: "the admin API" };

function last(report) {
  if (!report) return h("p", { class: "empty" }, "Nothing has been loaded by this process yet.");
  const [mark, tone, words] = RESULTS[report.result];
  return [
    h("p", { class: `result ${tone}` }, icon(mark), h("b", null, `The last reload ${words}`), ` ${ago(report.at)}, by ${TRIGGERS[report.trigger] || report.trigger}, in ${report.seconds.toFixed(2)} s`),
    report.result === "failure" && h("p", { class: "note" }, `Generation ${report.generation} serves on. What is wrong:`),
    report.errors.length > 0 && h("ul", { class: "errors" }, report.errors.map((error, index) => h("li", { "data-key": String(index) }, h("code", null, error.text)))),
  ];
}

/** Return the page of the configuration; `context` has what may be done. */
export function configurationPage(config, context) {
  const workers = config.workers || [];
  const facts = [
    ["Generation", String(config.generation)],
    ["Version", config.version],
    ["Checksum", config.checksum ? config.checksum.slice(0, 12) : "–"],
    ["Listeners", (config.listeners || []).join(", ")],
    ["Workers", count(workers.length)],
  ];
  return h(
    "article",
    { class: "detail", "data-key": "configuration" },
    h("header", { class: "head" },
      h("div", { class: "head-title" }, h("h1", null, "Configuration"),
        h("button", { type: "button", class: "action", disabled: context.stale || context.busy, onclick: context.reload }, icon("play"), h("span", { class: "action-label" }, "Reload"), h("span", { class: "action-effect" }, "apply the files now"))),
      h("dl", { class: "facts" }, facts.map(([term, value]) => h("div", { "data-key": term }, h("dt", null, term), h("dd", null, value))))),
    h("section", { class: "panel", "aria-labelledby": "reload-title" }, h("div", { class: "panel-head" }, h("h2", { id: "reload-title" }, "Last reload")), last(config.lastReload)),
    config.warnings.length > 0 && h("section", { class: "panel", "aria-labelledby": "warnings-title" }, h("div", { class: "panel-head" }, h("h2", { id: "warnings-title" }, "Warnings")),
      h("ul", { class: "errors" }, config.warnings.map((text, index) => h("li", { "data-key": String(index) }, h("code", null, text))))),
    h("section", { class: "panel", "aria-labelledby": "workers-title" }, h("div", { class: "panel-head" }, h("h2", { id: "workers-title" }, "Workers")),
      h("ul", { class: "workers" }, workers.map((worker) => {
        const well = worker.generation === config.generation && !worker.leaving;
        return h("li", { "data-key": String(worker.slot) }, h("span", { class: `health ${well ? "good" : "wait"}` }, icon(well ? "check" : "clock"), `Worker ${worker.slot}`),
          h("span", { class: "muted" }, worker.leaving ? "ends" : worker.generation === null ? "begins" : `generation ${worker.generation}`, `, process ${worker.pid}`));
      }))),
    h("section", { class: "panel", "aria-labelledby": "files-title" }, h("div", { class: "panel-head" }, h("h2", { id: "files-title" }, "Files")),
      h("ul", { class: "errors" }, config.sources.map((path) => h("li", { "data-key": path }, h("code", null, path)))),
      h("button", { type: "button", class: "plain", onclick: context.showText }, context.text ? "Hide what they say" : "Show what they say, defaults filled in"),
      context.text && h("pre", { class: "text", tabindex: "0", "aria-label": "The running configuration" }, context.text)),
  );
}
