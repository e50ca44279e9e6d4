// The methods as tutorial_lib/averaging/probes.py has them: where each looks, how it weighs, and the
// running mean of what it sees there, with the measures of how well that mean would repeat.

import {Generator, normalQuantile} from "./noise.js";

const sigma = (s) => `sigma=tl.sigma_from_level(${s.noise / 100}, model.bounds)`;
const path = (baseline) => (s) => `integrated_gradients(model, x, TARGET, baseline=${baseline}, steps=${s.steps})`;
const noisePath = (s) =>
  `integrated_gradients(model, x, TARGET, baseline="noise", baselines=${s.baselines}, steps=${s.steps}, bounds=model.bounds, seed=${s.seed})`;
const smooth = (s) => `smoothgrad(model, x, TARGET, ${sigma(s)}, samples=${s.samples}, seed=${s.seed})`;
const taylor = (s) => `smooth_taylor(model, x, TARGET, ${sigma(s)}, roots=${s.samples}, seed=${s.seed})`;
const adapt = (s) =>
  `adaptgrad(model, x, TARGET, bounds=model.bounds, confidence=${s.confidence / 100}, samples=${s.samples}, seed=${s.seed})`;
const cam = (name) => (s) => `${name}(model, x, TARGET, layer="${s.layer}")`;
const sum = (values) => values.reduce((total, v) => total + v, 0);

/**
 * Name in links -> title, sliders, and the call in Python; for paths where they begin; for methods
 * at a layer the weights of a channel's cells, from their activations and gradients.
 */
export const METHODS = {
  gradient: {title: "Gradient", sliders: [], python: () => "gradient(model, x, TARGET)"},
  "gradient-x-input": {title: "Gradient × input", sliders: [], python: () => "gradient_x_input(model, x, TARGET)"},
  "ig-black": {title: "Integrated Gradients from black", sliders: ["steps"], from: "black", python: path("model.bounds[0]")},
  "ig-white": {title: "Integrated Gradients from white", sliders: ["steps"], from: "white", python: path("model.bounds[1]")},
  "ig-noise": {title: "Integrated Gradients from noise", sliders: ["steps", "baselines"], from: "noise", python: noisePath},
  smoothgrad: {title: "SmoothGrad", sliders: ["noise", "samples"], python: smooth},
  smoothtaylor: {title: "SmoothTaylor", sliders: ["noise", "samples"], python: taylor},
  adaptgrad: {title: "AdaptGrad", sliders: ["confidence", "samples"], python: adapt},
  "grad-cam": {
    title: "Grad-CAM",
    sliders: [],
    python: cam("grad_cam"),
    cells(a, g) {
      const mean = sum(g) / g.length;
      return a.map(() => mean);
    },
  },
  "grad-cam-plus-plus": {
    title: "Grad-CAM++",
    sliders: [],
    python: cam("grad_cam_plus_plus"),
    cells(a, g) {
      const total = sum(a);
      const weight = sum(g.map((v) => (v > 0 ? v / (2 + total * v) : 0)));
      return a.map(() => weight);
    },
  },
  "layer-cam": {
    title: "LayerCAM",
    sliders: [],
    python: cam("layer_cam"),
    cells: (a, g) => g.map((v) => Math.max(0, v)),
  },
};

/** How many draws a map takes, and how many probes (gradients) each of them has. */
export function amount(method, settings) {
  const {sliders} = METHODS[method];
  const draws = sliders.includes("samples") ? settings.samples : 1;
  const perDraw = sliders.includes("steps") ? settings.steps : 1;
  return {draws: sliders.includes("baselines") ? settings.baselines : draws, perDraw};
}

/** 0, ..., count - 1, ordered so that the nodes of any beginning are spread over the whole path. */
function spread(count) {
  const reversed = (i) => Number.parseInt([...i.toString(2).padStart(20, "0")].reverse().join(""), 2);
  return Array.from({length: count}, (_, i) => i).sort((a, b) => reversed(a) - reversed(b));
}

/** Draws of one kind of noise, of which a worker takes some, in their order. */
class Draws {
  constructor(seed, kind, size) {
    Object.assign(this, {generator: new Generator(seed), kind, size, number: -1, values: null});
  }

  get(number) {
    if (number !== this.number) {
      this.generator.skip((number - this.number - 1) * this.size);
      this.values = this.generator[this.kind](this.size);
      this.number = number;
    }
    return this.values;
  }
}

/** A new array, number by number; `map` of typed arrays takes several times as long. */
function filled(length, value) {
  const out = new Float32Array(length);
  for (let i = 0; i < length; i++) out[i] = value(i);
  return out;
}

/**
 * The probes of one map: a function from the number of a probe to where it looks and how it weighs.
 * @param {string} method a key of METHODS
 * @param {{noise: number, confidence: number, steps: number, seed: number}} settings as of the page
 * @param {Float32Array} x the input, (3, H, W)
 * @param {[number[], number[]]} bounds the inputs of black and of white, for each channel
 * @returns {(k: number) => {key: string, z: Float32Array, weights: Float32Array | null}}
 *   Probes with one key look at one point, so that its gradient is computed once.
 */
export function probes(method, settings, x, bounds) {
  const {noise, seed, steps, confidence} = settings;
  const size = x.length;
  const [lower, upper] = bounds.map((bound) => filled(size, (i) => bound[Math.floor((3 * i) / size)]));
  const normal = new Draws(seed, "randn", size);
  /** x with noise of this strength, a number or an array */
  const noisy = (k, name, strength) => {
    const eps = normal.get(k);
    return {key: `${name} ${k}`, z: filled(size, (i) => x[i] + strength(i) * eps[i]), weights: null};
  };
  if (METHODS[method].from) {
    const uniform = new Draws(seed, "rand", size);
    const order = spread(steps);
    const baseline = (draw) => {
      if (METHODS[method].from !== "noise") return METHODS[method].from === "black" ? lower : upper;
      const values = uniform.get(draw);
      return filled(size, (i) => lower[i] + (upper[i] - lower[i]) * values[i]);
    };
    return (k) => {
      const a = (order[k % steps] + 1) / steps; // the rule "right"
      const b = baseline(Math.floor(k / steps));
      const weights = filled(size, (i) => x[i] - b[i]);
      return {key: `${method} ${k}`, z: filled(size, (i) => b[i] + a * weights[i]), weights};
    };
  }
  const width = (noise / 100) * (Math.max(...bounds[1]) - Math.min(...bounds[0]));
  if (method === "smoothgrad") return (k) => noisy(k, "noise", () => width);
  if (method === "smoothtaylor") {
    return (k) => {
      const probe = noisy(k, "noise", () => width);
      return {...probe, weights: filled(size, (i) => x[i] - probe.z[i])};
    };
  }
  if (method === "adaptgrad") {
    const quantile = normalQuantile((3 + confidence / 100) / 4);
    const widths = filled(size, (i) => Math.max(0, Math.min(x[i] - lower[i], upper[i] - x[i])) / quantile);
    return (k) => noisy(k, "adapted noise", (i) => widths[i]);
  }
  return () => ({key: "x", z: x, weights: method === "gradient-x-input" ? x : null});
}

/** Grad-CAM and its kin, from a layer's output and the gradient there, (K, h, w): spread over the square. */
export function classActivation(method, activation, gradient, [, channels, h, w], size) {
  const cells = new Float64Array(h * w);
  for (let k = 0; k < channels; k++) {
    const [a, g] = [activation, gradient].map((v) => Float64Array.from(v.subarray(k * h * w, (k + 1) * h * w)));
    const weights = METHODS[method].cells(a, g);
    for (let i = 0; i < h * w; i++) cells[i] += weights[i] * a[i];
  }
  const between = (place, count) => { // the two cells around a pixel, as F.interpolate has them
    const at = Math.max(0, ((place + 0.5) * count) / size - 0.5);
    const first = Math.floor(at);
    return [first, Math.min(first + 1, count - 1), at - first];
  };
  return Float32Array.from({length: size * size}, (_, i) => {
    const [top, bottom, v] = between(Math.floor(i / size), h);
    const [left, right, u] = between(i % size, w);
    const row = (r) => (1 - u) * Math.max(0, cells[r * w + left]) + u * Math.max(0, cells[r * w + right]);
    return (1 - v) * row(top) + v * row(bottom);
  });
}

/** The running mean of a map, its standard error and its reliability, as tl.sample_until has them. */
export class Average {
  /** @param {number} perDraw probes that make one draw */
  constructor(size, perDraw) {
    this.sum = new Float64Array(size);
    this.mean = new Float64Array(size); // over complete draws, with their squared deviations
    this.squares = new Float64Array(size);
    this.halves = [new Float64Array(size), new Float64Array(size)]; // even and odd draws
    Object.assign(this, {perDraw, count: 0, draws: 0, open: new Map(), even: 0});
  }

  /** Take the weighed gradient of a probe, which may come in any order. */
  add(probe, values) {
    this.count++;
    for (let i = 0; i < values.length; i++) this.sum[i] += values[i];
    const draw = Math.floor(probe / this.perDraw);
    if (this.perDraw === 1) return this.#end(draw, values);
    const part = this.open.get(draw) ?? {left: this.perDraw, values: new Float64Array(values.length)};
    for (let i = 0; i < values.length; i++) part.values[i] += values[i] / this.perDraw;
    this.open.set(draw, part);
    if (--part.left === 0) {
      this.open.delete(draw);
      this.#end(draw, part.values);
    }
  }

  #end(draw, values) {
    const half = this.halves[draw % 2];
    this.even += draw % 2 === 0;
    this.draws++;
    for (let i = 0; i < values.length; i++) {
      const delta = values[i] - this.mean[i];
      this.mean[i] += delta / this.draws;
      this.squares[i] += delta * (values[i] - this.mean[i]);
      half[i] += values[i];
    }
  }

  /** @returns {Float32Array} the map so far */
  map() {
    return filled(this.sum.length, (i) => this.sum[i] / this.count);
  }

  /** Root mean square of the standard error, as a part of that of the map: null with one draw. */
  standardError() {
    if (this.draws < 2) return null;
    let [error, map] = [0, 0];
    for (let i = 0; i < this.mean.length; i++) {
      error += this.squares[i];
      map += this.mean[i] ** 2;
    }
    return Math.sqrt(error / (this.draws - 1) / this.draws / map);
  }

  /** 2 r / (1 + r), r the correlation of even and odd draws: null where they are not equally many. */
  reliability() {
    if (this.draws < 2 || 2 * this.even !== this.draws) return null;
    const [a, b] = this.halves;
    let [sumA, sumB, ab, aa, bb] = [0, 0, 0, 0, 0];
    for (let i = 0; i < a.length; i++) {
      sumA += a[i];
      sumB += b[i];
      ab += a[i] * b[i];
      aa += a[i] ** 2;
      bb += b[i] ** 2;
    }
    const covariance = (product, one, other) => product - (one * other) / a.length;
    const r = covariance(ab, sumA, sumB) / Math.sqrt(covariance(aa, sumA, sumA) * covariance(bb, sumB, sumB));
    return (2 * r) / (1 + r);
  }
}
