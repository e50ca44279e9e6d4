"""A new chapter that passes every test as it stands, to be filled with your own.

    python -m tools.new_chapter NAME [PHOTO]      make chapter NAME=my-topic PHOTO=~/mine.jpg

Writes book/95-NAME.md from tools/chapter_template.md, copies the photograph to
book/photos/NAME.jpg (one of the package's where none is given and none is there), and adds a line
to _toc.yml. Where something is wrong, it writes nothing.
"""

import re
import sys
from pathlib import Path

from PIL import Image

import tutorial_lib as tl

ROOT = Path(__file__).parents[1]
TEMPLATE = Path(__file__).with_name("chapter_template.md")
NUMBERS = range(95, 100)  # behind the last chapter of the book
LABEL = re.compile(r"^\((\S+)\)=|^\$\$ \((\S+)\)|^:label: (\S+)|^ *name: (\S+)", re.MULTILINE)
NEXT = """Written:
    {page}
    {photo}
    a line in _toc.yml (move it where the chapter shall stand: readers see numbers in that order)

Next:
    1. make book, and look at _build/html/book/{stem}.html
    2. Put your text, your photograph and your network in, a part at a time. The page "A chapter of
       your own" says how: _build/html/book/teach/own-chapter.html
    3. {python} -m pytest tests/book -k "{stem} or label"    says what is still missing (seconds)
    4. make test, at the end
"""


def new_chapter(root: Path, name: str, photo: Path | None = None) -> Path:
    """Write the page, its photograph and its line in _toc.yml below `root`; return the page."""
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        raise SystemExit(
            f"NAME: {name!r} given, expected small letters, digits and single hyphens, the first a "
            "letter: make chapter NAME=my-topic"
        )
    taken = [p.name for p in (root / "book").glob("*.md") if p.stem[3:] == name or p.stem == name]
    if taken:
        raise SystemExit(f"NAME: {name!r} is taken by book/{taken[0]}; take another one")
    picture = _read_photo(photo)
    used = {p.name[:2] for p in (root / "book").glob("[0-9][0-9]-*.md")}
    number = next((n for n in NUMBERS if str(n) not in used), None)
    if number is None:
        raise SystemExit("NAME: book/95 to book/99 are all there; rename one of them to make room")
    page = root / f"book/{number}-{name}.md"
    toc = root / "_toc.yml"
    contents = _with_page(toc.read_text("utf-8"), f"book/{page.stem}")
    title = name.replace("-", " ").capitalize()
    text = TEMPLATE.read_text("utf-8").replace("NAME", name).replace("TITLE", title)
    _refuse_labels_twice(root, name, text)
    to = root / f"book/photos/{name}.jpg"
    if photo is not None or not to.exists():
        to.parent.mkdir(exist_ok=True)
        picture.save(to, quality=90)
    page.write_text(text, "utf-8")
    toc.write_text(contents, "utf-8")
    return page


def _read_photo(photo: Path | None) -> Image.Image:
    """The photograph, upright, and no larger than a page needs."""
    if photo is not None and not photo.expanduser().is_file():
        raise SystemExit(f"PHOTO: there is no file {photo}; give the path of a photograph")
    try:
        picture = tl.load_image("chelsea" if photo is None else str(photo.expanduser()))
    except ValueError as error:
        said = str(error).removeprefix("name: ")
        raise SystemExit(f"PHOTO: {said}; save it as a JPEG of up to 89 million pixels") from error
    picture.thumbnail((1600, 1600))
    return picture


def _refuse_labels_twice(root: Path, name: str, text: str) -> None:
    """Two pages with one label: the book would not build."""
    there = {p.name: _labels(p.read_text("utf-8")) for p in root.glob("book/*.md")}
    for page, labels in there.items():
        if twice := sorted(labels & _labels(text)):
            raise SystemExit(
                f"NAME: {name!r} would give the label {twice[0]}, which book/{page} has"
            )


def _labels(text: str) -> set[str]:
    return {"".join(found) for found in LABEL.findall(text)} - {"python3"}


def _with_page(toc: str, page: str) -> str:
    """The table of contents with the page behind the last numbered chapter."""
    lines = toc.splitlines(keepends=True)
    numbered = [i for i, line in enumerate(lines) if re.search(r"^ *- file: book/\d\d-", line)]
    if not numbered:
        raise SystemExit(
            "_toc.yml: it has no chapter (- file: book/10-taylor) to add a line behind"
        )
    last = lines[numbered[-1]]
    lines[numbered[-1]] = last.rstrip("\n") + "\n"
    lines.insert(numbered[-1] + 1, f"{last.partition('-')[0]}- file: {page}\n")
    return "".join(lines)


def main(arguments: list[str]) -> None:
    """The command line above."""
    if not 1 <= len(arguments) <= 2 or not arguments[0]:
        raise SystemExit("NAME: nothing given. Write: make chapter NAME=my-topic PHOTO=mine.jpg")
    name, *photo = arguments
    page = new_chapter(ROOT, name, Path(photo[0]) if photo else None)
    where = dict(page=page.relative_to(ROOT), photo=f"book/photos/{name}.jpg", stem=page.stem)
    python = Path(sys.executable)
    python = python.relative_to(ROOT) if python.is_relative_to(ROOT) else python
    print(NEXT.format(**where, python=python))


if __name__ == "__main__":
    main(sys.argv[1:])
