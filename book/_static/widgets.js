// What the widget manager of the sliders expects of a page, set up before its scripts run.

// It looks for its fonts below require.js's base, which would be the page's own folder.
window.require = {baseUrl: document.documentElement.dataset.content_root + "_static/vendor"};

// It typesets labels through MathJax 2's Hub, and the book has MathJax 3: translate. Before
// MathJax is ready there is nothing to do, because MathJax begins by typesetting the whole page.
{
  let mathjax;
  const Hub = {Queue: ([, , element]) => mathjax.typesetPromise?.([element])};
  Object.defineProperty(window, "MathJax", {
    get: () => mathjax,
    set: (value) => { mathjax = Object.assign(value, {Hub}); },
  });
}
