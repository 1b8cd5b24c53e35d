// The card of a photo: it shows the progress of its request, then the classes or an error.

import { Picture } from "./picture.js";
import { ServerError, ask } from "./request.js";
import { shrink } from "./scale.js";
import { copy, curl, python } from "./snippets.js";

const template = document.querySelector("#card");
const live = document.querySelector("#live");
let count = 0;

const readable = (name) => name.replaceAll("_", " ");
const percent = (probability) => `${(probability * 100).toFixed(1)} %`;
const megabytes = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`;

/** Insert a card for the file before the element `before`, and queue its request. */
export function addCard(file, { form, answers, before, enqueue, onDisk }) {
  const card = new Card(file, form.dataset, enqueue);
  card.onDisk = onDisk;
  answers.insertBefore(card.element, before);
  card.start();
}

class Card {
  constructor(file, settings, enqueue) {
    this.file = this.sent = file;
    this.settings = settings;
    this.enqueue = enqueue;
    this.element = template.content.firstElementChild.cloneNode(true);
    const title = this.find(".file");
    title.textContent = file.name;
    title.id = `photo-${(count += 1)}`;
    this.element.setAttribute("aria-labelledby", title.id);
    this.picture = new Picture(this.element, file, settings.explain);
    this.find(".cancel").addEventListener("click", () => this.cancel());
    this.find(".again").addEventListener("click", () => this.start());
    for (const button of this.element.querySelectorAll(".copy")) {
      button.addEventListener("click", () => copy(button.parentElement.querySelector("code"), button));
    }
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

  /** Send a smaller copy if the photo has too many bytes, or if the server says it is too large. */
  async askWithinLimits(signal) {
    if (this.sent.size > this.settings.maxBytes) await this.makeSmaller(signal);
    try {
      return await this.ask(signal);
    } catch (reason) {
      if (reason.status !== 413 || this.sent !== this.file) throw reason;
      await this.makeSmaller(signal, reason.message);
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

  async makeSmaller(signal, detail) {
    this.busy("Making it smaller");
    const limit = Number(this.settings.maxBytes);
    const smaller = await shrink(this.file, limit);
    signal.throwIfAborted();
    const sizes = [this.file.size, smaller ? smaller.size : limit].map(megabytes);
    if (!smaller) {
      const limits = `This file has ${sizes[0]}; the server accepts at most ${sizes[1]}.`;
      throw new ServerError(detail ?? `${limits} This browser cannot make it smaller.`, 413);
    }
    this.sent = smaller;
    this.write(
      ".note",
      `The photo is too large for the server, so your browser sent a smaller copy (${sizes[1]}` +
        ` instead of ${sizes[0]}). The percentages can differ slightly from the original's.`,
    );
  }

  answer({ answer: { predictions }, times, ms }) {
    this.change(() => {
      this.rest();
      this.find(".predictions").replaceChildren(...predictions.map((one) => this.row(one)));
      this.find(".details").hidden = false;
    });
    this.find(".classes").replaceChildren(...predictions.map((one) => this.detailRow(one)));
    this.write(".time", timeTaken(times, ms));
    const url = new URL(this.settings.endpoint, location.href).href;
    const guarded = "guarded" in this.settings;
    this.find(".curl code").textContent = curl(url, this.sent.name, guarded);
    this.find(".python code").textContent = python(url, this.sent.name, guarded);
    if (this.sent !== this.file || !this.onDisk) this.offerToSave();
    const best = predictions[0];
    live.textContent = `${this.file.name}: ${readable(best.class_name)}, ${percent(best.probability)}`;
  }

  row({ class_index, class_name, probability }) {
    const row = document.querySelector("#row").content.firstElementChild.cloneNode(true);
    row.querySelector(".name").textContent = readable(class_name);
    row.querySelector(".share").textContent = percent(probability);
    row.querySelector("meter").value = probability;
    const button = row.querySelector("button"); // null if explanations are off
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

  offerToSave() {
    const link = this.find(".save");
    link.href = URL.createObjectURL(this.sent);
    link.download = this.sent.name;
    link.hidden = false;
  }

  fail(message, canRetry = true) {
    this.change(() => {
      this.rest();
      this.write(".error", message);
      this.find(".again").hidden = !canRetry;
    });
    live.textContent = `${this.file.name}: ${message}`;
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
