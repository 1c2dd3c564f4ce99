# The doors a newcomer uses: run, test, check. All else is `python -m scripts.NAME --help`.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: run test check format clean

run: .venv/installed
	@$(BIN)/python -m scripts.serve

# Two processes, each with servers of its own; ARGS="-n 0" runs the tests in one.
test: .venv/installed
	$(BIN)/python -m pytest -n 2 --dist worksteal --durations 10 $(ARGS)

check: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m scripts.check_migrations

format: .venv/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.venv/installed: setup.cfg pyproject.toml
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "Python 3.11 or newer is needed; set PYTHON="'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache *.egg-info
