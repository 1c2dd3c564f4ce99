# The doors a newcomer uses: run, test, check. All else is `python -m scripts.NAME --help`.
PYTHON ?= python3
BIN := .venv/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# Strict: a link or an anchor that leads nowhere is a failure. Without the theme's notice of its successor.
MKDOCS := NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

.PHONY: run demo test coverage check clients docs format lock clean

run: .venv/installed
	@$(BIN)/python -m scripts.serve

# The wallet as its own service: gateway, broker, all processes, and a stand-in for the main application.
demo: .venv/installed
	@$(BIN)/python -m scripts.demo $(ARGS)

# Two processes, each with servers of its own; ARGS="-n 0" runs the tests in one.
# Commands that tests start find compiled modules, even if the environment forbids Python to write them.
test: .venv/installed
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n 2 --dist worksteal --durations 10 $(ARGS)

# `make test` with coverage: prints the 20 least covered files and the total. Only a failing test makes it fail.
coverage: .venv/installed
	rm -f .coverage .coverage.*
	COVERAGE_PROCESS_START=$(CURDIR)/setup.cfg COVERAGE_FILE=$(CURDIR)/.coverage $(MAKE) test
	@-$(BIN)/coverage combine --quiet && $(BIN)/coverage report | sed -n '1,22p;$$p'

check: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m scripts.check_migrations
	$(BIN)/python -m scripts.lock_dependencies --check
	$(MKDOCS)

# The Python and the TypeScript client of the API, in .clients/. Needs Node.js with npm.
clients: .venv/installed
	$(BIN)/python -m scripts.build_clients $(ARGS)

docs: .venv/installed
	$(MKDOCS)
	@echo 'Built .site/index.html. To search in it: $(BIN)/python -m http.server --bind 127.0.0.1 --directory .site 8080'

format: .venv/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Writes requirements.lock from setup.cfg. It needs an installed uv and rich-click only, so that it mends a lock that can't be
# installed, and one that lacks a package which the application imports already.
lock: | $(BIN)/uv
	$(BIN)/python -m scripts.lock_dependencies $(ARGS)

$(BIN)/uv:
	$(MAKE) .venv/installed

# setuptools is in the lock as well: pip builds the editable install with it and downloads nothing that is not locked.
.venv/installed: requirements.lock setup.cfg pyproject.toml
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "Python 3.11 or newer is needed; set PYTHON="'
	$(PYTHON) -m venv .venv
	$(PIP_INSTALL) --require-hashes --requirement requirements.lock
	$(PIP_INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

clean:
	rm -rf .clients .coverage .coverage.* .venv .site .mypy_cache .pytest_cache .ruff_cache *.egg-info scripts/clients/node_modules
