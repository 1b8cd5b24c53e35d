// Sends a photo as soon as it is chosen, dropped or pasted. Without this file the form does.

const form = document.querySelector("form");
const input = form.elements.file;
const drop = form.querySelector(".drop");
const photo = document.querySelector("#photo");
const error = document.querySelector("#error");
const predictions = document.querySelector("#predictions");
const time = document.querySelector("#time");
const row = document.querySelector("#row");
let current = new AbortController();

function render({ class_name, probability }) {
  const item = row.content.cloneNode(true);
  const share = `${(probability * 100).toFixed(1)} %`;
  item.querySelector(".name").textContent = class_name.replaceAll("_", " ");
  item.querySelector(".share").textContent = share;
  item.querySelector("meter").value = probability;
  item.querySelector("meter").textContent = share;
  return item;
}

function clear() {
  predictions.replaceChildren();
  error.hidden = time.hidden = true;
  form.classList.remove("busy");
}

function fail(message) {
  clear();
  error.textContent = message;
  error.hidden = false;
}

function show(file) {
  URL.revokeObjectURL(photo.src);
  photo.src = URL.createObjectURL(file);
  photo.hidden = false; // the server reads formats that a browser may not: then there is no picture
  photo.onerror = () => (photo.hidden = true);
}

async function ask(file, signal) {
  const body = new FormData();
  body.append("file", file);
  const response = await fetch(form.dataset.endpoint, { method: "POST", body, signal });
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(answer.detail ?? `The server answered ${response.status}.`);
  return answer;
}

async function classify(file) {
  current.abort(); // a new photo replaces the one still on its way
  const { signal } = (current = new AbortController());
  clear();
  show(file);
  if (file.size > Number(form.dataset.maxBytes)) {
    return fail(`This photo has ${file.size.toLocaleString()} bytes; the server accepts ${Number(form.dataset.maxBytes).toLocaleString()}.`);
  }
  form.classList.add("busy");
  const started = performance.now();
  try {
    const answer = await ask(file, signal);
    predictions.replaceChildren(...answer.predictions.map(render));
    time.textContent = `Answered in ${((performance.now() - started) / 1000).toFixed(2)} s.`;
    time.hidden = false;
  } catch (reason) {
    if (signal.aborted) return;
    fail(reason instanceof TypeError ? "The server cannot be reached." : reason.message);
  } finally {
    if (!signal.aborted) form.classList.remove("busy");
  }
}

function classifyFirst(files) {
  if (files.length > 0) classify(files[0]);
}

form.classList.add("live");
input.addEventListener("change", () => classifyFirst(input.files));
form.addEventListener("submit", (event) => {
  event.preventDefault();
  classifyFirst(input.files);
});
document.addEventListener("paste", (event) => classifyFirst(event.clipboardData.files));
// The whole page is a target: a photo dropped beside the frame must not replace the page.
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  drop.classList.add("over");
});
document.addEventListener("dragleave", () => drop.classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  classifyFirst(event.dataTransfer.files);
});
