# `make` only wraps plain commands; each recipe can be run by hand.
PYTHON ?= python3
BIN    := .venv/bin

.PHONY: env demo test fast lint clean

env: .venv/.ready

# uv installs what pip does with a fifth of the work. It reads no settings of pip's, so that these
# two are passed on; where uv cannot install, pip does.
ifdef PIP_FIND_LINKS
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
endif
ifdef PIP_INDEX_URL
export UV_DEFAULT_INDEX ?= $(PIP_INDEX_URL)
endif
UV      := $(BIN)/uv pip install --quiet --python .venv --compile-bytecode -c constraints.txt
PIP     := $(BIN)/pip install --quiet -c constraints.txt
install = $(UV) $(1) || $(PIP) $(1)
PROJECT := -e '.[data,report,tensorboard,finn,hardware,sweep,dev]'

# torch first: alone, so that nothing else can pull a CUDA build of another version.
# finn-plus and mip without their dependencies: their pins contradict torch 2.13;
# what they import is the extra "finn".
.venv/.ready: constraints.txt pyproject.toml
	$(PYTHON) -m venv .venv
	-$(PIP) uv
	$(call install,torch setuptools)
	$(call install,--no-build-isolation $(PROJECT))
	$(call install,--no-deps mip finn-plus)
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
