"use strict";
// The page of a training run: histograms painted as columns, and one step whose numbers every chart shows.

const STEP_KEYS = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -10, PageUp: 10, Home: -Infinity, End: Infinity };

const colourOf = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim().match(/\w\w/g).map((hex) => parseInt(hex, 16));

// Formats numbers as `findings.number` does in Python.
function numberText(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (size >= 1000 && size < 1e6) return value.toLocaleString("en", { maximumFractionDigits: 0 }).replace("-", "−");
  const text = value === 0 || (size >= 1e-3 && size < 1000) ? String(Number(value.toPrecision(3))) : value.toExponential(1).replace(".0e", "e").replace("+", "");
  return text.replace(/-/g, "−");
}

function percentText(share) {
  if (share === null) return "–";
  return share > 0 && share < 0.0005 ? "under 0.1%" : `${(100 * share).toFixed(share > 0 && share < 0.1 ? 1 : 0)}%`;
}

// A line chart; its values are listed below it.
class Lines {
  constructor(figure, chart) {
    this.series = chart.series;
    this.format = chart.percent ? percentText : numberText;
    this.outputs = figure.querySelectorAll(".values output");
  }

  paint() {}

  show(i) {
    const texts = this.series.map(({ values }) => this.format(values[i]));
    texts.forEach((text, k) => { this.outputs[k].textContent = text; });
    return this.series.map(({ name }, k) => `${name} ${texts[k]}`).join(", ");
  }
}

// A picture of histograms: rows are octaves of sizes, columns are samples.
class Map2D {
  constructor(figure, chart, counts, samples) {
    Object.assign(this, { chart, samples, row: null });
    this.canvas = figure.querySelector("canvas");
    this.outputs = Object.fromEntries([...figure.querySelectorAll(".values output")].map((node) => [node.dataset.of, node]));
    this.counts = counts.subarray(chart.start, chart.start + chart.rows.length * samples);
    this.middle = chart.rows.findIndex(([sign]) => sign === 0);
  }

  share(row, i) {
    return this.counts[row * this.samples + i] / this.chart.total;
  }

  paint() {
    const { rows, tone } = this.chart, { canvas, samples } = this;
    canvas.width = samples;
    canvas.height = rows.length;
    let largest = 0;
    for (let row = 0; row < rows.length; row++) {
      if (row !== this.middle || rows.length === 1) for (let i = 0; i < samples; i++) largest = Math.max(largest, this.share(row, i));
    }
    const from = colourOf("--card"), to = colourOf(`--${tone}`);
    const context = canvas.getContext("2d"), image = context.createImageData(samples, rows.length);
    for (let row = 0; row < rows.length; row++) {
      for (let i = 0; i < samples; i++) {
        const dark = Math.sqrt(Math.min(this.share(row, i) / (largest || 1), 1));
        image.data.set([...from.map((start, k) => Math.round(start + (to[k] - start) * dark)), 255], 4 * (row * samples + i));
      }
    }
    context.putImageData(image, 0, 0);
  }

  rowText(row, i) {
    const [sign, low, high] = this.chart.rows[row], share = percentText(this.share(row, i));
    if (sign === 0) return `here: ${share} are 0, or too small to show`;
    if (this.row === null && this.share(row, i) === 0) return "nothing else";
    const [a, b] = sign > 0 ? [low, high] : [-high, -low];
    return `${this.row === null ? "most" : "here"}: ${share} from ${numberText(a)} to ${numberText(b)}`;
  }

  show(i) {
    const zero = `≈ 0: ${percentText(this.share(this.middle, i))}`;
    this.outputs.rms.textContent = numberText(this.chart.rms[i]);
    this.outputs.zero.textContent = zero;
    const point = this.outputs.point.textContent = this.rowText(this.row ?? this.fullest(i), i);
    return `root mean square ${numberText(this.chart.rms[i])}, ${zero}, ${point}`;
  }

  // The row with the most elements, not counting the row of zeros.
  fullest(i) {
    let best = this.middle;
    for (let row = 0; row < this.chart.rows.length; row++) {
      if (row !== this.middle && (best === this.middle || this.share(row, i) > this.share(best, i))) best = row;
    }
    return best;
  }
}

class Page {
  constructor(data, counts) {
    Object.assign(this, { data, last: data.steps.length - 1 });
    this.views = [...document.querySelectorAll(".chart")].map((figure) => {
      const chart = data.charts[figure.dataset.key];
      const view = chart.series ? new Lines(figure, chart) : new Map2D(figure, chart, counts, data.steps.length);
      const area = figure.querySelector(".drawing");
      area.addEventListener("pointermove", (event) => this.point(event, area, view));
      area.addEventListener("pointerdown", (event) => this.point(event, area, view));
      area.addEventListener("pointerleave", () => { view.row = null; this.go(this.current); });
      area.addEventListener("keydown", (event) => this.key(event));
      return { view, area, line: area.querySelector(".now") };
    });
    this.slider = document.getElementById("step");
    this.slider.max = this.last;
    this.slider.addEventListener("input", () => this.go(Number(this.slider.value)));
    document.getElementById("stage").hidden = false;
    this.paint();
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.paint());
    this.go(this.last);
  }

  paint() {
    for (const { view } of this.views) view.paint();
  }

  point(event, area, view) {
    const box = area.getBoundingClientRect();
    const within = (share, count) => Math.min(Math.max(Math.floor(share * count), 0), count - 1);
    if (view.chart) view.row = within((event.clientY - box.top) / box.height, view.chart.rows.length);
    this.go(within((event.clientX - box.left) / box.width, this.last + 1));
  }

  key(event) {
    const move = STEP_KEYS[event.key];
    if (!move || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    this.go(Math.min(Math.max(this.current + move, 0), this.last));
  }

  go(i) {
    this.current = i;
    const step = `step ${this.data.steps[i].toLocaleString("en")}, epoch ${this.data.epochs[i]}`;
    for (const { view, area, line } of this.views) {
      line.style.left = `${(100 * (i + 0.5)) / (this.last + 1)}%`;
      area.setAttribute("aria-valuenow", i);
      area.setAttribute("aria-valuetext", `${step}: ${view.show(i)}`);
    }
    this.slider.value = i;
    this.slider.setAttribute("aria-valuetext", step);
    document.getElementById("step-text").textContent = step;
  }
}

async function startOverTime() {
  const data = JSON.parse(document.getElementById("data").textContent);
  if (data.steps.length) window.tinynet = new Page(data, await decode(document.getElementById("counts").textContent, "u2"));
  document.documentElement.dataset.ready = "true";
}

startOverTime();
