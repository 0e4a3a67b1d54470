# make report: set up, train the study `quick`, build the book.   make test: set up, run the tests.
# make quick: the tests that are not slow.   make lint: format, lint, directions of imports, types.
# The first Python of these that fits is taken; `make PYTHON=/path/to/python report` names another.
# Python 3.10 and 3.11 get the paper's environment, 3.12 and 3.13 the current one.
PYTHON ?= $(shell for p in python3 python3.11 python3.10 python3.13 python3.12 python; do \
	$$p -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && echo $$p && break; done)
LOCK := $(shell $(or $(PYTHON),false) -c 'import sys; print("requirements-current.lock" if sys.version_info >= (3, 12) else "requirements.lock")' 2>/dev/null)
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: report pdf test current quick lint study bench headline lock clean

report: $(VENV)/installed
	$(BIN)/supermask study runs/studies/quick.yml
	$(BIN)/supermask report

# The book as one file that a reviewer can annotate, printed by Chromium from one page of HTML.
CHROMIUM ?= $(shell command -v chromium || command -v chromium-browser || command -v google-chrome)
pdf: $(VENV)/installed
	@[ -n "$(CHROMIUM)" ] || { echo "make pdf prints with Chromium, and there is none: install it, or name one as in \`make CHROMIUM=/path pdf\`." >&2; exit 1; }
	$(BIN)/jupyter-book build . --builder singlehtml
	"$(CHROMIUM)" --headless --no-sandbox --disable-gpu --no-pdf-header-footer --virtual-time-budget=60000 \
	--print-to-pdf=_build/book.pdf "file://$(CURDIR)/_build/singlehtml/book/index.html"
	@echo "The book as PDF: _build/book.pdf"

test: $(VENV)/installed .venv-jax/installed
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --durations 12

# What changes are tried with: the tests that take no long, in two minutes.
quick: $(VENV)/installed
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not slow"

# What CI runs in a second environment: the tests, not long, of what trains, saves and loads. The
# others are the book's and the command's, for which it matters little which Keras there is.
CURRENT := $(patsubst %,tests/test_%.py,analysis between_kerases checkpoints claims data enumeration estimators \
	experiment exporter fair gem_miner ground groups initializers layers masking methods models packing \
	pages_of_claims pages_of_fair ranking recipe records registration regularizers \
	strategies study tickets training verification)
current: $(VENV)/installed
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --durations 12 -m "not long" $(CURRENT)

# The same as the hooks of .pre-commit-config.yaml.
lint: $(VENV)/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/mypy

# make study STUDY=runs/studies/first.yml
study: $(VENV)/installed
	$(BIN)/supermask study $(STUDY)
	$(BIN)/supermask report

bench: $(VENV)/installed
	$(BIN)/python benchmarks/run.py

# The README's figure, from the records, with its numbers inside (a test holds the two together).
headline: $(VENV)/installed
	$(BIN)/python -c "from supermask_tf.paper.pages import Book, index; \
	figure, numbers = index.headline(Book('.')); \
	figure.savefig('book/headline.png', dpi=150, metadata={'Description': numbers})"

# Every exact version, naming no index: of the paper's environment from the pins of environment.yml,
# and of the current one. Needs uv (a user does not).
COMPILE := uv pip compile - pyproject.toml --extra book --extra study --extra test --extra dev --universal --no-header --no-annotate
lock:
	sed -n 's/^ *- \(.*==.*\)/\1/p' environment.yml | $(COMPILE) --python-version 3.10 \
	| sed "/python_full_version == '3.12/d" > requirements.lock
	echo 'tensorflow>=2.21' | $(COMPILE) --python-version 3.12 > requirements-current.lock

$(VENV)/installed: requirements.lock requirements-current.lock pyproject.toml
	@if [ -z "$(LOCK)" ] || ! $(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then \
	echo "supermask_tf needs Python 3.10 to 3.13, and '$(or $(PYTHON),python3)' is not one: install one, or name it as in \`make PYTHON=python3.12 report\`." >&2; exit 1; fi
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r $(LOCK)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

# JAX in an environment of its own, since it wants another numpy: bundles are run there.
.venv-jax/installed: requirements-jax.lock $(VENV)/installed
	$(PYTHON) -m venv .venv-jax
	.venv-jax/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-jax.lock
	touch $@

clean:
	rm -rf _build $(VENV) .venv-jax runs/quick
