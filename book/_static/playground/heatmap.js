// From an attribution to colours, as tutorial_lib/heatmaps.py and show/plots.py have it.

// matplotlib's "magma" and "RdBu_r" at equal distances, with straight lines between.
const MAGMA = colours("000004 0b0924 20114b 3b0f70 57157e 721f81 8c2981 a8327d c43c75 de4968 f1605d fa7f5e fe9f6d febf84 fddea0 fcfdbf");
const SIGNED = colours("053061 2065ab 4393c3 90c4dd d1e5f0 f7f6f6 fddbc7 f3a481 d6604d b1182b 67001f");

/** 256 colours, as matplotlib has them: 3 numbers each. */
function colours(list) {
  const anchors = list.split(" ").map((hex) => [0, 2, 4].map((i) => Number.parseInt(hex.slice(i, i + 2), 16)));
  return Array.from({length: 256}, (_, level) => {
    const at = (level / 255) * (anchors.length - 1);
    const i = Math.min(Math.floor(at), anchors.length - 2);
    return anchors[i].map((c, k) => Math.round(c + (at - i) * (anchors[i + 1][k] - c)));
  });
}

const colour = (table, value) => table[Math.min(Math.max(Math.floor(256 * value), 0), 255)];

/** The p-th part of the sorted magnitudes, linearly between neighbours. */
function percentile(magnitudes, p) {
  const sorted = magnitudes.slice().sort();
  const at = p * (sorted.length - 1);
  const i = Math.floor(at);
  return sorted[i] + (at - i) * ((sorted[i + 1] ?? sorted[i]) - sorted[i]);
}

/** Sum over the channels: `tl.heatmap`. A map without channels stays. */
export function heatmap(attribution, pixels) {
  const sum = new Float32Array(pixels);
  for (let i = 0; i < attribution.length; i++) sum[i % pixels] += attribution[i];
  return sum;
}

/** Magnitudes for the eye, from 0 to 1: `tl.saliency_map` of a heatmap. */
export function saliency(heat) {
  const magnitudes = heat.map(Math.abs);
  const most = percentile(magnitudes, 0.99);
  const least = magnitudes.reduce((a, b) => Math.min(a, b));
  return magnitudes.map((m) => (most > least ? (Math.min(m, most) - least) / (most - least) : 0));
}

/**
 * Paint a heatmap.
 * @param {Float32Array} heat (H, W)
 * @param {"magnitude" | "signed" | "overlay"} view
 * @param {Uint8ClampedArray} rgb the picture, for the overlay
 * @returns {Uint8ClampedArray} RGBA
 */
export function paint(heat, view, rgb) {
  const out = new Uint8ClampedArray(heat.length * 4).fill(255);
  const signed = view === "signed";
  const limit = signed && (percentile(heat.map(Math.abs), 0.995) || 1);
  const values = signed ? heat.map((h) => (h / limit + 1) / 2) : saliency(heat);
  for (let i = 0; i < heat.length; i++) {
    const pixel = colour(signed ? SIGNED : MAGMA, values[i]);
    const alpha = view === "overlay" ? 0.85 * values[i] : 1;
    const grey = 0.299 * rgb[3 * i] + 0.587 * rgb[3 * i + 1] + 0.114 * rgb[3 * i + 2];
    for (let c = 0; c < 3; c++) out[4 * i + c] = grey + alpha * (pixel[c] - grey);
  }
  return out;
}

/** CSS of the bar that explains the colours of a view. */
export function legend(view) {
  const table = (view === "signed" ? SIGNED : MAGMA).filter((_, i) => i % 15 === 0);
  return `linear-gradient(to right, ${table.map((c) => `rgb(${c.join(" ")})`).join(", ")})`;
}
