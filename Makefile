# `make` or `make help` lists the commands. Each is a function of that name in tools/build.py, which
# describes the steps and runs without make too: python tools/build.py book
PYTHON ?= python3
COMMANDS := help book slides pdf notebooks away teacher figures chapter
COMMANDS += test lint types unit mutants format outputs install clean

.PHONY: $(COMMANDS) .venv/installed
$(COMMANDS):
	@$(PYTHON) tools/build.py $@

.venv/installed: install
