// What is asked before something is done, and what is said afterwards.

import { $, h, icon } from "./dom.js";

let dismissal = 0;

/** Say something to everybody: shown for a while, and read out. */
export function say(text, tone = "good") {
  $("said").textContent = text;
  const note = h("div", { class: `toast ${tone}`, "aria-hidden": "true" }, icon(tone === "bad" ? "warning" : "check"), h("span", null, text));
  document.querySelectorAll(".toast").forEach((each) => each.remove());
  $("dialogs").append(note);
  clearTimeout(dismissal);
  dismissal = setTimeout(() => note.remove(), tone === "bad" ? 9000 : 5000);
}

/** Tell those who do not see the page that something changed. */
export function announce(text) {
  if ($("said").textContent !== text) $("said").textContent = text;
}

/** Show a dialog with a form; return its fields, or null when it is left. `check` says what is wrong with them. */
export function ask({ title, text, fields = [], confirm, danger = false, cancel = "Cancel", check = () => "" }) {
  return new Promise((resolve) => {
    const error = h("p", { class: "dialog-error", role: "alert" });
    const dialog = h("dialog", { class: "dialog", "aria-labelledby": "dialog-title", "aria-describedby": "dialog-text" });
    const form = h(
      "form",
      { method: "dialog", onsubmit: (event) => {
        event.preventDefault();
        const given = Object.fromEntries(new FormData(form));
        const wrong = check(given);
        if (wrong) error.textContent = wrong;
        else leave(given);
      } },
      h("h2", { id: "dialog-title" }, title),
      h("p", { id: "dialog-text" }, text),
      fields,
      error,
      h("div", { class: "dialog-buttons" },
        cancel && h("button", { type: "button", class: "plain", onclick: () => leave(null) }, cancel),
        h("button", { type: "submit", class: danger ? "action danger" : "action primary" }, confirm)),
    );
    const before = document.activeElement;
    function leave(answer) {
      dialog.close();
      dialog.remove();
      if (before && before.isConnected) before.focus();
      else $("main").focus({ preventScroll: true });
      resolve(answer);
    }
    dialog.addEventListener("cancel", (event) => {
      event.preventDefault();
      if (cancel) leave(null);
    });
    dialog.append(form);
    $("dialogs").append(dialog);
    dialog.showModal();
    const first = form.querySelector("input") || (danger ? form.querySelector("button.plain") : form.querySelector("button[type=submit]"));
    first.focus();
  });
}

/** Ask for the token that the admin API wants. */
export async function askToken(why) {
  const given = await ask({
    title: "A token is needed",
    text: why ? `${why[0].toUpperCase()}${why.slice(1)}. Try another one.` : "This proxy lets nobody look or steer without a token (admin.tokens in its configuration).",
    fields: [
      h("label", { class: "field" }, "Token", h("input", { type: "password", name: "token", autocomplete: "off", required: true })),
      h("p", { class: "muted" }, "It is kept in this tab alone and forgotten when the tab is closed."),
    ],
    confirm: "Use it",
    cancel: "",
  });
  return given.token.trim();
}
