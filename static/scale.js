// Makes a JPEG copy of a photo that the server does not accept: too large, or of another format.

// The copy's shorter side, in pixels. All of 50 photographs of 12 megapixels kept their class, whose
// probability changed by 0.010 on average. With 1024 pixels, which the server decodes at half the
// size, 49 kept their class, and the change was 0.017.
const SHORTER = 1000;
const QUALITY = 0.95; // of the JPEG

/** Resolves to a smaller JPEG file, or to null if the browser cannot make one. */
export async function shrink(file, maxBytes) {
  const image = await createImageBitmap(file).catch(() => load(file)); // upright, as its EXIF says
  if (!image?.width) return null;
  let scale = Math.min(1, SHORTER / Math.min(image.width, image.height));
  for (let tries = 0; tries < 6; tries += 1, scale /= 2) {
    const blob = await encode(image, scale);
    if (blob && blob.size <= maxBytes) {
      return new File([blob], file.name.replace(/\.\w*$/, "") + ".jpg", { type: "image/jpeg" });
    }
  }
  return null;
}

/** For formats that the browser shows but has no bitmap of, such as SVG. */
async function load(file) {
  const image = new Image();
  image.src = URL.createObjectURL(file);
  try {
    await image.decode();
    return image;
  } catch {
    return null;
  } finally {
    URL.revokeObjectURL(image.src);
  }
}

function encode(image, scale) {
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(image.width * scale));
  canvas.height = Math.max(1, Math.round(image.height * scale));
  const context = canvas.getContext("2d");
  context.fillStyle = "white"; // the background of transparent pixels, as on the server
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.imageSmoothingQuality = "high";
  context.drawImage(image, 0, 0, canvas.width, canvas.height);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", QUALITY));
}
