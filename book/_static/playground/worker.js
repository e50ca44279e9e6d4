// One worker holds the network and computes gradients. Messages:
//   load   the engine's folder and file, the network -> ready, or failed
//   scores a picture -> scores
//   run    a job: its share of the probes of both maps -> a probe each, then done
// A new job or a stop ends the old one before its next gradient.

import {classActivation, METHODS, probes} from "./methods.js";

const RIGHT = 0.02; // relative distance of two correct gradients: in float32 a kink may flip
let ort, session, shape, last;
let queue = Promise.resolve();
let current = 0; // the number of the job that may go on

const channel = new MessageChannel();
/** Let waiting messages in; a timeout would wait for 4 ms. */
const breathe = () =>
  new Promise((done) => {
    channel.port1.onmessage = done;
    channel.port2.postMessage(null);
  });

/** One forward and backward pass; one at a time, as the engine allows no more. */
function evaluate(z, target, by = session) {
  const weights = new Float32Array(shape.classes);
  if (target !== null) weights[target] = 1;
  const picture = new ort.Tensor("float32", z, [1, 3, shape.size, shape.size]);
  const pass = () => by.run({picture, class_weights: new ort.Tensor("float32", weights, [1, shape.classes])});
  queue = queue.then(pass, pass);
  return queue;
}

async function load({engine, folder, binary, network, size, classes}) {
  shape = {size, classes};
  ort = await import(`${folder}/ort.${engine}.min.mjs`);
  Object.assign(ort.env.wasm, {numThreads: 1, wasmPaths: `${folder}/`, wasmBinary: binary});
  const create = (provider) => ort.InferenceSession.create(network, {executionProviders: [provider]});
  session = await create(engine);
  if (engine === "webgpu") await compare(await create("wasm"));
  else await evaluate(new Float32Array(3 * size ** 2), null); // the first pass takes long: no picture waits for it
  postMessage({type: "ready"});
}

/** Hold a graphics card against the processor: a wrong driver shall not explain anything. */
async function compare(reference) {
  const z = Float32Array.from({length: 3 * shape.size ** 2}, (_, i) => Math.sin(i / 50));
  const [ours, theirs] = [await evaluate(z, 0), await evaluate(z, 0, reference)].map((r) => r.gradient.data);
  await reference.release();
  const norm = (v) => Math.sqrt(v.reduce((sum, g) => sum + g * g, 0));
  const distance = norm(ours.map((g, i) => g - theirs[i])) / norm(theirs);
  if (!(distance < RIGHT)) throw new Error(`WebGPU gives other gradients (${distance})`);
}

async function scores({job, x}) {
  postMessage({type: "scores", job, scores: (await evaluate(x, null)).scores.data});
}

async function run({job, x, target, bounds, settings, maps, share}) {
  current = job;
  const looks = maps.map(({method}) => probes(method, settings, x, bounds));
  last = {};
  for (let k = share.first; k < Math.max(...maps.map((map) => map.count)); k += share.of) {
    for (const [which, {method, count}] of maps.entries()) {
      if (k >= count) continue;
      await breathe();
      if (job !== current) return;
      const {key, z, weights} = looks[which](k);
      if (last.key !== key) last = {key, ...(await evaluate(z, target))};
      const gradient = last.gradient.data;
      let values = weights ? gradient.map((g, i) => g * weights[i]) : gradient.slice();
      if (METHODS[method].cells) {
        const {activation, activation_gradient: slope} = last;
        values = classActivation(method, activation.data, slope.data, activation.dims, shape.size);
      }
      const top = last.scores.data.reduce((best, s, i, all) => (s > all[best] ? i : best), 0);
      postMessage({type: "probe", job, which, probe: k, values, top}, [values.buffer]);
    }
  }
  postMessage({type: "done", job});
}

const stop = () => { current = 0; };

self.onmessage = async ({data}) => {
  try {
    await {load, scores, run, stop}[data.type](data);
  } catch (error) {
    postMessage({type: "failed", during: data.type, reason: String(error?.message ?? error)});
  }
};
