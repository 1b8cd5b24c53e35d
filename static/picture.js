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
    this.image.alt = file.name;
    this.image.src = this.photo;
    this.image.onload = () => (this.stage.hidden = false);
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
    if (!wanted) return;
    const { signal } = (this.explaining = new AbortController());
    button.setAttribute("aria-pressed", "true");
    this.say("Looking for the reasons …");
    try {
      const url = `${this.endpoint}?class_index=${classIndex}`;
      const alike = SHOWN_ALIKE.test(photo.type) && !this.stage.hidden;
      const hot = await (alike ? this.drawHeat(url, photo, signal) : this.replace(url, photo, signal));
      this.say(hot ? `The brighter, the more it speaks for ${name}.` : `Nothing here speaks for ${name}.`);
    } catch (reason) {
      if (signal.aborted) return;
      button.setAttribute("aria-pressed", "false");
      this.say(reason.message);
    }
  }

  forget() {
    this.explaining?.abort();
    for (const row of this.card.querySelectorAll(".row")) row.setAttribute("aria-pressed", "false");
    this.canvas.hidden = true;
    if (this.image.src !== this.photo) this.image.src = this.photo;
    this.say(TIP);
  }

  async drawHeat(url, photo, signal) {
    const { answer } = await ask(url, photo, { signal });
    draw(this.canvas, answer.heat, answer.box);
    this.canvas.hidden = false;
    return answer.heat.flat().some((value) => value > 0);
  }

  /** The server's own picture in place of the photo. */
  async replace(url, photo, signal) {
    const { answer } = await ask(url, photo, { signal, accept: "image/png" });
    this.image.src = URL.createObjectURL(answer);
    return true;
  }
}
