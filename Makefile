# Every target works alone in a fresh clone: it makes the environment that it needs.
PYTHON ?= python3
VENV := .venv
PEERS := .venv-peers
BENCH := .venv-bench
BIN := $(VENV)/bin

.PHONY: install demo test check format peers bench-input bench-cpu bench-gpu bench-time-to-accuracy results-page clean

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

# Photos are needed: make bench-input DATA=folder ARGS="--prepare --randaugment"
bench-input: $(BENCH)/.installed
	@test -n "$(DATA)" || { echo "name a folder of photos: make bench-input DATA=folder" >&2; exit 2; }
	$(BENCH)/bin/effnet bench input "$(DATA)" $(ARGS)

# Half an hour at rest; what was interrupted goes on. make bench-cpu ARGS="--quick", or ARGS="--only 'train v2-s'"
bench-cpu: $(PEERS)/.runtimes
	$(PEERS)/bin/python benchmarks/cpu_speed.py $(ARGS)

# A folder with flower_photos and cifar10 is needed, weights of V2-B0, and an hour or more of two cores at rest; what
# was interrupted goes on. make bench-time-to-accuracy DATA=folder ARGS=--weights=FILE
bench-time-to-accuracy: $(PEERS)/.installed
	@test -n "$(DATA)" || { echo "name a folder: make bench-time-to-accuracy DATA=folder" >&2; exit 2; }
	$(PEERS)/bin/python benchmarks/time_to_accuracy.py "$(DATA)" $(ARGS)

# Ten minutes. By $(PYTHON) as it is, because a torch for the GPU cannot be had everywhere: give it what effnet
# needs with `pip install --editable .`, and timm and Triton where they are to take part.
bench-gpu:
	@$(PYTHON) -c "import sys, torch; sys.exit(not torch.cuda.is_available())" 2>/dev/null || \
		{ echo "'$(PYTHON)' has no torch with a GPU; give another: make bench-gpu PYTHON=..." >&2; exit 2; }
	PYTHONPATH=src$${PYTHONPATH:+:$$PYTHONPATH} $(PYTHON) benchmarks/gpu_speed.py $(ARGS)

$(PEERS)/.runtimes: $(PEERS)/.installed
	$(PEERS)/bin/python -m pip install --quiet --constraint constraints-peers.txt --editable ".[rivals]"
	touch $@

# Of all that is in benchmarks/results: docs/benchmarks.html, and the tables of speed in README.md and docs/results.md.
results-page: install
	$(BIN)/python benchmarks/draw_results.py $(ARGS)

# FFCV is compiled, which needs the headers of OpenCV 4 and libjpeg-turbo; without them it is left out. What it
# says to require would replace other packages.
$(BENCH)/.installed: pyproject.toml constraints-peers.txt
	$(PYTHON) -m venv $(BENCH)
	$(BENCH)/bin/python -m pip install --quiet --constraint constraints-peers.txt --editable ".[bench]"
	if pkg-config --exists opencv4 libturbojpeg; then \
		$(BENCH)/bin/python -m pip install --quiet --constraint constraints-peers.txt --no-deps ffcv; fi
	touch $@

clean:
	rm -rf $(VENV) $(PEERS) $(BENCH)
