// The control of a slider shows one of its frames. The others are fetched when somebody reaches
// for the control.

for (const figure of document.querySelectorAll(".frame-slider")) {
  const control = figure.querySelector("input");
  const frames = [...figure.querySelectorAll("img")];
  const labels = JSON.parse(control.dataset.labels);
  const show = () => {
    frames.forEach((frame, i) => { frame.hidden = i !== control.valueAsNumber; });
    figure.querySelector(".frame-label").textContent = labels[control.valueAsNumber];
    control.setAttribute("aria-valuetext", labels[control.valueAsNumber]);
  };
  const fetchAll = () => { for (const frame of frames) frame.loading = "eager"; };
  for (const reached of ["pointerenter", "touchstart", "focus"]) {
    control.addEventListener(reached, fetchAll, {once: true, passive: true});
  }
  control.addEventListener("input", () => { fetchAll(); show(); });
  show();  // a browser may have kept the place where a reader left the control
}
