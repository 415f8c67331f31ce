# Two commands for a fresh machine: `make demo` and `make test`. Everything is installed into .venv by the first one.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DATA ?= ../shared/data
# Threads that spin while they wait slow small networks down on a shared machine.
export OMP_WAIT_POLICY ?= PASSIVE

# Installed packages are compiled at once: where Python may not write bytecode, each process would compile timm for 6 s.

.PHONY: setup demo demo-real test test-slow bench test-core lint types format clean

setup: $(VENV)/.stamp

$(VENV)/.stamp: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(None if v >= (3, 11) else f"Python 3.11 or newer is needed, {v.major}.{v.minor} found; try: make setup PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python -r requirements.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps -e .
	@touch $@

demo: setup ## the whole paper in miniature; writes report.html
	$(BIN)/eosfm demo

demo-real: setup ## the same on small real data in $(DATA)
	$(BIN)/eosfm demo --data $(DATA) --out runs/demo-real --report report-real.html

test: lint types ## lint, types and the fast tests (those of the core: make test-core)
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist loadfile --ignore=tests/core

test-slow: setup ## minutes on two cores: memory of a big scene, learning on synthetic and real data
	$(BIN)/pytest -m slow --timeout=3600

bench: setup ## times beside the published loop, half an hour: nothing else should run
	$(BIN)/eosfm kernels
	$(BIN)/python benchmarks/inference.py
	$(BIN)/python benchmarks/inference.py growth
	$(BIN)/python benchmarks/memory.py
	$(BIN)/python benchmarks/starting.py
	$(BIN)/python benchmarks/train_step.py $(DATA)
	$(BIN)/python benchmarks/adapting.py
	$(BIN)/python benchmarks/draw.py

test-core: setup ## the core without optional extras, in an environment of its own
	$(PYTHON) -m venv .venv-core
	.venv-core/bin/python -m pip install --quiet uv
	.venv-core/bin/uv pip install --quiet --compile-bytecode --python .venv-core/bin/python -c requirements.txt -e . pytest pytest-timeout
	.venv-core/bin/python -m pytest -q --noconftest -p no:cacheprovider -o addopts= tests/core

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

requirements.txt: pyproject.toml
	@test -x $(BIN)/uv && $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-emit-index-url --no-header --no-annotate --extra dev pyproject.toml -o requirements.txt || touch requirements.txt

clean:
	rm -rf $(VENV) .venv-core runs report.html report-real.html
