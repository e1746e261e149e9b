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
  check: "M6.3 12.6 2 8.3l1.6-1.6 2.7 2.7L12.4 3.300 14 4.900z",
  cross: "M4 2.600 8 6.600l4-4L13.400 4l-4 4 4 4-1.400 1.400-4-4-4 4L2.600 12l4-4-4-4z",
  warning: "M8 1.500 15.300 14.500H.7zM7.100 6v4.200h1.800V6zm0 5.200V13h1.800v-1.800z",
  play: "M4 2.500v11l9-5.500z",
  pause: "M3.500 2.500h3.200v11H3.500zm5.800 0h3.200v11H9.300z",
  next: "M2.500 2.500v11L8 9.200v4.300l5.500-4.300v4.300H15.300v-11h-1.800v4.300L8 2.500v4.300z",
  back: "M7 3.200V.8L1.500 5 7 9.200V6.800h2.600a2.700 2.700 0 0 1 0 5.400H5v2h4.600a4.700 4.700 0 0 0 0-11z",
  lock: "M8 1.500a3.300 3.300 0 0 0-3.300 3.300V7H3.500v7.500h9V7h-1.200V4.800A3.300 3.300 0 0 0 8 1.500zM6.300 4.800a1.700 1.700 0 0 1 3.400 0V7H6.300z",
  clock: "M8 1.500a6.500 6.500 0 1 0 0 13a6.500 6.500 0 0 0 0-13zm0 1.700a4.800 4.800 0 1 1 0 9.600a4.800 4.800 0 0 1 0-9.600zM7.200 4.500v4l3 1.800.8-1.300-2.200-1.300V4.500z",
  weight: "M2 12h3V8H2zm4.500 0h3V5h-3zM11 12h3V2h-3zM1.500 13h13v1.500h-13z",
  copy: "M2 2h8v2.200H4.200V10H2zm4 4h8v8H6z",
  question: "M8 1.500a6.500 6.500 0 1 0 0 13a6.500 6.500 0 0 0 0-13zM7.100 10.800h1.800v1.700H7.100zM8 3.800c1.700 0 2.800 1 2.800 2.400 0 1.700-1.900 1.900-1.900 3.500H7.100c0-2.200 1.800-2.400 1.800-3.400 0-.5-.4-.9-1-.9s-1 .4-1 1.100H5.200C5.200 4.900 6.300 3.800 8 3.800z",
};

function copyAttributes(old, fresh) {
  for (const { name } of [...old.attributes]) {
    if (!fresh.hasAttribute(name) && !(name === "open" && old.nodeName === "DETAILS")) old.removeAttribute(name);
  }
  for (const { name, value } of fresh.attributes) {
    if (name === "style") {
      if (old.style.cssText !== fresh.style.cssText) old.style.cssText = fresh.style.cssText; // the policy allows no other way
    } else if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  for (const name of HANDLERS) if (old[name] !== fresh[name]) old[name] = fresh[name];
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
    if (known && known.nodeName === fresh.nodeName) {
      if (known === place) place = place.nextSibling;
      else old.insertBefore(known, place);
      morphNode(known, fresh);
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
