// Draws a heat map over the photo.

// The same values as in predictor/images/heatmap.py.
const COLOURS = [[0, 0, 4], [87, 16, 110], [188, 55, 84], [249, 142, 9], [252, 255, 164]];
const OPACITY = 0.75;

/**
 * Draw `heat`, rows of numbers from 0 to 1, as one pixel each: the browser smooths as it enlarges.
 * The box is the position of the heat map, in fractions of the photo's width and height.
 */
export function draw(canvas, heat, [left, top, right, bottom]) {
  canvas.width = heat[0].length;
  canvas.height = heat.length;
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(canvas.width, canvas.height);
  heat.flat().forEach((value, index) => pixels.data.set(colour(value), index * 4));
  context.putImageData(pixels, 0, 0);
  canvas.style.left = `${left * 100}%`;
  canvas.style.top = `${top * 100}%`;
  canvas.style.width = `${(right - left) * 100}%`;
  canvas.style.height = `${(bottom - top) * 100}%`;
}

function colour(value) {
  const position = value * (COLOURS.length - 1);
  const below = Math.min(Math.floor(position), COLOURS.length - 2);
  const mixed = COLOURS[below].map((c, i) => c + (COLOURS[below + 1][i] - c) * (position - below));
  return [...mixed, value * OPACITY * 255];
}
