// Formulas arrive after the slides were laid out; tests and printers wait for this attribute.
window.addEventListener("load", async () => {
  if (window.MathJax && MathJax.startup) await MathJax.startup.promise;
  Reveal.layout();
  document.documentElement.dataset.ready = "";
});
