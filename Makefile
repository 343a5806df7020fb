# Every target works alone in a fresh clone: it makes the environment that it needs.
PYTHON ?= python3
VENV := .venv
PEERS := .venv-peers
BIN := $(VENV)/bin

.PHONY: install demo test check format peers clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

demo: install
	$(BIN)/effnet train digits --recipe demo

test: install
	$(BIN)/python -m pytest -m "not peers" $(ARGS)

check: install
	$(BIN)/ruff format --check src tests
	$(BIN)/ruff check src tests
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install
	$(BIN)/ruff format src tests
	$(BIN)/ruff check --fix src tests

peers: $(PEERS)/.installed
	$(PEERS)/bin/python -m pytest -m peers tests/peers $(ARGS)

$(PEERS)/.installed: pyproject.toml constraints-peers.txt
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --constraint constraints-peers.txt --editable ".[peers]"
	touch $@

clean:
	rm -rf $(VENV) $(PEERS)
