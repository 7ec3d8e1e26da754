"use strict";
// Starts the page: thumbnails, inspectors, and the step frame by frame.

class Stepper {
  constructor(step, inspectors) {
    Object.assign(this, { frames: step.frames, inspectors, current: -1 });
    this.caption = document.getElementById("frame");
    this.flow = document.getElementById("flow");
    this.boxes = this.frames.map((frame, i) => this.box(frame, i));
    this.buttons = Object.fromEntries(["first", "back", "next"].map((id) => [id, document.getElementById(id)]));
    this.buttons.first.addEventListener("click", () => this.go(0));
    this.buttons.back.addEventListener("click", () => this.go(this.current - 1));
    this.buttons.next.addEventListener("click", () => this.go(this.current + 1));
    document.addEventListener("keydown", (event) => this.key(event));
    this.enable();
  }

  box(frame, i) {
    const name = frame.phase === "loss" ? "L" : frame.phase === "update" ? "Δ" : frame.path;
    const button = make("button", { type: "button", className: frame.phase, textContent: name, title: `${frame.phase}: ${frame.title}` });
    button.setAttribute("aria-label", `frame ${i + 1}, ${frame.phase} ${frame.path}: ${frame.title}`);
    button.addEventListener("click", () => this.go(i));
    this.flow.append(button);
    return button;
  }

  key(event) {
    const move = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (event.altKey || event.ctrlKey || event.metaKey || event.target.closest("input, select, canvas, .scroll, .scrolled, .formulas")) return;
    if (event.key === "Home") this.go(0);
    else if (move) this.go(this.current + move);
    else return;
    event.preventDefault();
  }

  enable() {
    // Not `disabled`: the button would lose the focus at the first or last frame.
    const off = { first: this.current <= 0, back: this.current <= 0, next: this.current === this.frames.length - 1 };
    for (const [id, button] of Object.entries(this.buttons)) button.setAttribute("aria-disabled", String(off[id]));
  }

  go(i) {
    if (i < 0 || i >= this.frames.length) return;
    this.current = i;
    const frame = this.frames[i], card = document.getElementById(`card-${frame.path}`);
    for (const node of document.querySelectorAll(".in-play")) node.classList.remove("in-play");
    for (const box of this.boxes) box.removeAttribute("aria-current");
    this.boxes[i].setAttribute("aria-current", "step");
    card.classList.add("in-play");
    card.querySelector(`[data-phase="${frame.phase}"]`)?.classList.add("in-play");
    for (const name of frame.show) {
      this.inspectors.get(frame.path)?.choose(name);
      card.querySelector(`tr[data-array="${name}"]`)?.classList.add("in-play");
    }
    this.caption.replaceChildren(
      make("b", { className: frame.phase, textContent: `${i + 1} of ${this.frames.length} · ${frame.phase} ${frame.path === frame.phase ? "" : frame.path}` }),
      ` ${frame.title.length > 40 ? `${frame.title.slice(0, 38)}…` : frame.title}: ${frame.words}`,
    );
    this.boxes[i].scrollIntoView({ block: "nearest", inline: "center" });
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    // On a narrow page the passes are stacked: scroll to the current one.
    const pass = card.querySelector(".pass.in-play"), below = pass && pass.offsetTop - card.offsetTop > 300;
    const top = (below ? pass : card).getBoundingClientRect().top + scrollY - document.querySelector(".stage").offsetHeight - 8;
    scrollTo({ top, behavior: calm ? "auto" : "smooth" });
    this.enable();
  }
}

function showBatch(step) {
  if (!step.pixels) return;
  document.getElementById("batch").hidden = false;
  const loss = step.byPath.get("loss"), each = loss.array("loss of each");
  const probabilities = loss.has("probabilities") ? loss.array("probabilities") : null;
  const name = (k) => step.classNames?.[k] ?? String(k);
  const order = range(step.pixels.shape[0]);
  for (const n of order) {
    const canvas = drawPicture(make("canvas", { className: "thumb" }), step, n), caption = make("figcaption");
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `image ${n}`);
    if (loss.targets) caption.append(make("b", { textContent: name(loss.targets[n]) }));
    if (probabilities) {
      const row = range(probabilities.shape[1]).map((k) => probabilities.at(n, k)), best = row.indexOf(Math.max(...row));
      const right = loss.targets && best === loss.targets[n];
      caption.append(make("span", { className: right ? "right" : "mistaken", textContent: `${right ? "✓" : "✗"} ${name(best)} ${(100 * row[best]).toFixed(0)}%` }));
    }
    caption.append(make("span", { className: "small", textContent: `loss ${show(each.at(n))}` }));
    const figure = make("figure", {}, canvas, caption);
    document.getElementById("thumbs").append(figure);
  }
}

async function start() {
  const step = await readStep(), inspectors = new Map();
  showBatch(step);
  for (const section of document.querySelectorAll(".inspector")) {
    const card = step.byPath.get(section.dataset.path), inspector = new Inspector(section, step, card);
    inspectors.set(card.path, inspector);
    inspector.choose(card.has("y") ? "y" : inspector.names()[0]);
  }
  const stepper = new Stepper(step, inspectors);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    for (const inspector of inspectors.values()) if (inspector.name) inspector.draw();
  });
  // For the console and for tests: every array, and where an element comes from.
  window.tinynet = {
    step,
    stepper,
    inspectors,
    array: (path, name) => step.byPath.get(path).array(name),
    explain: (path, name, index) => explain(step, step.byPath.get(path), name, index),
  };
  document.documentElement.dataset.ready = "true";
}

if (document.getElementById("step")) {
  start().catch((error) => {
    document.getElementById("frame").textContent = `This browser can't read the arrays of this page: ${error.message}`;
    throw error;
  });
}
