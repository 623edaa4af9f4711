# make demo   label the example video with the weights that come with panoptube, then score them on unseen streets
# make test   everything that a change must pass
# make docs   the documentation as pages: site/index.html; .venv/bin/mkdocs serve shows them with search
# They set up .venv by themselves, once: the first time takes minutes, the next seconds.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test docs clean

demo: .venv/run-installed
	$(BIN)/python examples/demo.py

test: .venv/dev-installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -n 2 --dist loadgroup

docs: .venv/dev-installed
	$(BIN)/mkdocs build --quiet

.venv/run-installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet -e .
	touch $@

.venv/dev-installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet -e '.[dev]'
	touch $@ .venv/run-installed

$(BIN)/python:
	$(PYTHON) -m venv .venv

clean:
	rm -rf .venv demo site
