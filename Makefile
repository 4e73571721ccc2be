# `make help` lists the targets. They need Python 3.11+, JDK 17+, Maven and make; make test-clients also needs
# Node.js 20+ with npm, and Go 1.26+.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# `possible`: every engine that an installed JDK can run (JDK 21+ for Elasticsearch 9.4 and OpenSearch 3.6);
# `all`: fail if one cannot run.
ENGINES ?= possible
ENGINE = $(BIN)/python -m demo.engine --engine $(ENGINES) --tls exec --
CHECKED := proxy demo examples tests
# Branch coverage of the core only; pyproject.toml lists its modules and the minimum.
COVERAGE := --cov --cov-report=term

.DEFAULT_GOAL := help
.PHONY: help demo eval test test-clients quick bench baselines checks tools languages

help:
	@echo 'make demo          compare searches with and without the proxy, until Ctrl-C; ONCE=1 ends after the comparison'
	@echo 'make eval          what the proxy gains on judged collections (DATA=../shared/data ONLY="one another")'
	@echo 'make test          all checks and tests, including those on real engines'
	@echo 'make test-clients  clients of all languages, with and without the proxy; ONLY="python go" runs some of them'
	@echo 'make quick         all checks, and the tests that need neither an engine nor processes of their own'
	@echo 'make bench         measure the overhead: against the engine alone (ONLY=engine; PAIRS=300 requests of each kind),'
	@echo '                   against nginx and aiohttp (ONLY=passthrough; ROUNDS=5 SECONDS=2), of a reranked search against'
	@echo '                   the same made by hand (ONLY=reranked), and while the models stall (ONLY=stalled); these three'
	@echo '                   need no engine'

demo: $(VENV)/ready tools
	@$(BIN)/python -m demo $(if $(filter-out 0,$(ONCE)),--once)

# Coverage is that of the tests without engines: it slows the others by a fifth. What an input costs is measured
# without it, because it slows only one side of the comparisons. Tests that start processes of their own run one after
# the other, and so do those on one engine.
OF_COST := tests/test_cost.py tests/test_turns.py
test: checks tools
	$(BIN)/pytest -m 'not engine and not slow' --numprocesses 2 --dist worksteal --cov --cov-report= --cov-fail-under=0
	$(BIN)/pytest -m 'not engine and slow' $(OF_COST:%=--ignore %) $(COVERAGE) --cov-append
	$(BIN)/pytest $(OF_COST)
	$(ENGINE) $(BIN)/pytest -m engine --ignore tests/clients --numprocesses 2 --dist loadgroup

DATA ?= ../shared/data

eval: $(VENV)/ready tools
	@$(BIN)/python -m demo.evaluate $(DATA) $(ONLY)

# Those of Python are in tests/clients/test_python_clients.py, the others in tests/clients/run.py.
CLIENTS := $(if $(ONLY),$(if $(filter python,$(ONLY)),$(BIN)/pytest tests/clients;),$(BIN)/pytest tests/clients;) \
	$(if $(filter-out python,$(ONLY)),$(BIN)/python -m tests.clients.run $(filter-out python,$(ONLY))) \
	$(if $(ONLY),,$(BIN)/python -m tests.clients.run)

# Uses engines that are already running, if REAL_ENGINES names them.
test-clients: $(VENV)/ready tools languages
	$(if $(REAL_ENGINES),,$(BIN)/python -m demo.engine --engine $(ENGINES) exec --) \
		sh -euc '$(CLIENTS)'

quick: checks
	$(BIN)/pytest -m 'not engine and not slow' --numprocesses auto --dist worksteal

BENCH = $(BIN)/python -m tests.bench $(if $(ONLY),--only $(ONLY)) $(if $(PAIRS),--pairs $(PAIRS)) \
	$(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(SECONDS),--seconds $(SECONDS)) $(if $(TO),--to $(TO)) \
	$(if $(SEARCHES),--searches $(SEARCHES))

ENGINELESS := passthrough reranked stalled cached

bench: $(VENV)/ready $(if $(filter $(ENGINELESS),$(ONLY)),,tools) $(if $(filter-out passthrough,$(ONLY)),,baselines)
	@$(if $(filter $(ENGINELESS),$(ONLY)),,$(BIN)/python -m demo.engine exec --) $(BENCH)

# The proxy is compared with nginx; wrk sends the requests.
baselines:
	@{ command -v nginx || [ -x /usr/sbin/nginx ]; } >/dev/null && command -v wrk >/dev/null || { echo \
		'nginx or wrk is missing: install both (Debian, Ubuntu: apt install nginx wrk)' >&2; exit 1; }

checks: $(VENV)/ready
	$(BIN)/ruff format --check $(CHECKED)
	$(BIN)/ruff check $(CHECKED)
	$(BIN)/mypy
	$(BIN)/lint-imports

# One virtual environment, created again when its requirements change.
$(VENV)/ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { echo \
		"$(PYTHON) is missing or older than 3.11: install Python 3.11 or newer, or name one: make PYTHON=python3.12 ..." \
		>&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo \
		"$(PYTHON) cannot make environments: install its venv package (Debian, Ubuntu: apt install python3-venv)" \
		>&2; exit 1; }
	@echo 'Installing into $(VENV), once ...'
	@$(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,local,redis,otel,eval]'
	@touch $@

tools:
	@{ [ -x "$$JAVA_HOME/bin/java" ] || java -version; } >/dev/null 2>&1 || { echo \
		'Java is missing: install a JDK 17 or newer (Debian, Ubuntu: apt install openjdk-17-jdk-headless), or set JAVA_HOME' \
		>&2; exit 1; }
	@mvn -v >/dev/null 2>&1 || { echo \
		'Maven (mvn) is missing: install it (Debian, Ubuntu: apt install maven); Elasticsearch is fetched through it' \
		>&2; exit 1; }

languages:
	@node -e 'process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)' 2>/dev/null && npm -v >/dev/null 2>&1 || { echo \
		'Node.js 20 or newer with npm is missing: install it' >&2; exit 1; }
	@go version >/dev/null 2>&1 || { echo 'Go 1.26 or newer is missing: install it' >&2; exit 1; }
