"use strict";
// The step's arrays as Python wrote them: base64 of zlib of the bytes, with the first bytes of all elements first.

class Tensor {
  constructor(data, shape) {
    this.data = data;
    this.shape = shape;
    this.strides = shape.map((_, axis) => shape.slice(axis + 1).reduce((a, b) => a * b, 1));
    this.size = shape.reduce((a, b) => a * b, 1);
  }

  at(...index) {
    return this.data[this.offset(index)];
  }

  offset(index) {
    return index.reduce((sum, i, axis) => sum + i * this.strides[axis], 0);
  }

  // The largest magnitude of a finite element, for the colours.
  get largest() {
    if (this._largest === undefined) {
      let top = 0;
      for (const value of this.data) {
        const size = Math.abs(value);
        if (size > top && size < Infinity) top = size;
      }
      this._largest = top;
    }
    return this._largest;
  }
}

async function inflate(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

function fromHalf(bits) {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

const KINDS = {
  f4: Float32Array, f8: Float64Array, f2: Uint16Array, u1: Uint8Array, i1: Int8Array,
  u2: Uint16Array, i2: Int16Array, u4: Uint32Array, i4: Int32Array,
};

async function decode(text, kind) {
  const planes = await inflate(Uint8Array.from(atob(text), (char) => char.charCodeAt(0)));
  const width = Number(kind[1]);
  const count = planes.length / width;
  const bytes = new Uint8Array(planes.length);
  for (let byte = 0; byte < width; byte++) {
    for (let i = 0; i < count; i++) bytes[i * width + byte] = planes[byte * count + i];
  }
  return new KINDS[kind](bytes.buffer);
}

function fromHalves(halves, scale) {
  const values = new Float32Array(halves.length);
  for (let i = 0; i < halves.length; i++) values[i] = fromHalf(halves[i]) * scale;
  return values;
}

// A layer or the loss, with its arrays as tensors. Large weight gradients are computed when first needed.
class Card {
  constructor(data, tensors) {
    Object.assign(this, data);
    if (data.winners) this.winners = tensors(data.winners);
    this.tensors = {};
    this.products = {};
    for (const [name, found] of Object.entries(data.arrays)) {
      if (found.product) this.products[name] = found.shape;
      else this.tensors[name] = tensors(found);
    }
  }

  names() {
    return [...Object.keys(this.tensors), ...Object.keys(this.products)];
  }

  has(name) {
    return name in this.tensors || name in this.products;
  }

  // Whether the page keeps the array to three digits only.
  isRounded(name) {
    return this.arrays[name].kind === "f2";
  }

  // The array of that name. A product is summed here, in JavaScript's double precision.
  array(name) {
    if (!(name in this.tensors) && name in this.products) this.tensors[name] = weightGradient(this);
    return this.tensors[name];
  }
}

async function readStep() {
  const step = JSON.parse(document.getElementById("step").textContent);
  const texts = [...document.querySelectorAll("script[type='text/array']")].map((node) => node.textContent);
  const places = [step.images?.pixels, step.loss.targetValues, ...step.layers.map((card) => card.winners)];
  for (const card of [...step.layers, step.loss]) places.push(...Object.values(card.arrays));
  const kinds = new Map(places.filter((place) => place && !place.product).map((place) => [place.data, place]));
  const contents = new Map();
  await Promise.all([...kinds].map(async ([data, { kind, scale }]) => {
    const values = await decode(texts[data], kind);
    contents.set(data, kind === "f2" ? fromHalves(values, scale) : values);
  }));
  if (step.images) examples = "image";
  const tensor = (place) => new Tensor(contents.get(place.data), place.shape);
  step.cards = [...step.layers, step.loss].map((card) => new Card(card, tensor));
  step.byPath = new Map(step.cards.map((card) => [card.path, card]));
  step.pixels = step.images && tensor(step.images.pixels);
  step.targetArray = step.loss.targetValues && tensor(step.loss.targetValues);
  return step;
}
