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
let running = 0;
let ready = Promise.resolve();

function say(message) {
  problem.textContent = message;
  problem.hidden = !message;
}

function classify(files, { otherwise = "", onDisk = true } = {}) {
  say(files.length ? "" : otherwise);
  const before = answers.firstChild; // the newest photos are on top, in their own order
  for (const file of files) {
    const card = addCard(file, { form, answers, before, enqueue, onDisk, onRemove });
    cards.set(card.element, card);
  }
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

function chosen({ target }) {
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
  const response = await fetch(form.action).catch(() => null);
  const text = (await response?.text().catch(() => "")) ?? "";
  const now = new DOMParser().parseFromString(text, "text/html");
  const fresh = now.querySelector("form[data-endpoint]");
  if (!fresh || now.querySelector("#loading")) return false; // another process is still loading
  form.dataset.endpoint = fresh.dataset.endpoint; // whose top_k is at most the number of classes
  if (!fresh.dataset.explain) delete form.dataset.explain; // some models cannot be explained
  for (const id of ["#model", "#row"]) document.querySelector(id).replaceWith(now.querySelector(id));
  return true;
}

if (loading) ready = untilReady();
form.classList.add("live");
input.removeAttribute("required");
offerCamera();
camera.addEventListener("click", photograph);
input.addEventListener("change", chosen);
capture.addEventListener("change", chosen);
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
