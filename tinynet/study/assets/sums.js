"use strict";
// Where an element comes from. explain(step, card, name, index) gives {formula, terms, count, constant, total, lines,
// stored}: the terms of a sum, each {label, parts: [[name, value], ...], value, image, pixel}, or lines of arithmetic.

// What an example is called; "image" if the batch holds images.
let examples = "example";

const indexText = (name, index) => `${name}[${index.join(", ")}]`;

function weightGradient(card) {
  return card.sums.backward === "Dense" ? denseGradient(card) : convolutionGradient(card);
}

function denseGradient(card) {
  const x = card.array("x"), dy = card.array("dy");
  const [n, fanIn] = x.shape, fanOut = dy.shape[1];
  const sums = new Float64Array(fanIn * fanOut);
  for (let example = 0; example < n; example++) {
    for (let i = 0; i < fanIn; i++) {
      const value = x.data[example * fanIn + i];
      if (value === 0) continue;
      for (let j = 0; j < fanOut; j++) sums[i * fanOut + j] += value * dy.data[example * fanOut + j];
    }
  }
  return new Tensor(sums, [fanIn, fanOut]);
}

function convolutionGradient(card) {
  const x = card.array("x"), dy = card.array("dy"), shape = card.arrays.W.shape;
  const [kh, kw, channels, filters] = shape, [n, down, across] = dy.shape;
  const { down: vertical, across: horizontal } = card.windows;
  const sums = new Float64Array(kh * kw * channels * filters);
  for (let example = 0; example < n; example++) {
    for (let i = 0; i < down; i++) {
      for (let j = 0; j < across; j++) {
        const from = dy.offset([example, i, j, 0]);
        for (let u = 0; u < kh; u++) {
          const row = i * vertical.stride + u - vertical.before;
          if (row < 0 || row >= x.shape[1]) continue;
          for (let v = 0; v < kw; v++) {
            const column = j * horizontal.stride + v - horizontal.before;
            if (column < 0 || column >= x.shape[2]) continue;
            for (let c = 0; c < channels; c++) {
              const value = x.at(example, row, column, c);
              if (value === 0) continue;
              const to = ((u * kw + v) * channels + c) * filters;
              for (let o = 0; o < filters; o++) sums[to + o] += value * dy.data[from + o];
            }
          }
        }
      }
    }
  }
  return new Tensor(sums, shape);
}

// One term of a sum: the product of its parts.
function term(label, parts, more = {}) {
  return { label, parts, value: parts.reduce((product, [, value]) => product * value, 1), ...more };
}

// A part that names an element: ["x[3, 402]", 0.94].
const part = (card, name, ...index) => [indexText(name, index), card.array(name).at(...index)];

function finish(card, name, index, found) {
  const result = { name: indexText(name, index), count: found.terms?.length ?? 0, ...found };
  if (found.terms && found.total === undefined) {
    result.total = found.terms.reduce((sum, { value }) => sum + value, found.constant ? found.constant[1] : 0);
  }
  if (!(name in card.products)) {
    result.stored = card.array(name).at(...index);
    result.isRounded = card.isRounded(name);
  }
  return result;
}

function explain(step, card, name, index) {
  const found = (card.path === "loss" ? explainLoss(step, card, name, index) : explainLayer(card, name, index)) ?? {};
  return finish(card, name, index, found);
}

function explainLayer(card, name, index) {
  if (name.endsWith(" update") || (name in card.arrays && card.has(`${name} update`))) {
    return parameterLines(card, name.replace(" update", ""), index);
  }
  if (name === "x") return { lines: [card.path === "0" ? "x is the batch, the input of the first layer." : "x is this layer's input, the output of the layer before it."] };
  if (name === "dy") return { lines: ["dy says how the loss changes with y. It is the dx of the next layer, or the gradient of the loss."] };
  if (name.startsWith("running_")) return { lines: ["A running statistic. The layer is frozen, so it uses this value and does not change it."] };
  if (name === "mask") return { lines: ["1 / (1 − rate) where the unit is kept, 0 where it is dropped. Each step draws a new mask."] };
  const owner = name === "y" ? card.sums.forward : card.sums.backward;
  return LAYER_SUMS[owner]?.[name]?.(card, index) ?? { lines: ["This page has no sum for this kind of layer; the number comes from the run."] };
}

function parameterLines(card, name, index) {
  const value = card.array(name).at(...index), update = card.array(`${name} update`).at(...index);
  const gradient = card.has(`d${name}`) ? card.array(`d${name}`).at(...index) : null;
  const at = (array) => indexText(array, index);
  return {
    lines: [
      `${at(name)} = ${show(value)} before the step`,
      gradient === null ? "frozen: no gradient" : `${at(`d${name}`)} = ${show(gradient)}: the slope of the loss with respect to it`,
      `update ${show(update)}: it becomes ${show(value + update)}`,
      ...(gradient ? [`this alone should change the loss by d${name} · update = ${show(gradient * update)}`] : []),
    ],
  };
}

// Numbers as the page shows them: four digits, with a minus sign as wide as a plus.
function show(value) {
  if (value === null || value === undefined) return "?";
  if (Number.isNaN(value)) return "NaN";
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  if (Number.isInteger(value) && Math.abs(value) < 1e6) return String(value).replace("-", "−");
  const size = Math.abs(value);
  const text = size >= 1e-3 && size < 1e5 ? value.toPrecision(4) : value.toExponential(3);
  return text.replace(/-/g, "−");
}
