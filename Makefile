# Each target works alone on a fresh machine that has make and Python 3.11 or newer.

PYTHON ?= python3
BIN := .venv/bin
# two processes, each on one core, are sooner done than one on both; the tests of a file share what
# they have made, and the files run in their order, the slow ones of the browser first
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help lab app demo test quick docs bench fmt lock model

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-6s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

lab: .venv/.installed model ## open the playground in JupyterLab
	$(BIN)/jupyter trust notebooks/*.ipynb
	$(BIN)/jupyter lab --LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate \
		--notebook-dir=notebooks --LabApp.default_url=/lab/tree/01_playground.ipynb

# app/ has Voilà's settings, and a template that fetches nothing from elsewhere
app: .venv/.installed model ## open the playground as an app, without code, in Voilà
	JUPYTER_PATH=app JUPYTER_CONFIG_PATH=app $(BIN)/voila notebooks/01_playground.ipynb

demo: .venv/.installed ## edit the default model in three rounds, print and report what happens
	$(BIN)/python -m coachhook_viz demo --report build/demo.html

test: .venv/.installed ## lint, types, floors and all tests, which build the documentation, too
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tests/browser/find_chromium.py
	$(BIN)/python -m coachhook_viz model
	$(PYTEST)

quick: .venv/.installed ## lint, types, floors, and the tests that need neither model nor browser
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(PYTEST) -q -m "not model and not browser and not notebook"

docs: .venv/.installed ## build the documentation into build/docs; a warning is an error
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --nitpicky --fresh-env --quiet -d build/doctrees docs build/docs

bench: .venv/.installed model ## time a round beside the plain published procedure, and the rest that results.md shows
	$(BIN)/python benchmarks/speed.py
	$(BIN)/python benchmarks/overhead.py
	$(BIN)/python benchmarks/flat.py
	$(BIN)/python benchmarks/quality.py
	$(BIN)/python benchmarks/playground.py

fmt: .venv/.installed ## format, and fix what the linter can fix
	$(BIN)/ruff check --fix-only
	$(BIN)/ruff format

lock: ## rebuild .venv from the newest versions that pyproject.toml allows, and pin them
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --upgrade pip setuptools
	$(BIN)/python -m pip install --editable '.[app,docs,sweep,test]'
	$(BIN)/python -m pip freeze --all --exclude-editable >.venv/freeze
	sed 's/+.*//' .venv/freeze >requirements.lock
	touch .venv/.installed

model: .venv/.installed ## fetch the default model and collect its second moments, once
	$(BIN)/python -m coachhook_viz model

.venv/.installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed: make PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install "$$(grep '^pip==' requirements.lock)"
	$(BIN)/python -m pip install --requirement requirements.lock
	$(BIN)/python -m pip install --no-deps --no-build-isolation --editable .
	touch $@
