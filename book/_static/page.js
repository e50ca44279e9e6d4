// What a page does beside showing text: a click enlarges a figure, and paper shows every answer.

{
  const figures = ".bd-article figure img";
  const dialog = document.createElement("dialog");
  dialog.className = "enlarged";
  dialog.setAttribute("aria-label", "The figure, enlarged. Escape or a click closes it.");
  const large = dialog.appendChild(new Image());
  document.body.append(dialog);

  const enlarge = (image) => {
    large.src = image.src;
    large.alt = image.alt;
    dialog.showModal();
  };
  dialog.addEventListener("click", () => dialog.close());
  dialog.addEventListener("keydown", ({key}) => {  // the theme keeps Escape for its search
    if (key === "Escape") dialog.close();
  });
  document.addEventListener("click", ({target}) => {
    if (target.matches(figures) && !target.closest("a")) enlarge(target);
  });
  for (const image of document.querySelectorAll(".bd-article figure img")) {
    image.tabIndex = 0;
    image.title = "Click to enlarge";
    image.addEventListener("keydown", (event) => {
      if (event.key === "Enter") enlarge(image);
    });
  }
}

addEventListener("beforeprint", () => {
  for (const option of document.querySelectorAll("details.option")) option.open = true;
});

// The theme's marks that open a part of the table of contents have no name.
for (const summary of document.querySelectorAll(".bd-sidebar summary:has(.toctree-toggle)")) {
  summary.setAttribute("aria-label", "Show or hide the pages of this part");
}
