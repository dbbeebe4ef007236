# `make` only wraps plain commands; each recipe can be run by hand.
PYTHON ?= python3
BIN    := .venv/bin

.PHONY: env demo test fast lint clean

env: .venv/.ready

# torch first: alone, so that nothing else can pull a CUDA build of another version.
# finn-plus and mip without their dependencies: their pins contradict torch 2.13;
# what they import is the extra "finn".
.venv/.ready: constraints.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet -c constraints.txt torch setuptools
	$(BIN)/pip install --quiet -c constraints.txt --no-build-isolation -e '.[data,report,tensorboard,finn,hardware,sweep,dev]'
	$(BIN)/pip install --quiet -c constraints.txt --no-deps mip finn-plus
	touch $@

demo: env
	$(BIN)/divqat run --preset demo --out runs/demo

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Two processes: most of the suite compiles, simulates or starts programs. Work is stolen from the
# end of the other's half, so that few files' fixtures are made twice.
test: lint
	$(BIN)/python -m pytest -n 2 --dist worksteal

fast: lint
	$(BIN)/python -m pytest -n 2 --dist worksteal -m 'not slow'

clean:
	rm -rf .venv runs
