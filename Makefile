# The one door for developers and for CI. "make" alone says what there is.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

# The newest Python that we test with, else whatever python3 is. Each one is run
# before it is chosen: a shim on PATH may exist and refuse to start.
SUITABLE := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for name in python3.13 python3.12 python3.11 python3; do \
	if $$name -c '$(SUITABLE)' 2>/dev/null; then echo $$name; break; fi; done)

BIN := .venv/bin
# Newer than the files that say what to install: then there is nothing to do.
INSTALLED := .venv/.installed
RESULTS := build/tests
EXAMPLE := example_project

# make demo: how long; 0 goes on until Ctrl-C.
SECONDS ?= 0
# Its port; 0 takes 8000, or a free one where that is taken.
PORT ?= 0

.PHONY: help
help: ## Show this list
	@awk 'BEGIN { FS = ":.*## " } \
		/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: venv
venv: $(INSTALLED) ## Make .venv, or bring it up to date

$(INSTALLED): pyproject.toml $(wildcard requirements/*.txt)
	@if [ -z "$(PYTHON)" ] || ! "$(PYTHON)" -c '$(SUITABLE)' 2>/dev/null; then \
		echo "This needs Python 3.11 or newer; found: $(or $(PYTHON),none on PATH)."; \
		echo "On Debian or Ubuntu: apt-get install python3 python3-venv"; \
		echo "Or say which one to take: make PYTHON=/path/to/python3.12 test"; \
		exit 1; \
	fi >&2
	@if ! "$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null; then \
		echo "$(PYTHON) cannot make virtual environments."; \
		echo "On Debian or Ubuntu: apt-get install python3-venv"; \
		exit 1; \
	fi >&2
	@if ! $(BIN)/python -c 'import pip' 2>/dev/null; then \
		echo "Making .venv with $$("$(PYTHON)" --version)"; \
		rm -rf .venv && "$(PYTHON)" -m venv .venv; \
	fi
	@echo "Installing the package and the developers' tools into .venv: a minute or two"
	@$(BIN)/python -m pip install --disable-pip-version-check --quiet \
		-r requirements/dev.txt -e '.[otel,redis]'
	@touch $@

# Three at once also on two processors: many wait, for a server or a program.
export PYTEST_XDIST_AUTO_NUM_WORKERS ?= 3
PYTEST := -m pytest -n auto

.PHONY: test
test: $(INSTALLED) .venv/.servers ## Run the tests, with the gates: 95 % covered, the bus 99.9 %
	@rm -rf $(RESULTS) && mkdir -p $(RESULTS)
	@$(BIN)/coverage erase
	@echo "Tests of the package"
	@# coverage starts first: the pytest plugin is part of what is measured.
	@$(BIN)/coverage run $(PYTEST) --junitxml=$(RESULTS)/package.xml
	@echo "Tests of the example project"
	@cd $(EXAMPLE) && ../$(BIN)/python $(PYTEST) --junitxml=../$(RESULTS)/example.xml
	@$(BIN)/coverage combine --quiet
	@# Half a file is left by a process that was killed as it wrote.
	@rm -f .coverage.*
	@$(BIN)/coverage report
	@# A run may miss a line that only a race reaches; not seven of them.
	@echo "Covered in the bus, where the gate is 99.9 %"
	@$(BIN)/coverage report --include='django_gomq/bus/*' --precision=1 --fail-under=99.9
	@$(BIN)/python .ci/summary.py $(RESULTS)/*.xml

.PHONY: test-all
test-all: test ## Run these, the slow ones, and compare docs/deployment.md with every server
	@echo "Slow tests: every server, long runs of many messages"
	@$(BIN)/python $(PYTEST) -m slow --junitxml=$(RESULTS)/slow.xml
	@$(BIN)/python -m tests.servers.table --check

# Where it cannot be compiled, its rows are skipped and say so. Not from pip's cache: it
# has the interpreter in it that it was compiled with, and each 3.11 takes that of another.
.venv/.servers: requirements/servers.txt | $(INSTALLED)
	@.ci/servers --with-compiler
	@echo "Installing uWSGI into .venv"
	@$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-cache-dir \
		-r $< || echo "That failed: the tests that need uWSGI will be skipped"
	@touch $@

# Where events wait: memory, database or redis.
demo: BACKEND ?= memory
.PHONY: demo
demo: $(INSTALLED) ## Run the example under load until Ctrl-C: SECONDS=20, PORT=8010, BACKEND=redis
	@exec $(BIN)/python $(EXAMPLE)/demo.py --seconds $(SECONDS) --port $(PORT) --backend $(BACKEND)

.PHONY: observe
observe: $(INSTALLED) ## The demo with Prometheus and Alertmanager beside it
	@exec $(BIN)/python $(EXAMPLE)/observe.py --seconds $(SECONDS)

# make chaos: which backend, database or redis, and how many kills on each of its servers.
chaos: BACKEND ?= database
KILLS ?= 200

.PHONY: chaos
chaos: $(INSTALLED) .venv/.servers ## Kill workers under load, and judge what is left: KILLS=50
	@$(BIN)/python -m tests.chaos --backend $(BACKEND) --kills $(KILLS)

# make pictures: how long there is load; BOARDS=gomq-overview takes that one alone.
pictures: SECONDS = 600
BOARDS ?=

.PHONY: pictures
pictures: $(INSTALLED) ## Take pictures of the boards for docs/images: needs npm, pngquant
	@exec $(BIN)/python $(EXAMPLE)/pictures.py --seconds $(SECONDS) $(BOARDS)

.PHONY: dashboards
dashboards: $(INSTALLED) ## Write the boards and rules that ship, from dashboards/
	@$(BIN)/python -m dashboards

.PHONY: lint
lint: $(INSTALLED) ## Judge style, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	cd $(EXAMPLE) && ../$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

.PHONY: format
format: $(INSTALLED) ## Format the code, and fix what ruff can fix
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Which of noxfile.py's sessions; empty takes those that CI runs.
SESSIONS ?=

.PHONY: matrix
matrix: $(INSTALLED) ## Test Python x Django: SESSIONS=tests-3.12 picks one
	@$(BIN)/nox $(if $(SESSIONS),--sessions $(SESSIONS))

.PHONY: gate
gate: $(INSTALLED) ## Fail where emit or the pipeline became half as slow again
	@$(BIN)/python -m benchmarks.gate

# make bench BENCH=--quick; .venv-bench/bin/python -m benchmarks --help lists the rest.
BENCH ?=
BENCH_PYTHONS ?= 3.11 3.13

.PHONY: bench
bench: .venv-bench/.installed ## Measure it beside its peers, in under 5 minutes
	@.venv-bench/bin/python -m benchmarks goals $(BENCH)

.PHONY: bench-servers
bench-servers: .venv-bench/.installed ## Measure the backends of servers beside their peers
	@.ci/servers
	@.venv-bench/bin/python -m benchmarks servers $(BENCH)

.PHONY: bench-curves
bench-curves: .venv-bench/.installed ## Measure what grows with what
	@.venv-bench/bin/python -m benchmarks curves $(BENCH)

.PHONY: bench-pythons
bench-pythons: .venv-bench/.installed $(BENCH_PYTHONS:%=.venv-bench-%/.installed) ## Measure it on two Pythons: BENCH_PYTHONS="3.11 3.13"
	@.venv-bench/bin/python -m benchmarks pythons $(BENCH) \
		$(foreach version,$(BENCH_PYTHONS),--python $(version)=.venv-bench-$(version)/bin/python)

.venv-bench/.installed: pyproject.toml
	@$(call bench_venv,.venv-bench,$(PYTHON))

.venv-bench-%/.installed: pyproject.toml
	@$(call bench_venv,.venv-bench-$*,$(call find_python,$*))

# An interpreter by its version: from PATH if it starts, else from pyenv.
find_python = $(shell for path in python$(1) \
	"$${PYENV_ROOT:-$$HOME/.pyenv}"/versions/$(1).*/bin/python; do \
	if "$$path" -c '' 2>/dev/null; then echo "$$path"; break; fi; done)

# Folder, interpreter: an environment with the peers, made or brought up to date.
define bench_venv
if [ -z "$(2)" ]; then echo "No Python for $(1) on PATH or in pyenv." >&2; exit 1; fi; \
if ! $(1)/bin/python -c 'import pip' 2>/dev/null; then \
	echo "Making $(1) with $$("$(2)" --version)"; \
	rm -rf $(1) && "$(2)" -m venv $(1) || exit 1; \
fi; \
echo "Installing the package and its peers into $(1)"; \
$(1)/bin/python -m pip install --disable-pip-version-check --quiet -e '.[bench]' && \
touch $@
endef

.PHONY: clean
clean: ## Remove .venv and everything that was made
	rm -rf .venv .venv-bench* .nox build dist *.egg-info .coverage .coverage.* .hypothesis \
		.mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
