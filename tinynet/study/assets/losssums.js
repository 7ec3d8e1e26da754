"use strict";
// Explains the loss's numbers.

function explainLoss(step, card, name, index) {
  if (name === card.outputs) return { lines: ["The model's output for this example."], image: index[0] };
  const found = LOSS_SUMS[card.kind];
  if (!found) return { lines: ["This page has no sum for this loss; the number comes from the run."] };
  if (name === "loss of each") return { image: index[0], ...found.each(step, card, index[0]) };
  if (name === "probabilities") return { image: index[0], ...probabilityLines(card, index) };
  return { image: index[0], ...found.gradient(step, card, index) };
}

const className = (step, k) => (step.classNames?.[k] === undefined ? String(k) : `${k}, ${step.classNames[k]}`);

// The share of class k in the target: 1 for the label, after label smoothing has spread a part over all classes.
function target(card, n, k) {
  const smoothing = card.settings.label_smoothing ?? 0, classes = card.array(card.outputs).shape[1];
  return (k === card.targets[n] ? 1 - smoothing : 0) + smoothing / classes;
}

function logSumExp(outputs, n) {
  const row = range(outputs.shape[1]).map((k) => outputs.at(n, k)), top = Math.max(...row);
  return top + Math.log(row.reduce((sum, z) => sum + Math.exp(z - top), 0));
}

function probabilityLines(card, [n, k]) {
  if (card.kind === "SoftmaxCrossEntropy") {
    const outputs = card.array(card.outputs), log = logSumExp(outputs, n);
    return line(`exp(z) / Σⱼ exp(z[j]), with log Σⱼ exp(z[j]) = ${show(log)}`, `exp(${show(outputs.at(n, k))} − ${show(log)})`);
  }
  return line(card.kind === "NegativeLogLikelihood" ? "exp of the model's log-probability" : "the model's output");
}

function perClass(step, card, n, score) {
  const classes = range(card.array(card.outputs).shape[1]);
  return {
    terms: classes.filter((k) => target(card, n, k) !== 0).map((k) =>
      term(`class ${className(step, k)}`, [[`−q[${k}]`, -target(card, n, k)], score(k)])),
    what: "classes with a share in the target",
  };
}

const perExample = (card) => card.array("loss of each").shape[0];

const LOSS_SUMS = {
  SoftmaxCrossEntropy: {
    each(step, card, n) {
      const outputs = card.array(card.outputs), log = logSumExp(outputs, n);
      return { formula: `−Σₖ q[k] log p[${n}, k]: the surprise at label ${className(step, card.targets[n])}`, ...perClass(step, card, n, (k) => [`log p[${n}, ${k}]`, outputs.at(n, k) - log]) };
    },
    gradient(step, card, [n, k]) {
      const p = card.array("probabilities").at(n, k), q = target(card, n, k), count = perExample(card);
      return line(
        `p[${n}, ${k}] = ${show(p)}: what the model says`,
        `q[${n}, ${k}] = ${show(q)}: ${k === card.targets[n] ? "this is the label" : "this is not the label"}`,
        `(p − q) / ${count} = ${show((p - q) / count)}: ${p > q ? "too much, so the logit should fall" : "too little, so the logit should rise"}`,
      );
    },
  },
  CrossEntropy: {
    each: (step, card, n) => ({ formula: `−Σₖ q[k] log p[${n}, k]`, ...perClass(step, card, n, (k) => [`log p[${n}, ${k}]`, Math.log(card.array(card.outputs).at(n, k))]) }),
    gradient: (step, card, [n, k]) => line(`−q / (p N) = −${show(target(card, n, k))} / (${show(card.array(card.outputs).at(n, k))} · ${perExample(card)})`),
  },
  NegativeLogLikelihood: {
    each: (step, card, n) => ({ formula: `−log p[${n}, label], label ${className(step, card.targets[n])}`, ...perClass(step, card, n, (k) => [`log p[${n}, ${k}]`, card.array(card.outputs).at(n, k)]) }),
    gradient: (step, card, [n, k]) => line(k === card.targets[n] ? `this is the label: −1 / ${perExample(card)}` : "this is not the label: 0. The softmax in the model spreads the gradient over the classes."),
  },
  MeanSquaredError: {
    each(step, card, n) {
      const outputs = card.array(card.outputs), size = outputs.size / outputs.shape[0];
      const difference = (k) => outputs.data[n * size + k] - step.targetArray.data[n * size + k];
      return {
        formula: `Σₖ (y[${n}, k] − t[${n}, k])² / ${size}`,
        terms: range(size).map((k) => term(`output ${k}`, [["y − t", difference(k)], ["(y − t) / K", difference(k) / size]])),
        what: "outputs",
      };
    },
    gradient(step, card, index) {
      const outputs = card.array(card.outputs), wanted = step.targetArray.data[outputs.offset(index)];
      return line(`y = ${show(outputs.at(...index))}, target ${show(wanted)}`, `2 (y − t) / ${outputs.size} = ${show((2 * (outputs.at(...index) - wanted)) / outputs.size)}`);
    },
  },
};
