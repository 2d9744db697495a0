# Two commands do everything: `make run` trains, `make test` checks. Both set up .venv first.
PYTHON ?= python3
VENV := .venv
BENCH ?= service
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: run compare test format lint types unit slow bench chaos soak clean

run: $(READY)
	$(BIN)/marginstream run --config deploy/configs/digits.toml $(ARGS)

compare: $(READY)
	$(BIN)/marginstream compare --config deploy/configs/compare-digits.toml $(ARGS)

test: lint types unit

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(READY)
	$(BIN)/mypy

unit: $(READY)
	$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

slow: $(READY)
	$(BIN)/python -m pytest -m slow $(ARGS)

bench: $(READY)
	$(BIN)/python -m tests.bench.bench_$(BENCH) $(ARGS)

chaos: $(READY)
	$(BIN)/python -m tests.chaos.storm $(ARGS)

soak: $(READY)
	$(BIN)/python -m tests.soak $(ARGS)

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $(READY)

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
