// The page: its form holds the settings, and each change of them starts the maps anew.

import {photograph} from "./camera.js";
import {Engine, beside, best, toLoad} from "./engine.js";
import {copy, npy, save} from "./files.js";
import {heatmap, legend, paint} from "./heatmap.js";
import {Average, METHODS, amount, probes} from "./methods.js";
import {normalise, readPicture} from "./pillow.js";

const NOTHING = "nothing"; // beside the first map
const ENDS = {magnitude: ["small", "large"], overlay: ["small", "large"], signed: ["against", "for"]};
const NO_CAMERA = "The browser gives this page no camera. Take the photograph as usual, and choose its file.";
const REPAINT = 300; // milliseconds between two paintings of a map that grows
const json = async (name) => (await fetch(beside(name))).json();
const get = (id) => document.getElementById(`pg-${id}`);
const form = get("form");
const fields = form.elements;
const panels = [...form.querySelectorAll(".pg-map")];
let network, classes; // settings.json, classes.json
let engine, picture, scores;
let maps = []; // of the job: {method, count, average, reliability, tops: how often a class came first}
let begun = 0; // when the job began
let picks = 0; // how often a picture was chosen

// ---------------------------------------------------------------- settings, and the link

function settings() {
  const names = ["noise", "confidence", "samples", "steps", "baselines", "seed"];
  const found = Object.fromEntries(names.map((name) => [name, Number(fields[name].value)]));
  found.seed = Math.max(0, Math.trunc(found.seed));
  return {...found, view: fields.view.value, layer: network.layer, target: target()};
}

/** The class that is explained: the chosen one, else the network's first answer. */
const target = () => (fields.target.value === "" ? ranked()?.[0] : Number(fields.target.value));
const ranked = () => scores && [...scores.keys()].sort((a, b) => scores[b] - scores[a]);
const wanted = () => [fields.method.value, fields.beside.value].filter((method) => method !== NOTHING);

/** Take settings from a link or a suggestion; what is no setting, or no value of it, is left out. */
function take(parameters) {
  fields.noisy.checked = false;
  for (const [name, value] of parameters) {
    const field = fields[name];
    const before = field?.value;
    if (before === undefined) continue;
    if (name === "noisy") field.checked = true;
    else field.value = value;
    const isNumber = name === "seed" || name === "target";
    if (field.value !== value && field.type !== "range") field.value = before;
    if (isNumber && !/^\d{1,4}$/.test(value)) field.value = before;
  }
  if (Number(fields.target.value) >= classes.length) fields.target.value = "";
}

function writeLink() {
  const parameters = new URLSearchParams(new FormData(form));
  if (!parameters.get("target")) parameters.delete("target");
  history.replaceState(null, "", `#${parameters}`);
}

// ---------------------------------------------------------------- the photograph

async function pick(blob, name, file, keepClass = false) {
  const mine = ++picks;
  try {
    const {rgb, note} = await readPicture(blob, network.size);
    if (mine !== picks) return; // another was chosen meanwhile
    picture = {rgb, name, file: note ? "picture.png" : file, x: normalise(rgb, network.mean, network.std)};
    scores = null;
    if (!keepClass) fields.target.value = "";
    get("note").textContent = note;
    say("");
    drawPicture();
    await see();
  } catch (error) {
    say(error.message, "error");
  }
}

async function pickBundled() {
  const {name, file} = network.photographs.find((photo) => photo.name === fields.picture.value);
  await pick(await (await fetch(beside(file))).blob(), name, name, true);
}

/** A picture of the reader's: a file, or one that was dropped, pasted or taken. */
async function pickOwn(blob, file = "picture.png") {
  if (!blob) return;
  const before = picture;
  await pick(blob, "your photograph", file);
  if (picture === before) return;
  get("own")?.remove();
  get("thumbs").prepend(thumb("own", "your photograph", get("picture").toDataURL()));
  get("thumbs").firstChild.id = "pg-own";
  fields.picture.value = "own";
  get("own").picture = picture;
  writeLink();
}

function thumb(value, title, source) {
  const label = document.createElement("label");
  label.title = title;
  label.innerHTML = '<input type="radio" name="picture"><img class="dark-light" width="56" height="56" alt="">';
  Object.assign(label.firstChild, {value});
  Object.assign(label.lastChild, {src: source, alt: title.split(";")[0]});
  return label;
}

function drawPicture() {
  const {rgb, x} = picture;
  const pixels = new Uint8ClampedArray((rgb.length / 3) * 4).fill(255);
  const noisy = fields.noisy.checked && wanted().find((m) => /smooth|adapt/.test(m));
  const z = noisy ? probes(noisy, settings(), x, network.bounds)(0).z : x;
  const count = rgb.length / 3;
  for (let i = 0; i < rgb.length; i++) {
    const c = i % 3;
    pixels[Math.floor(i / 3) * 4 + c] = 255 * (z[c * count + Math.floor(i / 3)] * network.std[c] + network.mean[c]);
  }
  get("picture").getContext("2d").putImageData(new ImageData(pixels, network.size), 0, 0);
}

// ---------------------------------------------------------------- the network's answer

async function see() {
  if (!engine) return;
  engine.stop();
  scores = await engine.scores(picture.x);
  showClasses();
  explain();
}

function showClasses() {
  const most = Math.max(...scores);
  const sum = scores.reduce((total, s) => total + Math.exp(s - most), 0);
  const shown = ranked().slice(0, 5);
  if (!shown.includes(target())) shown.push(target());
  get("classes").replaceChildren(
    ...shown.map((i) => {
      const bar = document.createElement("button");
      const share = Math.exp(scores[i] - most) / sum;
      const percent = (100 * share).toFixed(share < 0.01 ? 2 : 0);
      Object.assign(bar, {type: "button", className: "pg-class", value: i});
      bar.style.setProperty("--share", `${100 * share}%`);
      bar.setAttribute("aria-pressed", i === target());
      bar.append(classes[i], Object.assign(document.createElement("span"), {textContent: `${percent} %`}));
      return bar;
    }),
  );
}

function choose(index) {
  fields.target.value = index;
  if (scores) showClasses();
  changed();
}

// ---------------------------------------------------------------- the maps

/** Begin both maps, on the same draws; what ran before is forgotten. */
function explain() {
  if (!engine || !scores) return;
  const now = settings();
  begun = performance.now();
  maps = wanted().map((method) => {
    const {draws, perDraw} = amount(method, now);
    const size = METHODS[method].cells ? network.size ** 2 : picture.x.length;
    return {method, count: draws * perDraw, average: new Average(size, perDraw), tops: new Map(), reliability: null};
  });
  const job = {x: picture.x, target: now.target, bounds: network.bounds, settings: now};
  engine.run({...job, maps: maps.map(({method, count}) => ({method, count}))}, {probe, done: () => done(), failed});
  get("stop").disabled = false;
  showPython();
}

function probe({which, probe: k, values, top}) {
  const map = maps[which];
  map.average.add(k, values);
  map.tops.set(top, (map.tops.get(top) ?? 0) + 1);
  if (map.average.count === 1) drawMap(which); // at once
  else later();
}

let waiting = 0;
function later() {
  waiting ||= setTimeout(() => {
    waiting = 0;
    draw();
  }, REPAINT);
}

function draw(again) {
  panels.forEach((_, which) => drawMap(which, again));
  const [made, all] = ["made", "all"].map((what) =>
    maps.reduce((sum, {average, count}) => sum + (what === "made" ? average.count : count), 0),
  );
  const rate = made / ((performance.now() - begun) / 1000);
  get("bar").value = all ? made / all : 0;
  const left = Math.ceil((all - made) / rate);
  if (made && made < all) get("rate").textContent = `${rate.toFixed(1)} gradients a second, ${left} s left`;
}

function drawMap(which, again = false) {
  const [map, panel] = [maps[which], panels[which]];
  if (!map?.average.count || (map.drawn === map.average.count && !again)) return;
  map.drawn = map.average.count;
  const {view} = settings();
  const heat = heatmap(map.average.map(), network.size ** 2);
  const canvas = panel.querySelector("canvas");
  canvas.getContext("2d").putImageData(new ImageData(paint(heat, view, picture.rgb), network.size), 0, 0);
  canvas.setAttribute("aria-label", `${METHODS[map.method].title} for ${classes[target()]}, ${view}`);
  panel.querySelector(".pg-numbers").textContent = numbers(map);
}

function numbers(map) {
  const {method, count, average, tops} = map;
  const {sliders} = METHODS[method];
  if (count === 1) return "One gradient, no noise: it repeats exactly.";
  const text = [`${average.count} of ${count} ${sliders.includes("steps") ? "steps" : "samples"}`];
  map.reliability = average.reliability() ?? map.reliability;
  if (map.reliability !== null) text.push(`reliability ${map.reliability.toFixed(2)}`);
  const error = average.standardError();
  if (error !== null) text.push(`standard error ${Math.round(100 * error)} %`);
  if (sliders.includes("samples")) {
    const [[most, times]] = [...tops].sort((a, b) => b[1] - a[1]);
    const others = most === target() ? "" : `, ${times} “${classes[most]}”`;
    const mine = `${tops.get(target()) ?? 0} of the noisy copies “${classes[target()]}”`;
    text.push(`The network calls ${mine}${others}`);
  }
  return `${text.join(" · ").replace(" · The", ". The")}.`;
}

function done(how = "Done in") {
  get("stop").disabled = true;
  draw();
  const seconds = ((performance.now() - begun) / 1000).toFixed(1);
  get("rate").textContent = `${how} ${seconds} s (${engine.name === "webgpu" ? "WebGPU" : "WebAssembly"}).`;
  const {reliability} = maps[0];
  const repeats = reliability === null ? "" : ` The reliability of the first map is ${reliability.toFixed(2)}.`;
  say(`${how === "Done in" ? "Complete" : "Stopped"}.${repeats}`);
}

function failed(error) {
  get("stop").disabled = true;
  say(error.message, "error");
}

/** Say something: "news" to screen readers, as the bar shows it; an "error" to all. */
function say(text, kind = "news") {
  get("status").textContent = text;
  get("status").className = `pg-status pg-${kind}`;
  if (kind === "error") get("status").scrollIntoView({block: "nearest"});
}

// ---------------------------------------------------------------- what a reader takes away

function python() {
  const now = settings();
  const lines = wanted().map((method, i) => {
    const call = METHODS[method].python(now).replace("TARGET", now.target);
    return `${["attribution", "beside"][i]} = tl.${call}`;
  });
  return `import tutorial_lib as tl

model = tl.load_model("${network.model}", device="cpu")  # a seed has other noise on a GPU
x = model.preprocess(tl.load_image(${JSON.stringify(picture.file)}))
${lines.join("\n")}  # ${classes[now.target]}
`;
}

function showPython() {
  get("python").textContent = scores ? python() : "";
}

const savers = {
  map: () => panels[0].querySelector("canvas").toBlob((blob) => save(blob, `${maps[0].method}.png`)),
  picture: () => {
    fields.noisy.checked = false;
    drawPicture();
    get("picture").toBlob((blob) => save(blob, "picture.png"));
  },
  numbers: () => {
    const values = maps[0].average.map();
    const {size} = network;
    save(npy(values, values.length === size * size ? [1, size, size] : [1, 3, size, size]), `${maps[0].method}.npy`);
  },
  settings: () => {
    const about = {...settings(), methods: wanted(), class: classes[target()], picture: picture.name, python: python()};
    save(new Blob([JSON.stringify({...about, scores: [...scores]}, null, 1)]), "settings.json");
  },
};

// ---------------------------------------------------------------- the form

/** Show the sliders that the methods have, with their values. */
function showValues() {
  const used = new Set(wanted().flatMap((method) => METHODS[method].sliders));
  const unit = {noise: " % of the range", confidence: " %"};
  for (const slider of form.querySelectorAll(".pg-slider")) {
    const name = slider.dataset.for;
    slider.hidden = !used.has(name);
    slider.querySelector("output").textContent = fields[name].value + (unit[name] ?? "");
    fields[name].setAttribute("aria-valuetext", fields[name].value + (unit[name] ?? ""));
  }
  const {value: view} = fields.view;
  form.classList.toggle("pg-one", fields.beside.value === NOTHING);
  [get("low").textContent, get("high").textContent] = ENDS[view];
  get("colours").style.background = legend(view);
}

function changed(event) {
  const name = event?.target.name;
  showValues();
  writeLink();
  if (name === "picture") {
    get("note").textContent = fields.target.value = "";
    writeLink();
    if (fields.picture.value === "own") {
      picture = get("own").picture;
      drawPicture();
      return see();
    }
    return pickBundled();
  }
  drawPicture();
  if (name === "view") draw(true);
  else if (name !== "noisy") explain();
}

async function apply(parameters) {
  const before = fields.picture.value;
  take(parameters);
  if (fields.picture.value !== before && fields.picture.value !== "own") await pickBundled();
  else if (scores) showClasses();
  changed();
}

async function start() {
  const button = get("load");
  button.disabled = true;
  const bytes = await toLoad(network.sizes);
  let come = 0;
  const report = (more) => {
    come += more;
    get("bar").value = come / bytes;
    get("rate").textContent = `${megabytes(come)} of ${megabytes(bytes)}`;
  };
  say(bytes ? "Loading the network." : "Starting the network.");
  try {
    engine = await Engine.load(network, report, await best);
    get("start").hidden = true;
    get("rate").textContent = "";
    await see();
  } catch (error) {
    button.disabled = false;
    failed(error);
  }
}

const megabytes = (bytes) => `${Math.round(bytes / 1e6)} MB`;

function listen() {
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", (event) => event.target.name && changed(event));
  const clicks = {
    load: start,
    stop: () => {
      engine.stop();
      done("Stopped after");
    },
    choose: () => get("file").click(),
    camera: () => photograph(get("shot")).then(pickOwn, () => say(NO_CAMERA, "error")),
    snap: () => get("shot").close("taken"),
    close: () => get("shot").close(),
    redraw: () => {
      fields.seed.value = (Number(fields.seed.value) + 1) % 10_000;
      changed();
    },
    "copy-python": ({target: button}) => copy(python(), button),
    "copy-link": ({target: button}) => copy(location.href, button),
  };
  for (const [id, act] of Object.entries(clicks)) get(id).addEventListener("click", act);
  for (const [what, act] of Object.entries(savers)) {
    get(`save-${what}`).addEventListener("click", () => maps[0]?.average.count && act());
  }
  get("file").addEventListener("change", ({target: {files}}) => pickOwn(files[0], files[0]?.name));
  get("classes").addEventListener("click", ({target: {value}}) => value && choose(value));
  get("search").addEventListener("input", ({target: {value}}) => {
    const index = value.match(/\((\d+)\)$/)?.[1] ?? classes.indexOf(value);
    if (index !== -1) choose(index);
  });
  const over = (event) => {
    event.preventDefault();
    form.classList.toggle("pg-over", event.type === "dragover");
  };
  for (const kind of ["dragover", "dragleave"]) document.addEventListener(kind, over);
  document.addEventListener("drop", (event) => {
    over(event);
    pickOwn(event.dataTransfer.files[0], event.dataTransfer.files[0]?.name);
  });
  document.addEventListener("paste", (event) => pickOwn(event.clipboardData.files[0]));
  for (const suggestion of document.querySelectorAll(".pg-try")) {
    suggestion.addEventListener("click", () => {
      apply(new URLSearchParams(suggestion.dataset.try));
      form.scrollIntoView({behavior: "smooth"});
    });
  }
  addEventListener("hashchange", () => apply(new URLSearchParams(location.hash.slice(1))));
}

async function open() {
  [network, classes] = await Promise.all([json("settings.json"), json("classes.json")]);
  const options = Object.entries(METHODS).filter(([name]) => network.layer || !METHODS[name].cells);
  for (const select of [fields.method, fields.beside]) {
    select.append(...options.map(([name, {title}]) => new Option(title, name)));
  }
  fields.beside.append(new Option("no second map", NOTHING));
  fields.method.value = "smoothgrad";
  get("names").append(...classes.map((name, i) => new Option("", `${name} (${i})`)));
  get("thumbs").append(...network.photographs.map(({name, file, credit}) => thumb(name, credit, beside(file))));
  fields.picture.value = network.photographs[0].name;
  take(new URLSearchParams(location.hash.slice(1)));
  showValues();
  listen();
  form.hidden = false;
  document.documentElement.classList.add("pg-runs");
  await pickBundled();
  const bytes = await toLoad(network.sizes).catch(failed);
  if (bytes === undefined) return;
  get("load").textContent = bytes ? `Start: load ${megabytes(bytes)}` : "Start";
  get("load").disabled = false;
  if (!bytes) get("weight").textContent = "The network is still in your browser from last time: nothing is loaded. Your photograph never leaves your machine.";
}

open();
