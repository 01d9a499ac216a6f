# Each target works alone on a machine that has python3 (3.11 to 3.13) with venv, and make.
#   make demo       phantoms, training, comparison: the whole way on a laptop
#   make test       the fast tests         make test-all   with the slow ones
#   make test-interpreted   the GPU kernels on the CPU, a sample   make test-interpreted-all   every case, an hour
#   make install    stop after installing into .venv
#   make lint types docs
# TORCH_INDEX=URL   take torch and torchvision from another index (CPU builds on Linux, other CUDA versions)

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
JOBS ?= auto
TREE := build/types/umamba_seg

.PHONY: install demo test test-all test-interpreted test-interpreted-all coverage lint types imports docs wheel clean

install: $(VENV)/.package

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
		{ echo "Python 3.11 to 3.13 is needed; name one with  make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# torch first and alone: a later package that asks for it must find it there, or pip takes the newest build of any kind
$(VENV)/.torch: constraints.txt | $(BIN)/python
	$(PIP) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) $$(grep -E '^(torch|torchvision)==' constraints.txt)
	@touch $@

$(VENV)/.package: pyproject.toml $(VENV)/.torch
	$(PIP) -c constraints.txt -e .
	@touch $@

$(VENV)/.%: pyproject.toml $(VENV)/.package
	$(PIP) -c constraints.txt -e '.[$*]'
	@touch $@

demo: $(VENV)/.package
	$(BIN)/umamba demo

test: $(VENV)/.test
	$(BIN)/python -m pytest -n $(JOBS) -m "not slow"

test-all: $(VENV)/.test
	$(BIN)/python -m pytest -n $(JOBS)

# the GPU kernels in Triton's interpreter, a minute for some cases: tests/kernels/conftest.py says which are fast
test-interpreted: $(VENV)/.test
	TRITON_INTERPRET=1 $(BIN)/python -m pytest -n $(JOBS) -m "not slow" tests/kernels -k triton

test-interpreted-all: $(VENV)/.test
	TRITON_INTERPRET=1 $(BIN)/python -m pytest -n $(JOBS) tests/kernels -k triton

coverage: $(VENV)/.test
	$(BIN)/python -m pytest -n $(JOBS) -m "not slow" --cov --cov-report=term

lint: $(VENV)/.lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# An editable install hides the folders that pyproject.toml maps to other names from tools that read source. They look at a
# tree of links that shows the package as it is installed, made anew each time because files come and go.
define link
	@cd $(1) && find . -type d ! -name __pycache__ -exec mkdir -p "$(CURDIR)/$(2)/{}" \;
	@cd $(1) && find . -type f ! -path '*/__pycache__/*' -exec ln -s "$(CURDIR)/$(1)/{}" "$(CURDIR)/$(2)/{}" \;
endef

.PHONY: tree
tree:
	@rm -rf build/types
	$(call link,umamba_seg,$(TREE))
	$(call link,kernels,$(TREE)/kernels)
	$(call link,trainers,$(TREE)/trainers)
	$(call link,datasets,$(TREE)/datasets)

types: tree $(VENV)/.lint
	MYPYPATH=build/types $(BIN)/mypy --no-incremental -p umamba_seg # a cache of renewed links loses modules

imports: tree $(VENV)/.lint
	cd build/types && $(CURDIR)/$(BIN)/lint-imports $(CURDIR)/pyproject.toml

docs: $(VENV)/.docs
	$(BIN)/mkdocs build --strict

wheel: $(VENV)/.package
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

clean:
	rm -rf build dist site .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
