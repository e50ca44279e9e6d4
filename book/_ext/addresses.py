"""What follows from the two addresses of _config.yml: repository.url and html.baseurl.

With the first, pages get buttons: the repository, "suggest edit", an issue, Colab and Binder. With
the second, they get their canonical address, those of OpenGraph, a sitemap and robots.txt. Without
them nothing on a page points outside but the bibliography.

Colab and Binder open the notebooks that the site offers. They are read from the branch gh-pages,
to which .github/workflows/pages.yml pushes the site.
"""

import re
from html import escape, unescape
from pathlib import Path
from urllib.parse import quote

from docutils import nodes

SITE_BRANCH = "gh-pages"
CARD = "_static/readme.png"  # the picture of a link to the site
BUTTONS = "use_repository_button", "use_edit_page_button", "use_issues_button"
LENGTH = 200  # letters of a description
SITEMAP = """<?xml version="1.0" encoding="utf-8"?>
<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">
{}
</urlset>
"""


def offer_repository(app, config):
    """Switch on the theme's buttons where there is a repository, which they need."""
    options = config.html_theme_options
    if url := (options.get("repository_url") or "").rstrip("/").removesuffix(".git"):
        options["repository_url"] = url  # as the buttons' addresses begin
        options |= dict.fromkeys(BUTTONS, True)  # Jupyter Book has set them to False
    if config.html_baseurl and not config.html_baseurl.endswith("/"):
        config.html_baseurl += "/"


def offer_launch(app, pagename, templatename, context, doctree):
    """Offer a page's notebook in Colab and Binder, which take it from GitHub."""
    url = app.config.html_theme_options.get("repository_url") or ""
    if doctree is None or not context.get("ipynb_source") or not (name := github_name(url)):
        return
    path = quote(f"notebooks/{Path(pagename).name}.ipynb")
    colab = f"https://colab.research.google.com/github/{name}/blob/{SITE_BRANCH}/{path}"
    binder = f"https://mybinder.org/v2/gh/{name}/{SITE_BRANCH}?labpath={quote(path, safe='')}"
    buttons = [
        dict(type="link", url=address, text=text, tooltip=f"Run this page in {text}", icon=icon)
        for text, address, icon in [
            ("Colab", colab, "fas fa-play"),
            ("Binder", binder, "fas fa-rocket"),
        ]
    ]
    context["header_buttons"].append(
        dict(
            type="group",
            tooltip="Run this page",
            icon="fas fa-rocket",
            buttons=buttons,
            label="launch-buttons",
        )
    )


def github_name(url: str) -> str | None:
    """OWNER/NAME of a repository on GitHub, None elsewhere."""
    found = re.fullmatch(r"https://github\.com/([\w.-]+/[\w.-]+)", url)
    return found[1] if found else None


def describe(app, pagename, templatename, context, doctree):
    """Say in the head of a page what it is about, and its address where the site has one."""
    base = app.config.html_baseurl
    text = first_sentences(doctree) if doctree else ""
    title = unescape(re.sub(r"<.*?>", "", context.get("title") or ""))
    tags = [("name", "description", text)] if text else []
    if doctree is not None:
        tags += [
            ("property", "og:type", "article"),
            ("property", "og:title", title),
            ("property", "og:description", text),
            ("property", "og:site_name", "Averaging Gradients"),
        ]
    if doctree is not None and base:
        tags += [
            ("property", "og:url", base + app.builder.get_target_uri(pagename)),
            ("property", "og:image", base + CARD),
            ("property", "og:image:alt", "Maps of a photograph of a cat by six methods"),
            ("name", "twitter:card", "summary_large_image"),
        ]
    lines = [
        f'<meta {kind}="{name}" content="{escape(content, quote=True)}">'
        for kind, name, content in tags
    ]
    context["metatags"] = "\n".join([context.get("metatags", ""), *lines])


def first_sentences(doctree) -> str:
    """The first paragraph of a page as text, cut where a word ends."""
    for paragraph in doctree.findall(nodes.paragraph):
        if isinstance(paragraph.parent, nodes.section):
            text = " ".join(paragraph.astext().split())
            if len(text) > LENGTH:
                text = text[:LENGTH].rsplit(" ", 1)[0] + " ..."
            return text
    return ""


def write_files(app, exception):
    """Write what a host reads: .nojekyll, robots.txt, 404.html and, with an address, a sitemap."""
    if exception is not None or app.builder.format != "html":
        return
    folder, base = Path(app.outdir), app.config.html_baseurl
    (folder / ".nojekyll").touch()  # else GitHub leaves out folders that begin with _
    start = base + app.builder.get_target_uri(app.config.root_doc)
    not_found = (Path(__file__).parent / "404.html").read_text("utf-8")
    (folder / "404.html").write_text(not_found.replace("${start}", escape(start)), "utf-8")
    robots = "User-agent: *\nDisallow:\n"
    if base:
        pages = sorted(app.builder.get_target_uri(page) for page in app.env.found_docs)
        lines = [f"<url><loc>{escape(base + page)}</loc></url>" for page in pages]
        (folder / "sitemap.xml").write_text(SITEMAP.format("\n".join(lines)), "utf-8")
        robots += f"Sitemap: {base}sitemap.xml\n"
    (folder / "robots.txt").write_text(robots, "utf-8")


def setup(app):
    """Called by Sphinx."""
    app.connect("config-inited", offer_repository)
    app.connect("html-page-context", offer_launch, priority=502)  # the theme's buttons come first
    app.connect("html-page-context", describe)
    app.connect("build-finished", write_files)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
