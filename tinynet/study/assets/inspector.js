"use strict";
// A card's arrays: buttons, cells, and the sum behind the element that is pointed at.

const SHOWN_TERMS = 8;

const make = (tag, properties = {}, ...children) => {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
};

class Inspector {
  constructor(section, step, card) {
    Object.assign(this, { section, step, card, view: { pictures: Boolean(card.imageShape), image: 0 } });
    this.tabs = section.querySelector(".tabs");
    const place = section.querySelector(".view");
    this.canvas = make("canvas", { tabIndex: 0, className: "cells" });
    this.canvas.setAttribute("role", "application");
    this.cursor = make("i", { className: "cursor", hidden: true });
    this.winners = make("canvas", { className: "winners", hidden: true });
    this.frame = make("div", { className: "frame" }, this.canvas, this.winners, this.cursor);
    this.options = make("div", { className: "options" });
    this.scale = make("p", { className: "scale" });
    this.readout = make("div", { className: "readout" });
    this.readout.setAttribute("aria-live", "polite");
    this.plot = make("div", { className: "plot" }, this.options, make("div", { className: "scrolled" }, this.frame), this.scale);
    place.append(this.plot, this.readout);
    for (const name of this.names()) {
      const button = make("button", { type: "button", textContent: name });
      button.dataset.array = name;
      button.addEventListener("click", () => this.choose(name));
      this.tabs.append(button);
    }
    this.canvas.addEventListener("pointermove", (event) => event.pointerType === "mouse" && !this.pinned && this.point(event));
    this.canvas.addEventListener("click", (event) => this.pin(event));
    this.canvas.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => this.place()).observe(this.plot);
  }

  names() {
    const order = ["logits", "outputs", "loss of each", "probabilities", "dlogits", "doutputs", "x", "W", "b", "gamma", "beta", "mask", "y", "dy", "dW", "db", "dgamma", "dbeta", "dx"];
    const rank = (name) => (order.includes(name) ? order.indexOf(name) : order.length);
    return this.card.names().sort((a, b) => rank(a) - rank(b));
  }

  choose(name) {
    if (!this.card.has(name)) return;
    const before = this.tensor?.shape.join();
    this.name = name;
    this.pinned = this.wasPinned = false;
    this.cursor.classList.remove("pinned");
    for (const button of this.tabs.children) button.setAttribute("aria-pressed", String(button.dataset.array === name));
    this.draw();
    // Keep the element if the shape is the same, as for y and dy.
    if (this.tensor.shape.join() !== before || !this.cell) this.cell = this.start();
    this.explain();
  }

  // The element to show first: the largest.
  start() {
    let best = [0, 0], top = -1;
    for (let row = 0; row < this.layout.rows; row++) {
      for (let column = 0; column < this.layout.columns; column++) {
        const index = this.layout.index(row, column);
        const size = index === null ? -1 : Math.abs(this.tensor.at(...index));
        if (size > top && size < Infinity) [best, top] = [[row, column], size];
      }
    }
    return best;
  }

  draw() {
    this.tensor = this.card.array(this.name);
    this.layout = layoutOf(this.card, this.name, this.view);
    const inside = this.cell && this.cell[0] < this.layout.rows && this.cell[1] < this.layout.columns;
    if (!inside) this.cell = undefined;
    drawCells(this.canvas, this.layout, this.tensor);
    this.drawWinners();
    this.drawOptions();
    const top = show(this.tensor.largest);
    this.scale.replaceChildren(make("span", { textContent: `−${top}` }), make("i"), make("span", { textContent: top }));
    const title = `${this.card.path} ${this.card.kind}`;
    this.canvas.setAttribute("aria-label", `${title}: ${this.name}, ${this.tensor.shape.join(" by ")}; arrow keys move from element to element`);
    this.place();
  }

  drawOptions() {
    this.options.replaceChildren();
    const { shape } = this.tensor;
    if (shape.length === 4 && shape[3] > 1 && !["W", "dW", "W update"].includes(this.name)) {
      const select = make("select", {}, ...range(shape[0]).map((n) => new Option(`image ${n}`, n)));
      select.value = this.view.image;
      select.addEventListener("change", () => {
        this.view.image = Number(select.value);
        this.draw();
        this.explain();
      });
      this.options.append(make("label", {}, "channels of ", select));
    }
    if (this.card.imageShape && ["x", "dx", "W", "dW", "W update"].includes(this.name)) {
      const box = make("input", { type: "checkbox", checked: this.view.pictures });
      box.addEventListener("change", () => {
        this.view.pictures = box.checked;
        this.cell = undefined;
        this.draw();
        this.cell ??= this.start();
        this.explain();
      });
      this.options.append(make("label", {}, box, ` as ${this.card.imageShape.join(" × ")} pictures`));
    }
    this.options.append(make("span", { className: "shape", textContent: `${this.name}: ${shape.join(" × ")}` }));
  }

  // Marks the largest pixel of each max-pool window, over the pixels of x.
  drawWinners() {
    this.winners.hidden = !["MaxPool2D", "GlobalMaxPool2D"].includes(this.card.kind) || this.name !== "x";
    if (this.winners.hidden) return;
    const y = this.card.array("y"), [, height, width, channels] = this.card.array("x").shape;
    const [tall, wide] = y.shape.length === 2 ? [1, 1] : [y.shape[1], y.shape[2]], won = new Set();
    for (let c = 0; c < channels; c++) {
      for (let i = 0; i < tall; i++) for (let j = 0; j < wide; j++) won.add([winner(this.card, this.view.image, i, j, c), c].join());
    }
    this.winners.width = this.layout.columns * 3;
    this.winners.height = this.layout.rows * 3;
    const context = this.winners.getContext("2d");
    context.fillStyle = `rgb(${rgb("--winner").join()})`;
    for (let row = 0; row < this.layout.rows; row++) {
      for (let column = 0; column < this.layout.columns; column++) {
        const index = this.layout.index(row, column);
        if (index !== null && index[0] === this.view.image && won.has([index[1], index[2], index[3]].join())) context.fillRect(column * 3 + 1, row * 3 + 1, 1, 1);
      }
    }
  }

  // Sizes the cells to fit the room, and places the cursor.
  place() {
    if (!this.layout) return;
    const room = Math.max(this.plot.clientWidth, 100), { rows, columns } = this.layout;
    const cell = Math.max(Math.min(room / columns, 560 / rows, 22), 0.5);
    this.size = cell > 1 ? Math.floor(cell * 4) / 4 : Math.max(cell, columns > 4 * rows ? room / columns : cell);
    for (const canvas of [this.canvas, this.winners]) {
      canvas.style.width = `${columns * this.size}px`;
      canvas.style.height = `${rows * this.size}px`;
    }
    this.placeCursor();
  }

  placeCursor() {
    this.cursor.hidden = !this.cell;
    if (!this.cell) return;
    const size = Math.max(this.size, 6), [row, column] = this.cell;
    Object.assign(this.cursor.style, {
      width: `${size}px`, height: `${size}px`,
      left: `${(column + 0.5) * this.size - size / 2}px`, top: `${(row + 0.5) * this.size - size / 2}px`,
    });
  }

  cellAt(event) {
    const box = this.canvas.getBoundingClientRect();
    const row = Math.floor(((event.clientY - box.top) / box.height) * this.layout.rows);
    const column = Math.floor(((event.clientX - box.left) / box.width) * this.layout.columns);
    const inside = row >= 0 && column >= 0 && row < this.layout.rows && column < this.layout.columns;
    return inside && this.layout.index(row, column) !== null ? [row, column] : null;
  }

  point(event) {
    const cell = this.cellAt(event);
    if (cell === null || (this.cell && cell[0] === this.cell[0] && cell[1] === this.cell[1])) return;
    this.cell = cell;
    this.explain();
  }

  // A click holds the element, so that its sum can be read; a second click releases it.
  pin(event) {
    this.pinned = false;
    const before = String(this.cell);
    this.point(event);
    this.pinned = !(this.wasPinned && before === String(this.cell));
    this.wasPinned = this.pinned;
    this.cursor.classList.toggle("pinned", this.pinned);
  }

  key(event) {
    const move = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (event.key === "Escape") this.canvas.blur();
    if (!move || !this.cell) return;
    event.preventDefault();
    event.stopPropagation();
    let [row, column] = this.cell;
    do {
      row += move[0];
      column += move[1];
      if (row < 0 || column < 0 || row >= this.layout.rows || column >= this.layout.columns) return;
    } while (this.layout.index(row, column) === null);
    this.cell = [row, column];
    this.explain();
  }

  explain() {
    this.placeCursor();
    const index = this.layout.index(...this.cell);
    this.explained = explain(this.step, this.card, this.name, index);
    this.readout.replaceChildren(...readout(this.step, this.card, this.explained));
  }
}

// The sum in words and numbers, with pictures of the largest contributors.
function readout(step, card, found) {
  const result = found.stored ?? found.total;
  const parts = [make("h4", {}, make("code", { textContent: found.name }), ` = ${show(result)}`)];
  if (found.formula) parts.push(make("p", { className: "sum", textContent: `= ${found.formula}` }));
  for (const text of found.lines ?? []) parts.push(make("p", { className: "line", textContent: text }));
  if (found.terms) parts.push(...termList(step, card, found));
  if (step.pixels && found.image !== undefined && found.image < step.pixels.shape[0]) parts.push(pictures(step, card, found));
  return parts;
}

function termList(step, card, found) {
  const terms = [...found.terms].sort((a, b) => Math.abs(b.value) - Math.abs(a.value)), top = Math.abs(terms[0]?.value ?? 0);
  const shown = terms.slice(0, SHOWN_TERMS), zeros = terms.filter(({ value }) => value === 0).length;
  const withPictures = step.pixels && shown.some(({ image }) => image !== undefined);
  const list = make("ol", { className: "terms" });
  for (const item of shown) {
    const bar = make("i", { className: item.value < 0 ? "bar low" : "bar high" });
    bar.style.width = `${top ? Math.max((100 * Math.abs(item.value)) / top, 1) : 0}%`;
    const row = make("li");
    if (withPictures) row.append(thumbnail(step, card, item));
    const product = item.parts.map(([, value]) => show(value)).join(" · ");
    row.append(
      make("span", { className: "what", textContent: item.label, title: item.parts.map(([name]) => name).join(" · ") }),
      make("span", { className: "product", textContent: item.parts.length > 1 ? `${product} =` : "" }),
      make("b", { textContent: show(item.value) }),
      make("span", { className: "track" }, bar),
    );
    list.append(row);
  }
  const rest = terms.slice(SHOWN_TERMS).reduce((sum, { value }) => sum + value, 0);
  const lines = [];
  if (terms.length > SHOWN_TERMS) lines.push(`the other ${terms.length - SHOWN_TERMS} of ${terms.length} ${found.what}, ${zeros} of them 0: ${show(rest)}`);
  if (found.constant) lines.push(`${found.constant[0]}: ${show(found.constant[1])}`);
  const kept = found.isRounded ? " (kept to three digits)" : "";
  const check = found.stored === undefined ? "" : `; the library's own number${kept} is ${show(found.stored)}`;
  lines.push(`summed here: ${show(found.total)}${check}`);
  return [list, ...lines.map((text) => make("p", { className: "line", textContent: text }))];
}

function thumbnail(step, card, item) {
  const canvas = make("canvas", { className: "thumb" });
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `image ${item.image}`);
  return drawPicture(canvas, step, item.image, card.imageShape && item.pixel !== undefined ? item.pixel : null);
}

// The image itself and, where the inputs are its pixels, what each pixel adds to the sum.
function pictures(step, card, found) {
  const label = step.loss.targets ? `, ${step.classNames?.[step.loss.targets[found.image]] ?? step.loss.targets[found.image]}` : "";
  const image = drawPicture(make("canvas", { className: "picture" }), step, found.image);
  const row = make("div", { className: "pictures" }, make("figure", {}, image, make("figcaption", { textContent: `image ${found.image}${label}` })));
  if (card.imageShape && found.terms?.[0]?.input !== undefined) {
    const [height, width] = card.imageShape, shares = new Tensor(Float64Array.from(found.terms, ({ value }) => value), [height, width]);
    const canvas = make("canvas", { className: "picture" });
    drawCells(canvas, { rows: height, columns: width, index: (r, c) => [r, c] }, shares);
    row.append(make("figure", {}, canvas, make("figcaption", { textContent: "what each pixel adds: x · W" })));
  }
  return row;
}
