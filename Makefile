PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test torture test-deps lint clean

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "musedrop needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable .
	touch $@

$(VENV)/.installed-dev: pyproject.toml $(VENV)/.installed
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@

demo: $(VENV)/.installed        ## run the example jobs end to end in ./demo
	$(BIN)/musedrop demo demo

test: $(VENV)/.installed-dev test-deps lint      ## lint, types and all tests
	$(BIN)/pytest -n 2 --dist loadfile

torture: $(VENV)/.installed-dev  ## 500 schedules of kills instead of 40; 43 minutes on a busy machine
	MUSEDROP_SCHEDULES=500 $(BIN)/pytest tests/e2e/test_torture.py

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test-deps:                      ## Debian packages that tests use
	@./tests/deps.sh

clean:
	rm -rf $(VENV) demo build dist
