// What tools/pdf.py runs in a page before it prints it.

const ANSWERS = ".solution, .question details.option > :not(summary)";

// Open what only a click shows, leave answers out, and make a strip of each slider.
function prepare(targets) {
  document.documentElement.dataset.theme = document.documentElement.dataset.mode = "light";
  const article = document.querySelector("article");
  const all = (selector) => [...article.querySelectorAll(selector)];
  for (const fold of all(".toggle-hidden")) fold.classList.remove("toggle-hidden");
  for (const answer of all(ANSWERS)) answer.classList.add("not-printed");
  for (const image of all("img")) image.loading = "eager";
  for (const slider of all(".frame-slider")) strip(slider);

  const number = article.querySelector("h2 .section-number");
  if (number) {
    const line = document.createElement("p");
    line.className = "chapter-number";
    line.textContent = "Chapter " + number.textContent.trim().split(".")[0];
    article.querySelector("h1").before(line);
  }
  // The browser keeps the place of an element in the PDF where a link of the page leads to it.
  for (const id of targets) {
    const link = document.createElement("a");
    link.href = "#" + id;
    article.append(link);
  }
  // A picture that cannot be read shows its text, here as on the screen.
  return Promise.allSettled(all("img").map(async (image) => {
    await image.decode();
    image.classList.toggle("tall", image.naturalHeight > 1.1 * image.naturalWidth);
  }));
}

// A slider becomes up to four of its frames, each under its label.
function strip(slider) {
  const labels = JSON.parse(slider.querySelector("input").dataset.labels);
  const frames = [...slider.querySelectorAll("img")];
  const description = slider.querySelector("label").textContent;
  const wide = frames[0].getAttribute("width") > 2.2 * frames[0].getAttribute("height");
  const count = Math.min(frames.length, wide ? 3 : 4);
  const kept = new Set();
  for (let i = 0; i < count; i++) kept.add(Math.round(i * (frames.length - 1) / (count - 1 || 1)));
  slider.classList.add("filmstrip");
  slider.classList.toggle("in-two-columns", !wide);
  frames.forEach((frame, i) => {
    if (!kept.has(i)) return frame.remove();
    const part = document.createElement("div");
    const label = document.createElement("p");
    label.textContent = `${description}: ${labels[i]}`;
    frame.hidden = false;
    frame.replaceWith(part);
    part.append(label, frame);
  });
}

// Make what is wider than the paper smaller, and let go over a page what is long. Return what is
// still too wide.
function fit() {
  const article = document.querySelector("article");
  const right = article.getBoundingClientRect().right;
  for (const formula of article.querySelectorAll('mjx-container[display="true"]')) {
    const {left, width} = formula.getBoundingClientRect();
    const parts = [...formula.querySelectorAll("mjx-math, mjx-mtd")];
    const end = Math.max(...parts.map((part) => part.getBoundingClientRect().right));
    if (end > left + width) formula.style.fontSize = 99 * width / (end - left) + "%";
  }
  for (const table of article.querySelectorAll("table")) {
    const {left, width} = table.getBoundingClientRect();
    if (left + width > right + 1) table.style.zoom = (right - left) / width;
  }
  for (const output of article.querySelectorAll(".cell_output pre")) {
    output.style.whiteSpace = "pre";  // columns of numbers stay columns, in smaller letters
    const share = output.clientWidth / output.scrollWidth;
    const size = parseFloat(getComputedStyle(output).fontSize);
    if (share < 0.6) output.style.whiteSpace = "";  // too small to read: lines are broken
    else if (share < 1) output.style.fontSize = `${0.99 * share * size}px`;
  }
  const long = "figure, .cell_output, .question, .exercise, .highlight, .cell_input, table, .math";
  for (const block of article.querySelectorAll(long)) {
    block.classList.toggle("goes-over-a-page", block.getBoundingClientRect().height > 600);
  }
  return [...article.querySelectorAll("*")]
    .filter((e) => e.checkVisibility() && !e.closest("mjx-assistive-mml, svg"))
    .filter((e) => e.getBoundingClientRect().right > right + 4)
    .map((e) => `${e.tagName} ${e.className} ${e.textContent.trim().slice(0, 50)}`);
}

// Keep the questions, with their answers open, and the solutions. Return how many there are.
function keepAnswers() {
  const article = document.querySelector("article");
  const kept = [...article.querySelectorAll(".question, .solution")];
  for (const answer of article.querySelectorAll(ANSWERS)) answer.classList.remove("not-printed");
  for (const option of article.querySelectorAll("details.option")) option.open = true;
  const title = article.querySelector("h1");
  title.prepend("Answers: ");
  article.replaceChildren(title, ...kept);
  return kept.length;
}

// The title with the number of its chapter.
function titleOfPage() {
  const own = [...document.querySelector("article h1").childNodes];
  const text = own.filter((n) => n.nodeType === Node.TEXT_NODE).map((n) => n.data).join("").trim();
  const number = document.querySelector("article h2 .section-number");
  return number ? `${number.textContent.trim().split(".")[0]}. ${text}` : text;
}
