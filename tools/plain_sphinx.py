"""Write conf.py, with which plain Sphinx builds the book: the way out when jupyter-book 1.x ends.

    python tools/plain_sphinx.py        from the repository's root, where jupyter-book is installed
    sphinx-build -n --keep-going . _build/plain

The second command runs where `pip install '.[plain]'` was done, without jupyter-book and its old
Sphinx. CONTRIBUTING.md says when to switch.
"""

import subprocess
import sys
from pathlib import Path

CONF = Path("conf.py")
# jupyter-book's own extensions, and those that it loads and this book does not use.
LEFT_OUT = ["jupyter_book", "sphinx_comments", "sphinx_jupyterbook_latex", "sphinx_thebe"]
BESIDE = """
# What jupyter-book does itself.
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "book/_ext"))
extensions = [name for name in extensions if name not in {left_out}]
nb_execution_cache_path = str(HERE / "_build/.jupyter_cache")
redirects["index"] = "book/index.html"
"""


def main() -> None:
    """Let jupyter-book translate _config.yml, and add what it does beside."""
    tool = Path(sys.executable).with_name("jupyter-book")
    subprocess.run([str(tool), "config", "sphinx", "."], check=True, stdout=subprocess.DEVNULL)
    CONF.write_text(CONF.read_text("utf-8") + BESIDE.format(left_out=LEFT_OUT), "utf-8")


if __name__ == "__main__":
    main()
