"""From a page of the site, as Sphinx has resolved it, to plain Markdown that any notebook shows.

Sphinx knows the numbers of chapters, equations and figures and the names of citations, so that the
text says what the site says. References become links where the site has an address, else words.
"""

import re
from collections.abc import Callable, Iterator
from html import escape
from typing import NamedTuple

from docutils import nodes
from questions import OptionNode, QuestionNode
from sphinx_exercise.nodes import exercise_enumerable_node, exercise_node, solution_node

EXERCISES = exercise_node, exercise_enumerable_node
SILENT = nodes.target, nodes.comment, nodes.title, nodes.Invisible
MARKS = {nodes.strong: "**", nodes.emphasis: "*"}
TAGS = {
    nodes.strong: "b",
    nodes.emphasis: "em",
    nodes.literal: "code",
}  # for titles of folds
SPECIAL = re.compile(r"([\\`*_\[\]<$|])")
DISPLAYED = re.compile(r"\$\$\n(.*?)\n\$\$", re.DOTALL)


class Part(NamedTuple):
    """A piece of a page: Markdown, or a code cell with what is written above and below it."""

    text: str = ""
    cell: int | None = None  # the cell's number on the page
    folded: bool = False  # code that the site folds
    solution: str = ""  # the label of the exercise that it solves, where it does
    heading: bool = False


class Page:
    """Writes one page. `address` gives the link of a reference, or "" for words alone."""

    def __init__(self, doctree: nodes.document, env, name: str, address: Callable):
        self.doctree, self.address = doctree, address
        self.sections = env.toc_secnumbers.get(name, {})
        self.numbered = env.toc_fignumbers.get(name, {})

    def parts(self) -> list[Part]:
        """The pieces of the page in order; texts of one cell are one piece."""
        joined: list[Part] = []
        for part in self._parts(self.doctree):
            last = joined[-1] if joined else None
            texts = last and part.cell is last.cell is None and not part.heading
            if texts and part.solution == last.solution:
                joined[-1] = last._replace(text=f"{last.text}\n\n{part.text}")
            else:
                joined.append(part)
        return list(folded_solutions(joined))

    def _parts(self, node: nodes.Node, level: int = 0, solution: str = "") -> Iterator[Part]:
        for child in node.children:
            if isinstance(child, nodes.container) and child.get("nb_element") == "cell_code":
                yield from self._cell(child, solution)
            elif isinstance(child, EXERCISES):
                title = f"{'#' * (level + 1)} Exercise {self._of('exercise', child)}".rstrip()
                if named := re.search(r"\((.*)\)", self.inline(child[0])):
                    title += f": {named[1]}"
                yield Part(title, heading=True)
                yield from self._parts(child, level)
            elif isinstance(child, solution_node):
                yield from self._parts(child, level, child["target_label"])
            elif isinstance(child, nodes.section) and isinstance(child[0], nodes.title):
                title = f"{'#' * (level + 1)} {self._number(child)}{self.inline(child[0])}"
                yield Part(title, solution=solution, heading=True)
                yield from self._parts(child, level + 1, solution)
            elif next(child.findall(is_cell), None):
                yield from self._parts(child, level, solution)
            elif text := "\n\n".join(self.blocks(child)):
                yield Part(text, solution=solution)

    def _cell(self, cell: nodes.container, solution: str) -> Iterator[Part]:
        """A code cell; above it what it checks, below it the captions of its figures."""
        hidden = cell.get("hide_mode") or "tag_remove-input" in cell["classes"]
        said = cell.get("prompt_show", "")
        if said.startswith("Checked:"):
            yield Part(f"*{escaped(said)}*", solution=solution)
        folded = bool(hidden or solution)
        yield Part(cell=cell["cell_index"], folded=folded, solution=solution)
        drawn = "figure" in cell.get("cell_metadata", {}).get("mystnb", {})
        for figure in cell.findall(nodes.figure) if drawn else ():
            for caption in figure.findall(nodes.caption):
                number = self._of("figure", figure)
                begin = f"**Fig. {number}** " if number else ""
                yield Part(begin + self.inline(caption), solution=solution)

    def _number(self, section: nodes.section) -> str:
        number = self.sections.get(f"#{section['ids'][0]}", self.sections.get(""))
        return ".".join(map(str, number)) + ". " if number else ""

    def _of(self, kind: str, node: nodes.Element) -> str:
        """The number of a figure or an equation, such as 2.3; none without a label."""
        found = (self.numbered.get(kind, {}).get(label) for label in node["ids"])
        return ".".join(map(str, next(filter(None, found), ())))

    # Blocks: each function returns a list of them, to be joined with empty lines.

    def blocks(self, node: nodes.Node) -> list[str]:
        """The Markdown blocks of a node."""
        for kinds, write in self._writers().items():
            if isinstance(node, kinds):
                return write(node)
        return self.inside(node)

    def inside(self, node: nodes.Node) -> list[str]:
        """The blocks of what is in a node."""
        return [block for child in node.children for block in self.blocks(child)]

    def _writers(self) -> dict:
        return {
            SILENT: lambda node: [],
            nodes.compound: lambda node: [],  # the contents of the book
            nodes.paragraph: lambda node: [self.inline(node)],
            nodes.math_block: self._equation,
            nodes.raw: lambda node: [node.astext()] if node["format"] == "html" else [],
            nodes.literal_block: lambda node: [f"```text\n{node.astext()}\n```"],
            (nodes.bullet_list, nodes.enumerated_list): self._list,
            nodes.definition_list_item: self._definition,
            nodes.table: self._table,
            QuestionNode: self._question,
            nodes.Admonition: self._box,
            nodes.Text: lambda node: [escaped(node.astext())],
            nodes.Inline: lambda node: [self.inline(nodes.paragraph("", "", node.deepcopy()))],
        }

    def _equation(self, node: nodes.math_block) -> list[str]:
        lines = [line for line in node.astext().splitlines() if line.strip()]
        text, number = "\n".join(lines), self._of("displaymath", node)
        if r"\\" in text and r"\begin{" not in text:
            text = f"\\begin{{aligned}}\n{text}\n\\end{{aligned}}"
        return [f"$$\n{text}" + (f" \\tag{{{number}}}" if number else "") + "\n$$"]

    def _list(self, node: nodes.Element) -> list[str]:
        items, tight = [], True
        for i, item in enumerate(node.children, node.get("start", 1)):
            mark = f"{i}. " if isinstance(node, nodes.enumerated_list) else "- "
            found = self.inside(item)
            tight = tight and len(found) == 1
            items.append(mark + "\n\n".join(found).replace("\n", "\n" + " " * len(mark)))
        return [re.sub(r"\n +\n", "\n\n", ("\n" if tight else "\n\n").join(items))]

    def _definition(self, node: nodes.definition_list_item) -> list[str]:
        terms = [self.inline(term) for term in node.children if isinstance(term, nodes.term)]
        return [f"**{', '.join(terms)}**", *self.inside(node[-1])]

    def _table(self, node: nodes.table) -> list[str]:
        lines = []
        for row in node.findall(nodes.row):
            cells = (" ".join(self.inside(entry)) for entry in row.children)
            lines.append("| " + " | ".join(map(in_a_table, cells)) + " |")
            if isinstance(row.parent, nodes.thead):
                lines.append("|" + "---|" * len(row.children))
        return ["\n".join(lines)]

    def _question(self, node: QuestionNode) -> list[str]:
        stem, *rest = node.children
        found = [f"**Question.** {self.inline(stem)}"]
        for child in rest:
            if isinstance(child, OptionNode):
                offered, *feedback = child.children
                said = [block for each in feedback for block in self.blocks(each)]
                found.append(details(self.inline(offered, html=True), said))
            else:
                found += self.blocks(child)
        return found

    def _box(self, node: nodes.Element) -> list[str]:
        """An admonition: a quotation with a bold title, or a fold where the site has one."""
        titles = [child for child in node.children if isinstance(child, nodes.title)]
        found = self.inside(node)
        if "dropdown" in node["classes"]:
            return [details(f"<b>{self.inline(titles[0], html=True)}</b>", found)]
        title = self.inline(titles[0]) if titles else type(node).__name__.capitalize()
        text = DISPLAYED.sub(lambda m: f"$${' '.join(m[1].split())}$$", "\n\n".join(found))
        quoted = "\n".join(f"> {line}".rstrip() for line in text.splitlines())
        return [f"> **{title}**\n>\n{quoted}"]

    def inline(self, node: nodes.Node, html: bool = False) -> str:
        """Text on one line; `html` where no Markdown is read, as in the title of a fold."""
        return "".join(self._inline(child, html) for child in node.children)

    def _inline(self, node: nodes.Node, html: bool) -> str:
        if isinstance(node, nodes.Text):
            text = re.sub(r"\s+", " ", node.astext())
            return escape(text, quote=False) if html else escaped(text)
        if isinstance(node, nodes.math):
            return f"${' '.join(node.astext().split())}$"
        if html and type(node) in TAGS:
            tag = TAGS[type(node)]
            return f"<{tag}>{self.inline(node, html)}</{tag}>"
        if isinstance(node, nodes.literal):
            code = " ".join(node.astext().split())
            return f"`` {code} ``" if "`" in code else f"`{code}`"
        text = self.inline(node, html)
        if isinstance(node, nodes.reference) and (address := self.address(node)):
            return f'<a href="{address}">{text}</a>' if html else f"[{text}]({address})"
        title = isinstance(node, nodes.reference) and next(node.findall(is_title), None)
        mark = "*" if title else MARKS.get(type(node), "")
        inside = text.strip()
        return text.replace(inside, f"{mark}{inside}{mark}") if inside else text


def is_cell(node: nodes.Node) -> bool:
    """Whether a node is a code cell."""
    return isinstance(node, nodes.container) and node.get("nb_element") == "cell_code"


def is_title(node: nodes.Node) -> bool:
    """Whether a node is the text of a reference to a section."""
    return isinstance(node, nodes.Inline) and "std-ref" in node.get("classes", ())


def escaped(text: str) -> str:
    """Text whose signs mean nothing in Markdown."""
    return SPECIAL.sub(r"\\\1", text)


def in_a_table(text: str) -> str:
    """A cell of a table: an upright bar in a formula would end the cell."""
    formulas = re.compile(r"\$[^$]+\$")
    return formulas.sub(
        lambda m: m[0].replace(r"\|", r"\Vert ").replace("|", r"\vert "), text.replace("\n", " ")
    )


def details(summary: str, blocks: list[str]) -> str:
    """A fold. The empty lines make its inside Markdown again."""
    inside = "\n\n".join(blocks)
    return f"<details>\n<summary>{summary}</summary>\n\n{inside}\n\n</details>"


def folded_solutions(parts: list[Part]) -> Iterator[Part]:
    """The same with the texts of solutions folded; a code cell that begins one is announced."""
    begun = ""
    for part in parts:
        title = "<b>Solution</b>" if part.solution != begun else "<b>Solution, continued</b>"
        if part.solution and part.cell is None:
            part = part._replace(text=details(title, [part.text]))
        elif part.solution != begun and part.solution:
            yield Part("*Solution: in the folded cell below.*", solution=part.solution)
        begun = part.solution
        yield part
