// The card of a photo: it shows the progress of its request, then the classes or an error.

import { Picture } from "./picture.js";
import { ServerError, ask } from "./request.js";
import { shrink } from "./scale.js";
import { copy, curl, python } from "./snippets.js";

const template = document.querySelector("#card");
const live = document.querySelector("#live");
let count = 0;

// The statuses for which the browser makes a copy, and what the card says meanwhile and afterwards.
const COPIED = {
  413: {
    doing: "Making it smaller",
    note: (size, before) =>
      `The photo is too large for the server, so your browser sent a smaller copy (${size} instead of ${before}).`,
  },
  415: {
    doing: "Converting it",
    note: () => "The server does not read this format, so your browser sent a JPEG copy.",
  },
};

const readable = (name) => name.replaceAll("_", " ");
const percent = (probability) => `${(probability * 100).toFixed(1)} %`;
const megabytes = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`;

/** Insert a card for the file before the element `before`, queue its request and return the card. */
export function addCard(file, { settings, answers, before, enqueue, onDisk, onRemove }) {
  const card = new Card(file, settings, enqueue);
  card.onDisk = onDisk;
  card.find(".remove").addEventListener("click", () => onRemove(card));
  answers.insertBefore(card.element, before);
  card.start();
  return card;
}

class Card {
  constructor(file, settings, enqueue) {
    this.file = this.sent = file;
    this.settings = settings;
    this.enqueue = enqueue;
    this.predictions = [];
    this.error = "";
    this.element = template.content.firstElementChild.cloneNode(true);
    const title = this.find(".file");
    title.id = `photo-${(count += 1)}`;
    this.element.setAttribute("aria-labelledby", title.id);
    this.entitle();
    this.picture = new Picture(this.element, file, settings);
    this.find(".cancel").addEventListener("click", () => this.cancel());
    this.find(".again").addEventListener("click", () => this.start());
    this.find(".details").addEventListener("toggle", ({ target }) => target.open && this.preview());
    for (const button of this.element.querySelectorAll(".copy")) {
      button.addEventListener("click", () => copy(button.parentElement.querySelector("code"), button));
    }
  }

  /** Where there are several models, the title begins with the model. */
  entitle() {
    const { model } = this.settings;
    this.name = model ? `${model}: ${this.file.name}` : this.file.name;
    const title = this.find(".file");
    title.textContent = title.title = this.name;
    this.find(".remove").setAttribute("aria-label", `Remove ${this.name}`);
  }

  find(selector) {
    return this.element.querySelector(selector);
  }

  write(selector, text) {
    const element = this.find(selector);
    element.textContent = text;
    element.hidden = !text;
  }

  start() {
    this.cancelling?.abort();
    const { signal } = (this.cancelling = new AbortController());
    this.change(() => {
      this.busy("Waiting for its turn");
      this.write(".error", "");
    });
    this.enqueue(() => signal.aborted || this.classify(signal));
  }

  cancel() {
    this.cancelling.abort(); // a photo that is still in the queue reports nothing itself
    this.fail("Cancelled.");
  }

  remove() {
    this.cancelling.abort();
    this.picture.discard();
    for (const url of [this.find(".save").href, this.find(".seen img")?.src]) URL.revokeObjectURL(url);
    this.element.remove();
  }

  busy(text, done = null) {
    const bar = this.find("progress");
    this.element.classList.add("busy");
    this.find(".pending").hidden = false;
    this.find(".again").hidden = true;
    this.find(".doing").textContent = text;
    if (done === null) bar.removeAttribute("value");
    else bar.value = done;
  }

  rest() {
    this.element.classList.remove("busy");
    this.find(".pending").hidden = true;
  }

  /** Change what the card shows. If this hides the focused element, focus what replaced it. */
  change(act) {
    const focused = document.activeElement;
    act();
    if (!this.element.contains(focused) || focused.checkVisibility()) return;
    const inTurn = [".cancel", ".again", "button.row", "summary", ".error"].map((one) => this.find(one));
    inTurn.find((one) => one?.checkVisibility())?.focus();
  }

  async classify(signal) {
    try {
      this.answer(await this.askWithinLimits(signal));
    } catch (reason) {
      const message = await this.messageFor(reason);
      if (!signal.aborted) this.fail(message, !isPermanent(reason.status));
    }
  }

  /** If nothing was sent (status 0), the file may be the cause: it is a folder, or was removed. */
  async messageFor({ message, status }) {
    if (status !== 0) return message;
    const readable = this.sent.slice(0, 1).arrayBuffer().then(() => true, () => false);
    return (await readable) ? message : "This cannot be read: it is a folder, or the file was changed. Choose the file again.";
  }

  /** Send a copy that the browser makes if the photo is too large, or of a format that the server
   * does not read, such as HEIC: some browsers do. */
  async askWithinLimits(signal) {
    if (this.sent.size > this.settings.maxBytes) await this.makeCopy(signal);
    try {
      return await this.ask(signal);
    } catch (reason) {
      if (!(reason.status in COPIED) || this.sent !== this.file) throw reason;
      await this.makeCopy(signal, reason);
      return this.ask(signal);
    }
  }

  ask(signal) {
    return ask(this.settings.endpoint, this.sent, {
      signal,
      onProgress: (part) => this.busy(part < 1 ? "Sending" : "Classifying", part < 1 ? part : null),
      onWait: (seconds) => this.busy(`The server is busy; trying again in ${seconds} s`),
    });
  }

  async makeCopy(signal, reason = null) {
    const { doing, note } = COPIED[reason?.status ?? 413];
    this.busy(doing);
    const limit = Number(this.settings.maxBytes);
    const copy = await shrink(this.file, limit);
    signal.throwIfAborted();
    const [before, most] = [this.file.size, limit].map(megabytes);
    if (!copy) {
      const limits = `This file has ${before}; the server accepts at most ${most}.`;
      throw reason ?? new ServerError(`${limits} This browser cannot make it smaller.`, 413);
    }
    this.sent = copy;
    const differ = "The percentages can differ slightly from the original's.";
    this.write(".note", `${note(megabytes(copy.size), before)} ${differ}`);
  }

  answer({ answer: { predictions }, times, ms }) {
    this.predictions = predictions;
    this.picture.reset(); // the model may have been loaded since
    this.entitle();
    this.change(() => {
      this.rest();
      this.find(".predictions").replaceChildren(...predictions.map((one) => this.row(one)));
      this.find(".details").hidden = false;
    });
    this.find(".classes").replaceChildren(...predictions.map((one) => this.detailRow(one)));
    this.write(".time", timeTaken(times, ms));
    this.write(".input", `The model takes ${this.settings.input}.`);
    this.write(".id", this.settings.id);
    const url = new URL(this.settings.endpoint, location.href).href;
    const guarded = "guarded" in this.settings;
    this.find(".curl code").textContent = curl(url, this.sent.name, guarded);
    this.find(".python code").textContent = python(url, this.sent.name, guarded);
    if (this.sent !== this.file || !this.onDisk) this.offerToSave();
    const best = predictions[0];
    live.textContent = `${this.name}: ${readable(best.class_name)}, ${percent(best.probability)}`;
  }

  row({ class_index, class_name, probability }) {
    const row = this.settings.row.cloneNode(true);
    row.querySelector(".name").textContent = readable(class_name);
    row.querySelector(".share").textContent = percent(probability);
    row.querySelector("meter").value = probability;
    const button = row.querySelector("button"); // null if the model is not explained
    const name = readable(class_name);
    button?.addEventListener("click", () => this.picture.explain(button, this.sent, class_index, name));
    return row;
  }

  detailRow({ class_index, class_id, class_name }) {
    const row = document.createElement("tr");
    for (const text of [readable(class_name), class_id, class_index]) {
      row.insertCell().textContent = text;
    }
    return row;
  }

  /** Show the pixels that the model is given, when the details are opened first. */
  async preview() {
    if (this.previewed) return;
    this.previewed = true;
    const place = this.find(".seen");
    const { signal } = this.cancelling;
    place.textContent = "Loading …";
    try {
      const { answer } = await ask(this.settings.preview, this.sent, { signal, accept: "image/png" });
      const image = new Image();
      image.alt = "The photo as the model sees it";
      image.src = URL.createObjectURL(answer);
      await image.decode();
      place.replaceChildren(image, `${image.naturalWidth} × ${image.naturalHeight} pixels`);
    } catch (reason) {
      this.previewed = false; // opening the details tries again
      if (!signal.aborted) place.textContent = reason.message;
    }
  }

  offerToSave() {
    const link = this.find(".save");
    link.href = URL.createObjectURL(this.sent);
    link.download = this.sent.name;
    link.hidden = false;
  }

  fail(message, canRetry = true) {
    this.error = message;
    this.change(() => {
      this.rest();
      this.write(".error", message);
      this.find(".again").hidden = !canRetry;
    });
    live.textContent = `${this.name}: ${message}`;
  }
}

/** Whether the server would refuse the photo again: any 4xx except 429 (too many requests). */
function isPermanent(status) {
  return status >= 400 && status < 500 && status !== 429;
}

/** The steps as the server measured them; the rest of the time is the network's. */
function timeTaken(times, ms) {
  const server = times.reduce((sum, [, step]) => sum + step, 0);
  const parts = [...times, ["network", Math.max(0, ms - server)]];
  const split = parts.map(([step, part]) => `${step} ${Math.round(part)} ms`).join(", ");
  return `${(ms / 1000).toFixed(2)} s: ${split}`;
}
