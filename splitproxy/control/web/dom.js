// Elements are described by functions that build them anew; `morph` carries what changed over to those on the page,
// so that focus, selection and scroll positions stay. No text ever becomes markup.

const SVG = "http://www.w3.org/2000/svg";
const HANDLERS = ["onclick", "onchange", "oninput", "onsubmit", "onpointermove", "onpointerleave"];

function build(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element[name] = value;
    else if (name === "style") for (const [key, one] of Object.entries(value)) element.style.setProperty(key, one);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(9).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Return an HTML element; attributes that are null or false are left out, so are such children. */
export const h = (tag, attributes, ...children) => build(document.createElement(tag), attributes, children);

/** Return an SVG element. */
export const s = (tag, attributes, ...children) => build(document.createElementNS(SVG, tag), attributes, children);

/** Return an icon of the sprite below; what it means must stand beside it as text. */
export const icon = (name) =>
  s("svg", { class: "icon", viewBox: "0 0 16 16", "aria-hidden": "true" }, s("path", { d: ICONS[name] || ICONS.dot }));

const ICONS = {
  dot: "M8 4a4 4 0 1 0 0 8a4 4 0 0 0 0-8z",
  ring: "M8 3a5 5 0 1 0 0 10A5 5 0 0 0 8 3zm0 1.8a3.2 3.2 0 1 1 0 6.4a3.2 3.2 0 0 1 0-6.4z",
  check: "M6.3 12.6 2 8.3l1.6-1.6 2.7 2.7L12.4 3.3 14 4.9z",
  cross: "M4 2.6 8 6.6l4-4L13.4 4l-4 4 4 4-1.4 1.4-4-4-4 4L2.6 12l4-4-4-4z",
  warning: "M8 1.5 15.3 14.5H.7zM7.1 6v4.2h1.8V6zm0 5.2V13h1.8v-1.8z",
  play: "M4 2.5v11l9-5.5z",
  pause: "M3.5 2.5h3.2v11H3.5zm5.8 0h3.2v11H9.3z",
  next: "M2.5 2.5v11L8 9.2v4.3l5.5-4.3v4.3H15.3v-11h-1.8v4.3L8 2.5v4.3z",
  back: "M7 3.2V.8L1.5 5 7 9.2V6.8h2.6a2.7 2.7 0 0 1 0 5.4H5v2h4.6a4.7 4.7 0 0 0 0-11z",
  lock: "M8 1.5a3.3 3.3 0 0 0-3.3 3.3V7H3.5v7.5h9V7h-1.2V4.8A3.3 3.3 0 0 0 8 1.5zM6.3 4.8a1.7 1.7 0 0 1 3.4 0V7H6.3z",
  clock: "M8 1.5a6.5 6.5 0 1 0 0 13a6.5 6.5 0 0 0 0-13zm0 1.7a4.8 4.8 0 1 1 0 9.6a4.8 4.8 0 0 1 0-9.6zM7.2 4.5v4l3 1.8.8-1.3-2.2-1.3V4.5z",
  weight: "M2 12h3V8H2zm4.5 0h3V5h-3zM11 12h3V2h-3zM1.5 13h13v1.5h-13z",
  copy: "M2 2h8v2.2H4.2V10H2zm4 4h8v8H6z",
  question: "M8 1.5a6.5 6.5 0 1 0 0 13a6.5 6.5 0 0 0 0-13zM7.1 10.8h1.8v1.7H7.1zM8 3.8c1.7 0 2.8 1 2.8 2.4 0 1.7-1.9 1.9-1.9 3.5H7.1c0-2.2 1.8-2.4 1.8-3.4 0-.5-.4-.9-1-.9s-1 .4-1 1.1H5.2C5.2 4.9 6.3 3.8 8 3.8z",
};

function copyAttributes(old, fresh) {
  for (const { name, value } of fresh.attributes) {
    if (name === "style") {
      if (old.style.cssText !== fresh.style.cssText) old.style.cssText = fresh.style.cssText; // the policy allows no other way
    } else if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  if (old.attributes.length !== fresh.attributes.length) {
    for (const { name } of [...old.attributes]) {
      if (!fresh.hasAttribute(name) && !(name === "open" && old.nodeName === "DETAILS")) old.removeAttribute(name);
    }
  }
  for (const name of HANDLERS) if (old[name] !== fresh[name]) old[name] = fresh[name];
}

const parts = new Map();

/** Return what `make` makes, or where nothing it `depends` on is another, a word to leave what is on the page. */
export function part(name, depends, make) {
  const before = parts.get(name);
  const same = before && before.length === depends.length && before.every((one, index) => one === depends[index]);
  if (same && document.querySelector(`[data-key="${name}"]`)) return h("i", { "data-key": name, "data-same": true });
  parts.set(name, depends);
  const made = make() || h("i", { hidden: true });
  made.dataset.key = name;
  return made;
}

const key = (node) => (node.dataset ? node.dataset.key : undefined);

function morphNode(old, fresh) {
  if (old.nodeType === Node.TEXT_NODE) {
    if (old.data !== fresh.data) old.data = fresh.data;
    return;
  }
  copyAttributes(old, fresh);
  morphChildren(old, [...fresh.childNodes]);
}

function morphChildren(old, wanted) {
  const keyed = new Map();
  for (const child of old.children) if (key(child) !== undefined) keyed.set(key(child), child);
  let place = old.firstChild;
  for (const fresh of wanted) {
    const known = key(fresh) === undefined ? undefined : keyed.get(key(fresh));
    const same = known && fresh.dataset.same !== undefined;
    if (same || (known && known.nodeName === fresh.nodeName)) {
      if (known === place) place = place.nextSibling;
      else old.insertBefore(known, place);
      if (!same) morphNode(known, fresh);
    } else if (key(fresh) === undefined && place && key(place) === undefined && place.nodeName === fresh.nodeName) {
      const next = place.nextSibling;
      morphNode(place, fresh);
      place = next;
    } else old.insertBefore(fresh, place);
  }
  while (place) {
    const next = place.nextSibling;
    place.remove();
    place = next;
  }
}

/** Make the children of `element` what `children` describe. */
export function render(element, ...children) {
  morphChildren(element, [...h("div", null, ...children).childNodes]);
}

export const $ = (id) => document.getElementById(id);
