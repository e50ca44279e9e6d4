// PyTorch's noise from a seed: `torch.Generator().manual_seed(seed)` with `torch.randn` and
// `torch.rand` on a CPU, so that seed 0 of this page is seed 0 of the library.
//
// Written anew after ATen's MT19937RNGEngine.h and DistributionTemplates.h (BSD-3 licence): Mersenne
// twister, of each number the last 24 bits, and Box and Muller's formula in blocks of 16.

const N = 624;

/** The stream of torch's CPU generator. */
export class Generator {
  /** @param {number} seed a whole number below 2 ** 32 */
  constructor(seed) {
    this.state = new Uint32Array(N);
    this.state[0] = seed;
    for (let i = 1; i < N; i++) {
      const last = this.state[i - 1] ^ (this.state[i - 1] >>> 30);
      this.state[i] = Math.imul(1812433253, last) + i;
    }
    this.next = N;
  }

  #renew() {
    const s = this.state;
    for (let i = 0; i < N; i++) {
      const y = (s[i] & 0x80000000) | (s[(i + 1) % N] & 0x7fffffff);
      s[i] = s[(i + 397) % N] ^ (y >>> 1) ^ (y & 1 ? 0x9908b0df : 0);
    }
    this.next = 0;
  }

  /** Leave out `count` numbers: another worker draws them. */
  skip(count) {
    for (let left = count; left > 0; ) {
      if (this.next === N) this.#renew();
      const step = Math.min(left, N - this.next);
      this.next += step;
      left -= step;
    }
  }

  /** @returns {Float32Array} uniform on [0, 1): `torch.rand(count)` */
  rand(count) {
    const out = new Float32Array(count);
    for (let i = 0; i < count; i++) {
      if (this.next === N) this.#renew();
      let y = this.state[this.next++];
      y ^= y >>> 11;
      y ^= (y << 7) & 0x9d2c5680;
      y ^= (y << 15) & 0xefc60000;
      y ^= y >>> 18;
      out[i] = (y & 0xffffff) / 0x1000000;
    }
    return out;
  }

  /** @returns {Float32Array} normal: `torch.randn(count)`, for multiples of 16 */
  randn(count) {
    const out = this.rand(count);
    for (let block = 0; block < count; block += 16) {
      for (let i = block; i < block + 8; i++) {
        const radius = Math.sqrt(-2 * Math.log(1 - out[i]));
        const angle = 2 * Math.PI * out[i + 8];
        out[i] = radius * Math.cos(angle);
        out[i + 8] = radius * Math.sin(angle);
      }
    }
    return out;
  }
}

/** The z below which a standard normal number lies with this probability, by Newton's method. */
export function normalQuantile(probability) {
  let z = 0;
  for (let round = 0; round < 50; round++) {
    const density = Math.exp((-z * z) / 2) / Math.sqrt(2 * Math.PI);
    let [term, sum] = [z, z]; // Phi(z) = 1/2 + density * (z + z^3/3 + z^5/(3 * 5) + ...)
    for (let n = 3; Math.abs(term) > 1e-17; n += 2) {
      term *= (z * z) / n;
      sum += term;
    }
    z -= (0.5 + density * sum - probability) / density;
  }
  return z;
}
