// From a file to the network's input, with the numbers of Python: decoded without colour management,
// turned as EXIF says, laid on white, resized as Pillow does, cut to the centre, normalised.
//
// The resampling follows Pillow's src/libImaging/Resample.c and AlphaComposite.c (MIT-CMU licence),
// written anew: 8 bits, antialiased bicubic, in fixed point. A canvas would resize otherwise, by up
// to 38 grey levels, which changes the network's answer.

const BITS = 22; // of the fixed point: 32 - 8 bits of colour - 2 for overshoots
const MOST_PIXELS = 16e6; // above, the browser itself makes a picture smaller, to spare memory
const MAX_ASPECT = 100; // as in tutorial_lib

/** An error whose message is for the reader. */
export class PictureError extends Error {}

const cubic = (x) => { // a = -0.5
  const t = Math.abs(x);
  if (t < 1) return (1.5 * t - 2.5) * t * t + 1;
  return t < 2 ? ((-0.5 * t + 2.5) * t - 4) * t + 2 : 0;
};

/** For each output pixel: the first input pixel and the weights, in fixed point. */
function kernels(from, to) {
  const scale = Math.max(from / to, 1); // antialiasing: the kernel grows where pictures shrink
  return Array.from({length: to}, (_, i) => {
    const centre = (i + 0.5) * (from / to);
    const first = Math.max(0, Math.trunc(centre - 2 * scale + 0.5));
    const end = Math.min(from, Math.trunc(centre + 2 * scale + 0.5));
    const weights = Float64Array.from({length: end - first}, (empty, j) => cubic((first + j - centre + 0.5) / scale));
    const sum = weights.reduce((a, b) => a + b, 0);
    const fixed = Int32Array.from(weights, (w) => Math.trunc((w / sum) * 2 ** BITS + (w < 0 ? -0.5 : 0.5)));
    return {first, fixed};
  });
}

/** Resize along one direction, in 8 bits: the pixels of a line lie `step` numbers apart. */
function along(source, lines, lineStride, from, to, step, out) {
  const all = kernels(from, to);
  for (let line = 0; line < lines; line++) {
    for (let i = 0; i < to; i++) {
      const {first, fixed} = all[i];
      for (let c = 0; c < 3; c++) {
        let sum = 1 << (BITS - 1);
        let at = line * lineStride + first * step + c;
        for (let j = 0; j < fixed.length; j++, at += step) sum += source[at] * fixed[j];
        out[line * (step === 3 ? to * 3 : 3) + i * step + c] = sum >> BITS;
      }
    }
  }
  return out;
}

/**
 * Resize an RGB picture as `Image.resize((newWidth, newHeight), BICUBIC)` of Pillow does.
 * @param {Uint8ClampedArray} rgb height x width x 3
 * @returns {Uint8ClampedArray} newHeight x newWidth x 3
 */
export function resize(rgb, width, height, newWidth, newHeight) {
  let out = rgb;
  if (newWidth !== width) {
    out = along(out, height, width * 3, width, newWidth, 3, new Uint8ClampedArray(height * newWidth * 3));
  }
  if (newHeight === height) return out;
  const step = newWidth * 3;
  return along(out, newWidth, 3, height, newHeight, step, new Uint8ClampedArray(newHeight * step));
}

/**
 * Lay pixels with transparency on white, with Pillow's rounding.
 * @param {Uint8ClampedArray} rgba height x width x 4
 * @returns {Uint8ClampedArray} height x width x 3
 */
export function onWhite(rgba) {
  const rgb = new Uint8ClampedArray((rgba.length / 4) * 3);
  for (let i = 0, o = 0; i < rgba.length; i += 4) {
    const alpha = rgba[i + 3];
    for (let c = 0; c < 3; c++) {
      const sum = (rgba[i + c] * alpha + 255 * (255 - alpha)) * 128 + (128 << 7);
      rgb[o++] = (((sum >> 8) + sum) >> 8) >> 7;
    }
  }
  return rgb;
}

/** Python's round(): halves go to the even neighbour. */
const roundEven = (x) => (x % 1 === 0.5 ? 2 * Math.round(x / 2) : Math.round(x));

/**
 * Shorter side to `size`, then the square in the middle: torchvision's Resize and CenterCrop.
 * @returns {Uint8ClampedArray} size x size x 3
 */
export function square(rgb, width, height, size) {
  const long = (a, b) => (a <= b ? size : Math.trunc((size * a) / b));
  const [w, h] = [long(width, height), long(height, width)];
  const small = resize(rgb, width, height, w, h);
  const [top, left] = [roundEven((h - size) / 2), roundEven((w - size) / 2)];
  const out = new Uint8ClampedArray(size * size * 3);
  for (let y = 0; y < size; y++) {
    const from = ((top + y) * w + left) * 3;
    out.set(small.subarray(from, from + size * 3), y * size * 3);
  }
  return out;
}

/**
 * Normalise pixels, in float32 as PyTorch does: (pixel / 255 - mean) / std.
 * @param {Uint8ClampedArray} rgb size x size x 3
 * @returns {Float32Array} 3 x size x size
 */
export function normalise(rgb, mean, std) {
  const count = rgb.length / 3;
  const x = new Float32Array(rgb.length);
  for (let c = 0; c < 3; c++) {
    const [m, s] = [Math.fround(mean[c]), Math.fround(std[c])];
    for (let i = 0; i < count; i++) {
      x[c * count + i] = Math.fround(Math.fround(rgb[3 * i + c] / 255) - m) / s;
    }
  }
  return x;
}

async function isHeic(blob) {
  const start = new TextDecoder("latin1").decode(await blob.slice(4, 12).arrayBuffer());
  return /^ftyp(hei|hev|mif|msf)/.test(start);
}

async function decode(blob) {
  try {
    return await createImageBitmap(blob, {
      colorSpaceConversion: "none",
      imageOrientation: "from-image",
      premultiplyAlpha: "none",
    });
  } catch {
    if (await isHeic(blob)) {
      throw new PictureError(
        "This photograph is in HEIC, a format that this browser cannot read. Save it as JPEG, or set the phone's camera to “Most compatible”.",
      );
    }
    const kind = blob.type ? `a file of the kind “${blob.type}”` : "this file";
    throw new PictureError(`The browser finds no picture in ${kind}. JPEG, PNG and WebP will do.`);
  }
}

/**
 * Read a picture.
 * @param {Blob} blob
 * @param {number} size of the square that the network sees
 * @returns {Promise<{rgb: Uint8ClampedArray, note: string}>} the square; what the reader should know
 * @throws {PictureError}
 */
export async function readPicture(blob, size) {
  let bitmap = await decode(blob);
  const {width, height} = bitmap;
  if (Math.max(width, height) > MAX_ASPECT * Math.min(width, height)) {
    throw new PictureError(`A strip of ${width} × ${height} pixels is too narrow: sides may differ by 100 : 1 at most.`);
  }
  let note = "";
  if (width * height > MOST_PIXELS) {
    const factor = Math.sqrt(MOST_PIXELS / (width * height));
    const [resizeWidth, resizeHeight] = [width, height].map((n) => Math.max(1, Math.round(n * factor)));
    const whole = bitmap;
    bitmap = await createImageBitmap(whole, {resizeWidth, resizeHeight, resizeQuality: "high"});
    whole.close();
    note = `With ${Math.round((width * height) / 1e6)} million pixels the picture was large; the browser made it smaller first, so Python's numbers for the file differ a little.`;
  }
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [bitmap.width, bitmap.height];
  const context = canvas.getContext("2d", {willReadFrequently: true});
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  const pixels = context.getImageData(0, 0, canvas.width, canvas.height).data;
  return {rgb: square(onWhite(pixels), canvas.width, canvas.height, size), note};
}
