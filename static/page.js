// The page: each photo that is chosen, dropped, pasted or taken becomes a card.
// Without JavaScript, the browser sends the form instead.

import { takePhoto } from "./camera.js";
import { addCard } from "./card.js";
import { saveCsv } from "./csv.js";

const MAX_REQUESTS = 2; // one is sent while the other is computed; more would wait in the server

const form = document.querySelector("form");
const input = form.elements.file;
const drop = form.querySelector(".drop");
const loading = document.querySelector("#loading"); // null if the model is loaded already
const camera = form.querySelector("#camera");
const capture = form.querySelector("#capture");
const answers = document.querySelector("#answers");
const problem = document.querySelector("#problem");

const cards = new Map(); // from their elements
const waiting = [];
let chosen = settingsOf(document); // of the model for new photos
let beside = null; // of another one that is to be compared with it
let switching = Promise.resolve(); // until another model is chosen
let running = 0;
let ready = Promise.resolve();

function say(message) {
  problem.textContent = message;
  problem.hidden = !message;
}

async function classify(files, { otherwise = "", onDisk = true } = {}) {
  say(files.length ? "" : otherwise);
  await switching;
  const before = answers.firstChild; // the newest photos are on top, in their own order
  for (const file of files) {
    for (const settings of beside ? [chosen, beside] : [chosen]) {
      const card = addCard(file, { settings, answers, before, enqueue, onDisk, onRemove });
      card.element.classList.toggle("pair", beside !== null && settings === chosen);
      cards.set(card.element, card);
    }
  }
}

/** The settings of the model that a copy of the page shows. */
function settingsOf(page) {
  const row = page.querySelector("#row").content.firstElementChild;
  return { ...page.querySelector("form[data-endpoint]").dataset, row };
}

/** Resolves to a new copy of the page, or to null if it has none. */
async function open(url) {
  const response = await fetch(url).catch(() => null);
  const text = (await response?.text().catch(() => "")) ?? "";
  const page = new DOMParser().parseFromString(text, "text/html");
  return page.querySelector("form[data-endpoint]") && page;
}

function showModel(page) {
  document.querySelector("#model").replaceWith(page.querySelector("#model"));
}

/** Take another model for new photos; the cards keep theirs. */
async function chooseModel(event) {
  const link = event.target.closest("#models a");
  if (!link) return;
  event.preventDefault();
  const compared = document.querySelector("#models select").value;
  const page = await open(link.href);
  if (!page?.querySelector("#models [aria-current]")) return location.assign(link.href);
  chosen = settingsOf(page);
  showModel(page);
  history.replaceState(null, "", link.href);
  const select = document.querySelector("#models select");
  select.value = compared; // unless it is the chosen one now
  if (select.selectedIndex < 0) select.value = "";
  if (!select.value) beside = null;
  document.querySelector("#models [aria-current]").focus();
}

async function compare({ target }) {
  if (!target.matches("#models select")) return;
  const page = target.value && (await open(target.value));
  beside = page ? settingsOf(page) : null;
  if (!page) target.value = "";
}

/** Remove a card, and focus what takes its place. */
function onRemove(card) {
  const { element } = card;
  const next = element.nextElementSibling ?? element.previousElementSibling;
  card.remove();
  cards.delete(element);
  (next?.querySelector(".remove") ?? input).focus();
}

function clear() {
  for (const card of cards.values()) card.remove();
  cards.clear();
  input.focus();
}

async function classifySample({ currentTarget }) {
  const { src, alt } = currentTarget.querySelector("img");
  try {
    const response = await fetch(src);
    if (!response.ok) throw new Error();
    classify([new File([await response.blob()], `${alt}.jpg`, { type: "image/jpeg" })], { onDisk: false });
  } catch {
    say("The sample photo cannot be loaded.");
  }
}

/** A phone has a camera app. Other machines must have a camera. */
async function offerCamera() {
  const isPhone = matchMedia("(pointer: coarse)").matches;
  const devices = await navigator.mediaDevices?.enumerateDevices().catch(() => []);
  camera.hidden = !isPhone && !devices?.some(({ kind }) => kind === "videoinput");
}

function enqueue(work) {
  waiting.push(work);
  next();
}

async function next() {
  if (running >= MAX_REQUESTS || !waiting.length) return;
  running += 1;
  const work = waiting.shift();
  try {
    await ready;
    await work();
  } finally {
    running -= 1;
    next();
  }
}

function choose({ target }) {
  classify([...target.files]);
  target.value = ""; // so that the same photo can be chosen again
}

async function photograph() {
  // A phone's own camera app is better than ours.
  if (matchMedia("(pointer: coarse)").matches) return capture.click();
  camera.disabled = true;
  try {
    const photo = await takePhoto(document.querySelector("dialog"));
    if (photo) classify([photo], { onDisk: false });
  } catch (reason) {
    say(`The camera cannot be used: ${reason.message}.`);
  } finally {
    camera.disabled = false;
  }
}

/** Wait until the model is loaded, so that photos are not sent too early and refused. */
async function untilReady() {
  const words = loading.textContent;
  for (let failures = 0; ; await new Promise((resolve) => setTimeout(resolve, 1000))) {
    const response = await fetch(loading.dataset.ready).catch(() => null);
    failures = response ? 0 : failures + 1;
    loading.textContent = failures < 3 ? words : "The server cannot be reached.";
    // 500 is final: the model failed, and the page then says so. Other statuses may be a proxy's.
    if ((response?.ok || response?.status === 500) && (await updateModel())) return;
  }
}

/** Copy the model's part from a new copy of the page: a reload would lose the photos. */
async function updateModel() {
  const now = await open(location.href);
  if (!now || now.querySelector("#loading")) return false; // another process is still loading
  delete chosen.explain; // some models cannot be explained
  Object.assign(chosen, settingsOf(now)); // the cards that wait for the model have these, too
  showModel(now);
  return true;
}

if (loading) ready = untilReady();
form.classList.add("live");
input.removeAttribute("required");
offerCamera();
camera.addEventListener("click", photograph);
input.addEventListener("change", choose);
capture.addEventListener("change", choose);
document.addEventListener("click", (event) => (switching = Promise.all([switching, chooseModel(event)])));
document.addEventListener("change", (event) => (switching = Promise.all([switching, compare(event)])));
for (const sample of form.querySelectorAll(".sample")) sample.addEventListener("click", classifySample);
document.querySelector("#clear").addEventListener("click", clear);
document.querySelector("#csv").addEventListener("click", () => {
  saveCsv([...answers.children].map((element) => cards.get(element)));
});
form.addEventListener("submit", (event) => event.preventDefault());
document.addEventListener("paste", ({ clipboardData }) => {
  classify([...clipboardData.files], {
    otherwise: "There is no photo on the clipboard.",
    onDisk: false,
  });
});

// The whole page accepts photos: one dropped outside the frame would replace the page otherwise.
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  drop.classList.add("over");
});
document.addEventListener("dragleave", () => drop.classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  classify([...event.dataTransfer.files], {
    otherwise: "No file was dropped. Save the photo first, then drop it here.",
  });
});
