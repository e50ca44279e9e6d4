"""The decks of slides as a Sphinx project of their own: `make slides` builds them into the site."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "_ext"))

from pull import chapter_numbers

HERE = Path(__file__).parent

project = "Averaging Gradients"
author = "the Averaging Gradients authors"
language = "en"
extensions = ["myst_parser", "sphinx.ext.mathjax", "sphinx_revealjs", "pull"]
# A chapter that is left out of _toc.yml has no deck.
left_out = sorted({deck.stem for deck in HERE.glob("[0-9]*.md")} - {*chapter_numbers()})
exclude_patterns = ["README.md", *(f"{name}.md" for name in left_out)]
myst_enable_extensions = ["amsmath", "attrs_block", "attrs_inline", "colon_fence", "dollarmath"]
html_copy_source = False
html_use_index = False

if (HERE.parents[1] / "_build/static/vendor/mathjax").is_dir():
    # The site's own copy, seen from slides/_static; pages, too, take a CDN's where it is missing.
    mathjax_path = "../../_static/vendor/mathjax/tex-mml-chtml.js"
mathjax3_config = {
    "chtml": {"matchFontHeight": False},  # slides that are not shown have no height to match
    "options": {"skipHtmlTags": {"[+]": ["aside"]}},
}
revealjs_style_theme = "white"
revealjs_static_path = ["static"]
revealjs_css_files = ["slides.css"]
revealjs_js_files = [["slides.js", {"loading_method": "defer"}]]
revealjs_script_plugins = [{"src": "revealjs/plugin/notes/notes.js", "name": "RevealNotes"}]
revealjs_script_conf = {
    "width": 1280,
    "height": 720,
    "margin": 0.02,
    "center": False,
    "hash": True,
    "slideNumber": "c/t",
    "transition": "none",
    "pdfMaxPagesPerSlide": 1,
}
