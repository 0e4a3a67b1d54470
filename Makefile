# make report: set up, train the study `quick`, build the book.   make test: set up, run the tests.
# make quick: the tests that are not slow.   make lint: format, lint, directions of imports, types.
# The first Python of these that fits is taken; `make PYTHON=/path/to/python report` names another.
PYTHON ?= $(shell for p in python3 python3.11 python3.10 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 10), (3, 11)))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin

.PHONY: report test quick lint study bench headline lock clean

report: .venv/installed
	$(BIN)/supermask study runs/studies/quick.yml
	$(BIN)/supermask report

test: .venv/installed .venv-jax/installed
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --durations 12

# What changes are tried with: the tests that take no long, in two minutes.
quick: .venv/installed
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not slow"

# The same as the hooks of .pre-commit-config.yaml.
lint: .venv/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/mypy

# make study STUDY=runs/studies/first.yml
study: .venv/installed
	$(BIN)/supermask study $(STUDY)
	$(BIN)/supermask report

bench: .venv/installed
	$(BIN)/python benchmarks/run.py

# The README's figure, from the records, with its numbers inside (a test holds the two together).
headline: .venv/installed
	$(BIN)/python -c "import pandas as pd, supermask_tf as sm; \
	tables = sm.claims.headline({title: sm.claims.comparisons(runs) for title, runs in sm.claims.studies('runs').items()}); \
	sm.plots.differences(tables).savefig('book/headline.png', dpi=150, metadata={'Description': pd.concat(tables).to_csv(float_format='%.4g')})"

# Every exact version, for both Pythons, naming no index. Needs uv (a user does not).
lock:
	uv pip compile pyproject.toml --extra test --extra dev --universal --python-version 3.10 --no-header --no-annotate \
	| sed "/python_full_version == '3.12/d" > requirements.lock

.venv/installed: requirements.lock pyproject.toml
	@if [ -z "$(PYTHON)" ] || ! $(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 10), (3, 11)))' 2>/dev/null; then \
	echo "supermask_tf needs Python 3.10 or 3.11, and '$(or $(PYTHON),python3)' is not one: install one, or name it as in \`make PYTHON=python3.11 report\`." >&2; exit 1; fi
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

# JAX in an environment of its own, since it wants another numpy: bundles are run there.
.venv-jax/installed: requirements-jax.lock .venv/installed
	$(PYTHON) -m venv .venv-jax
	.venv-jax/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-jax.lock
	touch $@

clean:
	rm -rf _build .venv .venv-jax runs/quick
