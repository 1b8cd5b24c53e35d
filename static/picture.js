// The photo of a card, with the heat map of the class that is chosen.

import { draw } from "./heat.js";
import { ask } from "./request.js";

const TIP = "Choose a class to see which areas support it.";
// Types that browsers show as the server reads them. They do not rotate a WebP by its EXIF
// orientation, and they animate a GIF.
const SHOWN_ALIKE = /^image\/(jpeg|png|avif|bmp)$/;

export class Picture {
  constructor(card, file, settings) {
    this.card = card;
    this.settings = settings; // without `explain` if the model is not explained
    this.stage = card.querySelector(".stage");
    this.image = card.querySelector("img");
    this.canvas = card.querySelector("canvas");
    this.photo = URL.createObjectURL(file);
    this.alike = false; // whether the browser shows the photo as the server reads it
    this.image.alt = file.name;
    this.image.src = this.photo;
    this.image.onload = () => {
      this.show(true);
      this.alike ||= this.image.src === this.photo && SHOWN_ALIKE.test(file.type);
    };
    // The server reads some formats that browsers cannot show.
    this.image.onerror = () => this.show(false);
    this.say(TIP);
  }

  show(visible) {
    this.image.hidden = !visible;
    this.stage.querySelector(".blank").hidden = visible;
  }

  discard() {
    this.explaining?.abort();
    for (const url of [this.photo, this.image.src]) URL.revokeObjectURL(url);
  }

  say(text) {
    const tip = this.card.querySelector(".tip");
    tip.textContent = text;
    tip.hidden = !this.settings.explain;
  }

  /** Show the heat map of a class, or hide it if its button is already pressed. */
  async explain(button, photo, classIndex, name) {
    const show = button.getAttribute("aria-pressed") !== "true";
    this.reset();
    if (!show) return this.put(this.photo);
    const { signal } = (this.explaining = new AbortController());
    button.setAttribute("aria-pressed", "true");
    this.say("Computing the heat map …");
    try {
      const url = new URL(this.settings.explain, location.href);
      url.searchParams.set("class_index", classIndex);
      const { isHot, edges } = await (this.alike
        ? this.drawHeat(url, photo, signal)
        : this.replace(url, photo, signal));
      const areas = isHot ? "The brighter an area, the more it counts" : "No area counts";
      this.say(`${areas} towards ${name}.${edges}`);
    } catch (reason) {
      if (signal.aborted) return;
      button.setAttribute("aria-pressed", "false");
      this.put(this.photo);
      this.say(reason.message);
    }
  }

  reset() {
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
    const [left, top, right, bottom] = answer.box; // outside the photo where it was padded
    const isCropped = left > 0 || top > 0 || right < 1 || bottom < 1;
    const edges = isCropped ? " The model does not see the dark edges." : "";
    return { isHot: answer.heat.flat().some((value) => value > 0), edges };
  }

  /** Show the server's picture in place of the photo. */
  async replace(url, photo, signal) {
    const { answer } = await ask(url, photo, { signal, accept: "image/png" });
    this.put(URL.createObjectURL(answer));
    await this.image.decode();
    return { isHot: true, edges: " The model does not see dark edges." };
  }
}
