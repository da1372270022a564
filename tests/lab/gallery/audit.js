// What the tests ask of every page; each function returns what is wrong with the page it runs in.
"use strict";

// Landmarks, labels, descriptions.
function accessibility() {
  const wrong = [];
  for (const selector of ["main", "h1", "body > header nav"])
    if (document.querySelectorAll(selector).length !== 1) wrong.push(`not one ${selector}`);
  if (!document.documentElement.lang) wrong.push("no language");
  if (!document.title) wrong.push("no title");
  const skip = document.querySelector("body a");
  if (!/[sS]kip/.test(skip.textContent) || !document.querySelector(skip.getAttribute("href"))) wrong.push("no skip link");
  for (const control of document.querySelectorAll("select, input"))
    if (!control.labels.length || !control.labels[0].textContent) wrong.push(`no label: ${control.id}`);
  for (const button of document.querySelectorAll("button, a"))
    if (!button.textContent.trim() && !button.ariaHidden) wrong.push(`no text: ${button.outerHTML}`);
  for (const image of document.querySelectorAll("img"))
    if (!image.hasAttribute("alt")) wrong.push(`no alternative: ${image.src}`);
  for (const image of document.querySelectorAll("svg[role=img]"))
    if (!image.getAttribute("aria-label")) wrong.push("a picture without a description");
  for (const head of document.querySelectorAll(".bar ~ main th"))
    if (!head.scope) wrong.push(`no scope: ${head.textContent}`);
  const ids = [...document.querySelectorAll("[id]")].map((node) => node.id);
  if (new Set(ids).size !== ids.length) wrong.push(`an id twice: ${ids}`);
  return wrong;
}

// Text with a contrast to its background below 4.5 (WCAG 2, level AA).
function contrast() {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data].map((channel) => channel / 255);
  };
  const over = (top, below) => [0, 1, 2].map((i) => top[3] * top[i] + (1 - top[3]) * below[i]);
  const background = (node) => {
    if (!node) return rgba(getComputedStyle(document.documentElement).colorScheme === "dark" ? "#000" : "#fff");
    const own = rgba(getComputedStyle(node).backgroundColor);
    return own[3] === 1 ? own : [...over(own, background(node.parentElement)), 1];
  };
  const linear = (channel) => (channel <= 0.04045 ? channel / 12.92 : ((channel + 0.055) / 1.055) ** 2.4);
  const luminance = (colour) => 0.2126 * linear(colour[0]) + 0.7152 * linear(colour[1]) + 0.0722 * linear(colour[2]);
  const low = [];
  let seen = 0;
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !node.getClientRects().length || node.closest("script, style, option, .symbol"))
      continue;
    const style = getComputedStyle(node);
    const below = background(node.closest("svg") ? node.closest("svg").parentElement : node);
    const colour = over(rgba(node.closest("svg") ? style.fill : style.color), below);
    const [a, b] = [luminance(colour), luminance(below)].sort((x, y) => y - x);
    seen += 1;
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) low.push([ratio.toFixed(2), walker.currentNode.data.trim().slice(0, 40)]);
  }
  return { low, seen };
}
