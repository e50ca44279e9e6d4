"""Which cells of a chapter its exercises need: a homework notebook begins with them.

A solution uses names of the chapter. The cells that bind these names are needed, and so are the
cells that bind the names which those use, and so on.
"""

import ast
import re

from IPython.core.inputtransformer2 import TransformerManager

CHANGES = {"append", "add", "update", "extend", "insert", "setdefault", "pop", "remove", "clear"}

IN_PLACE = re.compile(r"[a-z]\w*[a-z]_")  # torch's x.add_(1) and nn.init.zeros_(x)


def needed_cells(cells: list) -> list[str]:
    """The code cells of a page, in order, on which its solutions rest; no solution among them."""
    shown, solutions, in_solution = [], [], False
    for place, cell in enumerate(cells):
        if cell.cell_type == "markdown":
            for word in re.findall(r"^`{3,}\{solution-(start|end)\}", cell.source, re.MULTILINE):
                in_solution = word == "start"
        elif cell.cell_type == "code":
            (solutions if in_solution else shown).append((place, names_of(cell.source)))
    needed = set()
    for place, solution in solutions:
        wanted = set(solution.free)
        for before, names in reversed(shown):
            if before < place and (names.bound | names.changed) & wanted:
                needed.add(before)
                wanted = wanted - names.bound | names.free
    return [cell.source for place, cell in enumerate(cells) if place in needed]


class _Names(ast.NodeVisitor):
    """The names of a cell: `free` come from outside, `bound` get a value here.

    The value of a name in `changed` is changed: x[i] = ..., x.y = ..., x.append(...), x.add_(...).
    Nodes are visited in the order in which Python runs them.
    """

    def __init__(self):
        self.free, self.bound, self.changed = set(), set(), set()

    def visit_Name(self, node):
        if isinstance(node.ctx, ast.Store):
            self.bound.add(node.id)
        elif node.id not in self.bound:
            self.free.add(node.id)

    def visit_Assign(self, node):
        for part in (node.value, *node.targets):
            self.visit(part)

    def visit_AugAssign(self, node):
        self._change(node.target)
        self.visit(node.value)

    def visit_For(self, node):
        for part in (node.iter, node.target, *node.body, *node.orelse):
            self.visit(part)

    def visit_Import(self, node):
        self.bound |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}

    visit_ImportFrom = visit_Import

    def visit_Attribute(self, node):
        if isinstance(node.ctx, ast.Store):
            self._change(node)
        self.generic_visit(node)

    visit_Subscript = visit_Attribute

    def visit_Call(self, node):
        name = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        if name in CHANGES or IN_PLACE.fullmatch(name):
            for part in (node.func, *node.args * bool(IN_PLACE.fullmatch(name))):
                self._change(part)
        self.generic_visit(node)

    def visit_FunctionDef(self, node):
        self.bound.add(node.name)
        arguments = {a.arg for a in ast.walk(node.args) if isinstance(a, ast.arg)}
        self._inside(node.body, arguments, [node.args, *node.decorator_list])

    def visit_Lambda(self, node):
        arguments = {a.arg for a in ast.walk(node.args) if isinstance(a, ast.arg)}
        self._inside([node.body], arguments, [node.args])

    def visit_ClassDef(self, node):
        self.bound.add(node.name)
        self._inside(node.body, set(), node.bases)

    def visit_ListComp(self, node):
        results = [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
        parts = [p for g in node.generators for p in (g.iter, g.target, *g.ifs)]
        self._inside([*parts, *results], set(), [])

    visit_SetComp = visit_DictComp = visit_GeneratorExp = visit_ListComp

    def _inside(self, body, arguments, outside):
        """Read a function, class or comprehension: what it binds stays inside."""
        for part in outside:
            self.visit(part)
        inner = _Names()
        inner.bound |= arguments
        for part in body:
            inner.visit(part)
        self.free |= inner.free - self.bound - inner.bound
        self.changed |= inner.changed - inner.bound

    def _change(self, node):
        """Note the name that stands first in a.b[c].d: its value changes."""
        while isinstance(node, ast.Attribute | ast.Subscript | ast.Call):
            node = node.func if isinstance(node, ast.Call) else node.value
        if isinstance(node, ast.Name):
            self.changed.add(node.id)
            if node.id not in self.bound:
                self.free.add(node.id)


def names_of(source: str) -> _Names:
    """The names of a cell."""
    names = _Names()
    names.visit(ast.parse(TransformerManager().transform_cell(source)))  # %magic, !command
    return names
