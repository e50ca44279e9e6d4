"""Questions with folded answers: they need no kernel and no script, only <details>.

    :::{question} Which of these numbers is even?
    - [ ] 3

      Two does not divide it.
    - [x] 4

      It is twice two.
    :::

The question may go on in paragraphs. Each option is a list item that begins with [ ] or [x], and
what follows its first paragraph is shown when the reader opens it.
"""

from docutils import nodes
from sphinx.util.docutils import SphinxDirective


class QuestionNode(nodes.container):
    """A question with its options."""


class OptionNode(nodes.container):
    """One option: what is offered, then what is said to somebody who chose it."""


class ChoiceNode(nodes.container):
    """What an option offers."""


class Question(SphinxDirective):
    """The directive `question`."""

    required_arguments = 1
    final_argument_whitespace = True
    has_content = True

    def run(self) -> list[nodes.Node]:
        """Read the stem, its further paragraphs and the list of options."""
        text, _ = self.state.inline_text(self.arguments[0], self.lineno)
        found = QuestionNode("", nodes.paragraph("", "", *text, classes=["stem"]))
        body = nodes.container()
        self.state.nested_parse(self.content, self.content_offset, body)
        lists = [child for child in body if isinstance(child, nodes.bullet_list)]
        if len(lists) != 1:
            raise self.error(f"question: {len(lists)} lists of options, expected one")
        options = [self._option(item) for item in lists[0]]
        if sum("right" in each["classes"] for each in options) != 1 or len(options) < 2:
            raise self.error("question: expected two options or more, and exactly one [x]")
        found += [child for child in body if child is not lists[0]]
        found += options
        return [found]

    def _option(self, item: nodes.list_item) -> OptionNode:
        offered, *feedback = item.children
        first = offered[0] if isinstance(offered, nodes.paragraph) else nodes.Text("")
        mark = first.astext()[:3]
        if mark not in ("[x]", "[ ]"):
            raise self.error(f"question: an option begins with {mark!r}, expected [x] or [ ]")
        if not feedback:
            raise self.error("question: an option says nothing to those who choose it")
        offered[0] = nodes.Text(first.astext()[3:].lstrip())
        verdict, word = ("right", "Yes. ") if mark == "[x]" else ("wrong", "No. ")
        feedback[0].insert(0, nodes.strong("", word))
        return OptionNode("", ChoiceNode("", *offered.children), *feedback, classes=[verdict])


def _visit_question(self, node):
    self.body.append('<div class="question" role="group" aria-label="Check yourself">')


def _depart_question(self, node):
    self.body.append("</div>")


def _visit_option(self, node):
    self.body.append(f'<details class="option {node["classes"][0]}">')


def _depart_option(self, node):
    self.body.append("</details>")


def _visit_choice(self, node):
    self.body.append("<summary>")


def _depart_choice(self, node):
    self.body.append("</summary>")


def setup(app):
    """Called by Sphinx."""
    app.add_node(QuestionNode, html=(_visit_question, _depart_question))
    app.add_node(OptionNode, html=(_visit_option, _depart_option))
    app.add_node(ChoiceNode, html=(_visit_choice, _depart_choice))
    app.add_directive("question", Question)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
