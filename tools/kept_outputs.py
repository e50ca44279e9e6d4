"""A plugin of pytest: nbval runs a notebook, and what its cells show is kept.

    pytest -c tests/book/nbval.ini -p tools.kept_outputs --kept-outputs=FILE NOTEBOOK

So each page is run once, as a test, and the site shows what that test has seen. nbval reads the
kernel's messages and compares; nbclient, which Jupyter's own tools run notebooks with, makes
outputs of the same messages. FILE is written when every cell has run without an error, also where
an output is another one than the notebook expects: then the test fails and the page can still be
built.
"""

from copy import deepcopy
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionComplete


class Recorder:
    """Passes on each message that nbval reads to nbclient, which collects outputs and widgets."""

    def __init__(self, to: Path):
        self.to = to
        self.client = None  # of nbclient; it has no kernel of its own
        self.cells = []  # code cells of the recorded notebook
        self.now = None  # the one that runs
        self.ran = set()  # numbers of those that have run without an error

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item):
        """Begin a cell; listen to its notebook with the first one."""
        if self.client is None:
            notebook = deepcopy(item.parent.nb)
            self.cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
            for cell in self.cells:
                cell.outputs, cell.execution_count = [], None
            self.client = NotebookClient(notebook, record_timing=False)
            self.client.reset_execution_trackers()
            read = item.parent.get_kernel_message
            item.parent.get_kernel_message = lambda **how: self.keep(read(**how))
        self.client.clear_before_next_output = False
        self.now = item.cell_num

    def keep(self, message: dict) -> dict:
        """Give a message to nbclient, and return it to nbval."""
        if message["parent_header"].get("msg_type") == "execute_request":
            cell = self.cells[self.now]
            try:
                self.client.process_message(message, cell, self.now)
            except CellExecutionComplete:
                if all(output.output_type != "error" for output in cell.outputs):
                    self.ran.add(self.now)
        return message

    def pytest_sessionfinish(self):
        """Write the notebook if all of it has run."""
        if self.client and len(self.ran) == len(self.cells):
            self.client.set_widgets_metadata()
            for number, cell in enumerate(self.cells, 1):
                tidy(cell, number)
            nbformat.write(self.client.nb, self.to)


def tidy(cell, number: int) -> None:
    """Number a cell, as nbval's kernel does not count, and join what it printed in pieces."""
    cell.execution_count, kept = number, []
    for output in cell.outputs:
        if output.output_type == "execute_result":
            output.execution_count = number
        if kept and output.output_type == "stream" and output.name == kept[-1].get("name"):
            kept[-1].text += output.text  # where a line is cut is chance
        else:
            kept.append(output)
    cell.outputs = kept


def pytest_addoption(parser):
    """The option that says where the outputs go."""
    parser.addoption("--kept-outputs", type=Path, help="the notebook to write")


def pytest_configure(config):
    """Listen where there is something to write."""
    if to := config.getoption("kept_outputs"):
        config.pluginmanager.register(Recorder(to))
