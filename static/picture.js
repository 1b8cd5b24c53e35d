// A card's photo, and why: where it speaks for the class that is chosen.

import { draw } from "./heat.js";
import { ask } from "./request.js";

const TIP = "Choose a class to see where in the photo it is.";
// The browser shows these as the server sees them. WebP it does not turn by its EXIF, and a GIF moves.
const SHOWN_ALIKE = /^image\/(jpeg|png|avif|bmp)$/;

export class Picture {
  constructor(card, file, endpoint) {
    this.card = card;
    this.endpoint = endpoint; // none where nothing is explained
    this.stage = card.querySelector(".stage");
    this.image = card.querySelector("img");
    this.canvas = card.querySelector("canvas");
    this.photo = URL.createObjectURL(file);
    this.alike = false; // until the browser has shown it, and as the server sees it
    this.image.alt = file.name;
    this.image.src = this.photo;
    this.image.onload = () => {
      this.stage.hidden = false;
      this.alike ||= this.image.src === this.photo && SHOWN_ALIKE.test(file.type);
    };
    // The server reads formats that a browser may not: then there is no picture.
    this.image.onerror = () => (this.stage.hidden = true);
    this.say(TIP);
  }

  say(text) {
    const tip = this.card.querySelector(".tip");
    tip.textContent = text;
    tip.hidden = !this.endpoint;
  }

  /** Show where the class is seen; the same button again takes it away. */
  async explain(button, photo, classIndex, name) {
    const wanted = button.getAttribute("aria-pressed") !== "true";
    this.forget();
    if (!wanted) return this.put(this.photo);
    const { signal } = (this.explaining = new AbortController());
    button.setAttribute("aria-pressed", "true");
    this.say("Looking for the reasons …");
    try {
      const url = `${this.endpoint}?class_index=${classIndex}`;
      const show = this.alike ? this.drawHeat(url, photo, signal) : this.replace(url, photo, signal, button);
      const hot = await show;
      this.say(hot ? `The brighter, the more it speaks for ${name}.` : `Nothing here speaks for ${name}.`);
    } catch (reason) {
      if (signal.aborted) return;
      button.setAttribute("aria-pressed", "false");
      this.put(this.photo);
      this.say(reason.message);
    }
  }

  forget() {
    this.explaining?.abort();
    for (const row of this.card.querySelectorAll(".row")) row.setAttribute("aria-pressed", "false");
    this.canvas.hidden = true;
    this.say(TIP);
  }

  put(url) {
    if (this.image.src === url) return;
    if (this.image.src !== this.photo) URL.revokeObjectURL(this.image.src);
    this.image.src = url;
  }

  async drawHeat(url, photo, signal) {
    const { answer } = await ask(url, photo, { signal });
    draw(this.canvas, answer.heat, answer.box);
    this.canvas.hidden = false;
    return answer.heat.flat().some((value) => value > 0);
  }

  /** The server's own picture in place of the photo; what was pressed stays where it is. */
  async replace(url, photo, signal, button) {
    const { answer } = await ask(url, photo, { signal, accept: "image/png" });
    const before = button.getBoundingClientRect().top;
    this.put(URL.createObjectURL(answer));
    await this.image.decode();
    this.stage.hidden = false;
    scrollBy(0, button.getBoundingClientRect().top - before);
    return true;
  }
}
