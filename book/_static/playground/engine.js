// The network in one or two workers: loading, keeping it for the next visit, sharing out the probes.

const KEPT = "averaging-gradients-playground";
const HERE = new URL(".", import.meta.url);
const ORT = new URL("../vendor/onnxruntime", HERE).href;
const BINARIES = {wasm: "ort-wasm-simd-threaded.wasm", webgpu: "ort-wasm-simd-threaded.asyncify.wasm"};

/** An error whose message is for the reader. */
export class EngineError extends Error {}

/** A file beside this script. */
export const beside = (name) => new URL(name, HERE).href;

/** The engine that this browser can have: WebGPU where there is a graphics card, else WASM. */
async function bestEngine() {
  const asked = new URLSearchParams(location.search).get("engine"); // for tests, and for trouble
  if (asked in BINARIES) return asked;
  const adapter = await navigator.gpu?.requestAdapter().catch(() => null);
  const real = adapter && !adapter.isFallbackAdapter && !adapter.info?.isFallbackAdapter;
  return real ? "webgpu" : "wasm";
}

/** Its name, found once. */
export const best = bestEngine();

/** The two files that are large: the network and the engine's program. */
const filesOf = (engine) => [beside("network.onnx"), `${ORT}/${BINARIES[engine]}`];

/** Where the browser keeps files for this page; null where it does not, as without https. */
const kept = async () => (await globalThis.caches?.open(KEPT).catch(() => null)) ?? null;

const absent = (file) =>
  new EngineError(
    `The file ${file} is not in this copy of the site: it could not be fetched when the book was built. Build it again with the internet at hand (make book).`,
  );

/** How many bytes a click loads: none where the browser has kept the files. */
export async function toLoad(sizes) {
  const engine = await best;
  if (sizes[engine] === null) throw absent(BINARIES[engine]);
  const cache = await kept();
  const found = await Promise.all(filesOf(engine).map((file) => cache?.match(`${file}?${sizes.version}`)));
  return [sizes.network, sizes[engine]].reduce((sum, size, i) => sum + (found[i] ? 0 : size), 0);
}

/** A file, from the cache or with news of its bytes on the way. */
async function bytesOf(url, version, report) {
  const cache = await kept();
  const key = `${url}?${version}`;
  const found = await cache?.match(key);
  if (found) return found.arrayBuffer();
  const answer = await fetch(url).catch(() => ({ok: false}));
  if (!answer.ok) throw absent(url.split("/").pop());
  const parts = [];
  for (const reader = answer.body.getReader(); ; ) {
    const {done, value} = await reader.read();
    if (done) break;
    parts.push(value);
    report(value.length);
  }
  const blob = new Blob(parts);
  for (const old of (await cache?.keys()) ?? []) {
    if (old.url.startsWith(url)) await cache.delete(old);
  }
  await cache?.put(key, new Response(blob)).catch(() => {}); // no room: the next visit loads again
  return blob.arrayBuffer();
}

function started(message) {
  const worker = new Worker(beside("worker.js"), {type: "module"});
  return new Promise((resolve, reject) => {
    worker.onmessage = ({data}) => {
      if (data.type === "ready") return resolve(worker);
      worker.terminate();
      reject(new Error(data.reason));
    };
    worker.onerror = (event) => reject(new Error(event.message || "the worker did not start"));
    worker.postMessage(message);
  });
}

/** The network, ready to explain. */
export class Engine {
  /** @param {Worker[]} workers @param {string} name "wasm" or "webgpu" */
  constructor(workers, name) {
    Object.assign(this, {workers, name, job: 0});
  }

  /**
   * Load everything.
   * @param {object} network size, classes and sizes of files, as settings.json has them
   * @param {(bytes: number) => void} report is told of every piece that has come
   * @param {string} engine "wasm" or "webgpu"
   * @throws {EngineError}
   */
  static async load({size, classes, sizes}, report, engine) {
    if (typeof WebAssembly === "undefined") {
      throw new EngineError("This browser runs no WebAssembly, which the network needs. It may be switched off, as in a lockdown mode.");
    }
    const [network, binary] = await Promise.all(filesOf(engine).map((url) => bytesOf(url, sizes.version, report)));
    const message = {type: "load", engine, folder: ORT, binary, network, size, classes};
    const {deviceMemory = 4, hardwareConcurrency = 1} = navigator;
    const count = engine === "wasm" && deviceMemory >= 4 && hardwareConcurrency >= 2 ? 2 : 1;
    const starts = await Promise.allSettled(Array.from({length: count}, () => started(message)));
    const workers = starts.filter((start) => start.value).map((start) => start.value);
    if (workers.length) return new Engine(workers, engine);
    if (engine === "webgpu") return Engine.load({size, classes, sizes}, report, "wasm");
    const {message: reason} = starts[0].reason;
    const memory = /memory|allocation|RangeError/i.test(reason);
    throw new EngineError(
      memory
        ? "There is not enough memory for the network (about 200 MB). Close other pages and try again."
        : `The network did not start here: ${reason}`,
    );
  }

  /**
   * The scores of a picture.
   * @param {Float32Array} x
   * @returns {Promise<Float32Array>}
   */
  scores(x) {
    this.stop();
    const [worker] = this.workers;
    return new Promise((resolve, reject) => {
      worker.onmessage = ({data}) => {
        if (data.type === "scores") resolve(data.scores);
        if (data.type === "failed") reject(new EngineError(`The network failed: ${data.reason}`));
      };
      worker.postMessage({type: "scores", x});
    });
  }

  /**
   * Compute the probes of some maps, and forget the job before.
   * @param {object} job x, target, bounds, settings, maps: [{method, count}]
   * @param {{probe: Function, done: Function, failed: Function}} listeners
   */
  run(job, listeners) {
    const number = ++this.job;
    let working = this.workers.length;
    this.workers.forEach((worker, first) => {
      worker.onmessage = ({data}) => {
        if (data.type === "failed") listeners.failed(new EngineError(`The network failed: ${data.reason}`));
        if (data.job !== number || this.job !== number) return;
        if (data.type === "probe") listeners.probe(data);
        if (data.type === "done" && --working === 0) listeners.done();
      };
      worker.postMessage({type: "run", ...job, job: number, share: {first, of: this.workers.length}});
    });
  }

  /** End the job; what is still on its way is not heard. */
  stop() {
    this.job++;
    for (const worker of this.workers) worker.postMessage({type: "stop"});
  }
}
