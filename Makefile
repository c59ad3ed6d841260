# make run · make test · make lint · make bench
# Each sets up everything it needs by itself: a .venv with the package, and for test and lint the development tools.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
JOBS ?= auto

.PHONY: run test lint format bench bench-quick browser clean

run: $(VENV)/.installed
	@$(BIN)/bptt train $(ARGS)

test: $(VENV)/.developed
	$(BIN)/pytest -n $(JOBS) --dist loadgroup $(ARGS)

lint: $(VENV)/.developed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/pyrefly check

format: $(VENV)/.developed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.developed
	@$(BIN)/python -m benchmarks $(ARGS)

bench-quick: $(VENV)/.developed
	@$(BIN)/python -m benchmarks --quick $(ARGS)

# Some tests open reports in Chromium, and are skipped where there is none. On Debian, as root:
browser:
	apt-get update --quiet=2
	DEBIAN_FRONTEND=noninteractive apt-get install --quiet=2 --yes --no-install-recommends chromium

clean:
	rm -rf $(VENV) dist build .hypothesis .ruff_cache .import_linter_cache

# Debian splits ensurepip off into python3-venv; where that is missing, the machine's own pip puts one into the .venv.
$(BIN)/python:
	@$(PYTHON) -m venv $(VENV) 2>/dev/null \
	|| { rm -rf $(VENV); $(PYTHON) -m venv --without-pip $(VENV) && $(PYTHON) -m pip --python $@ install --quiet pip; } \
	|| { rm -rf $(VENV); echo "make: $(PYTHON) can make no .venv; it needs Python 3.11 or later with pip"; exit 1; }

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[fast,plot]"
	@touch $@

# Models that nobody here trained, for two examples: only their weights are read, so nothing they need is installed.
MODELS := silero-vad g2p-en

# pip 25.1 is the first that reads dependency groups; the one that venv brings may be older.
$(VENV)/.developed: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "pip>=25.1,<26.2"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[fast,plot,xarray]" --group dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --no-deps $(MODELS)
	@touch $@ $(VENV)/.installed
