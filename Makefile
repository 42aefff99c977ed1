# Two commands matter: `make demo` and `make test`. Both set up .venv first if needed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# Bytecode is kept, whatever the caller's environment says: the tests start hundreds of processes.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test check audit setup clean
setup: $(VENV)/.stamp

$(VENV)/.stamp: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "longrange needs Python >= 3.11; try make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: setup
	$(BIN)/longrange run quickstart --out runs/quickstart

# What a contributor runs often: everything but the slow tests.
check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy -n 2
	$(BIN)/lint-imports
	$(BIN)/pytest -q -n 2 --dist worksteal -m "not slow"

# Exactly what CI runs. Three workers, since many slow tests wait for servers; idle ones take over what others have left.
# Tests that start clusters and browsers can starve each other on a small machine: what failed beside others is judged
# once more alone, and has to pass there.
test: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy -n 2
	$(BIN)/lint-imports
	$(BIN)/pytest -q -n 3 --dist worksteal --durations 15 || $(BIN)/pytest -q --last-failed

# Known weaknesses of the pinned versions; pip-audit gets an environment of its own. Strict: where its data cannot be
# reached it skips packages, and without would pass.
audit:
	$(PYTHON) -m venv build/audit
	build/audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit
	build/audit/bin/pip-audit --strict --no-deps --disable-pip -r constraints.txt

clean:
	rm -rf $(VENV) runs build *.egg-info
