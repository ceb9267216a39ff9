PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/pytest -n 3 --dist loadfile
CHECKED := tests/agent tests/gpu_pool tests/models/media $(wildcard tests/test_*.py tests/models/test_*.py)

.PHONY: demo check test torture fuzz test-deps lint clean

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "musedrop needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable '.[credentials]'
	touch $@

$(VENV)/.installed-dev: pyproject.toml $(VENV)/.installed
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@

demo: $(VENV)/.installed         ## run the example jobs end to end in ./demo
	$(BIN)/musedrop demo demo

check: $(VENV)/.installed-dev lint  ## lint, types and unit tests: about two minutes
	$(PYTEST) $(CHECKED)

test: $(VENV)/.installed-dev test-deps lint  ## lint, types and all tests
	$(PYTEST)

torture: $(VENV)/.installed-dev  ## 500 schedules of kills instead of 40, and 40 with other machines; 60 minutes on a busy machine
	MUSEDROP_SCHEDULES=500 $(BIN)/pytest tests/e2e/test_torture.py
	MUSEDROP_CLUSTER_SCHEDULES=40 $(BIN)/pytest tests/e2e/test_cluster_torture.py

fuzz: $(VENV)/.installed-dev     ## any files at any moments in the share, for an hour (MUSEDROP_FUZZ_S)
	MUSEDROP_FUZZ_S=$${MUSEDROP_FUZZ_S:-3600} $(BIN)/pytest tests/agent/intake/test_fuzz_intake.py

lint: $(VENV)/.installed-dev     ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test-deps:                       ## install the Debian packages that tests use
	@./tests/deps.sh

clean:
	rm -rf $(VENV) demo build dist
