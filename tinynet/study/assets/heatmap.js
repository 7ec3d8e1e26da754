"use strict";
// An array drawn as cells: a matrix, or pictures side by side. A layout says which element each cell shows.

// {rows, columns, index(row, column) -> the element's index, or null for a gap}
function layoutOf(card, name, view) {
  const { shape } = card.arrays[name] ? card.arrays[name] : card.array(name);
  const pixels = card.imageShape;
  if (shape.length === 1) {
    const columns = Math.min(shape[0], 64);
    return { rows: Math.ceil(shape[0] / columns), columns, index: (r, c) => (r * columns + c < shape[0] ? [r * columns + c] : null) };
  }
  if (shape.length === 2) {
    const isWeight = ["W", "dW", "W update"].includes(name);
    if (pixels && view.pictures && isWeight) return tiles(shape[1], ...pixels, (j, r, c) => [r * pixels[1] + c, j]);
    if (pixels && view.pictures && ["x", "dx"].includes(name)) return tiles(shape[0], ...pixels, (n, r, c) => [n, r * pixels[1] + c]);
    return { rows: shape[0], columns: shape[1], index: (r, c) => [r, c] };
  }
  if (["W", "dW", "W update"].includes(name) && shape.length === 4) {
    const [kh, kw, channels, filters] = shape;
    if (channels === 1) return tiles(filters, kh, kw, (o, r, c) => [r, c, 0, o]);
    return grid(channels, filters, kh, kw, (channel, o, r, c) => [r, c, channel, o]);
  }
  if (shape.length === 3) return tiles(shape[0], shape[1], shape[2], (n, r, c) => [n, r, c]);
  if (shape.length === 4) {
    if (shape[3] === 1) return tiles(shape[0], shape[1], shape[2], (n, r, c) => [n, r, c, 0]);
    return tiles(shape[3], shape[1], shape[2], (channel, r, c) => [view.image, r, c, channel]);
  }
  const rows = shape[0], columns = shape.slice(1).reduce((a, b) => a * b, 1), tensor = card.array(name);
  return { rows, columns, index: (r, c) => tensor.strides.map((stride, axis) => Math.floor((r * columns + c) / stride) % shape[axis]) };
}

function tiles(count, height, width, index) {
  // About twice as wide as tall, as pages are.
  const across = Math.min(count, Math.max(1, Math.ceil(Math.sqrt((2 * count * height) / width))));
  return grid(Math.ceil(count / across), across, height, width, (i, j, r, c) => (i * across + j < count ? index(i * across + j, r, c) : null));
}

function grid(down, across, height, width, index) {
  return {
    rows: down * (height + 1) - 1,
    columns: across * (width + 1) - 1,
    index(r, c) {
      const i = Math.floor(r / (height + 1)), j = Math.floor(c / (width + 1));
      const row = r % (height + 1), column = c % (width + 1);
      return row === height || column === width ? null : index(i, j, row, column);
    },
  };
}

const rgb = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim().match(/\w\w/g).map((hex) => parseInt(hex, 16));

// The style sheet's current colours, light or dark. A cell's colour depends on its value over the largest.
function palette() {
  const [low, zero, high, gap, nonfinite] = ["--low", "--zero", "--high", "--gap", "--nonfinite"].map(rgb);
  return { gap, of(value, largest) {
    if (!Number.isFinite(value)) return nonfinite;
    // The square root spreads the many small values, so that they can be told apart.
    const share = largest ? Math.sqrt(Math.min(Math.abs(value) / largest, 1)) : 0, end = value < 0 ? low : high;
    return zero.map((from, i) => Math.round(from + (end[i] - from) * share));
  } };
}

function drawCells(canvas, layout, tensor) {
  canvas.width = layout.columns;
  canvas.height = layout.rows;
  const context = canvas.getContext("2d"), image = context.createImageData(layout.columns, layout.rows), colours = palette();
  for (let row = 0; row < layout.rows; row++) {
    for (let column = 0; column < layout.columns; column++) {
      const index = layout.index(row, column);
      const colour = index === null ? colours.gap : colours.of(tensor.at(...index), tensor.largest);
      image.data.set([...colour, 255], 4 * (row * layout.columns + column));
    }
  }
  context.putImageData(image, 0, 0);
}

// A picture of the batch in grey; `mark` is a pixel to highlight.
function drawPicture(canvas, step, n, mark = null) {
  const [, height, width] = step.pixels.shape, { low, high } = step.images;
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d"), image = context.createImageData(width, height);
  for (let i = 0; i < height * width; i++) {
    const grey = Math.round((255 * (step.pixels.data[n * height * width + i] - low)) / (high - low || 1));
    image.data.set([grey, grey, grey, 255], 4 * i);
  }
  if (mark !== null && mark < height * width) image.data.set([...rgb("--winner"), 255], 4 * mark);
  context.putImageData(image, 0, 0);
  return canvas;
}
