"use strict";
// The sums of each kind of layer: LAYER_SUMS[kind][array](card, index).

const range = (count) => Array.from({ length: count }, (_, i) => i);
const line = (...lines) => ({ lines: lines.flat() });

const DENSE = {
  y(card, [n, j]) {
    const [fanIn] = card.array("W").shape;
    return {
      formula: `Σᵢ x[${n}, i] · W[i, ${j}]${card.has("b") ? ` + b[${j}]` : ""}`,
      terms: range(fanIn).map((i) => term(`input ${i}`, [part(card, "x", n, i), part(card, "W", i, j)], { input: i })),
      constant: card.has("b") ? part(card, "b", j) : null,
      image: n,
      what: "inputs",
    };
  },
  dW(card, [i, j]) {
    const n = card.array("x").shape[0];
    return {
      formula: `Σₙ x[n, ${i}] · dy[n, ${j}]`,
      terms: range(n).map((k) => term(`${examples} ${k}`, [part(card, "x", k, i), part(card, "dy", k, j)], { image: k, pixel: i })),
      what: "examples",
    };
  },
  db(card, [j]) {
    const n = card.array("dy").shape[0];
    return {
      formula: `Σₙ dy[n, ${j}]`,
      terms: range(n).map((k) => term(`${examples} ${k}`, [part(card, "dy", k, j)], { image: k })),
      what: "examples",
    };
  },
  dx(card, [n, i]) {
    const fanOut = card.array("dy").shape[1];
    return {
      formula: `Σⱼ dy[${n}, j] · W[${i}, j]`,
      terms: range(fanOut).map((j) => term(`output ${j}`, [part(card, "dy", n, j), part(card, "W", i, j)])),
      image: n,
      what: "outputs",
    };
  },
};

// All (i, u) with i · stride + u − before = pixel: the windows that contain a pixel, and its place in each.
function seenBy(axis, pixel, outputs) {
  return range(axis.size)
    .map((u) => [(pixel + axis.before - u) / axis.stride, u])
    .filter(([i]) => Number.isInteger(i) && i >= 0 && i < outputs);
}

// The pixels of the window at (i, j), without padding: [u, v, row, column].
function pixelsOf(card, i, j) {
  const { down, across } = card.windows, [, height, width] = card.array("x").shape;
  const found = [];
  for (let u = 0; u < down.size; u++) {
    for (let v = 0; v < across.size; v++) {
      const row = i * down.stride + u - down.before, column = j * across.stride + v - across.before;
      if (row >= 0 && row < height && column >= 0 && column < width) found.push([u, v, row, column]);
    }
  }
  return found;
}

// The windows whose pixel (u, v) is not padding: [i, j, row, column].
function windowsAt(card, u, v) {
  const { down, across } = card.windows, [, height, width] = card.array("x").shape;
  const [, tall, wide] = card.array("dy").shape, found = [];
  for (let i = 0; i < tall; i++) {
    const row = i * down.stride + u - down.before;
    for (let j = 0; j < wide; j++) {
      const column = j * across.stride + v - across.before;
      if (row >= 0 && row < height && column >= 0 && column < width) found.push([i, j, row, column]);
    }
  }
  return found;
}

const channel = (channels, c) => (channels.length > 1 ? `, channel ${c}` : "");

const CONVOLUTION = {
  y(card, [n, i, j, o]) {
    const channels = range(card.array("x").shape[3]);
    return {
      formula: `Σ over u, v, c of x[${n}, ${i}s + u, ${j}s + v, c] · W[u, v, c, ${o}]${card.has("b") ? ` + b[${o}]` : ""}`,
      terms: pixelsOf(card, i, j).flatMap(([u, v, row, column]) => channels.map((c) =>
        term(`pixel ${row}, ${column}${channel(channels, c)}`, [part(card, "x", n, row, column, c), part(card, "W", u, v, c, o)]))),
      constant: card.has("b") ? part(card, "b", o) : null,
      image: n,
      what: "numbers in the window",
    };
  },
  dW(card, [u, v, c, o]) {
    const n = card.array("x").shape[0], places = windowsAt(card, u, v);
    return {
      formula: `Σ over n, i, j of x[n, i s + ${u}, j s + ${v}, ${c}] · dy[n, i, j, ${o}]`,
      terms: range(n).flatMap((k) => places.map(([i, j, row, column]) =>
        term(`${examples} ${k} at ${row}, ${column}`, [part(card, "x", k, row, column, c), part(card, "dy", k, i, j, o)], { image: k }))),
      what: "positions in all images",
    };
  },
  db(card, [o]) {
    const [n, down, across] = card.array("dy").shape;
    return {
      formula: `Σ over n, i, j of dy[n, i, j, ${o}]`,
      terms: range(n).flatMap((k) => range(down).flatMap((i) => range(across).map((j) =>
        term(`${examples} ${k} at ${i}, ${j}`, [part(card, "dy", k, i, j, o)], { image: k })))),
      what: "positions in all images",
    };
  },
  dx(card, [n, p, q, c]) {
    const { down, across } = card.windows, [, tall, wide, filters] = card.array("dy").shape;
    const columns = seenBy(across, q, wide);
    return {
      formula: `Σ over o and the windows i, j that contain pixel ${p}, ${q}, of dy[${n}, i, j, o] · W[u, v, ${c}, o]`,
      terms: seenBy(down, p, tall).flatMap(([i, u]) => columns.flatMap(([j, v]) => range(filters).map((o) =>
        term(`window ${i}, ${j}, filter ${o}`, [part(card, "dy", n, i, j, o), part(card, "W", u, v, c, o)])))),
      image: n,
      what: "windows and filters",
    };
  },
};

const DEPTHWISE = {
  y(card, [n, i, j, k]) {
    const multiplier = card.array("W").shape[3], c = Math.floor(k / multiplier), m = k % multiplier;
    return {
      formula: `Σ over u, v of x[${n}, ${i}s + u, ${j}s + v, ${c}] · W[u, v, ${c}, ${m}]`,
      terms: pixelsOf(card, i, j).map(([u, v, row, column]) =>
        term(`pixel ${row}, ${column}`, [part(card, "x", n, row, column, c), part(card, "W", u, v, c, m)])),
      constant: card.has("b") ? part(card, "b", k) : null,
      image: n,
      what: "pixels in the window",
    };
  },
  dW(card, [u, v, c, m]) {
    const n = card.array("x").shape[0], k = c * card.array("W").shape[3] + m;
    return {
      formula: `Σ over n, i, j of x[n, i s + ${u}, j s + ${v}, ${c}] · dy[n, i, j, ${k}]`,
      terms: range(n).flatMap((e) => windowsAt(card, u, v).map(([i, j, row, column]) =>
        term(`${examples} ${e} at ${row}, ${column}`, [part(card, "x", e, row, column, c), part(card, "dy", e, i, j, k)], { image: e }))),
      what: "positions in all images",
    };
  },
  db: CONVOLUTION.db,
  dx(card, [n, p, q, c]) {
    const { down, across } = card.windows, [, tall, wide] = card.array("dy").shape, multiplier = card.array("W").shape[3];
    return {
      formula: `Σ over m and the windows that contain pixel ${p}, ${q}, of dy · W[u, v, ${c}, m]`,
      terms: seenBy(down, p, tall).flatMap(([i, u]) => seenBy(across, q, wide).flatMap(([j, v]) => range(multiplier).map((m) =>
        term(`window ${i}, ${j}`, [part(card, "dy", n, i, j, c * multiplier + m), part(card, "W", u, v, c, m)])))),
      image: n,
      what: "windows",
    };
  },
};

// Pools take images (n, h, w, c); a global pool has one window and gives (n, c).
const poolIndex = (index) => (index.length === 2 ? [index[0], 0, 0, index[1]] : index);
const pooled = (card, name, n, i, j, c) => (card.array(name).shape.length === 2 ? part(card, name, n, c) : part(card, name, n, i, j, c));

// The pixel that wins a window, its largest; null in a window of NaN.
function winner(card, n, i, j, c) {
  const { down, across } = card.windows, place = card.winners.at(n, i, j, c);
  if (place < 0) return null;
  const u = Math.floor(place / across.size), v = place % across.size;
  return [i * down.stride + u - down.before, j * across.stride + v - across.before];
}

function windowsOver(card, p, q) {
  const shape = card.array("dy").shape, [tall, wide] = shape.length === 2 ? [1, 1] : [shape[1], shape[2]];
  return seenBy(card.windows.down, p, tall).flatMap(([i]) => seenBy(card.windows.across, q, wide).map(([j]) => [i, j]));
}

const MAX_POOL = {
  y(card, index) {
    const [n, i, j, c] = poolIndex(index), [row, column] = winner(card, n, i, j, c) ?? ["?", "?"];
    const rivals = pixelsOf(card, i, j).map(([, , r, k]) => `x[${n}, ${r}, ${k}, ${c}] = ${show(card.array("x").at(n, r, k, c))}`);
    return { ...line(`The largest of ${rivals.length} pixels is at ${row}, ${column}:`, rivals.slice(0, 9), rivals.length > 9 ? "…" : []), image: n };
  },
  dx(card, [n, p, q, c]) {
    const windows = windowsOver(card, p, q);
    const won = windows.filter(([i, j]) => String(winner(card, n, i, j, c)) === String([p, q]));
    if (!won.length) {
      return { ...line(windows.length ? "This pixel wins no window, so no gradient reaches it: 0." : "No window contains this pixel: 0."), image: n };
    }
    return {
      formula: `Σ of dy over the windows that pixel ${p}, ${q} wins`,
      terms: won.map(([i, j]) => term(`window ${i}, ${j}`, [pooled(card, "dy", n, i, j, c)])),
      image: n,
      what: "windows",
    };
  },
};

const AVERAGE_POOL = {
  y(card, index) {
    const [n, i, j, c] = poolIndex(index), pixels = card.windows ? pixelsOf(card, i, j) : allPixels(card);
    return {
      formula: `the mean of ${pixels.length} pixels`,
      terms: pixels.map(([, , row, column]) => term(`pixel ${row}, ${column}`, [part(card, "x", n, row, column, c), ["1/k", 1 / pixels.length]])),
      image: n,
      what: "pixels",
    };
  },
  dx(card, [n, p, q, c]) {
    const windows = card.windows ? windowsOver(card, p, q) : [[0, 0]];
    return {
      formula: "Σ of dy / k over the windows that contain the pixel",
      terms: windows.map(([i, j]) => term(`window ${i}, ${j}`, [
        pooled(card, "dy", n, i, j, c),
        ["1/k", 1 / (card.windows ? pixelsOf(card, i, j) : allPixels(card)).length],
      ])),
      image: n,
      what: "windows",
    };
  },
};

function allPixels(card) {
  const [, height, width] = card.array("x").shape;
  return range(height).flatMap((row) => range(width).map((column) => [row, column, row, column]));
}

// Mean, variance and 1 / standard deviation of a feature over the rows, as in forward; a frozen layer uses the running ones.
function batchMoments(card, feature) {
  const x = card.array("x"), features = x.shape.at(-1), rows = x.size / features;
  if (card.has("running_mean")) {
    const mean = card.array("running_mean").at(feature), variance = card.array("running_var").at(feature);
    return { mean, variance, scale: 1 / Math.sqrt(variance + card.settings.epsilon), rows };
  }
  card.moments ??= new Map();
  if (!card.moments.has(feature)) {
    let mean = 0, variance = 0;
    for (let r = 0; r < rows; r++) mean += x.data[r * features + feature] / rows;
    for (let r = 0; r < rows; r++) variance += (x.data[r * features + feature] - mean) ** 2 / rows;
    card.moments.set(feature, { mean, variance, scale: 1 / Math.sqrt(variance + card.settings.epsilon), rows });
  }
  return card.moments.get(feature);
}

const BATCH_NORM = {
  y(card, index) {
    const f = index.at(-1), { mean, variance, scale, rows } = batchMoments(card, f), x = card.array("x").at(...index);
    const hat = (x - mean) * scale;
    return line(
      card.has("running_mean")
        ? `frozen, so with the running statistics: mean = ${show(mean)}, var = ${show(variance)}`
        : `over the ${rows} values of feature ${f}: mean = ${show(mean)}, var = ${show(variance)}`,
      `x̂ = (${show(x)} − ${show(mean)}) / √(var + ε) = ${show(hat)}`,
      `y = γ x̂ + β = ${show(card.array("gamma").at(f))} · ${show(hat)} + ${show(card.array("beta").at(f))}`,
    );
  },
  dgamma: (card, [f]) => overRows(card, f, "dy · x̂", true),
  dbeta: (card, [f]) => overRows(card, f, "dy", false),
  dx(card, index) {
    const f = index.at(-1), { mean, scale, rows } = batchMoments(card, f);
    const hat = (card.array("x").at(...index) - mean) * scale, factor = card.array("gamma").at(f) * scale;
    if (card.has("running_mean")) {
      return { formula: "dy · γ / √(running var + ε): mean and variance are constants", terms: [term("through x", [["γ/√(var + ε)", factor], part(card, "dy", ...index)])], what: "paths" };
    }
    return {
      formula: "γ / √(var + ε) · (dy − dβ / m − x̂ dγ / m): x acts on y directly, and through the mean and the variance",
      terms: [
        term("through x itself", [["γ/√(var + ε)", factor], part(card, "dy", ...index)]),
        term("through the mean", [["γ/√(var + ε)", factor], ["−dβ/m", -card.array("dbeta").at(f) / rows]]),
        term("through the variance", [["γ/√(var + ε)", factor], ["−x̂ dγ/m", (-hat * card.array("dgamma").at(f)) / rows]]),
      ],
      what: "paths",
    };
  },
};

function overRows(card, feature, what, withHat) {
  const dy = card.array("dy"), x = card.array("x"), features = dy.shape.at(-1), { mean, scale, rows } = batchMoments(card, feature);
  const perImage = rows / dy.shape[0];
  return {
    formula: `Σ of ${what} over the rows, feature ${feature}`,
    terms: range(rows).map((r) => {
      const at = r * features + feature, image = Math.floor(r / perImage);
      const parts = [["dy", dy.data[at]]];
      if (withHat) parts.push(["x̂", (x.data[at] - mean) * scale]);
      return term(`${examples} ${image}`, parts, { image });
    }),
    what: "rows",
  };
}

const at = (card, name, index) => `${indexText(name, index)} = ${show(card.array(name).at(...index))}`;

// An elementwise function: a line or two on y from x, and on dx from dy.
function elementwise(forward, backward) {
  return {
    y: (card, index) => line(at(card, "x", index), forward(card, index)),
    dx: (card, index) => line(at(card, "dy", index), backward(card, index)),
  };
}

const value = (card, name, index) => card.array(name).at(...index);

// The index of the same element in another shape.
function sameElement(card, from, index, to) {
  let offset = card.array(from).offset(index);
  return card.array(to).strides.map((stride) => {
    const i = Math.floor(offset / stride);
    offset -= i * stride;
    return i;
  });
}

const reshaped = {
  y: (card, index) => line(`the same number as ${at(card, "x", sameElement(card, "y", index, "x"))}, at another position`),
  dx: (card, index) => line(`the same number as ${at(card, "dy", sameElement(card, "dx", index, "dy"))}, moved back`),
};

// Terms over the classes of one row.
function overClasses(card, index, formula, parts, more = {}) {
  const classes = card.array("y").shape.at(-1), row = index.slice(0, -1);
  return { formula, terms: range(classes).map((k) => term(`class ${k}`, parts([...row, k]))), what: "classes", ...more };
}

const SOFTMAX = {
  y(card, index) {
    const x = card.array("x"), row = index.slice(0, -1), classes = range(x.shape.at(-1));
    const top = Math.max(...classes.map((k) => x.at(...row, k)));
    const sum = classes.reduce((total, k) => total + Math.exp(x.at(...row, k) - top), 0);
    return line(
      `the largest logit of this row is ${show(top)}; it is subtracted first, so that nothing overflows`,
      `exp(${show(x.at(...index))} − ${show(top)}) = ${show(Math.exp(x.at(...index) - top))}`,
      `divided by the sum over the classes, ${show(sum)}: ${show(Math.exp(x.at(...index) - top) / sum)}`,
    );
  },
  dx(card, index) {
    const k = index.at(-1);
    return overClasses(card, index, `Σⱼ dy[j] · y[${k}] (δ − y[j]): a row of the Jacobian times dy`, (j) => [
      [indexText("dy", j), value(card, "dy", j)],
      [`y[${k}] (${j.at(-1) === k ? "1" : "0"} − y[${j.at(-1)}])`, value(card, "y", index) * ((j.at(-1) === k ? 1 : 0) - value(card, "y", j))],
    ]);
  },
};

const LOG_SOFTMAX = {
  y(card, index) {
    const x = card.array("x"), row = index.slice(0, -1), classes = range(x.shape.at(-1));
    const top = Math.max(...classes.map((k) => x.at(...row, k)));
    const log = top + Math.log(classes.reduce((total, k) => total + Math.exp(x.at(...row, k) - top), 0));
    return line(at(card, "x", index), `minus log Σⱼ exp(x[j]) = ${show(log)}`, `so the probability is exp(y) = ${show(Math.exp(value(card, "y", index)))}`);
  },
  dx(card, index) {
    return overClasses(card, index, "dy − exp(y) · Σⱼ dy[j]", (j) => [
      [indexText("dy", j), value(card, "dy", j)], ["−exp(y)", -Math.exp(value(card, "y", index))],
    ], { constant: [indexText("dy", index), value(card, "dy", index)] });
  },
};

const LAYER_SUMS = {
  Dense: DENSE,
  Conv2D: CONVOLUTION,
  DepthwiseConv2D: DEPTHWISE,
  MaxPool2D: MAX_POOL,
  GlobalMaxPool2D: MAX_POOL,
  AveragePool2D: AVERAGE_POOL,
  GlobalAveragePool2D: AVERAGE_POOL,
  BatchNorm: BATCH_NORM,
  Flatten: reshaped,
  Reshape: reshaped,
  Softmax: SOFTMAX,
  LogSoftmax: LOG_SOFTMAX,
  ReLU: elementwise(
    (card, i) => (value(card, "x", i) > 0 ? "above 0: it passes" : "not above 0: y is 0, and the gradient will stop here"),
    (card, i) => (value(card, "y", i) > 0 ? "y is above 0: dy passes" : "y is 0: dy stops here, and dx is 0"),
  ),
  LeakyReLU: elementwise(
    (card, i) => (value(card, "x", i) > 0 ? "above 0: it passes" : `not above 0: times ${show(card.settings.negative_slope)}`),
    (card, i) => (value(card, "x", i) > 0 ? "x is above 0: dy passes" : `x is not above 0: times ${show(card.settings.negative_slope)}`),
  ),
  Sigmoid: elementwise(
    (card, i) => `y = 1 / (1 + exp(−x)) = ${show(value(card, "y", i))}`,
    (card, i) => `times y (1 − y) = ${show(value(card, "y", i) * (1 - value(card, "y", i)))}, the slope there`,
  ),
  Tanh: elementwise(
    (card, i) => `y = tanh(x) = ${show(value(card, "y", i))}`,
    (card, i) => `times 1 − y² = ${show(1 - value(card, "y", i) ** 2)}, the slope there`,
  ),
  Rescale: elementwise(
    (card, i) => `times ${show(card.settings.scale)}${card.settings.offset ? `, plus ${show(card.settings.offset)}` : ""}`,
    (card) => `times ${show(card.settings.scale)}`,
  ),
  Dropout: elementwise(
    (card, i) => (value(card, "mask", i) ? `kept, times 1 / (1 − rate) = ${show(value(card, "mask", i))}` : "dropped in this step: y is 0"),
    (card, i) => (value(card, "mask", i) ? `kept: times ${show(value(card, "mask", i))}` : "dropped: dx is 0"),
  ),
  Residual: elementwise(
    (card, i) => `the shortcut's number plus the output of the layers inside: ${show(value(card, "y", i))}`,
    () => "dy goes along the shortcut and through the layers inside; the two gradients are added",
  ),
};
