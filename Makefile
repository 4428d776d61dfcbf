# Everything a contributor types. `make quickstart` and `make test` need only Python >= 3.11.
PYTHON ?= python3
BIN := .venv/bin
# Two workers with a thread each: the networks in the tests are too small to share among threads.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -n 2

.PHONY: quickstart test slow lint docs bench results clean

.venv: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("limbeck needs Python 3.11 or newer, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else 0'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[report,onnx,arrow,search,dev]'
	touch .venv

quickstart: .venv
	$(BIN)/limbeck quickstart

test: .venv
	$(PYTEST) -m 'not slow'

slow: .venv
	$(PYTEST) -m slow

lint: .venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: .venv
	$(BIN)/zensical build --strict

bench: .venv
	$(BIN)/python benchmarks/engine.py

# The table in the README, measured again.
results: .venv
	rm -rf runs/results
	$(BIN)/limbeck quickstart --out runs/results
	$(BIN)/python docs/results.py runs/results README.md quickstart

clean:
	rm -rf .venv site
