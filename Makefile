# `make` or `make help` lists the commands.
, := ,
PYTHON ?= python3
BIN := .venv/bin
VENDOR := _build/static/vendor
SITE := _build/html/.complete
PACKAGE := $(wildcard tutorial_lib/*.py tutorial_lib/*/*.py tutorial_lib/reproduce/configs/*.toml)
PAGES := $(shell grep -ls '^kernelspec:' book/*.md)
NOTEBOOKS := $(PAGES:book/%.md=_build/notebooks/%.ipynb)
CHECKED := $(PAGES:book/%.md=_build/nbval/%.passed)
EXPECTED := $(wildcard tests/book/expected_outputs/*.json)
BOOK_LIB := $(wildcard book/tutorial_book/*.py)
BOOK := _config.yml _toc.yml $(BOOK_LIB) $(wildcard book/*.md book/*.bib book/_ext/*.py book/_static/* book/tutorial_book/results/* book/tutorial_book/results/*/*)

# Tests and pages run in two processes, which share the processors.
export OMP_NUM_THREADS ?= $(shell $(PYTHON) -c 'import os; print(max(1, (os.cpu_count() or 1) // 2))')

# $(call step,name,command,hint): say what runs; where it fails, say so and what helps.
define step
@echo; echo "== $(1)"
@$(2) || { echo; echo "FAILED: $(1). $(3)"; exit 1; }
endef

.DELETE_ON_ERROR:
.SECONDARY: $(NOTEBOOKS)
.PHONY: help book notebooks away test check lint unit types mutants format outputs clean

help:
	@echo "make book      build the site (creates .venv first) and say where it is"
	@echo "make test      lint, unit tests, the site in a browser, every chapter run and checked"
	@echo "make notebooks build the downloads alone, without the site, and say where they are"
	@echo "make away      run every download in an empty folder, away from the repository"
	@echo "make mutants   plant mistakes in a copy of the package: a test must notice each"
	@echo "make types     check the type hints of tutorial_lib/averaging"
	@echo "make format    repair what the linter and formatter can repair"
	@echo "make outputs   run the chapters and store the outputs that tests compare"
	@echo "make clean     remove everything built (.venv stays)"

book:
	@$(MAKE) --no-print-directory $(SITE) || { echo; echo "make book FAILED: the line that says FAILED above names the step"; exit 1; }
	@echo; echo "The book is built. Open this file in a browser:"
	@echo "    $(CURDIR)/_build/html/index.html"
	@echo "or serve it, then open localhost:8000:"
	@echo "    $(BIN)/python -m http.server 8000 --bind 127.0.0.1 --directory _build/html"

notebooks: .venv/installed _build/executed-with
	@mkdir -p _build/static  # where the site has what it serves, which _config.yml names
	$(call step,running the chapters,$(BIN)/python tools/run_pages.py $(PAGES),The cell above failed)
	$(call step,making the notebooks,$(BIN)/jupyter-book build . -W -n --keep-going --builder custom --custom-builder downloads,Sphinx's warnings above are errors here)
	@echo; echo "The notebooks and the wheel that they need are here:"; echo "    $(CURDIR)/_build/downloads"

# Slow, so it is no part of `make test`, which runs two of them.
away: notebooks
	$(call step,every notebook away from the repository,$(BIN)/python tools/run_away.py _build/downloads,The notebooks above failed)

test:
	@$(MAKE) --no-print-directory check || { echo; echo "make test FAILED: the line that says FAILED above names the step"; exit 1; }
	@echo; echo "make test passed: lint, unit tests, site, $(words $(PAGES)) pages run and checked"

check: lint types $(SITE)
	@$(MAKE) --no-print-directory unit
	@$(MAKE) --no-print-directory -j 2 $(CHECKED)

lint: .venv/installed
	$(call step,lint,$(BIN)/ruff check . && $(BIN)/ruff format --check .,make format repairs most of it)

unit: .venv/installed
	$(call step,unit and site tests and the examples of docstrings,$(BIN)/pytest -n 2 --dist loadscope --doctest-modules tests tutorial_lib --ignore tests/test_mutants.py,pytest names the tests above)

types: .venv/installed
	$(call step,types,$(BIN)/mypy,mypy names the lines above)

# Slow, so it is no part of `make test`.
mutants: .venv/installed
	$(call step,planted mistakes,$(BIN)/pytest tests/test_mutants.py,A mutant that no test notices is named above)

# Installing again is quick where nothing is missing.
.venv/installed: pyproject.toml
	$(call step,Python 3.11 or newer,$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))',Set one: make PYTHON=/path/to/python3.12 ...)
	$(call step,the environment .venv,test -x $(BIN)/python || $(PYTHON) -m venv .venv,On Debian and Ubuntu: apt install python3-venv; then remove .venv)
	$(call step,installing (about 5 GB where torch is new here),$(BIN)/python -m pip install --disable-pip-version-check -e '.[book$(,)test]',pip's last lines say why)
	$(call step,first import,$(BIN)/python -c 'import tutorial_lib$(,) matplotlib.font_manager',Remove .venv and try again)
	@mkdir -p .venv/etc/ipython  # kernels of this environment say only what went wrong
	@echo "c.IPKernelApp.log_level = 40" > .venv/etc/ipython/ipython_kernel_config.py
	@touch $@

# Notebook caches know nothing of the code that pages import: they go when it, or the environment,
# changes.
_build/executed-with: .venv/installed $(PACKAGE) $(BOOK_LIB)
	@mkdir -p _build && rm -rf _build/.jupyter_cache && touch $@

$(VENDOR): web/package.json web/package-lock.json web/fetch.py | .venv/installed
	$(call step,fetching MathJax and the widget manager,$(BIN)/python web/fetch.py $(VENDOR),See above)

_build/notebooks/%.ipynb: book/%.md tools/notebooks.py $(EXPECTED) | .venv/installed
	@$(BIN)/python tools/notebooks.py convert $< $@

$(SITE): $(BOOK) $(VENDOR) _build/executed-with
	@rm -rf _build/html _build/.doctrees
	$(call step,running the chapters,$(BIN)/python tools/run_pages.py $(PAGES),The cell above failed)
	$(call step,building the site,$(BIN)/jupyter-book build . -W -n --keep-going,Sphinx's warnings above are errors here)
	@touch $@

# Pages import tutorial_book from the folder book, and nbval runs them in another folder.
_build/nbval/%.passed: _build/notebooks/%.ipynb _build/executed-with tests/book/nbval.ini
	$(call step,nbval: every cell of $*,PYTHONPATH="$(CURDIR)/book" $(BIN)/pytest -c tests/book/nbval.ini $<,Where only stored outputs differ: make outputs)
	@mkdir -p $(@D) && touch $@

format: .venv/installed
	@$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

outputs: .venv/installed
	$(call step,storing the checked outputs,PYTHONPATH="$(CURDIR)/book" $(BIN)/python tools/notebooks.py outputs $(PAGES),The cell above failed)

clean:
	rm -rf _build .pytest_cache .ruff_cache .hypothesis
